"""Arms: the conditions of a causal study, from the sets that a recipe tests to the sets that they are compared with.

An arm applies language λ's own neurons while λ is evaluated. Each tested set also runs without its top neuron, since
one neuron can break a refusal alone. Beside a compared arm run the sets of every comparison (`study.comparisons`).
Whatever can be wrong with a set is found here, before anything is generated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import polars as pl

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import NeuronSet
from ssn_probe.neurons.model_neurons import check_feed_forward, check_places, check_trained
from ssn_probe.spec import (
    Each,
    Intervention,
    LeaveOneOut,
    NeST,
    Of,
    Recipe,
    SetExpression,
    SparseEdit,
    Then,
    Trains,
    last_of,
)
from ssn_probe.spec.anchors import source_of
from ssn_probe.study.comparisons import COMPARISONS, LABELS, expected, find
from ssn_probe.study.exchange_checks import why_no_null
from ssn_probe.study.resolve import evaluated, is_dose, left_out, not_run_in
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

BASELINE, TESTED, WEAKENED = "baseline", "tested", "without top neuron"
ALONE = (BASELINE, TESTED, WEAKENED)
"""The roles of single sets; the sets of a comparison have its name as their role."""
Find = Callable[[], NeuronSet]
"""Finds a set of neurons when it is first needed."""


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

    `find`: finds the arm's neurons, None for the baseline; `expression`: what they are; `known`: were they found?
    `does`: what is done to them.
    `ranked`: is the same run without its top neuron? `compared`: the comparisons beside it; `whole`: do all prompts
    take part in the exchange of labels? `seed`: the number of a set of a comparison. `each`: is it one of an arm per
    language? `left_out`: languages that compared sets skip (the anchor of a shared set, whose SS is its whole MS).
    `source`: the language that a Patch carries over from; `skipped`: languages that the arm is not run in, such as
    that. `first`: what is trained before, with its neurons. `step`: the step of a learning curve.
    """

    name: str
    role: str
    find: Find | None = None
    expression: SetExpression | None = None
    does: Intervention | None = None
    set_language: str | None = None
    each: bool = False
    step: int | None = None
    seed: int | None = None
    ranked: bool = False
    compared: tuple[str, ...] = ()
    whole: bool = True
    known: bool = False
    left_out: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    source: str | None = None
    first: tuple[Trains, Find] | None = None

    @property
    def neurons(self) -> NeuronSet | None:
        """The neurons that the arm is about; None for the baseline."""
        return None if self.find is None else self.find()

    @property
    def title(self) -> str:
        """The arm in words."""
        return ArmName(self.name, self.set_language if self.each else None, self.step).title

    @property
    def training(self) -> tuple[Trains, Find] | None:
        """What the arm trains, and its neurons; None for an arm that trains nothing."""
        if isinstance(self.does, Trains):
            assert self.find is not None
            return self.does, self.find
        return self.first


UNTOUCHED = Arm(name=BASELINE, role=BASELINE)


def expected_arms(bench: Workbench, recipe: Recipe) -> list[Arm]:
    """The arms of a recipe before their neurons are known: each with all that may run beside it."""
    return [arm for name, node in recipe.arms.items() for arm in _arms(bench, recipe, name, node, None)]


def arms_of(bench: Workbench, recipe: Recipe) -> list[Arm]:
    """The arms of a recipe, with their sets evaluated and checked.

    `Each` becomes one arm per language, a learning curve one per step. Raises RecipeError or DataError for a set that
    lacks an evaluated language, is empty, or has a neuron that the model does not have.
    """
    arms = []
    for name, node in recipe.arms.items():
        languages = evaluate(bench, node.neurons.neurons).languages if isinstance(node.neurons, Each) else None
        arms += [_known(bench, recipe, arm) for arm in _arms(bench, recipe, name, node, languages)]
    for arm in arms:
        _check(bench, recipe, arm)
    return arms


def _arms(
    bench: Workbench, recipe: Recipe, name: str, node: Intervention, languages: tuple[str, ...] | None
) -> Iterator[Arm]:
    """The arms that a name of the recipe stands for; `languages` of its set, None where they are not known yet."""
    expression = node.neurons
    if isinstance(expression, Each):
        named = evaluated(recipe, bench.data) if languages is None else languages
        expressions: list[SetExpression] = [expression.neurons.of(language) for language in named]
    else:
        expressions = [expression]
    steps = node.at if isinstance(node, Trains) and node.at is not None else (None,)
    for inner in expressions:
        arm = _arm(bench, recipe, name, inner, node)
        yield from (replace(arm, step=step) for step in steps)


def _arm(bench: Workbench, recipe: Recipe, name: str, expression: SetExpression, node: Intervention) -> Arm:
    first = (node.first, partial(evaluate, bench, node.first.neurons)) if isinstance(node, Then) else None
    return Arm(
        name=name,
        role=TESTED,
        find=partial(evaluate, bench, expression),
        expression=expression,
        does=last_of(node),
        set_language=(expression.language or bench.anchor) if isinstance(expression, Of) else None,
        each=isinstance(node.neurons, Each),
        ranked=not isinstance(node, Trains) and not is_dose(recipe, name),
        compared=expected(recipe, name, expression),
        left_out=left_out(expression, bench.data),
        skipped=not_run_in(node, bench.data, bench.anchor, evaluated(recipe, bench.data)),
        source=source_of(node, bench.anchor),
        first=first,
    )


def _known(bench: Workbench, recipe: Recipe, arm: Arm) -> Arm:
    """The arm, now that its neurons can be found: what runs beside it, and the language of a set without any."""
    assert arm.neurons is not None
    language = arm.set_language or ("*" if arm.neurons.language_free else None)
    compared = arm.compared if _changes_average(bench, recipe, arm) else ()
    possible = tuple(name for name in compared if _is_possible(bench, recipe, arm, name))
    whole = LABELS not in possible or find_beside(bench, recipe, arm, LABELS, 0)() == arm.neurons
    ranked = arm.ranked and has_scores(arm)
    return replace(arm, known=True, ranked=ranked, compared=possible, whole=whole, set_language=language)


def _changes_average(bench: Workbench, recipe: Recipe, arm: Arm) -> bool:
    """Has the arm neurons in any language of its average? Else there is nothing to compare: no language shares any."""
    assert arm.neurons is not None
    away = (*arm.skipped, *arm.left_out)
    languages = [language for language in evaluated(recipe, bench.data) if language not in away]
    return not languages or any(arm.neurons.neurons(language).height for language in languages)


def _is_possible(bench: Workbench, recipe: Recipe, arm: Arm, name: str) -> bool:
    """Do the prompts and the model allow sets of a comparison? Why not is noted."""
    assert arm.expression is not None
    try:
        why = why_no_null(bench, arm.expression, recipe.seed) if name == LABELS else None
        find_beside(bench, recipe, arm, name, 0)()
    except (DataError, RecipeError) as error:
        why = error.message
    if why is not None:
        bench.warn(f"{arm.title} is not compared with {COMPARISONS[name].several}: {why}")
    return why is None


def _check(bench: Workbench, recipe: Recipe, arm: Arm) -> None:
    assert arm.neurons is not None
    check_places(arm.neurons, bench.widths())
    languages = [language for language in evaluated(recipe, bench.data) if language not in arm.skipped]
    empty = [language for language in languages if arm.neurons.neurons(language).is_empty()]
    if not len(arm.neurons):
        hint = "Raise top, or take less away from it; otherwise that there is no such neuron is the result."
        raise DataError(f"the set of the arm {arm.title!r} is empty", hint)
    if not languages:
        hint = "Measure it on prompts in the languages that are left out, or in others than the source."
        raise RecipeError(f"the arm {arm.title!r} is evaluated in no language", hint)
    if arm.training is not None:
        _check_training(bench, arm, *arm.training)
    if empty:
        named = f"{'language' if len(empty) == 1 else 'languages'} {', '.join(empty)}"
        bench.warn(f"{arm.title} has no neurons in the {named}: nothing is changed there")  # "in it" would be a word


def _check_training(bench: Workbench, arm: Arm, node: Trains, find: Find) -> None:
    check_trained(find(), bench.widths())
    alone = isinstance(node.neurons, LeaveOneOut)
    without = [language for language in find().languages if find().neurons(language).is_empty()] if alone else []
    if without:
        raise DataError(f"without {', '.join(without)} the set of neurons to train is empty", "Raise top.")
    if not find().language_free and not alone:
        hint = "Take one language's, set.of('en'), or those of any language, set.union()."
        raise RecipeError(f"the arm {arm.title!r} trains one model, and its set has neurons per language", hint)
    if isinstance(node, NeST | SparseEdit):
        check_feed_forward(find().frame["site"])
    if isinstance(node, SparseEdit):
        counts = find().frame.group_by("language", "layer").len().group_by("language").agg(pl.col("len").max())
        if node.rank > (most := min(counts["len"].to_list())):
            raise RecipeError(
                f"the arm {arm.title!r} has rank {node.rank:,}, and the layer with most of its neurons has {most:,}",
                "Ask for a lower rank, or take more neurons.",
            )


def find_beside(bench: Workbench, recipe: Recipe, arm: Arm, name: str, number: int) -> Find:
    """Finds the set of that number of a comparison beside an arm."""

    @cache
    def found() -> NeuronSet:
        assert arm.neurons is not None
        assert arm.expression is not None
        return find(bench, name, arm.expression, arm.neurons, number, recipe.seed)

    return found


def sets_beside(bench: Workbench, recipe: Recipe, arm: Arm, name: str, count: int) -> Iterator[Arm]:
    """`count` sets of a comparison beside an arm; the same numbers are the same sets, however many are asked for.

    Sets under exchanged labels are numbered from 1. 0 is the set of the observed labels of the prompts that take part
    in the exchange, which is ranked among them, and runs where it is another than the arm's own.
    """
    numbers = range(int(arm.whole), count + 1) if name == LABELS else range(count)
    for number in numbers:
        find = find_beside(bench, recipe, arm, name, number)
        # Without neurons there is nothing to train: the model stays as it is.
        does = None if arm.known and isinstance(arm.does, Trains) and not len(find()) else arm.does
        yield replace(arm, role=name, find=find, does=does, seed=number, ranked=False, compared=())


def beside(arm: Arm) -> list[Arm]:
    """The same without the set's top neuron, where it is known which that is."""
    return [replace(arm, role=WEAKENED, find=_without_top(arm), ranked=False, compared=())] if arm.ranked else []


def _without_top(arm: Arm) -> Find:
    @cache
    def find() -> NeuronSet:
        assert arm.neurons is not None
        return arm.neurons.without_strongest()

    return find


def has_scores(arm: Arm) -> bool:
    """Do its neurons have scores, so that one of them is the top neuron?"""
    neurons = arm.neurons
    return neurons is not None and neurons.frame["score"].null_count() < len(neurons)


def labels(arm: Arm, language: str) -> list[pl.Expr]:
    """The columns by which a row of a table is known to belong to an arm, and the language it was measured in."""
    applied = None if arm.find is None else arm.set_language or language
    return [
        pl.lit(language).alias("eval_language"),
        pl.lit(applied, pl.String).alias("set_language"),
        pl.lit(arm.name).alias("arm"),
        pl.lit(arm.role).alias("role"),
        pl.lit(arm.seed, pl.Int32).alias("seed"),
        pl.lit(arm.step, pl.Int64).alias("step"),
    ]
