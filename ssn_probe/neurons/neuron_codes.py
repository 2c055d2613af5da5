"""Neurons as whole numbers, so that sets of ten million rows are sorted and compared without their names."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

PLACE = ["layer", "site"]

SMALL = 2**20
"""Whole numbers below it stand for themselves; larger ones, as a file for a different model may hold, are ranked."""


def codes(frames: Sequence[pl.DataFrame], keys: Sequence[str]) -> list[np.ndarray]:
    """A number for every row, int64 [row] for each frame: equal for equal keys, and in the order of the keys.

    The frames are numbered alike. Strings are ordered by their code points, as polars sorts them. No key may be null.
    """
    found = [np.zeros(frame.height, dtype=np.int64) for frame in frames]
    for key in keys:
        ranks, count = _ranks([frame[key] for frame in frames])
        for numbers, rank in zip(found, ranks, strict=True):
            numbers *= count
            numbers += rank
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Line:
    """The neurons of some rows on one line, place after place, each as long as its largest index.

    `places`: `layer, site`, sorted. `starts` int64 [place + 1]: where each begins, and the end. `place` int64 [row]:
    its row in `places`; `position` int64 [row]: where the neuron is on the line.
    """

    places: pl.DataFrame
    starts: np.ndarray
    place: np.ndarray
    position: np.ndarray


def on_a_line(frame: pl.DataFrame) -> Line:
    """Where the neuron of every row is; the rows have `layer, site, index`."""
    places = frame.group_by(PLACE).agg(length=pl.col("index").max().cast(pl.Int64) + 1).sort(PLACE)
    rows, known = codes([frame, places], PLACE)
    number = np.zeros(known.max(initial=0) + 1, dtype=np.int64)
    number[known] = np.arange(places.height)
    place, starts = number[rows], np.append(0, places["length"].to_numpy().cumsum())
    return Line(
        places=places.select(PLACE),
        starts=starts,
        place=place,
        position=starts[place] + frame["index"].to_numpy(),
    )


def contained(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which numbers are among others, bool [some]. In memory for one position each, whatever the numbers are."""
    if not len(others):
        return np.zeros(len(some), dtype=bool)
    others = others if ascending(others) else np.sort(others)
    where = np.searchsorted(others, some)
    np.minimum(where, len(others) - 1, out=where)
    return others[where] == some


def ascending(numbers: np.ndarray) -> bool:
    """Is every number larger than the one before?"""
    return bool((numbers[1:] > numbers[:-1]).all())


def _ranks(columns: Sequence[pl.Series]) -> tuple[list[np.ndarray], int]:
    """The rank of every value among those of all columns, and an upper bound of the ranks."""
    if columns[0].dtype == pl.String:
        names = pl.concat([column.unique() for column in columns]).unique().sort()
        return [column.cast(pl.Enum(names)).to_physical().to_numpy() for column in columns], max(1, len(names))
    values = [column.to_numpy() for column in columns]
    least, most = (min(int(some.min(initial=0)) for some in values), max(int(some.max(initial=0)) for some in values))
    if least >= 0 and most < SMALL:
        return values, most + 1
    distinct = np.unique(np.concatenate([np.unique(some) for some in values]))
    return [np.searchsorted(distinct, some) for some in values], len(distinct)
