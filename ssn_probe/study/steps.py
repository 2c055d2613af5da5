"""The rows of progress of a recipe, in order: what is done, and on how many prompts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.spec import (
    SITES,
    After,
    Each,
    LoRA,
    Patch,
    Prompts,
    Recipe,
    SafetyNeurons,
    Trains,
    last_of,
    training_of,
)
from ssn_probe.spec.anchors import source_of
from ssn_probe.spec.node import Node, walk
from ssn_probe.spec.training_settings import Schedule, held_out
from ssn_probe.study.resolve import (
    evaluated,
    has_placebo,
    left_out,
    measured,
    not_run_in,
    study_anchor,
    trainings,
)

AFTER = "after training: "
"""What the rows of sets that are identified again begin with."""
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


def stages_of(recipe: Recipe, data: Mapping[Prompts, PromptSet], neurons: int) -> list[Stage]:
    """All rows of a recipe for a model of so many neurons."""
    return [*_scoring(recipe, data, neurons), *_after(recipe, data, neurons), *_causal(recipe, data)]


def _scoring(recipe: Recipe, data: Mapping[Prompts, PromptSet], neurons: int) -> list[Stage]:
    stages = _scores(choosers(recipe), data, neurons)
    for prompts in reads_log_odds(recipe, data):
        stages |= _gate(prompts)
    return list(stages.values())


def _scores(
    nodes: Iterator[SafetyNeurons], data: Mapping[Prompts, PromptSet], neurons: int, before: str = ""
) -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    for node in nodes:
        prompts = data[node.prompts]
        if node.scored_by.needs_openings:
            stages |= _gate(prompts, before)
        work = type(node.effect).__name__
        passes = node.scored_by.passes(neurons)
        label, count = before + score_label(node, prompts), _identify(prompts)
        stages.setdefault(label, Stage(label=label, prompts=count, passes=passes, work=work, sites=node.sites))
    return stages


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


def _after(recipe: Recipe, data: Mapping[Prompts, PromptSet], neurons: int) -> list[Stage]:
    """Training, and the scores in what was trained; several trainings share the rows."""
    total: dict[str, Stage] = {}
    for trained, nodes in found_again(recipe).items():
        label = AFTER + "training"
        rows = {label: _training(label, rows_to_train(trained, data[trained.data]))}
        for name, stage in (rows | _scores(iter(nodes), data, neurons, AFTER)).items():
            known = total.get(name)
            total[name] = stage if known is None else replace(known, prompts=known.prompts + stage.prompts)
    return list(total.values())


def reads_log_odds(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> tuple[PromptSet, ...]:
    """The prompt sets whose responses must show that the refusal log-odds can be trusted."""
    scored = [data[node.prompts] for node in choosers(recipe) if node.scored_by.needs_openings]
    contexts = measured(recipe, data)
    if recipe.arms and recipe.log_odds_controls and "harmful" in contexts:
        scored.append(contexts["harmful"])
    return tuple(dict.fromkeys(scored))


def _identify(prompts: PromptSet) -> int:
    return sum(prompts.select("identify", context).height for context in ("harmful", "harmless"))


def _gate(prompts: PromptSet, before: str = "") -> dict[str, Stage]:
    label = before + gate_label(prompts)
    return {label: Stage(label=label, prompts=_identify(prompts), generated=prompts.max_new_tokens)}


def weakened_label(arm: str) -> str:
    return f"{arm}, less strongest"


def placebo_label(arm: str) -> str:
    return f"{arm}, placebo"


def training_label(arm: str) -> str:
    return f"{arm}: training"


def random_sets(recipe: Recipe, node: Node | None) -> int:
    """Random sets that generate beside an arm; LoRA has none."""
    return 0 if isinstance(node, LoRA) else recipe.controls


def odds_controls(recipe: Recipe, node: Node | None) -> int:
    """Random sets whose refusal log-odds are read; those that must be trained first are the ones that generate."""
    if isinstance(node, Trains):
        return min(random_sets(recipe, node), recipe.log_odds_controls)
    return recipe.log_odds_controls


def rows_to_train(node: Trains, prompts: PromptSet) -> int:
    """Rows that a training sees, every epoch anew, if it does not stop early."""
    rows = prompts.frame.filter(pl.col("split") == "train", pl.col("context").is_in(node.contexts))
    if node.languages is not None:
        rows = rows.filter(pl.col("language").is_in(node.languages))
    kept = held_out(rows.select("context", "cluster").rows(), node.training)
    learned = rows.filter(~pl.col("cluster").is_in(sorted(kept))).height
    return Schedule(settings=node.training, rows=learned).total * node.training.batch


def random_label(arm: str, recipe: Recipe) -> str:
    return f"{arm}: {random_sets(recipe, recipe.arms[arm])} random sets"


def log_odds_label(arm: str, recipe: Recipe) -> str:
    count = odds_controls(recipe, recipe.arms[arm])
    return f"{arm}: {count} random sets, log-odds only" if count else f"{arm}: log-odds only"


def source_label(arm: str, source: str, log_odds_only: bool) -> str:
    return f"{arm}: activations in {source}{', log-odds only' if log_odds_only else ''}"


def gate_label(prompts: PromptSet) -> str:
    return f"responses that test the refusal log-odds ({prompts.name})"


def score_label(node: SafetyNeurons, prompts: PromptSet) -> str:
    return node.scored_by.label(prompts.name)


def _causal(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> list[Stage]:
    contexts = measured(recipe, data)
    if not contexts:
        return []
    generated = max(prompts.max_new_tokens for prompts in contexts.values())
    anchor = study_anchor(recipe, data)
    stages = [Stage(label="baseline", prompts=_rows(contexts), generated=generated)]
    for name, arm in recipe.arms.items():
        stages += _arm_stages(recipe, data, contexts, name, anchor, generated)
        source = source_of(arm, anchor)
        if source is not None:
            stages += _source_stages(recipe, data, contexts, name, source, generated)
    return stages


def _arm_stages(
    recipe: Recipe,
    data: Mapping[Prompts, PromptSet],
    contexts: Mapping[str, PromptSet],
    name: str,
    anchor: str | None,
    generated: int,
) -> list[Stage]:
    """An arm, without its strongest neurons, its placebo, its random sets; none of them where it is not run."""
    arm, copies = recipe.arms[name], _copies(recipe, data, name)
    skipped = not_run_in(arm, data, anchor, evaluated(recipe, data))
    harmful = {context: prompts for context, prompts in contexts.items() if context == "harmful"}
    everything, tested = copies * _rows(contexts, *skipped), copies * _rows(harmful, *skipped)
    controlled = copies * _rows(harmful, *skipped, *left_out(arm.neurons, data))
    changed = isinstance(arm, Trains)
    stages = _training_stages(recipe, data, name, anchor)
    stages.append(Stage(label=name, prompts=everything, generated=generated))
    if not changed:
        stages.append(Stage(label=weakened_label(name), prompts=everything, generated=generated))
    beside = int(has_placebo(arm.neurons) and not changed)
    if beside:
        stages.append(Stage(label=placebo_label(name), prompts=everything, generated=generated))
    count = random_sets(recipe, arm)
    if count and harmful:
        stages.append(Stage(label=random_label(name, recipe), prompts=count * controlled, generated=generated))
    if recipe.log_odds_controls and harmful:
        count = (2 - changed + beside) * tested + odds_controls(recipe, arm) * controlled
        stages.append(Stage(label=log_odds_label(name, recipe), prompts=count, work="log odds"))
    return stages


def _training_stages(recipe: Recipe, data: Mapping[Prompts, PromptSet], name: str, anchor: str | None) -> list[Stage]:
    """Training the set, and as many random ones as are tried beside it."""
    arm = recipe.arms[name]
    node = training_of(arm)
    if node is None:
        return []
    tried = 1 + (random_sets(recipe, arm) if arm is node else 0)
    rows = sum(rows_to_train(one, data[one.data]) for one in trainings(node, data, anchor, evaluated(recipe, data)))
    return [_training(training_label(name), tried * rows)]


def _training(label: str, rows: int) -> Stage:
    """A step is a forward and a backward pass."""
    return Stage(label=label, prompts=rows, passes=3, work="Refusal", sites=SITES)


def _source_stages(
    recipe: Recipe,
    data: Mapping[Prompts, PromptSet],
    contexts: Mapping[str, PromptSet],
    name: str,
    source: str,
    generated: int,
) -> list[Stage]:
    """What a Patch runs in its source language: once for every set that is tried, with another's neurons each time."""
    arm, copies = last_of(recipe.arms[name]), _copies(recipe, data, name)
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
    """How many rows an arm stands for: with `Each` one per language, with a learning curve one per step."""
    arm = recipe.arms[name]
    if isinstance(arm, Trains) and arm.at is not None:
        return len(arm.at)
    return len(evaluated(recipe, data)) if isinstance(arm.neurons, Each) else 1


def _rows(contexts: Mapping[str, PromptSet], *skipped: str | None) -> int:
    """Prompts to evaluate on, but for those in some languages."""
    return sum(
        prompts.select("evaluate", context).filter(~pl.col("language").is_in([one for one in skipped if one])).height
        for context, prompts in contexts.items()
    )


def labels_of_arms(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> tuple[str, ...]:
    """The rows that follow from the arms; how much is trained follows from the recipe alone."""
    trained = {training_label(name) for name in recipe.arms}
    return tuple(stage.label for stage in _causal(recipe, data) if stage.label not in trained)
