"""docs/remote.md is executed as it stands, against a real NDIF server on this machine."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from light_ndif import LightNDIF

ROOT = Path(__file__).parents[2]
COMMANDS = re.findall(r"```bash\n(.*?)```", (ROOT / "docs" / "remote.md").read_text(encoding="utf-8"), re.DOTALL)
SHIM = """#!/bin/sh
exec "{python}" -m ssn_probe "$@"
"""


@pytest.mark.slow
@pytest.mark.ndif
def test_every_command_of_the_page(ndif: LightNDIF, tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "ssn-probe"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable), encoding="utf-8")
    shim.chmod(0o755)
    foreign = ("HF_", "NDIF_", "NNSIGHT_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {"PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    environment |= {"NDIF_HOST": ndif.host, "NNSIGHT_CONFIG": str(tmp_path / "none"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(COMMANDS)],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout
    text = " ".join(done.stdout.split())
    for said in (
        "answers: ndif 0.1.2",
        "yes (llama)",
        "every effect can be measured",
        f"Host: {ndif.host} runs organism",
    ):
        assert said in text
    (manifest,) = tmp_path.glob("results/2*/manifest.json")
    found = json.loads(manifest.read_text(encoding="utf-8"))
    assert (found["status"], found["device"]) == ("done", ndif.host)
