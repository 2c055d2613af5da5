"""Nothing is lost: a run that is killed ends with the same tables, and loses at most the batch in flight."""

import os
import subprocess
import sys
from pathlib import Path

from ssn_probe.results import RunFolder, runs, status

WHOLE = ("samples", "log_odds", "summary", "neurons", "overlap", "nulls", "stability", "stability_curve")


def killed(folder: Path) -> int:
    """How often the study was killed before it ended: before, during and after the renaming of a file."""
    command = [sys.executable, str(Path(__file__).with_name("killing.py")), str(folder)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.count("killed")


def last(folder: Path) -> RunFolder:
    return runs(folder)[0]


def test_killed_at_many_moments_it_ends_with_the_same_tables(tmp_path: Path) -> None:
    times = killed(tmp_path)
    assert times >= 7
    whole, resumed = last(tmp_path / "whole"), last(tmp_path / "killed")
    # The first was killed before it had written anything, its manifest included.
    statuses = [status(run, run.manifest()) for run in runs(tmp_path / "killed")]
    assert statuses == ["done"] + ["killed"] * (times - 1)
    for name in WHOLE:
        assert (whole.path / f"{name}.parquet").read_bytes() == (resumed.path / f"{name}.parquet").read_bytes(), name
    told, again = whole.manifest(), resumed.manifest()
    assert {name: told[name] for name in ("answer", "warnings", "sets", "nodes", "key")} == {
        name: again[name] for name in ("answer", "warnings", "sets", "nodes", "key")
    }
    texts = [(run.path / "report.md").read_text().splitlines() for run in (whole, resumed)]
    texts = [[line for line in text if not line.startswith("| seconds |")] for text in texts]
    assert texts[0] == texts[1]
    assert again["cache"]["read"] > 0
    assert told["cache"].get("read", 0) == 0
    kept = [sorted(str(path.relative_to(side)) for path in side.rglob("*")) for side in caches(tmp_path)]
    assert kept[0] == kept[1], "the same batches, of the same prompts and bytes, and nothing half written"


def caches(folder: Path) -> list[Path]:
    return [folder / side / "cache" for side in ("whole", "killed")]
