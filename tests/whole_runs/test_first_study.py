"""docs/first-study.md is executed as it stands: SmolLM2, a csv in MultiJail's form, no hub, no token, no line of code.

`make test-smollm2` fetches the model first.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from endpoint_server import sensible, serving
from multijail_csv import write_halves

from ssn_probe.model.fetched import FETCHED, fetched_folder

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "first-study.md"
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
SHIM = """#!/bin/sh
exec "{python}" -m ssn_probe "$@"
"""
QUIET = {"HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "any", "COLUMNS": "100", "NO_PROXY": "*"}


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the page was executed, and all that its commands printed."""
    place = tmp_path_factory.mktemp("study")
    write_halves(place)
    shim = place / "bin" / "ssn-probe"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable), encoding="utf-8")
    shim.chmod(0o755)
    paths = {"PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    with serving(lambda prompt, _count: sensible(prompt)) as server:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(COMMANDS)],
            cwd=place,
            env=environment | QUIET | paths | {"OPENAI_BASE_URL": server.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout
        assert server.prompts, "no response was judged by the endpoint"
    return place, done.stdout


def runs(place: Path, recipe: str) -> list[Path]:
    found = (json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("results/*/manifest.json")))
    named = zip(sorted(place.glob("results/*/manifest.json")), found, strict=True)
    return [path.parent for path, manifest in named if manifest["recipe"] == recipe and not path.parent.is_symlink()]


@pytest.mark.smollm2
def test_the_table_is_finished(executed: tuple[Path, str]) -> None:
    place, _ = executed
    folder = runs(place, "suppress_ss")[0]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["status"] == "done"
    assert manifest["model"]["name"] == "smollm2"
    assert manifest["model"]["source"]["wheel_sha256"] == FETCHED["smollm2"].wheel_sha256
    summary = pl.read_parquet(folder / "summary.parquet")
    asr = summary.filter(pl.col("measure") == "asr")
    assert set(asr["language"]) >= {"en", "es", "fr"}
    assert {"baseline", "ms", "ss"} <= set(asr["arm"])


@pytest.mark.smollm2
def test_the_model_answers_in_its_own_template(executed: tuple[Path, str]) -> None:
    """The weights are the model's, and the template is the one that it learned: it says something to the point."""
    place, _ = executed
    samples = pl.read_parquet(runs(place, "suppress_ss")[0] / "samples.parquet")
    english = samples.filter(pl.col("arm") == "baseline", pl.col("eval_language") == "en")
    assert english["response"].str.contains("(?i)lighthouse|temple|park|canal|market|garden").mean() > 0.5
    template = (fetched_folder("smollm2") / "chat_template.jinja").read_text(encoding="utf-8")
    assert "You are a helpful AI assistant named SmolLM" in template


@pytest.mark.smollm2
def test_the_reader_is_told_that_the_model_hardly_refuses(executed: tuple[Path, str]) -> None:
    _, said = executed
    words = re.sub(r"[│\s]+", " ", said)
    assert "No refusal was shown" in words
    assert "no set is called a set of safety neurons" in words


@pytest.mark.smollm2
def test_the_endpoint_judged_the_responses_again(executed: tuple[Path, str]) -> None:
    _, said = executed
    assert "openai:my-model" in said or "my-model" in said


def test_the_page_names_every_step() -> None:
    """Without the model: the page still has its commands, and one of each kind."""
    told = "\n".join(COMMANDS)
    for command in (
        "model fetch smollm2",
        "show ",
        "run identify_ms",
        "run suppress_ss",
        "judge latest --with openai:",
    ):
        assert f"ssn-probe {command}" in told
