"""Nothing is lost: a run that is killed ends with the same tables, and loses at most the batch in flight."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssn_probe.runs.folder import RunFolder, runs, status

pytestmark = pytest.mark.slow

WHOLE = ("samples", "log_odds", "summary", "neurons", "overlap", "nulls", "stability", "stability_curve")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `killing.py` leaves: `whole`, `twice`, `killed` and, in `times`, how often."""
    folder = tmp_path_factory.mktemp("studies")
    command = [sys.executable, str(Path(__file__).parents[1] / "killing.py"), str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    (folder / "times").write_text(str(done.stdout.count("killed")), encoding="utf-8")
    return folder


def last(folder: Path) -> RunFolder:
    return runs(folder)[0]


def test_killed_at_many_moments_it_ends_with_the_same_tables(folder: Path) -> None:
    times = int((folder / "times").read_text(encoding="utf-8"))
    assert times >= 7
    whole, resumed = last(folder / "whole"), last(folder / "killed")
    # The first was killed before it had written anything, its manifest included.
    statuses = [status(run, run.manifest()) for run in runs(folder / "killed")]
    assert statuses == ["done"] + ["killed"] * (times - 1)
    assert_same_tables(whole, resumed)
    told, again = whole.manifest(), resumed.manifest()
    assert {name: told[name] for name in ("answer", "warnings", "sets", "nodes", "key")} == {
        name: again[name] for name in ("answer", "warnings", "sets", "nodes", "key")
    }
    texts = [(run.path / "report.md").read_text(encoding="utf-8").splitlines() for run in (whole, resumed)]
    texts = [[line for line in text if not line.startswith("| seconds |")] for text in texts]
    assert texts[0] == texts[1]
    assert again["cache"]["read"] > 0
    assert told["cache"].get("read", 0) == 0
    kept = [batches(folder / side) for side in ("whole", "killed")]
    assert kept[0] == kept[1], "the same batches, of the same prompts and bytes, and nothing half written"


def test_two_at_once_share_the_work_and_find_the_same(folder: Path) -> None:
    whole, (one, other) = last(folder / "whole"), runs(folder / "twice")
    for run in (one, other):
        assert_same_tables(whole, run)
    computed = [run.manifest()["cache"].get("computed", 0) for run in (one, other)]
    assert sum(computed) == whole.manifest()["cache"]["computed"], "nothing was computed twice"
    assert batches(folder / "twice") == batches(folder / "whole")


def assert_same_tables(one: RunFolder, other: RunFolder) -> None:
    for name in WHOLE:
        assert (one.path / f"{name}.parquet").read_bytes() == (other.path / f"{name}.parquet").read_bytes(), name


def batches(root: Path) -> list[str]:
    """Every file of a cache; the names of batches are their digests."""
    return sorted(str(path.relative_to(root)) for path in (root / "cache").rglob("*"))
