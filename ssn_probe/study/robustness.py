"""How robust a set is before any arm is run: its null, its stability, and what languages share beyond chance.

Everything is computed from the per-prompt scores that chose the set, without a forward pass. A set without a null, or
prompts that allow none, are noted in the report.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.neurons import EVERY
from ssn_probe.runs.cache import Frames
from ssn_probe.spec import LeaveOneOut, Recipe, SetExpression, Shared
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.spec.node import walk
from ssn_probe.stats.nulls.label_exchange import exchange
from ssn_probe.stats.nulls.labelling_sweep import languages_of
from ssn_probe.stats.nulls.mask_algebra import chooser, no_null
from ssn_probe.stats.nulls.parallel_units import only_parallel
from ssn_probe.stats.nulls.permutation_null import permutation_null
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.stats.nulls.stability import Stability, stability
from ssn_probe.study.contrast_effects import apart, prompt_effects
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.set_evaluation import choosers
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import listing

T = TypeVar("T")
PAIR = ["set", "language_a", "language_b"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Robustness:
    """The robustness of a recipe's sets; a table is None where it was not asked for or not possible.

    `nulls`: see `permutation_null`. `jaccard`, `frequencies` and `curve`: see `Stability`. `not_parallel` says why
    nothing that combines languages was tested. `apart`: what else than
    their label distinguishes harmful from harmless prompts.
    """

    nulls: pl.DataFrame | None = None
    jaccard: pl.DataFrame | None = None
    frequencies: pl.DataFrame | None = None
    curve: pl.DataFrame | None = None
    not_parallel: str | None = None
    apart: tuple[str, ...] = ()


NOTHING = Robustness()


def robustness_of(bench: Workbench, recipe: Recipe, expressions: Mapping[str, SetExpression]) -> Robustness:
    """Nulls and stability of the sets that a recipe names, where it asks for them. What is impossible is noted."""
    if not recipe.permutations and not recipe.half_samples:
        return NOTHING
    nulls: list[pl.DataFrame] = []
    stable: list[Stability] = []
    not_parallel: str | None = None
    differs: dict[str, None] = {}
    for every, sets in _by_effects(bench, expressions):
        differs |= dict.fromkeys(apart(every.prompts))
        try:
            parallel = _parallel(bench, every)
        except DataError as error:
            not_parallel, parallel = error.message, None
            missing = ["no permutation null"] * bool(recipe.permutations)
            missing += ["no half-samples of sets that combine languages"] * bool(recipe.half_samples)
            bench.warn(f"{listing(missing)}: {not_parallel}")
        if recipe.permutations and parallel is not None:
            found = _noted(bench, "no permutation null", lambda e=parallel, s=sets: _null(bench, recipe, e, s))
            nulls += [] if found is None else [found]
        for effects, halved in _halved(every, parallel, sets, bench.anchor) if recipe.half_samples else ():
            halves = _noted(bench, "no half-samples", lambda e=effects, s=halved: _stability(bench, recipe, e, s))
            stable += [] if halves is None else [halves]
    return Robustness(
        not_parallel=not_parallel,
        apart=tuple(differs),
        nulls=_joined(nulls),
        jaccard=_joined([found.jaccard for found in stable]),
        frequencies=_joined([found.frequencies for found in stable]),
        curve=_joined([found.curve for found in stable]),
    )


def _by_effects(
    bench: Workbench, expressions: Mapping[str, SetExpression]
) -> Iterator[tuple[PromptEffects, dict[str, SetExpression]]]:
    """The sets, grouped by the scores that they come from."""
    groups: dict[PromptEffects, dict[str, SetExpression]] = {}
    for name, expression in expressions.items():
        reason = no_null(expression)
        if reason is not None:
            bench.warn(f"{name}: {reason}")
        elif choosers(expression):
            groups.setdefault(prompt_effects(bench, chooser(expression)), {})[name] = expression
    yield from groups.items()


def _parallel(bench: Workbench, effects: PromptEffects) -> PromptEffects:
    """The effects that can show what languages share. Raises DataError where there are none."""
    found = only_parallel(effects)
    if found is not effects:
        bench.warn(
            f"what languages share is tested on {found.prompts.height} of {effects.prompts.height} identify prompts: "
            "the others may be translations of each other under different ids"
        )
    return found


def _halved(
    every: PromptEffects, parallel: PromptEffects | None, sets: Mapping[str, SetExpression], anchor: str | None
) -> Iterator[tuple[PromptEffects, dict[str, SetExpression]]]:
    """The sets with the effects to halve: halves of what combines languages hold all translations of a prompt."""
    combined = {name: node for name, node in sets.items() if parallel is not every and _combines(every, node, anchor)}
    own = {name: node for name, node in sets.items() if name not in combined}
    if own:
        yield every, own
    if combined and parallel is not None:
        yield parallel, combined


def _combines(effects: PromptEffects, node: SetExpression, anchor: str | None) -> bool:
    shared = any(isinstance(inner, Shared) for inner in walk(node))
    return shared or languages_of(effects, node, anchor) == (EVERY,)


def _null(bench: Workbench, recipe: Recipe, effects: PromptEffects, sets: dict[str, SetExpression]) -> pl.DataFrame:
    found = exchange(effects.prompts)
    if found.dropped_prompts:
        bench.warn(
            f"the null leaves out {found.dropped_prompts} of {effects.prompts.height} identify prompts: in their "
            f"{found.dropped_strata} strata of topic, length and source, all prompts are harmful or none is"
        )
    inputs = _inputs(bench, "null", effects, sets, recipe.seed, recipe.permutations)

    def compute() -> Frames:
        return {
            "null": permutation_null(effects, sets, anchor=bench.anchor, draws=recipe.permutations, seed=recipe.seed)
        }

    return bench.frames(inputs, ["null"], compute)["null"]


def _stability(bench: Workbench, recipe: Recipe, effects: PromptEffects, sets: dict[str, SetExpression]) -> Stability:
    inputs = _inputs(bench, "stability", effects, sets, recipe.seed, recipe.half_samples)

    def compute() -> Frames:
        return vars(stability(effects, sets, anchor=bench.anchor, pairs=recipe.half_samples, seed=recipe.seed))

    return Stability(**bench.frames(inputs, [field.name for field in fields(Stability)], compute))


def _inputs(
    bench: Workbench, method: str, effects: PromptEffects, sets: Mapping[str, SetExpression], seed: int, draws: int
) -> dict[str, Any]:
    resolved = {name: resolved_key(node, bench.subject.identity, bench.data) for name, node in sets.items()}
    return bench.inputs(method, evidence=effects.key, sets=resolved, anchor=bench.anchor, seed=seed, draws=draws)


def _noted(bench: Workbench, missing: str, compute: Callable[[], T]) -> T | None:
    """What `compute` gives; None and a note where the prompts are too few or too uniform."""
    try:
        return compute()
    except DataError as error:
        bench.warn(f"{missing}: {error.message}")
        return None


def _joined(frames: list[pl.DataFrame]) -> pl.DataFrame | None:
    return pl.concat(frames) if frames else None


def with_chance(overlap: pl.DataFrame, found: Robustness) -> pl.DataFrame:
    """The overlap table with what exchanged labels give: `expected_permuted, p_permuted`."""
    figures = dict.fromkeys(("expected_permuted", "p_permuted"), pl.Float64)
    permuted = pl.DataFrame(schema=dict.fromkeys(PAIR, pl.String) | figures)
    if found.nulls is not None:
        rows = found.nulls.filter(pl.col("statistic") == "overlap")
        permuted = rows.select(*PAIR, pl.col("null_mean").alias("expected_permuted"), pl.col("p").alias("p_permuted"))
    return overlap.join(permuted, on=PAIR, how="left", maintain_order="left")


def own_sets(expressions: Mapping[str, SetExpression]) -> dict[str, SetExpression]:
    """The sets that languages have on their own: shared sets and those of LeaveOneOut overlap by construction."""
    return {name: node for name, node in expressions.items() if not (_shared(node) or isinstance(node, LeaveOneOut))}


def _shared(node: SetExpression) -> bool:
    return isinstance(node, Shared) or shared_with_anchor(node) is not None
