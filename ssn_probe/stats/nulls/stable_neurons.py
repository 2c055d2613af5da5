"""The neurons that half-samples agree on, and how many of them may be there by chance."""

import polars as pl

from ssn_probe.errors import RecipeError
from ssn_probe.neurons import EVERY, KEYS, SCHEMA, NeuronSet
from ssn_probe.neurons.model_neurons import width_table
from ssn_probe.stats.nulls.prompt_effects import PromptEffects, widths

BOUND = {
    "language": pl.String,
    "neurons": pl.Int64,
    "per_half": pl.Float64,
    "candidates": pl.Int64,
    "bound": pl.Float64,
    "bound_by_place": pl.Float64,
}


def stable_set(frequencies: pl.DataFrame, effects: PromptEffects, share: float = 0.9) -> tuple[NeuronSet, pl.DataFrame]:
    """The neurons of a set that a `share` of the half-samples take, and the bound on how many of them are false.

    `frequencies`: those of a single set from `stability`; the score of a neuron is its frequency. The second value has
    a row per language: `neurons` kept, `per_half` (q, the mean number that a half takes), `candidates` (n), and
    `bound` = q² / ((2·share − 1)·n) ≥ E[false] (Meinshausen & Bühlmann 2010, theorem 1; Shah & Samworth 2013 for
    complementary pairs). It is valid when the rule is no worse than chance and noise neurons are exchangeable;
    `bound_by_place`, Σ q² / ((2·share − 1)·n) over the (layer, site), needs this only within each, and is never
    smaller. **Noise neurons are not exchangeable where their noise differs in size**: those with the largest noise are
    taken repeatedly. In a simulation without any difference (2,560 neurons, top .5 %, share .9) log-normal sizes of
    σ = 1 left .4 neurons where the bound says .08, and equal sizes none. Compare `stable_permuted` of `Stability`,
    which makes no such assumption. Raises RecipeError for a share outside (0.5, 1], where there is no bound, or for
    several sets.
    """
    check_share(share)
    if frequencies["set"].n_unique() > 1:
        names = ", ".join(sorted(frequencies["set"].unique()))
        raise RecipeError(f"the frequencies are those of several sets: {names}", "Select the rows of a single set.")
    # 90 of 100 halves must count as .9 despite the rounding of a sum.
    kept = frequencies.filter(pl.col("frequency") >= share - 1e-9)
    rows = kept.select(*KEYS, score="frequency").cast(dict(SCHEMA)).sort(KEYS)  # type: ignore[arg-type]
    free = (frequencies["language"] == EVERY).any()
    languages = (EVERY,) if free else effects.languages
    return NeuronSet(rows, languages), _bounds(frequencies, rows, effects, languages, share)


def check_share(share: float) -> None:
    """Raises RecipeError for a share of half-samples that bounds nothing."""
    if not 0.5 < share <= 1:
        raise RecipeError(f"share is {share!r}", "Give a share of half-samples in (0.5, 1], for example 0.9.")


def _bounds(
    frequencies: pl.DataFrame, kept: pl.DataFrame, effects: PromptEffects, languages: tuple[str, ...], share: float
) -> pl.DataFrame:
    sizes = widths(effects)
    per_place = frequencies.group_by("language", "layer", "site", maintain_order=True).agg(q=pl.col("frequency").sum())
    squares = (
        per_place.join(width_table(sizes), on=["layer", "site"])
        .group_by("language", maintain_order=True)
        .agg(per_half=pl.col("q").sum(), bound_by_place=(pl.col("q") ** 2 / pl.col("width")).sum() / (2 * share - 1))
    )
    counted = kept.group_by("language").agg(neurons=pl.len())
    candidates = sum(sizes.values())
    return (
        pl.DataFrame({"language": languages})
        .join(counted, on="language", how="left", maintain_order="left")
        .join(squares, on="language", how="left", maintain_order="left")
        .with_columns(pl.col("neurons", "per_half", "bound_by_place").fill_null(0), candidates=pl.lit(candidates))
        .with_columns(bound=pl.col("per_half") ** 2 / ((2 * share - 1) * candidates))
        .select(pl.col(name).cast(kind) for name, kind in BOUND.items())
    )
