"""What can be known to be wrong with a recipe and its data before a model is loaded."""

from collections.abc import Mapping, Sequence

from ssn_probe.data.judges import make_judge
from ssn_probe.data.prompt_set import PromptSet, check_can_identify
from ssn_probe.data.text_faults import misplaced
from ssn_probe.data.training_rows import Example, check_learned, rows_to_map, safety_data, training_rows
from ssn_probe.errors import DataError, RecipeError, nearest
from ssn_probe.spec import (
    Each,
    LeaveOneOut,
    MeanOf,
    NeuronFile,
    Of,
    Only,
    Prompts,
    Recipe,
    SafetyNeurons,
    SetExpression,
    Shared,
    SparseEdit,
    Trains,
)
from ssn_probe.spec.anchors import by_anchor
from ssn_probe.spec.node import Node, brief, walk
from ssn_probe.spec.training_settings import held_out
from ssn_probe.study.learned_responses import check_rows_to_answer, made_contexts
from ssn_probe.study.parallel_prompts import check_sources
from ssn_probe.study.resolve import (
    anchor_of,
    evaluated,
    languages_left_out,
    measured,
    reads_language,
    reads_log_odds,
    rows_to_train,
    study_anchor,
    trainings,
)


def check_recipe(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> None:
    """Every check of this file. Raises RecipeError or DataError."""
    check_columns(data)
    check_identify(recipe, data)
    check_splits(recipe, data)
    check_languages(recipe, data)
    check_means(recipe, data)
    check_sources(recipe, measured(recipe, data), study_anchor(recipe, data))
    check_left_out(recipe, data)
    check_training(recipe, data)


def check_columns(data: Mapping[Prompts, PromptSet]) -> None:
    """No language's texts are all in another one."""
    for prompts in data.values():
        for one in misplaced(prompts):
            if one.is_whole_column:
                rest = ",".join(language for language in prompts.languages if language != one.language)
                raise DataError(
                    f"{one.source}: {one.count:,} of {one.total:,} texts of {one.language!r} are {one.reason}",
                    f"Is the column called wrongly? A transliteration has its script in its code, as hi-Latn has. "
                    f"Or leave the language out: -T languages={rest}",
                )


def check_identify(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> None:
    """What a set, a mean or the gate of the refusal log-odds reads has *identify* prompts in every language."""
    for node in walk(recipe):
        if isinstance(node, SafetyNeurons):
            check_can_identify(data[node.prompts])
        if isinstance(node, MeanOf):
            check_can_identify(data[node.prompts], contexts=("harmless",), purpose="to average activations over")
    for prompts in reads_language(recipe, data):
        check_can_identify(prompts, purpose="to show how a response in each language begins with")
        if len(prompts.languages) < 2:
            hint = "Give prompts in several languages, or another effect."
            raise RecipeError(f"{prompts.name} has one language: no response could be in another", hint)
    for prompts in reads_log_odds(recipe, data):
        otherwise = " Or measure without the refusal log-odds: log_odds_label_sets=0."
        check_can_identify(prompts, purpose="to test the refusal log-odds with", otherwise=otherwise)


def check_splits(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> None:
    """No prompt that chooses or trains a neuron may also measure the set (recipes.md, contract 3).

    Prompts are the same that a reader sees as the same words, in the same language.
    """
    used: dict[tuple[str, str], str] = {}
    for node in dict.fromkeys(walk(recipe)):
        if isinstance(node, SafetyNeurons):
            used |= dict.fromkeys(_prompts_in(data[node.prompts], "identify"), "chooses")
        if isinstance(node, Trains):
            used |= dict.fromkeys(_prompts_in(data[node.data], "train"), "trains")
    for context, prompts in measured(recipe, data).items():
        rows = prompts.frame.with_columns(words=prompts.words).filter(split="evaluate", context=context)
        both = [row for row in rows.select("language", "words", "text").iter_rows() if row[:2] in used]
        if both:
            language, words, text = both[0]
            more = f", and so do {len(both) - 1:,} more" if len(both) > 1 else ""
            raise RecipeError(
                f"the {context} prompt {text[:60]!r} ({language}) both {used[language, words]} neurons and measures "
                f"them{more}",
                "Measure on prompts of another split: remove it from one of the two sets, or give prompts of the same "
                "text one `cluster`, which falls into one split. Letter case, blanks, punctuation and look-alike "
                "characters make no other prompt, whatever its id.",
            )


def _prompts_in(prompts: PromptSet, split: str) -> list[tuple[str, str]]:
    """(language, words) of every prompt of a split."""
    rows = prompts.frame.with_columns(words=prompts.words).filter(split=split)
    return list(rows.select("language", "words").iter_rows())


def check_languages(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> None:
    """A language that an expression names must be one of its prompt sets', and what needs an anchor must have one."""
    for node in walk(recipe):
        if isinstance(node, Shared) and node.anchor is None and by_anchor(node):
            for inner in walk(node):
                if isinstance(inner, Prompts):
                    anchor_of(data[inner])
        known = tuple(
            language for inner in walk(node) if isinstance(inner, Prompts) for language in data[inner].languages
        )
        for language in _named(node) if known else ():
            if language not in known:
                raise RecipeError(
                    f"{type(node).__name__} names the unknown language {brief(language)}", nearest(language[:80], known)
                )
        if isinstance(node, Shared) and node.at_least is not None and known and node.at_least > len(set(known)):
            raise RecipeError(f"at_least={node.at_least}, but there are {len(set(known))} languages", "Give fewer.")


def check_means(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> None:
    """A neuron's usual value in a language is read from prompts in that language."""
    for node in walk(recipe):
        if not isinstance(node, MeanOf):
            continue
        for language in evaluated(recipe, data):
            if language not in data[node.prompts].languages:
                raise RecipeError(
                    f"MeanOf(…) has no prompts in {language}, where the arms are evaluated ({data[node.prompts].name})",
                    f"Its languages: {', '.join(data[node.prompts].languages)}.",
                )


def check_left_out(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> None:
    """What is left out in turn is left out of everything: no name, file or training inside can bring it back."""
    anchor = study_anchor(recipe, data)
    for node in walk(recipe):
        beneath = [value for value in vars(node).values() if isinstance(value, LeaveOneOut)]
        if beneath and isinstance(node, SetExpression | Each):
            raise RecipeError(
                f"leave_one_out() is within {type(node).__name__}",
                "It stands last: take the set apart before, as in ss.only(sites=['ffn']).leave_one_out().",
            )
        if isinstance(node, LeaveOneOut):
            _check_inside(node, languages_left_out(node, data, anchor))


def _check_inside(node: LeaveOneOut, out: tuple[str, ...]) -> None:
    named = next((name for inner in walk(node) for name in _named(inner) if name in out), None)
    if named is not None:
        raise RecipeError(
            f"{brief(named)} is named within leave_one_out(), which leaves it out",
            "Name the anchor alone, or take the set apart: ss.union().leave_one_out().",
        )
    if any(isinstance(inner, NeuronFile) for inner in walk(node)):
        raise RecipeError(
            "a neuron file is within leave_one_out(): its neurons may come from the language that is left out",
            "Leave out what is found from prompts, as in Shared(SafetyNeurons(…)).union().leave_one_out().",
        )


def check_training(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> None:
    """What is learned passes the safety check before anything is computed; a learning curve ends with its training."""
    anchor, languages = study_anchor(recipe, data), evaluated(recipe, data)
    for node in walk(recipe):
        if not isinstance(node, Trains):
            continue
        rows, made = _checked_rows(node, data[node.data], anchor)
        if made and node.at is not None and node.training.steps is None:
            hint = "Give Training(steps=…), or leave at out."
            raise RecipeError("at names steps of a training whose rows the model makes, so their number is open", hint)
        each = trainings(node, data, anchor, languages)
        if any(training.languages == () for training in each):
            raise RecipeError("without the language that is left out there is none to train on", "Name more languages.")
        for training in each:
            _check_left(training, data[node.data].name, rows, anchor)
        steps = min(
            (rows_to_train(training, data[training.data]) // training.training.batch for training in each), default=0
        )
        if node.at is not None and node.at[-1] > steps:
            raise RecipeError(
                f"at={brief(node.at)}, but the training has {steps} steps", "Give Training(steps=…), or lower at."
            )


def _check_left(node: Trains, name: str, rows: Sequence[Example], anchor: str | None) -> None:
    """In its languages a training has rows to learn beside those that it holds out, and an edit what it needs."""
    own = [row for row in rows if node.languages is None or row.language in node.languages]
    if isinstance(node, SparseEdit):
        pairs, _ = rows_to_map(name, own, anchor)
        if node.rank > (most := sum(row is not target for row, target in pairs)):
            raise RecipeError(
                f"SparseEdit has rank {node.rank:,}, and there are {most:,} prompts to map to the anchor's",
                "Ask for a lower rank, or give more prompts.",
            )
        return
    kept = held_out([(row.context, row.cluster) for row in own], node.training)
    check_learned(name, own, [row for row in own if row.cluster not in kept], node.training)


def _checked_rows(node: Trains, prompts: PromptSet, anchor: str | None) -> tuple[Sequence[Example], bool]:
    """The rows to learn, which pass the safety check; is it the model that makes some of their responses?"""
    made = made_contexts(node, prompts, anchor)
    chosen = {"languages": node.languages, "contexts": node.contexts}
    costly = make_judge(prompts.judge, prompts.languages, prompts.name, asked=False).stored
    if made or costly:  # judged once the run has a store
        rows = training_rows(prompts, **chosen, made=made)
        check_rows_to_answer(prompts, rows, made)
    else:
        rows = safety_data(prompts, **chosen).examples
    return rows, bool(made)


def _named(node: Node) -> tuple[str, ...]:
    match node:
        case Shared(anchor=str(anchor)):
            return (anchor,)
        case Of(language=str(language)):
            return (language,)
        case Only(languages=tuple(languages)) | Trains(languages=tuple(languages)):
            return languages
    return ()
