"""How robust a set is before any arm is run: its null, its stability, and what languages share beyond chance.

Everything is computed from the per-prompt scores that chose the set, without a forward pass. A set without a null, or
prompts that allow none, are noted in the report.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.runs.cache import Frames
from ssn_probe.spec import LeaveOneOut, RandomLike, Recipe, SetExpression, Shared
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.spec.node import walk
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.stats.nulls.labelling_sweep import combines_languages
from ssn_probe.stats.nulls.mask_algebra import chooser, no_null
from ssn_probe.stats.nulls.parallel_units import all_parallel, exchangeable
from ssn_probe.stats.nulls.permutation_null import permutation_null
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.stats.nulls.stability import Stability, stability
from ssn_probe.study.contrast_effects import apart, prompt_effects
from ssn_probe.study.exchange_checks import exchangeability_of
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.set_evaluation import choosers
from ssn_probe.study.workbench import Workbench

PAIR = ["set", "language_a", "language_b"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Robustness:
    """The robustness of a recipe's sets; a table is None where it was not asked for or not possible.

    `nulls`: see `permutation_null`. `jaccard`, `frequencies` and `curve`: see `Stability`. `exchangeability`: how
    labels exchange, and whether that makes a null, for the sets of each contrast. `apart`: what else than their label
    distinguishes harmful from harmless prompts.
    """

    nulls: pl.DataFrame | None = None
    jaccard: pl.DataFrame | None = None
    frequencies: pl.DataFrame | None = None
    curve: pl.DataFrame | None = None
    exchangeability: tuple[Exchangeability, ...] = ()
    apart: tuple[str, ...] = ()


NOTHING = Robustness()


def robustness_of(bench: Workbench, recipe: Recipe, expressions: Mapping[str, SetExpression]) -> Robustness:
    """Nulls and stability of the sets that a recipe names, where it asks for them. What is impossible is noted."""
    if not recipe.permutations and not recipe.half_samples:
        return NOTHING
    nulls: list[pl.DataFrame] = []
    stable: list[Stability] = []
    exchanged: list[Exchangeability] = []
    differs: dict[str, None] = {}
    for every, sets in _by_effects(bench, expressions):
        differs |= dict.fromkeys(apart(every.prompts))
        found = exchangeability_of(bench, every, recipe.seed)
        try:
            nulls += _nulls(bench, recipe, exchangeable(every), sets) if found.reason is None else ()
        except DataError as error:  # a draw that is so rare that the trial of the exchange has not met its like
            found = replace(found, impossible=error.message)
        exchanged.append(replace(found, sets=tuple(sets)))
        for note in _notes(found, every):
            bench.warn(note)
        for effects, halved in _halved(every, sets, bench.anchor) if recipe.half_samples else ():
            has_null = found.reason is None
            halves = _noted(bench, lambda e=effects, s=halved, n=has_null: _stability(bench, recipe, e, s, n))
            stable += [] if halves is None else [halves]
    return Robustness(
        exchangeability=tuple(exchanged),
        apart=tuple(differs),
        nulls=_joined(nulls),
        jaccard=_joined([found.jaccard for found in stable]),
        frequencies=_joined([found.frequencies for found in stable]),
        curve=_joined([found.curve for found in stable]),
    )


def _notes(found: Exchangeability, effects: PromptEffects) -> Iterator[str]:
    """What a reader must know of the exchange before its p-values."""
    if found.reason is not None:
        yield f"no valid null exists: {found.reason}"
        return
    if found.not_parallel is not None:
        yield (
            f"labels are exchanged language by language, and nothing that combines languages is tested: "
            f"{found.not_parallel}"
        )
    left = found.prompts - found.taking_part
    if found.not_parallel is None and not all_parallel(effects):
        yield (
            f"what languages share is tested on {found.taking_part} of {found.prompts} identify prompts: others may be "
            "translations of each other under different ids"
        )
    elif left and found.pairs and not found.strata:
        yield (
            f"labels are swapped within minimal pairs: {left} of {found.prompts} identify prompts have none, and take "
            "no part"
        )
    elif left:
        yield (
            f"the null leaves out {left} of {found.prompts} identify prompts: in their strata of topic, length and "
            "source, all prompts are harmful or none is"
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


def _halved(
    every: PromptEffects, sets: Mapping[str, SetExpression], anchor: str | None
) -> Iterator[tuple[PromptEffects, dict[str, SetExpression]]]:
    """The sets with the effects to halve: halves of what combines languages hold all translations of a prompt."""
    known = exchangeable(every)
    apart = known is not every
    combined = {name: node for name, node in sets.items() if apart and combines_languages(every, node, anchor)}
    own = {name: node for name, node in sets.items() if name not in combined}
    if own:
        yield (known if known.per_language else every), own
    if combined and not known.per_language:
        yield known, combined


def _nulls(
    bench: Workbench, recipe: Recipe, effects: PromptEffects, sets: Mapping[str, SetExpression]
) -> Iterator[pl.DataFrame]:
    """The null of the sets that can be tested: of all, or where ids are not parallel of what combines no languages.

    Raises DataError for a draw that leaves a language without a harmful or without a harmless prompt.
    """
    tested = {
        name: node
        for name, node in sets.items()
        if not (effects.per_language and combines_languages(effects, node, bench.anchor))
    }
    if not tested or not recipe.permutations:
        return
    inputs = _inputs(bench, "null", effects, tested, recipe.seed, recipe.permutations)

    def compute() -> Frames:
        options = {"anchor": bench.anchor, "draws": recipe.permutations, "seed": recipe.seed}
        return {"null": permutation_null(effects, tested, **options)}

    yield bench.frames(inputs, ["null"], compute)["null"]


def _stability(
    bench: Workbench, recipe: Recipe, effects: PromptEffects, sets: dict[str, SetExpression], has_null: bool
) -> Stability:
    inputs = _inputs(bench, "stability", effects, sets, recipe.seed, recipe.half_samples) | {"null": has_null}

    def compute() -> Frames:
        options = {"anchor": bench.anchor, "pairs": recipe.half_samples, "seed": recipe.seed}
        return vars(stability(effects, sets, **options, permutations=99 if has_null else 0))

    return Stability(**bench.frames(inputs, [field.name for field in fields(Stability)], compute))


def _inputs(
    bench: Workbench, method: str, effects: PromptEffects, sets: Mapping[str, SetExpression], seed: int, draws: int
) -> dict[str, Any]:
    resolved = {name: resolved_key(node, bench.subject.identity, bench.data) for name, node in sets.items()}
    return bench.inputs(method, evidence=effects.key, sets=resolved, anchor=bench.anchor, seed=seed, draws=draws)


def _noted(bench: Workbench, compute: Callable[[], Stability]) -> Stability | None:
    """What `compute` gives; None and a note where the prompts are too few."""
    try:
        return compute()
    except DataError as error:
        bench.warn(f"no half-samples: {error.message}")
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
    """The sets that languages have on their own.

    Shared sets and those of LeaveOneOut overlap by construction, and a random set's languages as those of its model do.
    """
    return {name: node for name, node in expressions.items() if not (_shared(node) or _made_alike(node))}


def _made_alike(node: SetExpression) -> bool:
    return isinstance(node, LeaveOneOut) or any(isinstance(inner, RandomLike) for inner in walk(node))


def _shared(node: SetExpression) -> bool:
    return isinstance(node, Shared) or shared_with_anchor(node) is not None
