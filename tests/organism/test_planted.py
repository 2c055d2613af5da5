"""The shipped organisms with planted neurons: they are found by name and are what their cards and truths say."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from ssn_probe.cli.commands import main
from ssn_probe.errors import ModelError
from ssn_probe.model.loading import locate, planted_organisms
from ssn_probe.organism import exam, planting, world
from ssn_probe.organism import truth_measurement as truth
from ssn_probe.organism.ground_truth import QUESTIONS, Truth, largest_share, load_truth
from ssn_probe.organism.make import Progress
from ssn_probe.organism.variants import VARIANTS
from ssn_probe.study.organism_figures import truth_lines

NAMES = planted_organisms()


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest) -> Path:
    return Path(locate(f"organism:{request.param}"))


@pytest.fixture(scope="module")
def card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "card.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def known(folder: Path) -> Truth:
    found = load_truth(folder)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def planted(known: Truth) -> planting.Planted:
    rows = known.neurons.group_by("layer", "site", maintain_order=True).agg("index")
    return {(layer, site): tuple(channels) for layer, site, channels in rows.iter_rows()}


def test_seeds_sites_and_architectures_differ() -> None:
    assert len(NAMES) >= 3
    assert set(NAMES) <= set(VARIANTS)
    cards = [json.loads((Path(locate(f"organism:{name}")) / "card.json").read_text("utf-8")) for name in NAMES]
    assert len({card["seed"] for card in cards}) == len(NAMES)
    assert {VARIANTS[name].architecture for name in NAMES} == {"llama", "qwen3"}
    assert {site for name in NAMES for site in VARIANTS[name].planted} == {"ffn", "o"}


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ModelError) as error:
        locate("organism:planted-fnn")
    for name in NAMES:
        assert f"organism:{name}" in error.value.message
    assert "organism:planted-ffn" in (error.value.hint or "")
    for strange in ("organism:", "organism:../natural", "organism:natural"):
        with pytest.raises(ModelError, match="no embedded model"):
            locate(strange)


def test_no_neuron_holds_more_than_a_fifth_and_the_table_is_whole(card: dict[str, Any], known: Truth) -> None:
    assert known.neurons.null_count().sum_horizontal()[0] == 0
    assert largest_share(known.neurons) <= truth.LARGEST_SHARE == 0.2
    assert card["largest_share"] == pytest.approx(largest_share(known.neurons), abs=1e-4)
    assert card["accepted"] is True


def test_values_add_up_to_the_total_and_give_the_classes(known: Truth) -> None:
    assert known.pairs >= 20
    for question in QUESTIONS:
        none, every = known.totals[question]
        assert known.neurons[question].sum() == pytest.approx(every - none, abs=1e-3)
        assert known.members(question, "carrier").height >= 10
        rows = known.neurons.select(question, f"{question}_se", f"{question}_class").iter_rows()
        assert all(truth.classify(value, error, every - none) == kind for value, error, kind in rows)


def test_neurons_and_pretrained_function_are_the_recorded_ones(
    folder: Path, card: dict[str, Any], planted: planting.Planted
) -> None:
    config = AutoConfig.from_pretrained(folder)
    assert planted == planting.reserve(config, VARIANTS[card["variant"]].planted, card["seed"])
    recorded = json.loads((folder / "truth.json").read_text("utf-8"))["pretrained_sha256"]
    weights = load_file(folder / "model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    assert planting.pretrained_digest(weights, planted, config) == recorded


@torch.no_grad()
def test_the_totals_are_what_the_model_does(known: Truth, planted: planting.Planted, folder: Path) -> None:
    asked, rows = truth.questions(), torch.arange(known.prompts)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    for end in (1, 0):
        log_probs = model(input_ids=asked.tokens, logits_to_keep=1).logits[:, -1].log_softmax(-1)
        odds = log_probs[rows, asked.refusal] - log_probs[rows, asked.compliant]
        for number, question in enumerate(QUESTIONS):
            value = (odds * asked.weights[:, number]).sum().item()
            assert value == pytest.approx(known.totals[question][end], abs=0.01)
        planting.silence(model, planted)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["organism", *(f"organism:{name}" for name in NAMES)])
def test_a_shipped_organism_does_what_its_card_says(name: str) -> None:
    folder = Path(locate(name))
    card = json.loads((folder / "card.json").read_text("utf-8"))
    measured = exam.measure(AutoModelForCausalLM.from_pretrained(folder).eval())
    for language, figures in card["figures"].items():
        assert measured[language] == pytest.approx(figures, abs=0.02), language
    assert exam.accepted(measured)
    assert all(row["asr"] >= 0.99 for row in card["figures_before_safety"].values())


def test_the_card_for_people_has_the_figures_of_the_card(folder: Path, card: dict[str, Any], known: Truth) -> None:
    text = (folder / "README.md").read_text("utf-8")
    for language in world.LANGUAGES:
        assert f"| `{language}` | " in text
        assert f" | {100 * card['figures'][language]['asr']:g} | " in text
    assert f"{100 * card['largest_share']:.1f} %" in text
    assert card["seeds"][0]["seed"] == card["seed"]
    for one in card["seeds"]:
        rates = [f"{100 * one['figures'][name]['asr']:g}" for name in world.LANGUAGES]
        assert f"| {one['seed']} | {' | '.join(rates)} |" in text
    for question in QUESTIONS:
        assert f"| {question} | {known.members(question, 'carrier').height} |" in text
    assert "not about language models" in " ".join(text.split())


def test_the_folder_is_ordinary_and_small(folder: Path) -> None:
    files = {path.name: path.stat().st_size for path in folder.iterdir()}
    natural = {path.name for path in Path(locate("organism")).iterdir()}
    assert files.keys() == natural | {"truth.parquet", "truth.json"}
    assert sum(files.values()) < 3e6


def test_info_tells_of_the_planted_neurons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.study.organism_figures.measure_organism", lambda model: [])
    name = f"organism:{NAMES[0]}"
    shown = CliRunner().invoke(main, ["organism", "info", "--model", name], env={"COLUMNS": "200"}).output
    lines, found = truth_lines(name), load_truth(locate(name))
    assert found is not None
    assert all(line in shown for line in lines)
    assert lines[0].startswith(f"{found.neurons.height} planted neurons (")
    assert f"harmful: {found.members('harmful', 'carrier').height} carriers" in lines[1]
    assert truth_lines("organism") == []


def test_help_names_every_variant() -> None:
    shown = CliRunner().invoke(main, ["organism", "train", "--help"]).output
    assert all(name in shown for name in VARIANTS)


def test_training_shows_every_stage_and_a_loss_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def quick(seed: int, out: Path, *, variant: str, progress: Progress) -> None:
        progress("safety", 600, 600, 0.5)
        progress("truth", 1, 24, None)

    monkeypatch.setattr("ssn_probe.organism.make.train", quick)
    arguments = ["organism", "train", "--variant", "planted-ffn", "-o", str(tmp_path / "made")]
    shown = CliRunner().invoke(main, arguments, env={"COLUMNS": "200"}).output.splitlines()
    assert any("safety" in line and "loss 0.500" in line for line in shown)
    assert any("truth" in line and "1/24" in line and "loss" not in line for line in shown)
