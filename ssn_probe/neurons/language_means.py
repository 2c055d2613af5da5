"""The neurons of several languages as one list, and means over the languages that have a neuron."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from ssn_probe.neurons.neuron_codes import SMALL, ascending, codes


@dataclass(frozen=True, kw_only=True, eq=False)
class Merged:
    """The different neurons of some rows, in the order in which they first occur.

    `rows` int64 [neuron]: where each occurs first. `number` int64 [row]: which neuron it is. `ends` int64 [part]: where
    parts end, in each of which a neuron occurs once: the rows of one language. `order` int64 [row]: the rows, part by
    part; None where they come so.
    """

    rows: np.ndarray
    number: np.ndarray
    ends: np.ndarray
    order: np.ndarray | None

    @cached_property
    def count(self) -> np.ndarray:
        """In how many languages a neuron occurs, int64 [neuron]."""
        return np.bincount(self.number, minlength=len(self.rows))

    def mean(self, values: pl.Series) -> pl.Series:
        """The mean over the languages in which a neuron has a value, of one per row; null where it has none.

        Summed language by language with Kahan's correction, which is what polars does in its groups: to the bit. These
        would take several times the memory.
        """
        value, number, ends, counted = values.to_numpy(), self.number, self.ends, self.count
        if self.order is not None:
            value, number = value[self.order], number[self.order]
        if values.null_count():
            known = (values if self.order is None else values[self.order]).is_not_null().to_numpy()
            value, number, ends = value[known], number[known], np.append(0, known.cumsum())[ends]
            counted = np.bincount(number, minlength=len(self.rows))
        total = _sums(value, number, ends, len(self.rows))
        mean = np.divide(total, counted, out=total, where=counted > 0)
        return pl.select(pl.when(pl.Series(counted > 0)).then(pl.Series(mean))).to_series()


def _sums(value: np.ndarray, number: np.ndarray, ends: np.ndarray, count: int) -> np.ndarray:
    """The sum of the values of each number, float64 [count], part by part."""
    total, lost = np.zeros(count), np.zeros(count)
    for start, end in zip(np.append(0, ends)[:-1].tolist(), ends.tolist(), strict=True):
        here = number[start:end]
        if len(here) == count and ascending(here):
            here = slice(None)
        with np.errstate(invalid="ignore"):  # an infinite sum has no correction
            term = value[start:end] - lost[here]
            before = total[here]
            after = before + term
            rest = (after - before) - term
        total[here], lost[here] = after, np.where(np.isfinite(rest), rest, 0.0)
    return total


def merged(frame: pl.DataFrame) -> Merged:
    """The neurons of rows with `language, layer, site, index`, in which no neuron occurs twice in a language."""
    (numbers,) = codes([frame], ["layer", "site", "index"])
    if int(numbers.max(initial=0)) > SMALL + 4 * frame.height:  # a list of all numbers would be mostly empty
        numbers = np.unique(numbers, return_inverse=True)[1]
    first = np.full(int(numbers.max(initial=-1)) + 1, frame.height)
    first[numbers[::-1]] = np.arange(frame.height)[::-1]  # of several values the last one stays
    rows = np.sort(first[first < frame.height])
    first[numbers[rows]] = np.arange(len(rows))
    (language,) = codes([frame], ["language"])
    ends, order = _ends(language), None
    if len(ends) > len(np.unique(language[ends - 1])):
        order = np.argsort(language, kind="stable")
        ends = _ends(language[order])
    return Merged(rows=rows, number=first[numbers], ends=ends, order=order)


def _ends(language: np.ndarray) -> np.ndarray:
    """Where the runs of one language end, int64 [run]."""
    if not len(language):
        return np.zeros(0, dtype=np.int64)
    return np.append(np.flatnonzero(language[1:] != language[:-1]) + 1, len(language))
