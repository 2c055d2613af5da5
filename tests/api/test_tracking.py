"""`ssn-probe run --track`: what a tracker is told, and that its failure costs nothing."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from pages import STUDIES, written

from ssn_probe.api.tracking import find_tracker, track
from ssn_probe.cli.commands import main
from ssn_probe.errors import RecipeError
from ssn_probe.files import write_json


class Tracker(ModuleType):
    """A stand-in of trackio and wandb: what it was told."""

    def __init__(self, broken: str = "") -> None:
        super().__init__("trackio")
        self.broken, self.told = broken, dict[str, Any]()

    def init(self, **options: Any) -> None:
        self._tell("init", options)

    def log(self, numbers: dict[str, float]) -> None:
        self._tell("log", numbers)

    def finish(self) -> None:
        self._tell("finish", True)

    def _tell(self, name: str, what: Any) -> None:
        if name == self.broken:
            raise OSError("no network")
        self.told[name] = what


def test_numbers_and_names_go_to_the_tracker_and_no_text(tmp_path: Path) -> None:
    run = written(tmp_path / "one", STUDIES["smallest"]())
    write_json(run.path / "manifest.json", run.manifest() | {"claims": [{"claim": "c", "verdict": "shown"}] * 2})
    tracker = Tracker()
    assert track(tracker, run) == ""
    assert tracker.told["init"]["project"] == "ssn-probe"
    assert tracker.told["init"]["config"]["recipe"] == run.manifest()["recipe"]
    numbers = tracker.told["log"]
    rows = run.table("summary").filter(role="baseline", measure="asr").rows(named=True)
    assert rows
    for row in rows:
        assert numbers[f"asr/baseline/{row['language']}"] == row["value"]
    assert numbers["claims/shown"] == 2
    assert all(isinstance(value, int | float) for value in numbers.values())
    responses = [text for text in run.table("samples")["response"].drop_nulls() if text]
    assert responses
    assert not [text for text in responses if text in str(tracker.told)]
    assert tracker.told["finish"]


def test_an_arm_has_one_name_in_all_languages_and_one_per_language_of_its_neurons_where_it_is_several(
    tmp_path: Path,
) -> None:
    tracker = Tracker()
    run = written(tmp_path / "one", STUDIES["large"]())
    assert track(tracker, run) == ""
    names = {name for name in tracker.told["log"] if name.startswith("asr/")}
    assert {"asr/ss/th", "asr/ss/average", "asr/lora/20/zh", "asr/ms of each/ur/bn", "asr/ms of each/ar/ar"} <= names
    assert len(names) == run.table("summary").filter(pl.col("role").is_in(["baseline", "tested"]), measure="asr").height


@pytest.mark.parametrize("name", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_a_sentence(name: str, tmp_path: Path) -> None:
    failed = track(Tracker(name), written(tmp_path / "one", STUDIES["smallest"]()))
    assert failed == "trackio did not take the numbers of one: OSError: no network"


def test_a_tracker_that_is_not_there_is_an_error_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RecipeError, match="wandb is not installed"):
        find_tracker("wandb")
    arguments = ["run", "identify_ms", "--track", "wandb", "-o", str(tmp_path / "results")]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 or done.exit_code == 1
    assert "pip install 'ssn-probe[wandb]'" in done.output
    assert not (tmp_path / "results").exists()
