"""How many neurons the languages of a set share."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from ssn_probe.neurons.model_neurons import Widths, width_table
from ssn_probe.neurons.neuron_codes import PLACE, on_a_line
from ssn_probe.neurons.neuron_set import NeuronSet
from ssn_probe.spec.display import Displayed

PAIR = ["language_a", "language_b"]

BLOCK_WORDS = 1024
"""Words of 64 neurons that all languages are compared in at a time: those of a hundred languages stay in cache."""


def overlap_table(neurons: NeuronSet, widths: Widths, name: str) -> pl.DataFrame:
    """How many neurons each pair of languages shares, compared with independent draws per (layer, site).

    `expected` is hypergeometric: it knows how many neurons each language has in each (layer, site), and not that some
    neurons are important for every prompt; true chance overlap can be ten times larger. `fold` is shared / expected.

    Every language is one bit per neuron, so that memory is languages × neurons / 8 bytes, and time goes with the pairs
    of languages, however much they share: a join would have a row per neuron and pair that shares it.
    """
    members = _members(neurons, widths)
    first, second = np.triu_indices(len(neurons.languages), k=1)
    sizes = members.counts.sum(axis=1)
    names = pl.Series(list(neurons.languages), dtype=pl.String)
    table = pl.DataFrame(
        {
            "language_a": names.gather(first),
            "language_b": names.gather(second),
            "size_a": sizes[first],
            "size_b": sizes[second],
            "shared": _shared(members.bits)[first, second],
            "expected": _expected(members)[first, second],
        },
        schema_overrides=dict.fromkeys(("size_a", "size_b", "shared"), pl.UInt32),
    )
    either = pl.col("size_a") + pl.col("size_b") - pl.col("shared")
    return (
        table.with_columns(jaccard=pl.when(either > 0).then(pl.col("shared") / either))
        .with_columns(fold=pl.when(pl.col("expected") > 0).then(pl.col("shared") / pl.col("expected")))
        .select(pl.lit(name).alias("set"), pl.all())
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Members:
    """Which language has which neuron, and where.

    `bits` uint64 [language, word]: a bit per neuron. `counts` int64 [language, place]: neurons of a language at a
    place, in the order of layer and site. `widths` float64 [place]: NaN where the width is not known.
    """

    bits: np.ndarray
    counts: np.ndarray
    widths: np.ndarray


def _members(neurons: NeuronSet, widths: Widths) -> _Members:
    frame = neurons.frame.filter(pl.col("language").is_in(list(neurons.languages)))
    language = frame["language"].cast(pl.Enum(list(neurons.languages))).to_physical().to_numpy()
    line = on_a_line(frame)
    known = line.places.join(width_table(widths), on=PLACE, how="left", maintain_order="left")["width"]
    shape = len(neurons.languages), line.places.height
    counts = np.bincount(language.astype(np.int64) * shape[1] + line.place, minlength=shape[0] * shape[1])
    return _Members(
        bits=_packed(language, line.position, shape[0], int(line.starts[-1])),
        counts=counts.reshape(shape),
        widths=known.cast(pl.Float64).fill_null(np.nan).to_numpy(),
    )


def _packed(language: np.ndarray, position: np.ndarray, languages: int, span: int) -> np.ndarray:
    """Rows of bits, uint64 [language, word], from the language and the position, below `span`, of every member."""
    if (language[1:] < language[:-1]).any():
        order = np.argsort(language, kind="stable")
        language, position = language[order], position[order]
    ends = np.searchsorted(language, np.arange(languages + 1))
    words = -(-span // 64)
    found = np.zeros((languages, words), dtype=np.uint64)
    for number in range(languages):
        has = np.zeros(words * 64, dtype=bool)
        has[position[ends[number] : ends[number + 1]]] = True
        found[number] = np.packbits(has).view(np.uint64)
    return found


def _shared(bits: np.ndarray) -> np.ndarray:
    """How many bits two rows have in common, int64 [row, row]; filled above the diagonal."""
    found = np.zeros((len(bits), len(bits)), dtype=np.int64)
    for start in range(0, bits.shape[1], BLOCK_WORDS):
        block = np.ascontiguousarray(bits[:, start : start + BLOCK_WORDS])
        common, counts = np.empty_like(block), np.empty(block.shape, dtype=np.uint8)
        for row in range(len(block) - 1):
            others = slice(row + 1, None)
            np.bitwise_and(block[row], block[others], out=common[others])
            np.bitwise_count(common[others], out=counts[others])
            found[row, others] += counts[others].sum(axis=1, dtype=np.int64)
    return found


def _expected(members: _Members) -> np.ndarray:
    """Σ over places of n_a · n_b / width, float64 [language, language].

    Summed place by place with Kahan's correction, so that a figure does not depend on which other languages there are.
    """
    found = np.zeros((len(members.counts), len(members.counts)))
    lost = np.zeros_like(found)
    for counts, width in zip(members.counts.T.astype(np.float64), members.widths, strict=True):
        if np.isnan(width):
            continue
        term = counts[:, None] * counts / width - lost
        total = found + term
        lost = (total - found) - term
        found = total
    return found


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
