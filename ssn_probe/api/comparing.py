"""Two runs beside each other: differences on the prompts that both answered."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssn_probe.api.result import Printed
from ssn_probe.errors import ResultError
from ssn_probe.files import write_json, write_text
from ssn_probe.runs import integrity
from ssn_probe.runs.folder import RunFolder, find_run

if TYPE_CHECKING:
    import polars as pl

    from ssn_probe.study.run_comparison import RunComparison

FORMATS = (".csv", ".json", ".html")


@dataclass(frozen=True, eq=False)
class Comparison(Printed):
    """How two runs differ on the same prompts. Shows the differences per language, and what else the runs differ in."""

    found: "RunComparison"

    @property
    def table(self) -> "pl.DataFrame":
        """One row per measure × what is compared × language: both values, the difference, its interval, p."""
        return self.found.table

    @property
    def answer(self) -> str:
        """The differences on the average in words, one per line."""
        from ssn_probe.report.compared_runs import headlines

        return "\n".join(headlines(self.found))

    def export(self, path: str | os.PathLike[str]) -> Path:
        """Writes the table as .csv or .json, or the whole comparison as a page, .html; returns its path."""
        path = Path(path)
        if path.suffix not in FORMATS:
            raise ResultError(f"cannot export to {path.name!r}", f"Give a name that ends in {', '.join(FORMATS)}.")
        if path.suffix == ".html":
            from ssn_probe.report.page.comparison_page import comparison_page

            write_text(path, comparison_page(self.found))
        elif path.suffix == ".json":
            write_json(path, self.table.to_dicts())
        else:
            from ssn_probe.report.export import csv

            write_text(path, csv(self.table))
        return path

    def __rich__(self) -> Any:
        from ssn_probe.report.terminal.run_comparison_card import run_comparison_card

        return run_comparison_card(self.found)


def compare(
    first: str | os.PathLike[str] | Any,
    second: str | os.PathLike[str] | Any,
    *,
    arms: Sequence[str] = (),
    out: str | os.PathLike[str] = "results",
) -> Comparison:
    """What is higher in the second run than in the first, prompt by prompt, per language, with intervals.

    `first`, `second`: results of `run` or `open_run`, or runs by path, name, part of a name or `latest`. `arms`: which
    arms, as `A` or `A=B` where they have two names; by default the primary ones. Compared are also the untouched
    models, and the change that an arm makes of its model. Raises an SSNProbeError where the runs do not pair: too few
    of the same prompts, verdicts of different judges, a run that is not done.
    """
    from ssn_probe.study.comparable_runs import stored_run
    from ssn_probe.study.run_comparison import compare_runs

    folders = [_folder(one, Path(out)) for one in (first, second)]
    if folders[0].path.resolve() == folders[1].path.resolve():
        hint = "Name two runs: `ssn-probe results` lists them."
        raise ResultError(f"{folders[0].name} cannot be compared with itself", hint)
    runs = [stored_run(folder) for folder in folders]
    changed = tuple(text for folder in folders if (text := integrity.warning(folder)) is not None)
    with integrity.showing(folders[0]), integrity.showing(folders[1]):
        return Comparison(compare_runs(runs[0], runs[1], [arms] if isinstance(arms, str) else arms, notes=changed))


def _folder(run: Any, out: Path) -> RunFolder:
    """A run's folder, of a result or by name."""
    folder = getattr(run, "folder", None)
    return folder if isinstance(folder, RunFolder) else find_run(os.fsdecode(run), out)
