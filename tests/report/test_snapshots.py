"""A whole report, a card and a plan as their readers see them. `RENEW_SNAPSHOTS=1 pytest …` writes the files anew."""

import os
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from ssn_probe import (
    ASR,
    Amplify,
    Expand,
    LoRA,
    OverRefusal,
    Patch,
    Prompts,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Training,
    Utility,
)
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.run_report import write_report
from ssn_probe.report.terminal.command_output import console
from ssn_probe.report.terminal.plan_table import render_plan
from ssn_probe.report.terminal.result_card import card
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.rendering import as_text
from ssn_probe.study.forecast import forecast
from ssn_probe.study.kept_findings import kept_findings

SNAPSHOTS = Path(__file__).with_name("snapshots")
NUMBER = r"(?<![\w.])\d+(?:\.\d+)?|(?<!\d)\.\d+"
PROMPTS = Prompts("organism", languages=("qaa", "qab", "qac"), limit=20)
MS = SafetyNeurons(PROMPTS)
SS = Shared(MS)
TRAINING = Training(steps=4)
LEARNED = Expand(SS.union(), PROMPTS, training=TRAINING)
RECIPE = Recipe(
    name="everything",
    question="What does a report look like that has all of its sections?",
    sets={"ss after": SS.after(LEARNED)},
    arms={
        "ss": Suppress(SS),
        "ms": Suppress(MS.each()),
        "x2": Amplify(SS, by=2),
        "x4": Amplify(SS, by=4),
        "patched": Patch(SS),
        "curve": Expand(SS.union(), PROMPTS, training=TRAINING, at=(2, 4)),
        "lora": LoRA(SS.union(), PROMPTS, training=TRAINING, at=(2, 4)),
        "left out": Expand(SS.union().leave_one_out(), PROMPTS, training=TRAINING),
    },
    measures=(ASR(PROMPTS), OverRefusal(PROMPTS), Utility(PROMPTS)),
    controls=1,
    log_odds_label_sets=2,
    permutations=99,
    half_samples=2,
    primary="ss",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    terminal = console()
    terminal.quiet = True
    return run_recipe(RECIPE, Options(out=tmp_path_factory.mktemp("results"), device="cpu"), terminal)


def test_the_report(run: RunFolder) -> None:
    unchanged("report.md", (run.path / "report.md").read_text(encoding="utf-8"))


def test_the_report_is_the_same_when_it_is_made_again_from_the_folder(run: RunFolder, tmp_path: Path) -> None:
    again = FinishedRun(recipe=RECIPE, manifest=run.manifest(), findings=kept_findings(run, RECIPE))
    write_report(tmp_path, again)
    for name in ("report.md", "report.html"):
        assert (tmp_path / name).read_text(encoding="utf-8") == (run.path / name).read_text(encoding="utf-8")


@pytest.mark.skipif(int(version("rich").partition(".")[0]) < 15, reason="rich 14 makes some columns a space wider")
def test_the_card(run: RunFolder) -> None:
    unchanged("card.txt", as_text(card(run), width=100).replace(str(run.path), "RUN"))


def test_the_plan(tmp_path: Path) -> None:
    unchanged("plan.txt", as_text(render_plan(forecast(RECIPE, out=tmp_path, device="cpu")), width=100))


def unchanged(name: str, text: str) -> None:
    """Is the text that of the snapshot? Figures may differ by one in the last digit: machines round differently."""
    text = normalised(text)
    path = SNAPSHOTS / name
    if os.environ.get("RENEW_SNAPSHOTS"):
        path.write_text(text, encoding="utf-8")
    expected = path.read_text(encoding="utf-8")
    assert re.sub(NUMBER, "#", text) == re.sub(NUMBER, "#", expected), f"{name} changed; RENEW_SNAPSHOTS=1 renews it"
    for found, wanted in zip(re.findall(NUMBER, text), re.findall(NUMBER, expected), strict=True):
        last_digit = 10.0 ** -len(wanted.partition(".")[2])
        assert float(found) == pytest.approx(float(wanted), abs=1.01 * last_digit if "." in wanted else 0), name


def normalised(text: str) -> str:
    """Without digests, versions, platform and times."""
    text = re.sub(r"\b[0-9a-f]{16,64}\b", "DIGEST", text)
    text = re.sub(r"^\| (software|python|seconds) \| .* \|$", r"| \1 | … |", text, flags=re.MULTILINE)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
