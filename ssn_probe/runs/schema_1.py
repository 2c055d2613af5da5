"""Run folders of schema version 1, in which an arm's name held what is now in columns: read as if written today.

`ms.of(qab)` was the arm `ms` that applies the neurons of qab everywhere, `ss.at(8)` the arm `ss` after 8 steps,
`ss.without(qab)` its training without qab.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

STEP = r"\.at\((\d+)\)"
WITHOUT = r"\.without\(([^)]*)\)"
ROLES = {"less strongest": "without top neuron"}
AFTER = {"summary": "set_language", "samples": "seed", "log_odds": "seed"}
"""Table → the column that the column `step` follows."""


def upgraded_table(name: str, table: "pl.DataFrame") -> "pl.DataFrame":
    """A table of schema version 1 with today's columns."""
    import polars as pl

    arm = pl.col("arm").str.extract(r"^([^.(]*(?:\.\d[^.(]*)*)")
    if name == "training":
        without = pl.col("arm").str.extract(WITHOUT).alias("without")
        return table.with_columns(arm, without).select("arm", "without", pl.exclude("arm", "without"))
    if name not in AFTER:
        return table
    step = pl.col("arm").str.extract(STEP).cast(pl.Int64).alias("step")
    table = table.with_columns(arm, step, pl.col("role").replace(ROLES))
    before = table.columns.index(AFTER[name]) + 1
    return table.select(*table.columns[:before], "step", *(one for one in table.columns[before:] if one != "step"))


def upgraded_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of schema version 1 with today's fields."""
    trained = []
    for name, stated in (manifest.get("expanded") or {}).items():
        without = name.partition(".without(")[2].removesuffix(")") or None
        rest = {field: value for field, value in stated.items() if field not in ("arm", "row")}
        trained.append({"arm": stated["row"], "without": without} | rest)
    kept = {field: value for field, value in manifest.items() if field != "expanded"}
    return kept | ({"trained": trained} if "sets" in manifest else {})
