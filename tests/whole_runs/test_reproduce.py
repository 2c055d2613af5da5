"""The recipes of the paper's study, end to end: published file formats, the paper's model families, one command."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from paper_files import ADVBENCH_X, write_advbench_x, write_harmless, write_judge, write_multijail
from ssn_probe.recipes import reproduce_advbench_x, reproduce_multijail
from tiny import write_tiny

from ssn_probe import Expand, RandomLike, Suppress
from ssn_probe.cli.commands import main
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.spec import Of, SafetyNeurons, Shared, UnionOf
from ssn_probe.spec.discovery import shipped
from ssn_probe.spec.node import from_json

FEW = ("max_new_tokens=4", "top=0.5", "label_sets=1", "controls=1", "comparisons=labels,random", "epochs=1")
"""What makes a run small: parameters that every user has."""


def command(place: Path, name: str, data: str, *more: str, model: str = "qwen3", verb: str = "run") -> Result:
    """`ssn-probe run recipes/NAME.py -T …` in a folder with a model, placeholder files and a judge."""
    settings = (f"model={place / model}", f"data={data}", f"harmless={write_harmless(place, 100)}")
    settings += (f"judge={write_judge(place)}", *(FEW if verb == "run" else ()), *more)
    texts = [part for text in settings for part in ("-T", text)]
    limit = ["--limit", "14"] if verb == "run" else ["--no-time"]
    limit += ["--dtype", "bfloat16"]  # as the published weights are
    return CliRunner().invoke(main, [verb, str(shipped() / f"{name}.py"), *texts, *limit, "-o", str(place / "results")])


def outcome(place: Path) -> tuple[dict[str, Any], Path]:
    run = place / "results" / "latest"
    return json.loads((run / "manifest.json").read_text(encoding="utf-8")), run


def check_run(place: Path, languages: tuple[str, ...]) -> None:
    """The paper's arms in every language, what was found beside them, and no prompt in two roles."""
    manifest, run = outcome(place)
    assert manifest["status"] == "done"
    samples, neurons = pl.read_parquet(run / "samples.parquet"), pl.read_parquet(run / "neurons.parquet")
    arms = {"baseline", "ms", "ss", "expand ms", "expand ss", "expand random"}
    assert set(samples["arm"]) == arms
    assert set(samples.filter(role="labels")["arm"]) == set(samples.filter(role="random")["arm"]) == {"ss"}
    for arm in arms:
        assert set(samples.filter(arm=arm)["eval_language"]) == set(languages), arm
    recipe = from_json(json.loads((run / "recipe.json").read_text(encoding="utf-8")))
    splits = load_prompts(recipe.measures[0].prompts).frame
    used = {split: set(splits.filter(split=split)["prompt_id"]) for split in ("identify", "evaluate", "train")}
    assert set(samples["prompt_id"]) <= used["evaluate"] - used["identify"] - used["train"]
    assert set(neurons["site"]) <= {"q", "k", "v", "o"}
    found = {name: set(neurons.filter(set=name).select("layer", "site", "index").rows()) for name in ("ss", "ms")}
    assert found["ss"] <= found["ms"]
    assert {path.suffix for path in (run / "deltas").iterdir()} >= {".safetensors"}
    assert any("harmful rows learn the untouched model's own responses in en" in one for one in manifest["warnings"])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_tiny(tmp_path / "qwen3", "qwen3")
    return tmp_path


def test_one_command_runs_the_paper_s_protocol(place: Path) -> None:
    done = command(
        place, "reproduce_multijail", f"multijail:{write_multijail(place)}", "expand=true", "languages=en,zh"
    )
    assert done.exit_code == 0, done.output
    check_run(place, ("en", "zh"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
@pytest.mark.parametrize("name", ["reproduce_multijail", "reproduce_advbench_x"])
def test_every_model_of_the_paper_and_both_sets(name: str, family: str, tmp_path: Path) -> None:
    write_tiny(tmp_path / family, family)
    both = {"reproduce_multijail": write_multijail, "reproduce_advbench_x": write_advbench_x}
    file = both[name](tmp_path)
    data = f"{'multijail' if name == 'reproduce_multijail' else 'advbench-x'}:{file}"
    languages = ("en", "zh", "ko", "th", "bn") + (() if name == "reproduce_multijail" else ("af", "ne"))
    done = command(tmp_path, name, data, "expand=true", model=family)
    assert done.exit_code == 0, done.output
    check_run(tmp_path, languages)
    if family == "llama" and name == "reproduce_multijail":
        assert command(tmp_path, name, data, "expand=true", model=family).exit_code == 0
        assert "computed" not in outcome(tmp_path)[0]["cache"]


def test_the_protocol_is_the_paper_s() -> None:
    recipe = reproduce_multijail(expand=True)
    ms, ss = recipe.arms["ms"], recipe.arms["ss"]
    assert isinstance(ms, Suppress)
    assert isinstance(ms.neurons, SafetyNeurons)
    chosen = (ms.neurons.rule, ms.neurons.top, ms.neurons.pool, ms.neurons.sites)
    assert chosen == ("paper", 0.03, "layer", ("q", "k", "v", "o"))
    assert ss == Suppress(Shared(ms.neurons, anchor="en"))
    trained = {name: arm.neurons for name, arm in recipe.arms.items() if isinstance(arm, Expand)}
    english = Of(ms.neurons, "en")
    assert trained == {
        "expand ms": english,
        "expand ss": UnionOf(Shared(ms.neurons, anchor="en")),
        "expand random": RandomLike(english),
    }
    assert all(arm.contexts == ("harmful",) for arm in recipe.arms.values() if isinstance(arm, Expand))
    assert list(reproduce_multijail().arms) == ["ms", "ss"]
    other = reproduce_advbench_x(data="multijail", languages=("en", "zh", "ko", "th", "bn"))
    assert other.arms == reproduce_multijail().arms


def test_a_plan_says_what_a_run_will_need(place: Path) -> None:
    shown = command(place, "reproduce_multijail", f"multijail:{write_multijail(place)}", verb="show")
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.output.split())
    assert "multijail (licence mit), with the harmless half of harmless (licence not stated); in en, zh, ko, th" in text
    assert "harmful 134 identify, 52 evaluate, 14 train" in text
    assert "Judge: judge.py@verdicts" in text
    assert "Memory, by arithmetic" in text


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        (tuple(one for one in ADVBENCH_X if one != "ne"), "has no language 'ne'"),
        ((), "is not in the format of advbench-x: it lacks a column per language"),
    ],
)
def test_a_file_without_a_language_or_of_another_kind(languages: tuple[str, ...], said: str, place: Path) -> None:
    file = write_advbench_x(place, languages=languages or ("en",))
    if not languages:
        file.write_text("a,b\n1,2\n", encoding="utf-8")
    shown = command(place, "reproduce_advbench_x", f"advbench-x:{file}", verb="show")
    assert shown.exit_code == 1
    assert said in " ".join(shown.output.split())


def test_without_a_file_the_set_without_a_page_says_so() -> None:
    shown = CliRunner().invoke(main, ["show", "reproduce_advbench_x"])
    assert shown.exit_code == 1
    assert "advbench-x cannot be downloaded" in shown.stderr
