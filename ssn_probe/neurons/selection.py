"""From importance to neuron sets, with polars: top-p, contrast rules, shared sets, random controls.

The input is one long frame of importances: `language, layer, site, index, harmful, harmless`, the mean effect of each
neuron over the harmful and the harmless *identify* prompts. Ties are broken by index; a score of zero or less is
never selected.
"""

import polars as pl

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import EVERY, KEYS, NEURON, NeuronSet, neuron_set

GROUPS = {"site": ["language", "layer", "site"], "layer": ["language", "layer"]}
ORDER = ["layer", "site", "index"]


def select_neurons(importance: pl.DataFrame, *, rule: str, top: float, pool: str) -> NeuronSet:
    """MS: the neurons that `rule` takes, `k = ceil(top · n)` at most per pool, with the score they were ranked by.

    `difference`: top of harmful − harmless ("refuses harmful rather than harmless"). `harmful`: top of harmful
    ("carries refusal of harmful"). `paper`: top of harmful less top of harmless (`MS_l = S_l(D_harmful) \\
    S_l(D_harmless)`), scored by the difference. Raises DataError when a language ends up without a neuron.
    """
    groups = GROUPS[pool]
    contrast = pl.col("harmful") - pl.col("harmless")
    score = {"difference": contrast, "harmful": pl.col("harmful"), "paper": contrast}[rule]
    if rule == "paper":
        chosen = _in_top("harmful", groups, top) & ~_in_top("harmless", groups, top)
    else:
        chosen = _in_top("score", groups, top)
    scored = importance.with_columns(score=score).sort([*groups, *[c for c in ORDER if c not in groups]])
    rows = scored.filter(chosen).select(*KEYS, "score").sort(KEYS)
    languages = tuple(importance["language"].unique(maintain_order=True))
    _check_not_empty(rows, scored, languages, rule, top)
    return NeuronSet(rows, languages)


def _in_top(column: str, groups: list[str], top: float) -> pl.Expr:
    """Is a positive value of `column` among the `ceil(top · n)` largest of its group? Ties go to the first row."""
    rank = pl.col(column).rank("ordinal", descending=True).over(groups)
    count = (pl.len().over(groups) * top - 1e-9).ceil()
    return (pl.col(column) > 0) & (rank <= count)


def _check_not_empty(
    rows: pl.DataFrame, scored: pl.DataFrame, languages: tuple[str, ...], rule: str, top: float
) -> None:
    for language in languages:
        if rows.filter(pl.col("language") == language).is_empty():
            best = scored.filter(pl.col("language") == language).top_k(3, by="score")["score"].to_list()
            raise DataError(
                f"no neuron of {language} passes rule={rule!r} at top={top:g} with a score above 0",
                f"The highest scores are {', '.join(f'{value:.3g}' for value in best)}. "
                "Raise top, or try rule='harmful' or another effect.",
            )


def shared_with_anchor(neurons: NeuronSet, anchor: str, mean_score: pl.DataFrame) -> NeuronSet:
    """SS: neurons of each language that are the anchor's, too (`SS_λ = MS_λ ∩ MS_anchor`); the anchor's is its MS.

    The members are ranked by the effect averaged over languages (`mean_score`: layer, site, index, score), which single
    out refusal better than one language's own column (`algorithms.md` 2b′).
    """
    if anchor not in neurons.languages:
        raise RecipeError(
            f"the anchor {anchor!r} is not a language of the set",
            f"Languages: {', '.join(neurons.languages)}. Give -T anchor=… .",
        )
    shared = neurons & neurons.of(anchor)
    rows = shared.frame.drop("score").join(mean_score, on=NEURON, how="left")
    if set(rows["language"]) <= {anchor} and len(neurons.languages) > 1:
        best = neurons.neurons(anchor).top_k(3, by="score")["score"].to_list()
        raise DataError(
            f"no language shares a safety neuron with the anchor {anchor}",
            f"The anchor's highest scores are {', '.join(f'{value:.3g}' for value in best)}. Raise top; at this one, "
            "the absence of shared neurons is the result.",
        )
    return NeuronSet(rows.select(*KEYS, "score").sort(KEYS), neurons.languages)


def shared_at_least(neurons: NeuronSet, count: int) -> NeuronSet:
    """Neurons that are MS in `count` languages or more, language-free, scored by their mean over those languages."""
    if count > len(neurons.languages):
        raise RecipeError(f"at_least={count}, but the set has {len(neurons.languages)} languages", "Give fewer.")
    rows = neurons.frame.group_by(NEURON, maintain_order=True).agg(pl.len().alias("languages"), pl.col("score").mean())
    most = int(rows["languages"].max() or 0)  # type: ignore[arg-type]
    rows = rows.filter(pl.col("languages") >= count).with_columns(language=pl.lit(EVERY))
    if rows.is_empty():
        raise DataError(
            f"no neuron is a safety neuron in {count} languages or more",
            f"The most languages that any neuron has is {most}. Lower at_least, or raise top.",
        )
    return NeuronSet(rows.select(*KEYS, "score").sort(KEYS), (EVERY,))


def averaged(importance: pl.DataFrame) -> pl.DataFrame:
    """The importance averaged over languages, as one language-free column per context."""
    mean = importance.group_by(NEURON, maintain_order=True).agg(pl.col("harmful", "harmless").mean())
    return mean.select(pl.lit(EVERY).alias("language"), *NEURON, "harmful", "harmless")


def random_like(neurons: NeuronSet, widths: dict[tuple[int, str], int], seed: int) -> NeuronSet:
    """A random control: as many neurons per (language, layer, site), disjoint from every language's.

    One random injection per (layer, site), the same for all languages, carries the set to neurons outside it. So a
    control overlaps across languages exactly as the set under test does; drawing each language by itself would make
    the controls' language average too narrow, and the test too liberal. `widths` gives the neurons of each (layer,
    site).
    """
    import numpy as np

    check_places(neurons, widths)
    sites = sorted(neurons.frame["site"].unique())
    moved = []
    for (layer, site), rows in neurons.frame.sort(KEYS).group_by(["layer", "site"], maintain_order=True):
        used = np.unique(rows["index"].to_numpy())
        free = np.setdiff1d(np.arange(widths[int(layer), str(site)]), used)
        if len(free) < len(used):
            raise RecipeError(
                f"no random control can be drawn in layer {layer}, {site}: {len(used)} neurons are in the set "
                f"and only {len(free)} are not",
                "Lower top (or fdr), or run with controls=0 and log_odds_controls=0.",
            )
        generator = np.random.default_rng([seed, int(layer), sites.index(str(site))])  # type: ignore[arg-type]
        drawn = generator.choice(free, size=len(used), replace=False)
        table = pl.DataFrame({"index": used, "drawn": drawn}, schema={"index": pl.Int32, "drawn": pl.Int32})
        moved.append(rows.join(table, on="index").with_columns(index="drawn", score=pl.lit(None, pl.Float64)))
    frame = pl.concat(moved).select(*KEYS, "score").sort(KEYS) if moved else neurons.frame
    return NeuronSet(frame, neurons.languages)


def whole_layers(neurons: NeuronSet, widths: dict[tuple[int, str], int]) -> NeuronSet:
    """Every neuron of the layers in which the set has one in any language, language-free and without scores."""
    check_places(neurons, widths)
    touched = set(neurons.frame["layer"])
    rows = [
        (EVERY, layer, site, index, None)
        for (layer, site), width in widths.items()
        if layer in touched
        for index in range(width)
    ]
    return neuron_set(rows)


def check_places(neurons: NeuronSet, widths: dict[tuple[int, str], int]) -> None:
    """Raises RecipeError for a neuron that the model does not have: a file may have been made for another model."""
    largest = neurons.frame.group_by("layer", "site").agg(pl.col("index").max())
    for layer, site, index in largest.iter_rows():
        if index >= widths.get((layer, site), 0):
            raise RecipeError(
                f"the set has the neuron (layer {layer}, {site}, {index}), which the model does not have",
                "Was it made for another model?",
            )


def check_trained(neurons: NeuronSet, widths: dict[tuple[int, str], int]) -> None:
    """Raises DataError for an empty set, RecipeError for neurons of another model: before anything is trained."""
    if not len(neurons):
        raise DataError("the set of neurons to train is empty", "Raise top, or take less away from it.")
    check_places(neurons, widths)


def overlap_table(neurons: NeuronSet, widths: dict[tuple[int, str], int], name: str) -> pl.DataFrame:
    """How many neurons each pair of languages shares, beside what independent draws per (layer, site) would give.

    `expected` is hypergeometric: it knows how many neurons each language has in each (layer, site), and not that some
    neurons are important whatever the prompt; true chance overlap can be ten times larger. `fold` is shared / expected.
    """
    width = pl.DataFrame(
        [(layer, site, size) for (layer, site), size in widths.items()],
        schema={"layer": pl.Int32, "site": pl.String, "width": pl.Int64},
        orient="row",
    )
    per_site = neurons.frame.group_by("language", "layer", "site", maintain_order=True)
    per_site = per_site.agg(pl.len().cast(pl.Float64).alias("n")).join(
        width, on=["layer", "site"], maintain_order="left"
    )
    pairs = per_site.join(per_site, on=["layer", "site"], suffix="_b", maintain_order="left_right")
    expected = pairs.group_by(pl.col("language").alias("language_a"), pl.col("language_b"), maintain_order=True).agg(
        (pl.col("n") * pl.col("n_b") / pl.col("width")).sum().alias("expected")
    )
    own = neurons.frame.select(pl.col("language").alias("language_a"), *NEURON)
    other = neurons.frame.select(pl.col("language").alias("language_b"), *NEURON)
    shared = own.join(other, on=NEURON).group_by("language_a", "language_b").agg(pl.len().alias("shared"))
    size = neurons.frame.group_by("language").agg(pl.len().alias("size"))
    return (
        _language_pairs(neurons.languages)
        .join(
            size.rename({"language": "language_a", "size": "size_a"}),
            on="language_a",
            how="left",
            maintain_order="left",
        )
        .join(
            size.rename({"language": "language_b", "size": "size_b"}),
            on="language_b",
            how="left",
            maintain_order="left",
        )
        .join(shared, on=["language_a", "language_b"], how="left", maintain_order="left")
        .join(expected, on=["language_a", "language_b"], how="left", maintain_order="left")
        .with_columns(pl.col("size_a", "size_b", "shared", "expected").fill_null(0))
        .with_columns(either=pl.col("size_a") + pl.col("size_b") - pl.col("shared"))
        .with_columns(jaccard=pl.when(pl.col("either") > 0).then(pl.col("shared") / pl.col("either")))
        .with_columns(fold=pl.when(pl.col("expected") > 0).then(pl.col("shared") / pl.col("expected")))
        .select(pl.lit(name).alias("set"), pl.exclude("either"))
    )


def _language_pairs(languages: tuple[str, ...]) -> pl.DataFrame:
    pairs = [(a, b) for i, a in enumerate(languages) for b in languages[i + 1 :]]
    return pl.DataFrame(pairs, schema={"language_a": pl.String, "language_b": pl.String}, orient="row")
