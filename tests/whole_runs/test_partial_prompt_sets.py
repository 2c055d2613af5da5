"""Prompt sets with some splits only: identify prompts are asked for where something is identified, and only there."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from prompt_rows import organism_set
from rich.console import Console
from ssn_probe.recipes import identify_ms

from ssn_probe import ASR, Expand, MeanOf, NeuronFile, Prompts, Recipe, SafetyNeurons, Suppress, Training, Utility
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.cli.commands import main
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import DataError
from ssn_probe.spec import SetExpression
from ssn_probe.study.plan import make_plan

QUIET: dict[str, Any] = {"controls": 0, "log_odds_label_sets": 0, "permutations": 0, "half_samples": 0}


def part(folder: Path, keep: pl.Expr | bool = True, **card: Any) -> Prompts:
    """A few of the organism's prompts in two languages."""
    rows = load_prompts(Prompts("organism", languages=("qaa", "qab"), limit=16)).frame.filter(keep)
    return organism_set(folder, rows, **({"name": folder.name, "languages": ["qaa", "qab"]} | card))


@pytest.fixture
def evaluate_only(tmp_path: Path) -> Prompts:
    return part(tmp_path / "evaluate-only", pl.col("split") == "evaluate")


@pytest.fixture
def train_only(tmp_path: Path) -> Prompts:
    return part(tmp_path / "train-only", pl.col("split") == "train")


@pytest.fixture
def neurons(tmp_path: Path) -> NeuronFile:
    path = tmp_path / "set.csv"
    path.write_text("language,layer,site,index\n*,0,ffn,1\n*,1,q,2\n", encoding="utf-8")
    return NeuronFile(str(path))


def test_a_neuron_file_needs_no_prompts_to_identify(
    evaluate_only: Prompts, train_only: Prompts, neurons: NeuronFile, tmp_path: Path
) -> None:
    arms = {"silent": Suppress(neurons), "trained": Expand(neurons, train_only, training=Training(steps=2, batch=8))}
    recipe = Recipe(arms=arms, measures=(ASR(evaluate_only), Utility(evaluate_only)), **QUIET)
    run = run_recipe(recipe, Options(out=tmp_path / "results"), Console(quiet=True))
    assert run.manifest()["status"] == "done"
    assert set(run.table("samples")["arm"]) == {"baseline", "silent", "trained"}


def test_a_delta_is_trained_on_a_set_with_rows_to_train_alone(
    train_only: Prompts, neurons: NeuronFile, tmp_path: Path
) -> None:
    command = ["delta", "train", neurons.path, "-m", "organism", "--data", train_only.source, "--steps", "2"]
    done = CliRunner().invoke(main, [*command, "-o", str(tmp_path / "delta.safetensors")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "delta.safetensors").exists()


LACKING = {
    "no identify prompts": (pl.col("split") != "identify", "no harmful prompts", "qaa, qab", "none"),
    "a language without harmful": (
        (pl.col("language") != "qab") | (pl.col("context") != "harmful"),
        "no harmful prompts",
        "qab",
        "qaa",
    ),
    "a language without harmless": (
        (pl.col("language") != "qab") | (pl.col("context") != "harmless"),
        "no harmless prompts",
        "qab",
        "-T harmless=",
    ),
}


@pytest.mark.parametrize(("keep", "message", "languages", "hint"), LACKING.values(), ids=LACKING)
def test_a_set_that_cannot_identify_is_one_clear_error(
    keep: pl.Expr, message: str, languages: str, hint: str, tmp_path: Path
) -> None:
    """Found by the plan, which loads no model."""
    recipe = Recipe(model="missing", sets={"ms": SafetyNeurons(part(tmp_path / "mine", keep))})
    with pytest.raises(DataError, match=f"mine has {message} to identify neurons with in {languages}") as caught:
        make_plan(recipe)
    assert hint in (caught.value.hint or "")


def test_another_set_that_lacks_a_language_lists_those_it_has(tmp_path: Path) -> None:
    theirs = part(tmp_path / "theirs", pl.col("language") == "qaa", languages=["qaa"])
    mine = Prompts(part(tmp_path / "mine").source, harmless=theirs.source)
    with pytest.raises(DataError, match="no harmless prompts to identify neurons with in qab") as caught:
        make_plan(Recipe(sets={"ms": SafetyNeurons(mine)}))
    assert "'identify': qaa." in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("to", "log_odds_label_sets", "message", "hint"),
    [
        (True, 0, "no harmless prompts to average activations over in qaa", "-T harmless="),
        (False, 99, "no harmful prompts to test the refusal log-odds with in qaa", "log_odds_label_sets=0"),
    ],
    ids=["mean", "gate"],
)
def test_means_and_the_refusal_gate_read_identify_prompts(
    to: bool, log_odds_label_sets: int, message: str, hint: str, evaluate_only: Prompts, neurons: SetExpression
) -> None:
    arm = Suppress(neurons, to=MeanOf(evaluate_only) if to else 0)
    numbers = QUIET | {"log_odds_label_sets": log_odds_label_sets}
    with pytest.raises(DataError, match=message) as caught:
        make_plan(Recipe(arms={"a": arm}, measures=(ASR(evaluate_only),), **numbers))
    assert hint in (caught.value.hint or "")


def test_sharing_is_not_tested_on_prompts_that_may_be_translations(tmp_path: Path) -> None:
    """With an id of its own for every translation, random labels of a random model would be 'Shown'."""
    rows = load_prompts(Prompts("organism", languages=("qaa", "qab"), limit=16)).frame
    rows = rows.filter(pl.col("split") == "identify").drop("cluster", "pair_id")
    own = rows.with_columns(prompt_id=pl.concat_str("language", pl.lit("-"), "prompt_id"))
    found = {}
    for name, frame in {"parallel": rows, "own": own}.items():
        data = organism_set(tmp_path / name, frame, name=name, languages=["qaa", "qab"])
        recipe = identify_ms(data=data.source, model="organism", top=0.2, effect="local")
        recipe = replace(recipe, permutations=99, half_samples=0)
        found[name] = run_recipe(recipe, Options(out=tmp_path / "results"), Console(quiet=True))
    tested = {name: pl.read_parquet(one.path / "nulls.parquet") for name, one in found.items()}
    assert set(tested["parallel"]["statistic"]) == {"size", "overlap"}
    assert tested["own"].select("set", "statistic", "language_a").rows() == [
        ("ms", "size", "qaa"),
        ("ms", "size", "qab"),
    ]
    manifest = found["own"].manifest()
    (sharing,) = (claim for claim in manifest["claims"] if "is shared with the anchor" in claim["claim"])
    assert sharing["verdict"] == "not testable"
    assert sharing["why"].startswith("the prompt ids")
    assert any("exchanged language by language" in note for note in manifest["warnings"])
    assert any("own: prompt ids are not parallel" in note for note in manifest["warnings"])
    assert not any("parallel" in note for note in found["parallel"].manifest()["warnings"])
