"""docs/remote.md is executed as it stands, against a real NDIF server on this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from light_ndif import LightNDIF

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "remote.md").read_text(encoding="utf-8"), re.DOTALL)
SHIM = """#!/bin/sh
exec "{python}" -m ssn_probe "$@"
"""


def executed(commands: str, host: str, place: Path) -> tuple[str, dict[str, Any]]:
    """What commands of a shell print, on one line, and the manifest of the run that they make."""
    shim = place / "bin" / "ssn-probe"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable), encoding="utf-8")
    shim.chmod(0o755)
    foreign = ("HF_", "NDIF_", "NNSIGHT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {"PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"NDIF_HOST": host, "NNSIGHT_CONFIG": str(place / "none"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=place,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    (manifest,) = place.glob("results/2*/manifest.json")
    return " ".join(done.stdout.split()), json.loads(manifest.read_text(encoding="utf-8"))


@pytest.mark.slow
@pytest.mark.ndif
def test_every_command_of_the_page(ndif: LightNDIF, tmp_path: Path) -> None:
    text, manifest = executed("\n".join(COMMANDS), ndif.host, tmp_path)
    for said in (
        "answers: ndif 0.1.2",
        "yes (llama)",
        "every effect can be measured",
        f"Host: {ndif.host} runs organism",
    ):
        assert said in text
    assert (manifest["status"], manifest["device"]) == ("done", ndif.host)
    assert manifest["remote"]["host"] == ndif.host
    assert manifest["remote"]["jobs"] > 0
    assert manifest["remote"]["received"] > 0


@pytest.mark.slow
@pytest.mark.ndif
def test_a_run_in_a_precision_that_the_host_chose_is_verified(ndif: LightNDIF, tmp_path: Path) -> None:
    study = "ssn-probe run identify_ms --limit 4 -T effect=local -T languages=qaa,qab --remote --yes"
    ndif.add("organism", "bfloat16")
    try:
        _, manifest = executed(f"{study}\nssn-probe verify latest --strict", ndif.host, tmp_path)
    finally:
        ndif.add("organism")
    assert manifest["model"]["dtype"] == "bfloat16"
