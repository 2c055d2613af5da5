"""What two delta files have in common: the neurons, and the direction in which they moved."""

from typing import Any

import polars as pl
import torch

from ssn_probe.errors import ModelError
from ssn_probe.spec import SITES
from ssn_probe.training.delta_file.file import DeltaFile
from ssn_probe.training.weights.delta import Delta, Part
from ssn_probe.training.weights.neuron_weights import Place

NEURON = {"layer": pl.Int64, "site": pl.String, "index": pl.Int64}
SCHEMA = {
    "module": pl.String,
    "layer": pl.Int64,
    "site": pl.String,
    "only_first": pl.Int64,
    "only_second": pl.Int64,
    "shared": pl.Int64,
    "norm_first": pl.Float64,
    "norm_second": pl.Float64,
    "cosine": pl.Float64,
    "largest_difference": pl.Float64,
}


def diff(first: DeltaFile, second: DeltaFile) -> pl.DataFrame:
    """One row per matrix that either changes.

    `only_first`, `only_second`, `shared`: how many rows (or columns) only one or both of them change. `norm_first`,
    `norm_second`: norms of the whole change. `cosine`: between the changes of the shared rows, null without shared
    rows or if a change is zero. `largest_difference`: between two weights; a row that only one changes is unchanged by
    the other.

    Raises:
        ModelError: deltas of different bases.
    """
    _check_same_base(first, second)
    ours, theirs = ({part.name: part for part in file.rows.parts} for file in (first, second))
    places = [part.place for part in (theirs | ours).values()]
    places.sort(key=lambda place: (place.layer, SITES.index(place.site), place.name))
    rows = [_row(place, ours.get(place.name), theirs.get(place.name)) for place in places]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def neuron_diff(first: DeltaFile, second: DeltaFile) -> pl.DataFrame:
    """Which neurons: one row per layer and site, with `shared` (how many), `only_first` and `only_second` (lists).

    Raises:
        ModelError: deltas of different bases.
    """
    _check_same_base(first, second)
    mine, theirs = (_neurons(file.rows, name) for file, name in ((first, "first"), (second, "second")))
    rows = mine.join(theirs, on=list(NEURON), how="full", coalesce=True)
    counted = rows.group_by("layer", "site").agg(
        shared=(pl.col("first") & pl.col("second")).sum().cast(pl.Int64),
        only_first=pl.col("index").filter(pl.col("second").is_null()).sort(),
        only_second=pl.col("index").filter(pl.col("first").is_null()).sort(),
    )
    return counted.sort("layer", pl.col("site").cast(pl.Enum(SITES)))


def _neurons(delta: Delta, name: str) -> pl.DataFrame:
    return pl.DataFrame(delta.neurons, schema=NEURON, orient="row").with_columns(pl.lit(True).alias(name))


def _check_same_base(first: DeltaFile, second: DeltaFile) -> None:
    if first.base_digest != second.base_digest:
        raise ModelError(
            "The deltas belong to different bases: "
            f"{first.about['base'].get('name')!r} ({first.base_digest[:12]}…) and "
            f"{second.about['base'].get('name')!r} ({second.base_digest[:12]}…).",
            "Compare deltas that were trained on one base.",
        )


def _row(place: Place, first: Part | None, second: Part | None) -> tuple[Any, ...]:
    a, b = (_changes(part) for part in (first, second))
    shared = sorted(a.keys() & b.keys())
    zero = torch.zeros(())
    largest = max(float((a.get(i, zero) - b.get(i, zero)).abs().max()) for i in a.keys() | b.keys())
    return (
        place.name,
        place.layer,
        place.site,
        len(a.keys() - b.keys()),
        len(b.keys() - a.keys()),
        len(shared),
        _norm(first),
        _norm(second),
        _cosine(torch.stack([a[i] for i in shared]), torch.stack([b[i] for i in shared])) if shared else None,
        largest,
    )


def _changes(part: Part | None) -> dict[int, torch.Tensor]:
    return {} if part is None else dict(zip(part.place.indices, part.change, strict=True))


def _norm(part: Part | None) -> float:
    return 0.0 if part is None else float(part.change.double().norm())


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float | None:
    a, b = a.double().flatten(), b.double().flatten()
    sizes = float(a.norm() * b.norm())
    return float(a @ b) / sizes if sizes else None
