"""Studies that no model ran are runs like others: the builders that tests of pages stand on."""

from pathlib import Path

import polars as pl
import pytest
from pages import STUDIES, failed, failing, written

from ssn_probe import Result
from ssn_probe.runs.integrity import showing

QUICK = sorted(set(STUDIES) - {"large"})


@pytest.mark.parametrize("name", QUICK)
def test_a_made_up_study_is_a_finished_run(name: str, tmp_path: Path) -> None:
    run = written(tmp_path, STUDIES[name]())
    result = Result(run)
    with showing(run):
        assert result.samples.height > 0
        assert set(result.summary["measure"]) >= {"asr", "refusal_log_odds"}
    assert run.manifest()["answer"]
    assert (tmp_path / "report.md").stat().st_size > 1000
    assert (tmp_path / "report.html").is_file()


def test_hostile_text_reaches_every_table(tmp_path: Path) -> None:
    run = written(tmp_path, STUDIES["hostile"]())
    for name in ("samples", "summary", "neurons", "overlap", "nulls", "stability", "comparisons"):
        cells = pl.concat(run.table(name).select(pl.col(pl.String).cast(pl.String)).iter_columns(), how="vertical")
        assert cells.str.contains("<script>", literal=True).any(), name


def test_a_failed_run_keeps_its_error_and_some_samples(tmp_path: Path) -> None:
    run = failed(tmp_path, failing())
    assert (run.manifest()["status"], run.table("samples").height) == ("failed", 5)
    assert "out of memory" in run.manifest()["error"]
