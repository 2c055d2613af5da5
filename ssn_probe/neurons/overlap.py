"""How many neurons the languages of a set share."""

from dataclasses import dataclass
from itertools import combinations

import polars as pl

from ssn_probe.neurons.model_neurons import Widths, width_table
from ssn_probe.neurons.neuron_set import NEURON, NeuronSet
from ssn_probe.spec.display import Displayed

PAIR = ["language_a", "language_b"]
PLACE = ["layer", "site"]


def overlap_table(neurons: NeuronSet, widths: Widths, name: str) -> pl.DataFrame:
    """How many neurons each pair of languages shares, compared with independent draws per (layer, site).

    `expected` is hypergeometric: it knows how many neurons each language has in each (layer, site), and not that some
    neurons are important for every prompt; true chance overlap can be ten times larger. `fold` is shared / expected.
    """
    shared = _paired(neurons.frame.select("language", *NEURON), NEURON).group_by(PAIR).agg(shared=pl.len())
    counts = neurons.frame.group_by("language", *PLACE, maintain_order=True).agg(n=pl.len().cast(pl.Float64))
    counts = counts.join(width_table(widths), on=PLACE, maintain_order="left")
    expected = (
        _paired(counts, PLACE)
        .group_by(PAIR, maintain_order=True)
        .agg(expected=(pl.col("n_a") * pl.col("n_b") / pl.col("width_a")).sum())
    )
    pairs = list(combinations(neurons.languages, 2))
    table = pl.DataFrame(pairs, schema=dict.fromkeys(PAIR, pl.String), orient="row")
    sizes = neurons.frame.group_by("language").agg(size=pl.len())
    for other in (sizes.select(pl.all().name.suffix("_a")), sizes.select(pl.all().name.suffix("_b")), shared, expected):
        keys = [column for column in PAIR if column in other.columns]
        table = table.join(other, on=keys, how="left", maintain_order="left")
    either = pl.col("size_a") + pl.col("size_b") - pl.col("shared")
    return (
        table.with_columns(pl.col("size_a", "size_b", "shared", "expected").fill_null(0))
        .with_columns(jaccard=pl.when(either > 0).then(pl.col("shared") / either))
        .with_columns(fold=pl.when(pl.col("expected") > 0).then(pl.col("shared") / pl.col("expected")))
        .select(pl.lit(name).alias("set"), pl.all())
    )


def _paired(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """Every two rows that agree in the keys; columns of the first end in `_a`, of the second in `_b`."""
    first, second = (rows.select(*keys, pl.exclude(keys).name.suffix(side)) for side in ("_a", "_b"))
    return first.join(second, on=keys, maintain_order="left_right")


@dataclass(frozen=True, eq=False)
class Overlap(Displayed):
    """How many neurons the languages of one set share; displays a language × language table.

    `frame` has a row per pair, as the run's table `overlap`; `expected_permuted` is there where labels were exchanged.
    """

    frame: pl.DataFrame
    name: str

    @property
    def languages(self) -> tuple[str, ...]:
        """In the order of the prompts."""
        return tuple(dict.fromkeys((*self.frame["language_a"], *self.frame["language_b"])))
