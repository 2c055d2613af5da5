"""A run folder made by hand, with whatever a recipe, a prompt set or a model may have put into it."""

from pathlib import Path
from typing import Any

import polars as pl
from arm_samples import ran

from ssn_probe.files import write_json, write_table
from ssn_probe.runs.folder import RunFolder

HOSTILE = "<script>alert(1)</script> [bold red]x[/] \x1b[31mred\x1b[0m $a_b^c$ & % # {} ~ \\input{x} | `c` \u202e\nnext"
"""Everything that a terminal, a browser, markdown or LaTeX would take for more than text."""

ARMS = {"ss": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrccccc"}}


def stored_run(folder: Path, *, arms: dict[str, dict[str, str]] = ARMS, **changes: Any) -> RunFolder:
    """A finished run of the languages aa (the anchor), bb and cc; `changes` go into its manifest."""
    _, summary = ran(arms, "ss")
    manifest = {
        "schema_version": 2,
        "status": "done",
        "recipe": "suppress_ss",
        "key": "0123456789abcdef" * 4,
        "model": {"name": "organism"},
        "anchor": "aa",
        "evaluated": ["aa", "bb", "cc"],
        "answer": ["The answer."],
        "warnings": [],
    }
    write_json(folder / "manifest.json", manifest | changes)
    write_table(folder / "summary.parquet", summary)
    return RunFolder(folder)


def renamed(run: RunFolder, old: str, new: str) -> RunFolder:
    """The same run with another name for an arm or a language."""
    names = [pl.col(name).replace(old, new) for name in ("language", "set_language", "arm")]
    write_table(run.path / "summary.parquet", run.table("summary").with_columns(names))
    manifest = run.manifest()
    manifest["evaluated"] = [new if language == old else language for language in manifest["evaluated"]]
    write_json(run.path / "manifest.json", manifest)
    return run
