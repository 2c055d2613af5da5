"""Arms: the conditions of a causal study, from the sets that a recipe tests to the random sets beside them.

An arm applies language λ's own neurons while λ is evaluated. Each tested set also runs without its strongest member,
since one neuron can break a refusal alone; beside it run random sets, matched per language, layer and site and disjoint
from it. Everything that can be wrong with a set is found here, before anything is generated.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import polars as pl

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import NeuronSet
from ssn_probe.neurons.model_neurons import check_places, check_trained
from ssn_probe.neurons.random_controls import random_like
from ssn_probe.spec import (
    Each,
    Intervention,
    LeaveOneOut,
    LoRA,
    Of,
    Recipe,
    SafetyNeurons,
    SetExpression,
    Then,
    Trains,
    last_of,
)
from ssn_probe.spec.anchors import source_of
from ssn_probe.spec.node import Node, rewrite
from ssn_probe.study.resolve import evaluated, left_out, not_run_in
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

BASELINE, TESTED, CONTROL = "baseline", "tested", "control"
WEAKENED, PLACEBO = "without top neuron", "placebo"


class ArmName(NamedTuple):
    """Which arm a row of a table belongs to.

    `arm` is the recipe's name; `of` the language whose neurons the arm applies everywhere, where the recipe asks for
    one arm per language (`set.each()`); `step` the step of a learning curve.
    """

    arm: str
    of: str | None = None
    step: int | None = None

    @property
    def title(self) -> str:
        """The arm in words: `ms`, `ms of qab`, `ss after 8 steps`."""
        of = "" if self.of is None else f" of {self.of}"
        return f"{self.arm}{of}{'' if self.step is None else f' after {self.step} steps'}"

    @property
    def rows(self) -> pl.Expr:
        """The rows of `samples`, `log_odds` or `summary` that belong to the arm, whatever their role."""
        rows = (pl.col("arm") == self.arm) & pl.col("step").eq_missing(pl.lit(self.step, pl.Int64))
        return rows if self.of is None else rows & (pl.col("set_language") == self.of)


@dataclass(frozen=True, kw_only=True, eq=False)
class Arm:
    """One condition. `set_language` is the language whose neurons apply everywhere, None where each has its own.

    `each`: is it one of an arm per language? `left_out`: languages that its random controls skip
    (the anchor of a shared set, whose SS is its whole MS). `does`: what is done to the neurons, None for the baseline.
    `source`: the language that a Patch carries over from; `skipped`: languages that the arm is not run in, such as
    that. `placebo`: the set that the same expression finds between topics of harmless prompts, None where there is
    none. `first`: what is trained before, and its neurons. `step`: the step of a learning curve.
    """

    name: str
    role: str
    neurons: NeuronSet | None
    set_language: str | None = None
    seed: int | None = None
    left_out: tuple[str, ...] = ()
    does: Intervention | None = None
    source: str | None = None
    skipped: tuple[str, ...] = ()
    placebo: NeuronSet | None = None
    first: tuple[Trains, NeuronSet] | None = None
    step: int | None = None
    each: bool = False

    @property
    def title(self) -> str:
        """The arm in words."""
        return ArmName(self.name, self.set_language if self.each else None, self.step).title

    @property
    def training(self) -> tuple[Trains, NeuronSet] | None:
        """What the arm trains, and the neurons; None for one that trains nothing."""
        if isinstance(self.does, Trains):
            assert self.neurons is not None
            return self.does, self.neurons
        return self.first

    @property
    def lowers(self) -> bool:
        """Is ASR expected to fall, rather than to rise?"""
        return self.does is not None and self.does.lowers


UNTOUCHED = Arm(name=BASELINE, role=BASELINE, neurons=None)


def arms_of(bench: Workbench, recipe: Recipe) -> list[Arm]:
    """The arms that the recipe names, with their sets evaluated and checked.

    `Each` becomes one arm per language, a learning curve one per step. Raises RecipeError or DataError for a set that
    lacks an evaluated language, is empty, has a neuron that the model does not have, or leaves too few neurons for a
    random control.
    """
    arms = []
    for name, node in recipe.arms.items():
        expression = node.neurons
        if isinstance(expression, Each):
            inner = expression.neurons
            arms += [_tested(bench, recipe, name, inner.of(one), node) for one in evaluate(bench, inner).languages]
        else:
            arms.append(_tested(bench, recipe, name, expression, node))
    for arm in arms:
        _check(bench, recipe, arm)
    return [one for arm in arms for one in _steps(arm)]


def _steps(arm: Arm) -> list[Arm]:
    """One arm per step of a learning curve."""
    at = arm.does.at if isinstance(arm.does, Trains) else None
    return [arm] if at is None else [replace(arm, step=step) for step in at]


def _tested(bench: Workbench, recipe: Recipe, name: str, expression: SetExpression, node: Intervention) -> Arm:
    neurons = evaluate(bench, expression)
    of_one = (expression.language or bench.anchor) if isinstance(expression, Of) else None
    set_language = of_one or ("*" if neurons.language_free else None)
    arm = Arm(
        name=name,
        role=TESTED,
        neurons=neurons,
        set_language=set_language,
        left_out=left_out(expression, bench.data),
        does=last_of(node),
        source=source_of(node, bench.anchor),
        skipped=not_run_in(node, bench.data, bench.anchor, evaluated(recipe, bench.data)),
        first=(node.first, evaluate(bench, node.first.neurons)) if isinstance(node, Then) else None,
        each=isinstance(node.neurons, Each),
    )
    return arm if isinstance(node, Trains) else replace(arm, placebo=_placebo(bench, arm.title, expression))


def _placebo(bench: Workbench, name: str, expression: SetExpression) -> NeuronSet | None:
    """The same choice where there is no safety to find; a file's neurons have none, too uniform prompts are noted."""
    changed = rewrite(expression, _to_placebo, leave=Trains)
    if changed == expression:
        return None
    try:
        return evaluate(bench, changed)
    except DataError as error:
        bench.warn(f"{name} has no placebo: {error.message}")
        return None


def _to_placebo(node: Node) -> Node:
    return replace(node, placebo=True) if isinstance(node, SafetyNeurons) else node


def _check(bench: Workbench, recipe: Recipe, arm: Arm) -> None:
    assert arm.neurons is not None
    check_places(arm.neurons, bench.widths())
    languages = [one for one in evaluated(recipe, bench.data) if one not in arm.skipped]
    empty = [one for one in languages if arm.neurons.neurons(one).is_empty()]
    if not len(arm.neurons):
        raise DataError(f"the set of the arm {arm.title!r} is empty", "Raise top, or take less away from it.")
    if not languages:
        hint = "Measure it on prompts in the languages that are left out, or in others than the source."
        raise RecipeError(f"the arm {arm.title!r} is evaluated in no language", hint)
    for node, neurons in [arm.training] if arm.training else []:
        check_trained(neurons, bench.widths())
        if not neurons.language_free and not isinstance(node.neurons, LeaveOneOut):
            hint = "Take one language's, set.of('en'), or those of any language, set.union()."
            raise RecipeError(f"the arm {arm.title!r} trains one model, and its set has neurons per language", hint)
    if empty:
        bench.warn(f"{arm.title} has no neurons in {', '.join(empty)}: nothing is changed there")
    if (recipe.controls or recipe.log_odds_controls) and not isinstance(arm.does, LoRA):
        random_like(arm.neurons, bench.widths(), 0)


def controls_of(bench: Workbench, arm: Arm, count: int, seed: int) -> Iterator[Arm]:
    """`count` random sets like an arm's; the same seeds give the same sets, however many are asked for."""
    assert arm.neurons is not None
    for draw in range(count):
        neurons = random_like(arm.neurons, bench.widths(), seed * 10_000 + draw)
        yield replace(arm, role=CONTROL, neurons=neurons, seed=draw)


def weakened(arm: Arm) -> Arm:
    """The arm without its strongest neuron in every language."""
    assert arm.neurons is not None
    return replace(arm, role=WEAKENED, neurons=arm.neurons.without_strongest())


def as_placebo(arm: Arm) -> Arm:
    """The arm with its placebo set: same expression, same rule, same intervention."""
    return replace(arm, role=PLACEBO, neurons=arm.placebo)


def is_weakened(arm: Arm) -> bool:
    """Is the arm also run without its strongest neurons? Trained ones are not: another set is another training."""
    return is_ranked(arm) and not isinstance(arm.does, Trains)


def is_ranked(arm: Arm) -> bool:
    """Do its neurons have scores, so that one of them is the strongest?"""
    return arm.neurons is not None and arm.neurons.frame["score"].null_count() < len(arm.neurons)
