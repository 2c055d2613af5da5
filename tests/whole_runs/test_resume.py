"""Nothing is lost: a run that is killed ends with the same tables, and loses at most the batch in flight."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from killing import same_tables

from ssn_probe.runs.folder import runs, status


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


def test_killed_at_many_moments_it_ends_with_the_same_tables(folder: Path) -> None:
    times = int((folder / "times").read_text(encoding="utf-8"))
    assert times >= 7
    (whole,), (resumed, *killed) = runs(folder / "whole"), runs(folder / "killed")
    # The first was killed before it had written anything, its manifest included.
    assert [status(run, run.manifest()) for run in (resumed, *killed)] == ["done"] + ["killed"] * (times - 1)
    assert same_tables(whole, resumed)
    expected, found = whole.manifest(), resumed.manifest()
    for name in ("answer", "warnings", "sets", "nodes", "key"):
        assert found[name] == expected[name], name
    texts = [(run.path / "report.md").read_text(encoding="utf-8").splitlines() for run in (whole, resumed)]
    texts = [[line for line in text if not line.startswith("| seconds |")] for text in texts]
    assert texts[0] == texts[1]
    assert found["cache"]["read"] > 0
    assert expected["cache"].get("read", 0) == 0
    assert batches(folder / "whole") == batches(folder / "killed"), (
        "the same batches, of the same prompts and bytes, and nothing half written"
    )


def test_two_at_once_share_the_work_and_find_the_same(folder: Path) -> None:
    (whole,), both = runs(folder / "whole"), runs(folder / "twice")
    assert all(same_tables(whole, run) for run in both)
    computed = [run.manifest()["cache"].get("computed", 0) for run in both]
    assert len(computed) == 2
    assert sum(computed) == whole.manifest()["cache"]["computed"], "nothing was computed twice"
    assert batches(folder / "twice") == batches(folder / "whole")


def batches(root: Path) -> list[str]:
    """Every file of a cache; the names of batches are their digests."""
    return sorted(str(path.relative_to(root)) for path in (root / "cache").rglob("*"))
