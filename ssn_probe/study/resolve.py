"""What a recipe means for its data, before anything is computed: contexts, languages, the anchor."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import polars as pl

from ssn_probe.data.clusters import combined
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.spec import (
    ASR,
    After,
    Amplify,
    InLanguage,
    LeaveOneOut,
    Measure,
    OverRefusal,
    Perplexity,
    PromptMeasure,
    Prompts,
    Recipe,
    SafetyNeurons,
    Shared,
    SparseEdit,
    Suppress,
    Trains,
    Utility,
)
from ssn_probe.spec.anchors import by_anchor, shared_with_anchor, source_of
from ssn_probe.spec.node import Node, rewrite, walk
from ssn_probe.spec.training_settings import Schedule, held_out

CONTEXT_OF: Mapping[type[Measure], str] = {
    ASR: "harmful",
    InLanguage: "harmful",
    OverRefusal: "lookalike",
    Utility: "harmless",
}
"""The context that each measure reads, on the evaluate split."""


def anchor_of(prompts: PromptSet, given: str | None = None) -> str:
    """The anchor language: the one given, else the one that the prompt set declares."""
    anchor = given or prompts.anchor
    if anchor is None:
        raise DataError(
            f"{prompts.name} declares no anchor language",
            f'Give -T anchor=… (languages: {", ".join(prompts.languages)}), or "anchor" in its dataset.json.',
        )
    if anchor not in prompts.languages:
        raise DataError(f"{prompts.name} has no language {anchor!r}", f"Languages: {', '.join(prompts.languages)}.")
    return anchor


def study_anchor(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> str | None:
    """The anchor of a whole recipe: the one its sets name, else the one its data declare; None where there is none."""
    declared = next((prompts.anchor for prompts in data.values() if prompts.anchor), None)
    anchors = [node.anchor or declared for node in walk(recipe) if isinstance(node, Shared) and by_anchor(node)]
    named = list(dict.fromkeys(anchor for anchor in anchors if anchor))
    if len(named) > 1:
        raise RecipeError(f"the recipe has several anchors: {', '.join(named)}", "Ask one question per anchor.")
    anchor = named[0] if named else declared
    languages = {language for prompts in data.values() for language in prompts.languages}
    if languages != {anchor}:
        return anchor
    if any(isinstance(node, Shared) for node in walk(recipe)):
        raise RecipeError(f"there is no language besides the anchor {anchor} to share neurons with", "Add one.")
    return None  # the average is that of the one language


def measured(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> dict[str, PromptSet]:
    """The contexts that a recipe's measures read, each with its prompt set."""
    judged = [measure for measure in recipe.measures if isinstance(measure, ASR | OverRefusal | Utility | InLanguage)]
    return {CONTEXT_OF[type(measure)]: data[measure.prompts] for measure in judged}


def harmless_text(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> PromptSet | None:
    """The prompt set whose harmless evaluate prompts show what an arm does to ordinary text; None where there is none.

    That of Perplexity where a recipe names it, else of Utility, else of any other measure.
    """
    if not recipe.arms:
        return None
    order = (Perplexity, Utility, OverRefusal, ASR, InLanguage)
    measures = [measure for measure in recipe.measures if isinstance(measure, PromptMeasure)]
    measures.sort(key=lambda measure: order.index(type(measure)))
    sets = (data[measure.prompts] for measure in measures)
    found = next(sets, None)
    harmless = (pl.col("split") == "evaluate") & (pl.col("context") == "harmless")
    return None if found is None or found.frame.filter(harmless).is_empty() else found


def evaluated(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> tuple[str, ...]:
    """The languages that a recipe's arms are evaluated in."""
    sets = measured(recipe, data).values()
    return tuple(dict.fromkeys(language for prompts in sets for language in prompts.languages))


def left_out(expression: Node, data: Mapping[Prompts, PromptSet]) -> tuple[str, ...]:
    """The anchor of a set shared with the anchor: its row repeats its MS, and averages would count it twice."""
    shared = shared_with_anchor(expression)
    if shared is None:
        return ()
    declared = next((data[node].anchor for node in walk(expression) if isinstance(node, Prompts)), None)
    anchor = shared.anchor or declared
    return () if anchor is None else (anchor,)


def is_contrast(node: Node) -> bool:
    """Is a set chosen by a contrast, so that the same choice can be made under other labels?"""
    return any(isinstance(inner, SafetyNeurons) and inner.labels is None for inner in walk(node))


def is_dose(recipe: Recipe, name: str) -> bool:
    """Is an arm the primary one, which silences a set, at another dose: weakened, or set to a mean?"""
    node, primary = recipe.arms[name], None if recipe.primary is None else recipe.arms[recipe.primary]
    if name == recipe.primary or not isinstance(primary, Suppress):
        return False
    return isinstance(node, Suppress | Amplify) and node.neurons == primary.neurons


def languages_of(node: Node, data: Mapping[Prompts, PromptSet]) -> tuple[str, ...]:
    """The languages of all prompt sets that an expression reads."""
    sets = [data[inner] for inner in walk(node) if isinstance(inner, Prompts)]
    return tuple(dict.fromkeys(language for prompts in sets for language in prompts.languages))


def languages_left_out(node: LeaveOneOut, data: Mapping[Prompts, PromptSet], anchor: str | None) -> tuple[str, ...]:
    """The languages that are left out in turn: all that the set reads, but the anchor.

    Raises RecipeError where nothing would be left, or where the expression names a language that is left out.
    """
    languages = [language for language in languages_of(node, data) if language != anchor]
    if anchor is None or len(languages) < 2:
        found = ", ".join(languages_of(node, data)) or "no language"
        raise RecipeError(f"leave_one_out() needs an anchor and two more languages, and reads {found}", "Add some.")
    return tuple(languages)


def without(node: Node, language: str, data: Mapping[Prompts, PromptSet]) -> Node:
    """The same expression on the prompts of all other languages."""

    def restricted(inner: Node) -> Node:
        if not isinstance(inner, Prompts):
            return inner
        return replace(inner, languages=tuple(other for other in data[inner].languages if other != language))

    return rewrite(node, restricted)


def trained_without(node: Trains, language: str, data: Mapping[Prompts, PromptSet]) -> Trains:
    """The same training, of the languages but one."""
    languages = data[node.data].languages if node.languages is None else node.languages
    return replace(node, languages=tuple(other for other in languages if other != language))


def trainings(
    node: Trains, data: Mapping[Prompts, PromptSet], anchor: str | None, languages: tuple[str, ...]
) -> tuple[Trains, ...]:
    """The trainings that an arm takes: one, or one per language left out, of those that are evaluated."""
    if not isinstance(node.neurons, LeaveOneOut):
        return (node,)
    out = languages_left_out(node.neurons, data, anchor)
    return tuple(trained_without(node, language, data) for language in out if language in languages)


def not_run_in(
    node: Node, data: Mapping[Prompts, PromptSet], anchor: str | None, languages: tuple[str, ...]
) -> tuple[str, ...]:
    """Of the languages that are evaluated, those an arm is not run in: a Patch's source; what is not left out."""
    source = source_of(node, anchor)
    skipped = () if source is None else (source,)
    neurons = getattr(node, "neurons", None)
    if isinstance(neurons, LeaveOneOut):
        out = languages_left_out(neurons, data, anchor)
        skipped += tuple(language for language in languages if language not in out)
    return skipped


def choosers(value: object) -> Iterator[SafetyNeurons]:
    """The nodes that choose neurons in the recipe's own model, and not in one that is trained."""
    if isinstance(value, After):
        yield from choosers(value.trained)
    elif isinstance(value, SafetyNeurons):
        yield value
    elif isinstance(value, Node):
        yield from choosers(tuple(vars(value).values()))
    elif isinstance(value, tuple | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from choosers(item)


def found_again(recipe: Recipe) -> dict[Trains, list[SafetyNeurons]]:
    """What is trained for sets that are identified again, and the nodes that choose neurons in that model."""
    found: dict[Trains, list[SafetyNeurons]] = {}
    for node in walk(recipe):
        if isinstance(node, After):
            known = found.setdefault(node.trained, [])
            known += [chooser for chooser in choosers(node.neurons) if chooser not in known]
    return found


def reads_log_odds(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> tuple[PromptSet, ...]:
    """The prompt sets whose responses must show that the refusal log-odds can be trusted."""
    scored = [data[node.prompts] for node in choosers(recipe) if node.scored_by.reads_refusal]
    contexts = measured(recipe, data)
    if recipe.arms and recipe.log_odds_label_sets and "harmful" in contexts:
        scored.append(contexts["harmful"])
    return tuple(dict.fromkeys(scored))


def reads_language(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> tuple[PromptSet, ...]:
    """The prompt sets whose responses show how a response in each language begins."""
    nodes = [node.prompts for node in choosers(recipe) if node.scored_by.reads_language]
    nodes += [measure.prompts for measure in recipe.measures if recipe.arms and isinstance(measure, InLanguage)]
    return tuple(dict.fromkeys(data[node] for node in nodes))


def rows_to_train(node: Trains, prompts: PromptSet) -> int:
    """Rows that a training sees, every epoch anew, if it does not stop early."""
    rows = prompts.frame.filter(pl.col("split") == "train", pl.col("context").is_in(node.contexts))
    if node.languages is not None:
        rows = rows.filter(pl.col("language").is_in(node.languages))
    if isinstance(node, SparseEdit):
        return rows.height
    clusters = combined(rows)
    kept = held_out(list(zip(rows["context"], clusters, strict=True)), node.training)
    learned = rows.filter(~clusters.is_in(sorted(kept))).height
    return Schedule(settings=node.training, rows=learned).total * node.training.batch
