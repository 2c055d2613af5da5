"""A command that finds everything in the cache imports neither torch nor transformers, and opens no model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ssn_probe

HEAVY = ("torch", "transformers", "nnsight", "accelerate", "datasets", "scipy", "altair", "pandas", "vl_convert")
WATCHED = """
import json, runpy, sys
sys.argv = ["ssn-probe", *sys.argv[1:]]
try:
    runpy.run_module("ssn_probe", run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def imported(*arguments: str) -> set[str]:
    """The `HEAVY` modules, polars and numpy that a command imports."""
    package = Path(ssn_probe.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *arguments], capture_output=True, text=True, cwd=package, check=False
    )
    assert done.returncode == 0, done.stderr
    return {*HEAVY, "polars", "numpy"} & {*json.loads(done.stderr.strip().splitlines()[-1])}


@pytest.mark.slow
def test_what_is_cached_opens_no_model(tmp_path: Path) -> None:
    run = ("run", "identify_ms", "--limit", "40", "-o", str(tmp_path))
    assert imported(*run) >= {"transformers", "nnsight"}
    assert imported(*run) == {"polars", "numpy"}
    latest = sorted(path.name for path in tmp_path.glob("*_identify_ms_*"))[-1]
    for command in (
        ("show", "identify_ms", "--limit", "40", "--no-time", "-o", str(tmp_path)),
        ("verify", latest, "-o", str(tmp_path)),
    ):
        assert imported(*command) == {"polars", "numpy"}, command
    for command in (("results", "-o", str(tmp_path)), ("list",)):
        assert imported(*command) == set(), command
    assert imported(*run, "--fresh") >= {"transformers", "nnsight"}
