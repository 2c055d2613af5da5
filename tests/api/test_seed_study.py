"""A study over seeds keeps what it has: organisms, runs and rows, whenever it is stopped."""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from rich.console import Console
from safetensors.numpy import load_file, save_file

from ssn_probe.api.runner import Options
from ssn_probe.cli.commands import main
from ssn_probe.files import write_json, write_table
from ssn_probe.model.loading import locate
from ssn_probe.model.subject import load_subject
from ssn_probe.organism.make import Progress
from ssn_probe.runs.folder import RunFolder, create_run, prepare
from ssn_probe.runs.manifest import SCHEMA_VERSION
from ssn_probe.spec import Recipe
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.plan import make_plan

DONE: list[str] = []
"""What was trained and run, in order."""


def quick(seed: int, out: Path, *, variant: str, progress: Progress) -> dict[str, Any]:
    """Another organism of two minutes: the shipped one with another weight and another seed in its card."""
    DONE.append(f"train {seed}")
    progress("safety", 1, 2, 0.5)
    shutil.copytree(locate("organism"), out, dirs_exist_ok=True)
    weights = load_file(out / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] + seed + 1
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    card = json.loads((out / "card.json").read_text("utf-8")) | {"seed": seed, "variant": variant, "accepted": seed < 2}
    write_json(out / "card.json", card)
    return card


def ran(recipe: Recipe, options: Options, console: Console) -> RunFolder:
    """A run without its numbers, which stops on the organism of seed 1 the first time."""
    seed = json.loads((Path(recipe.model) / "card.json").read_text("utf-8"))["seed"]
    DONE.append(f"run {seed}")
    if seed == 1 and DONE.count("run 1") == 1:
        raise KeyboardInterrupt
    key = resolved_key(recipe, load_subject(recipe.model, weights=False).identity, make_plan(recipe).data)
    run = create_run(prepare(options.out), recipe.name, key)
    test = {"arm": "ss", "measure": "asr", "language": "average", "comparison": "labels", "primary": True, "sets": 19}
    figures = {"observed": 0.7, "mean": 0.6, "difference": 0.1, "difference_low": 0.0, "difference_high": 0.2}
    figures |= {"neurons": 8.0, "neurons_mean": 4.0}
    comparisons = [{**test, **figures, "set_language": None, "step": None, "p": 0.05 * (1 + seed)}]
    before = {"language": "average", "role": "baseline", "measure": "asr", "value": 0.4}
    write_table(run.path / "comparisons.parquet", pl.DataFrame(comparisons))
    write_table(run.path / "summary.parquet", pl.DataFrame([before]))
    write_json(run.path / "manifest.json", {"schema_version": SCHEMA_VERSION, "status": "done", "key": key})
    return run


@pytest.fixture(autouse=True)
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    DONE.clear()
    monkeypatch.setattr("ssn_probe.organism.make.train", quick)
    monkeypatch.setattr("ssn_probe.api.seed_study.run_recipe", ran)


def study(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["organism", "study", "-o", str(folder), *more], env={"COLUMNS": "200"})


def test_a_stopped_study_goes_on_where_it_was(tmp_path: Path) -> None:
    first = study(tmp_path, "--seeds", "0-2")
    assert first.exit_code == 130
    assert DONE == ["train 0", "run 0", "train 1", "run 1"]
    assert pl.read_parquet(tmp_path / "study.parquet")["seed"].to_list() == [0]
    again = study(tmp_path, "--seeds", "0-2")
    assert again.exit_code == 0, again.output
    assert DONE[4:] == ["run 1", "train 2", "run 2"]
    table = pl.read_parquet(tmp_path / "study.parquet")
    assert table.select("seed", "accepted", "holds").rows() == [(0, True, True), (1, True, False), (2, False, False)]
    assert "in 1 of 2 accepted organisms" in again.output
    page = (tmp_path / "study.md").read_text("utf-8")
    assert "in 1 of 2 accepted organisms" in page
    assert pl.read_csv(tmp_path / "study.csv")["run"].to_list() == table["run"].to_list()


def test_organisms_of_another_folder_are_taken_up_and_other_parameters_are_another_study(tmp_path: Path) -> None:
    for seed in (0, 2):
        quick(seed, tmp_path / "made" / f"natural-{seed}", variant="natural", progress=lambda *step: None)
    arguments = ("--seeds", "0,2", "--organisms", str(tmp_path / "made"))
    DONE.clear()
    assert study(tmp_path / "one", *arguments).exit_code == 0
    assert study(tmp_path / "one", *arguments).exit_code == 0
    assert DONE == ["run 0", "run 2"]
    assert study(tmp_path / "one", *arguments, "-T", "top=0.01").exit_code == 0
    assert DONE == ["run 0", "run 2"] * 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-T", "model=organism"], "Leave out -T model"),
        (["--recipe", "identify_ms"], "no primary arm"),
        (["--variant", "naturel"], "natural"),
        (["--seeds", "3-1"], "every seed once"),
        (["--seeds", "one"], "write 0-9"),
    ],
)
def test_a_mistake_is_found_before_anything_is_trained(tmp_path: Path, arguments: list[str], said: str) -> None:
    shown = study(tmp_path / "new", *arguments)
    assert shown.exit_code in (1, 2)
    assert said in shown.output
    assert not DONE
    assert not (tmp_path / "new").exists()
