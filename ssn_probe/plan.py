"""What a recipe will do, before it does it: stages with their prompts and passes, and the keys of its nodes.

The plan reads the prompt sets and the model's configuration, never its weights. Keys cover what changes a number
(model, data, parameters, seed, method version), not device, batch size or paths.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.errors import DataError, RecipeError, nearest
from ssn_probe.expand.settings import Schedule, held_out
from ssn_probe.neurons import read_neurons
from ssn_probe.node import Node, brief, digest, rewrite, to_json, walk
from ssn_probe.parallel import check_sources, source_of
from ssn_probe.prompts import PromptSet, load_prompts
from ssn_probe.recipe import (
    ASR,
    SITES,
    Each,
    Expand,
    Final,
    Local,
    MeanOf,
    Measure,
    NeuronFile,
    Of,
    Only,
    OverRefusal,
    Patch,
    Prompts,
    Recipe,
    Refusal,
    SafetyNeurons,
    Shared,
    Utility,
)

CONTEXT_OF: Mapping[type[Measure], str] = {ASR: "harmful", OverRefusal: "lookalike", Utility: "harmless"}
"""The context that each measure reads, on the evaluate split."""

HELD_OUT = 4
"""Every fourth identify prompt is held out of the estimate of openings, to test the refusal log-odds on."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row of progress: `prompts` × `passes` forward passes (a backward counts two), `generated` tokens a prompt.

    `work` is what is done to a prompt: `responses`, `log odds`, or the name of an effect, of the neurons of `sites`.
    """

    label: str
    prompts: int
    passes: float = 1
    generated: int = 0
    work: str = "responses"
    sites: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The stages of a recipe in order, and the prompt sets it reads."""

    recipe: Recipe
    stages: tuple[Stage, ...]
    data: Mapping[Prompts, PromptSet]


def make_plan(recipe: Recipe, neurons: int = 0) -> Plan:
    """The plan of a recipe; `neurons` is the model's number of neurons (brute force runs a pass for each).

    Raises RecipeError or DataError for what cannot be: unknown data, a damaged neuron file, a measure on prompts that
    choose the set, a language that is not there.
    """
    for node in walk(recipe):
        if isinstance(node, NeuronFile):
            read_neurons(node.path)
    data = {node: load_prompts(node) for node in walk(recipe) if isinstance(node, Prompts)}
    check_splits(recipe, data)
    check_languages(recipe, data)
    check_means(recipe, data)
    check_sources(recipe, measured(recipe, data), study_anchor(recipe, data))
    stages = [*_scoring(recipe, data, neurons), *_causal(recipe, data)]
    return Plan(recipe=recipe, stages=tuple(stages), data=data)


def limited(recipe: Recipe, limit: int | None) -> Recipe:
    """The recipe with at most `limit` prompt ids per split and context."""
    if limit is None:
        return recipe

    def lowered(node: Node) -> Node:
        return replace(node, limit=min(limit, node.limit or limit)) if isinstance(node, Prompts) else node

    changed = rewrite(recipe, lowered)
    assert isinstance(changed, Recipe)
    return changed


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
    return {CONTEXT_OF[type(measure)]: data[measure.prompts] for measure in recipe.measures}


def evaluated(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> tuple[str, ...]:
    """The languages that a recipe's arms are evaluated in."""
    sets = measured(recipe, data).values()
    return tuple(dict.fromkeys(language for prompts in sets for language in prompts.languages))


def _scoring(recipe: Recipe, data: Mapping[Prompts, PromptSet], neurons: int) -> list[Stage]:
    stages: dict[str, Stage] = {}
    for node in walk(recipe):
        if not isinstance(node, SafetyNeurons):
            continue
        prompts = data[node.prompts]
        count = _identify(prompts)
        if isinstance(node.effect, Refusal):
            stages |= _gate(prompts)
        work = type(node.effect).__name__
        passes = 3 if isinstance(node.effect, Refusal) else neurons if isinstance(node.effect, Final) else 1
        label = score_label(node, prompts)
        stages.setdefault(label, Stage(label=label, prompts=count, passes=passes, work=work, sites=node.sites))
    for prompts in reads_log_odds(recipe, data):
        stages |= _gate(prompts)
    return list(stages.values())


def reads_log_odds(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> tuple[PromptSet, ...]:
    """The prompt sets whose responses must show that the refusal log-odds can be trusted."""
    nodes = (node for node in walk(recipe) if isinstance(node, SafetyNeurons))
    scored = [data[node.prompts] for node in nodes if isinstance(node.effect, Refusal)]
    contexts = measured(recipe, data)
    if recipe.arms and recipe.log_odds_controls and "harmful" in contexts:
        scored.append(contexts["harmful"])
    return tuple(dict.fromkeys(scored))


def _identify(prompts: PromptSet) -> int:
    return sum(prompts.select("identify", context).height for context in ("harmful", "harmless"))


def _gate(prompts: PromptSet) -> dict[str, Stage]:
    label = gate_label(prompts)
    return {label: Stage(label=label, prompts=_identify(prompts), generated=prompts.max_new_tokens)}


def weakened_label(arm: str) -> str:
    return f"{arm}, less strongest"


def placebo_label(arm: str) -> str:
    return f"{arm}, placebo"


def has_placebo(node: Node) -> bool:
    """Is a set chosen by a contrast, so that the same choice can be made among harmless prompts?"""
    return any(isinstance(inner, SafetyNeurons) and not inner.placebo for inner in walk(node))


def training_label(arm: str) -> str:
    return f"{arm}: training"


def odds_controls(recipe: Recipe, does: Node | None) -> int:
    """Random sets whose refusal log-odds are read; those that must be trained first are the ones that generate."""
    if isinstance(does, Expand):
        return min(recipe.controls, recipe.log_odds_controls)
    return recipe.log_odds_controls


def rows_to_train(node: Expand, prompts: PromptSet) -> int:
    """Rows that a training sees, every epoch anew, if it does not stop early."""
    rows = prompts.frame.filter(pl.col("split") == "train", pl.col("context").is_in(node.contexts))
    if node.languages is not None:
        rows = rows.filter(pl.col("language").is_in(node.languages))
    kept = held_out(rows.select("context", "cluster").rows(), node.training)
    learned = rows.filter(~pl.col("cluster").is_in(sorted(kept))).height
    return Schedule(settings=node.training, rows=learned).total * node.training.batch


def random_label(arm: str, recipe: Recipe) -> str:
    return f"{arm}: {recipe.controls} random sets"


def log_odds_label(arm: str, recipe: Recipe) -> str:
    return f"{arm}: {odds_controls(recipe, recipe.arms[arm])} random sets, log-odds only"


def source_label(arm: str, source: str, log_odds_only: bool) -> str:
    return f"{arm}: activations in {source}{', log-odds only' if log_odds_only else ''}"


def gate_label(prompts: PromptSet) -> str:
    return f"responses that test the refusal log-odds ({prompts.name})"


def score_label(node: SafetyNeurons, prompts: PromptSet) -> str:
    position = getattr(node.effect, "position", "")
    where = f", {position}" if isinstance(node.effect, Local) and position != "mean" else ""
    return f"{type(node.effect).__name__.lower()} effect of every neuron ({prompts.name}{where})"


def _causal(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> list[Stage]:
    contexts = measured(recipe, data)
    if not contexts:
        return []
    generated = max(prompts.max_new_tokens for prompts in contexts.values())
    anchor = study_anchor(recipe, data)
    stages = [Stage(label="baseline", prompts=_rows(contexts), generated=generated)]
    for name, arm in recipe.arms.items():
        source = source_of(arm, anchor)
        stages += _arm_stages(recipe, data, contexts, name, source, generated)
        if source is not None:
            stages += _source_stages(recipe, data, contexts, name, source, generated)
    return stages


def settled(plan: Plan, totals: Mapping[str, int]) -> Plan:
    """The plan once the arms are known: `totals` are the prompts of their rows (`causal.row_totals`)."""
    known = {label: totals.get(label, 0) for label in arm_labels(plan.recipe, plan.data)}
    stages = (replace(stage, prompts=known.get(stage.label, stage.prompts)) for stage in plan.stages)
    return replace(plan, stages=tuple(stage for stage in stages if stage.prompts))


def arm_labels(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> tuple[str, ...]:
    """The rows that follow from the arms; how much is trained follows from the recipe alone."""
    trainings = {training_label(name) for name in recipe.arms}
    return tuple(stage.label for stage in _causal(recipe, data) if stage.label not in trainings)


def _arm_stages(
    recipe: Recipe,
    data: Mapping[Prompts, PromptSet],
    contexts: Mapping[str, PromptSet],
    name: str,
    source: str | None,
    generated: int,
) -> list[Stage]:
    """An arm, without its strongest neurons, its placebo, its random sets; none of them in the source of a Patch."""
    arm, copies = recipe.arms[name], _copies(recipe, data, name)
    harmful = {context: prompts for context, prompts in contexts.items() if context == "harmful"}
    everything, tested = copies * _rows(contexts, source), copies * _rows(harmful, source)
    controlled = copies * _rows(harmful, source, *left_out(arm.neurons, data))
    trains = isinstance(arm, Expand)
    stages = [_training(arm, name, recipe, data)] if trains else []
    stages.append(Stage(label=name, prompts=everything, generated=generated))
    if not trains:
        stages.append(Stage(label=weakened_label(name), prompts=everything, generated=generated))
    beside = int(has_placebo(arm.neurons) and not trains)
    if beside:
        stages.append(Stage(label=placebo_label(name), prompts=everything, generated=generated))
    if recipe.controls and harmful:
        label = random_label(name, recipe)
        stages.append(Stage(label=label, prompts=recipe.controls * controlled, generated=generated))
    if recipe.log_odds_controls and harmful:
        count = (2 - trains + beside) * tested + odds_controls(recipe, arm) * controlled
        stages.append(Stage(label=log_odds_label(name, recipe), prompts=count, work="log odds"))
    return stages


def _training(arm: Expand, name: str, recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> Stage:
    """Training the set, and as many random ones as are tried; a step is a forward and a backward pass."""
    count = (1 + recipe.controls) * rows_to_train(arm, data[arm.data])
    return Stage(label=training_label(name), prompts=count, passes=3, work="Refusal", sites=SITES)


def _source_stages(
    recipe: Recipe,
    data: Mapping[Prompts, PromptSet],
    contexts: Mapping[str, PromptSet],
    name: str,
    source: str,
    generated: int,
) -> list[Stage]:
    """What a Patch runs in its source language: once for every set that is tried, with another's neurons each time."""
    arm, copies = recipe.arms[name], _copies(recipe, data, name)
    assert isinstance(arm, Patch)
    elsewhere = [language for prompts in contexts.values() for language in prompts.languages if language != source]
    everything = _rows(contexts, *elsewhere)
    harmful = _rows({name: prompts for name, prompts in contexts.items() if name == "harmful"}, *elsewhere)
    tried = 2 + has_placebo(arm.neurons)
    count = copies * (tried * everything + recipe.controls * harmful)
    made = generated if arm.positions == "response" else 0
    work = "responses" if made else "log odds"
    stages = [Stage(label=source_label(name, source, False), prompts=count, generated=made, work=work)]
    if recipe.log_odds_controls and harmful:
        count = copies * (tried + recipe.log_odds_controls) * harmful
        stages.append(Stage(label=source_label(name, source, True), prompts=count, work="log odds"))
    return stages


def _copies(recipe: Recipe, data: Mapping[Prompts, PromptSet], name: str) -> int:
    """How many arms one of the recipe stands for: with `Each` one per language."""
    return len(evaluated(recipe, data)) if isinstance(recipe.arms[name].neurons, Each) else 1


def _rows(contexts: Mapping[str, PromptSet], *skipped: str | None) -> int:
    """Prompts to evaluate on, but for those in some languages."""
    return sum(
        prompts.select("evaluate", context).filter(~pl.col("language").is_in([one for one in skipped if one])).height
        for context, prompts in contexts.items()
    )


def by_anchor(node: Shared) -> bool:
    """Is the set shared with an anchor, rather than among several languages?"""
    return node.at_least is None and node.by == "intersection"


def left_out(expression: Node, data: Mapping[Prompts, PromptSet]) -> tuple[str, ...]:
    """The anchor of a set shared with the anchor: its row repeats its MS, and averages would count it twice."""
    if not isinstance(expression, Shared) or not by_anchor(expression):
        return ()
    declared = next((data[node].anchor for node in walk(expression) if isinstance(node, Prompts)), None)
    anchor = expression.anchor or declared
    return () if anchor is None else (anchor,)


def check_splits(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> None:
    """No prompt that chooses or trains a neuron may also measure the set (recipes.md, contract 3)."""
    used: dict[tuple[str, str], str] = {}
    for node in walk(recipe):
        if isinstance(node, SafetyNeurons):
            used |= dict.fromkeys(_prompts_in(data[node.prompts], "identify"), "chooses")
        if isinstance(node, Expand):
            used |= dict.fromkeys(_prompts_in(data[node.data], "train"), "trains")
    for context, prompts in measured(recipe, data).items():
        rows = prompts.select("evaluate", context).select("language", "text").iter_rows()
        twice = next((prompt for prompt in rows if prompt in used), None)
        if twice is not None:
            raise RecipeError(
                f"the {context} prompt {twice[1][:60]!r} both {used[twice]} neurons and measures them",
                "Measure on prompts of another split: remove it from one of the two sets.",
            )


def _prompts_in(prompts: PromptSet, split: str) -> list[tuple[str, str]]:
    """(language, text) of every prompt of a split."""
    return prompts.frame.filter(pl.col("split") == split).select("language", "text").rows()


def check_languages(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> None:
    """A language that an expression names must be one of its prompt sets', and what needs an anchor must have one."""
    for node in walk(recipe):
        if isinstance(node, Shared) and node.anchor is None and by_anchor(node):
            for inner in walk(node):
                if isinstance(inner, Prompts):
                    anchor_of(data[inner])
        known = tuple(one for inner in walk(node) if isinstance(inner, Prompts) for one in data[inner].languages)
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


def _named(node: Node) -> tuple[str, ...]:
    match node:
        case Shared(anchor=str(anchor)):
            return (anchor,)
        case Of(language=language):
            return (language,)
        case Only(languages=tuple(languages)):
            return languages
    return ()


def resolved_key(node: Node, model: Mapping[str, Any], data: Mapping[Prompts, PromptSet]) -> str:
    """The key of a node's result: its JSON with the model's identity and the data's digest for their names."""
    return digest({"node": _resolve(to_json(node), data), "model": dict(model)})


def file_digest(path: str) -> str:
    """SHA-256 of a file's bytes. Raises DataError when it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the neuron file {path}: {error}", "Give a parquet or csv file.") from error


def _resolve(value: Any, data: Mapping[Prompts, PromptSet]) -> Any:
    if isinstance(value, list):
        return [_resolve(item, data) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "Prompts":
        prompts = next(found for node, found in data.items() if to_json(node) == value)
        return {"kind": "Prompts", "version": value["version"], "digest": prompts.digest}
    if value.get("kind") == "NeuronFile":
        return {"kind": "NeuronFile", "version": value["version"], "sha256": file_digest(value["path"])}
    if value.get("kind") == "Recipe":
        value = {name: item for name, item in value.items() if name not in ("model", "name", "question")}
    return {name: _resolve(item, data) for name, item in value.items()}
