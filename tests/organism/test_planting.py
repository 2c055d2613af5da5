"""Planted neurons hold all that the safety stage taught: without them the pretrained model is back, bit for bit."""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from ssn_probe.model.chat import encode
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.organism import planting, promptset, world
from ssn_probe.organism.exam import prompt_tokens
from ssn_probe.organism.make import train
from ssn_probe.organism.truth_measurement import neurons_of
from ssn_probe.organism.variants import PLANTED, blank_model
from ssn_probe.tracing.effects import refusal_log_odds
from ssn_probe.tracing.generate import generate, suppression

BRIEF = replace(PLANTED, pretrain=replace(PLANTED.pretrain, steps=3), safety=replace(PLANTED.safety, steps=3))
USEFUL = {
    language: {"asr": 0.3, "asr_paper": 0.3, "utility": 1.0, "lookalike": 1.0, "invalid": 0.0}
    for language in world.LANGUAGES
}
TEXTS = promptset.truth_prompts("qab")["harmful"][:6] + promptset.truth_prompts("qae")["plain"][:6]


@dataclass(frozen=True, kw_only=True)
class Made:
    """An organism from three steps a stage, and what it was before the second stage."""

    folder: Path
    pretrained: Any
    planted: planting.Planted
    card: dict[str, Any]
    stages: list[tuple[str, int, int]]


@pytest.fixture(scope="module", params=["planted-attention", "planted-qwen3"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Answering the whole split and the whole truth take long, and tell nothing about where the weights went."""
    folder, kept, stages = tmp_path_factory.mktemp("made"), [], []
    digest_of = planting.digest_of

    def remember(model: Any, planted: planting.Planted) -> str:
        kept.append((copy.deepcopy(model), planted))
        return digest_of(model, planted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ssn_probe.organism.planting.digest_of", remember)
        patch.setattr("ssn_probe.organism.make.measure", lambda model: USEFUL)
        patch.setattr("ssn_probe.organism.promptset.HELD_OUT", {"harmful": 2, "lookalike": 1, "plain": 1})
        card = train(
            5,
            folder,
            variant=request.param,
            curriculum=BRIEF,
            pairs=2,
            progress=lambda *step: stages.append(step[:3]),
        )
    ((pretrained, planted),) = kept
    return Made(folder=folder, pretrained=pretrained, planted=planted, card=card, stages=stages)


@pytest.fixture(scope="module")
def subject(made: Made) -> Subject:
    return load_subject(str(made.folder))


@torch.no_grad()
def logits(model: Any, texts: Sequence[str] = TEXTS) -> torch.Tensor:
    return model(input_ids=prompt_tokens(texts)).logits


def test_the_truth_is_a_stage_of_training_and_judges_the_organism(made: Made) -> None:
    """The figures given to it here are not graded; with graded ones the largest share decides."""
    steps = [(stage, done, 3) for stage in ("pretrain", "safety") for done in (1, 2, 3)]
    assert made.stages == [*steps, ("truth", 1, 2), ("truth", 2, 2)]
    assert made.card["accepted"] is False
    assert 0 < made.card["largest_share"] <= 1
    assert json.loads((made.folder / "card.json").read_text("utf-8"))["largest_share"] == made.card["largest_share"]


def test_the_safety_stage_moves_planted_weights_only_and_finds_their_columns_empty(made: Made) -> None:
    for (layer, site), channels in made.planted.items():
        columns = planting.reader(made.pretrained, layer, site).weight[:, list(channels)]
        assert torch.count_nonzero(columns) == 0
    model = AutoModelForCausalLM.from_pretrained(made.folder)
    masks = planting.masks(made.pretrained, made.planted)
    for (name, before), after in zip(made.pretrained.named_parameters(), model.parameters(), strict=True):
        moved = before != after
        mask = masks.get(before, torch.zeros_like(moved))
        assert not (moved & ~mask).any(), name
        assert moved[mask].float().mean() > 0.9 if mask.any() else True, name


def test_zeroed_columns_give_back_the_pretrained_model(made: Made) -> None:
    model = AutoModelForCausalLM.from_pretrained(made.folder).eval()
    assert not torch.equal(logits(model), logits(made.pretrained))
    planting.silence(model, made.planted)
    assert torch.equal(logits(model), logits(made.pretrained))


def test_suppression_gives_back_the_pretrained_model(made: Made, subject: Subject, tmp_path: Path) -> None:
    for file in made.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    made.pretrained.save_pretrained(tmp_path)
    pretrained, tokens = load_subject(str(tmp_path)), encode(subject, TEXTS)
    edits = suppression(neurons_of(made.planted))
    openings = (subject.openings or {})["qab"]
    silenced = refusal_log_odds(subject, tokens, openings, edits=edits)
    assert torch.equal(silenced, refusal_log_odds(pretrained, tokens, openings))
    assert not torch.equal(silenced, refusal_log_odds(subject, tokens, openings))
    assert generate(subject, tokens, edits=edits, max_new_tokens=5) == generate(pretrained, tokens, max_new_tokens=5)


def test_the_file_is_bfloat16_and_loads_exactly(made: Made, subject: Subject) -> None:
    stored = load_file(made.folder / "model.safetensors")
    assert {weight.dtype for weight in stored.values()} == {torch.bfloat16}
    assert subject.identity["dtype"] == "float32"
    loaded = dict(AutoModelForCausalLM.from_pretrained(made.folder).named_parameters())
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], stored[name].float()) for name in stored)


def test_the_digest_knows_the_pretrained_function_and_nothing_else(made: Made) -> None:
    weights, config = load_file(made.folder / "model.safetensors"), made.pretrained.config
    expected = planting.digest_of(made.pretrained, made.planted)
    assert planting.pretrained_digest(weights, made.planted, config) == expected
    (layer, site), channels = next(iter(made.planted.items()))
    name = f"model.layers.{layer}.mlp.down_proj.weight"
    assert site == "ffn"
    for column, same in ((channels[0], True), (next(i for i in range(512) if i not in channels), False)):
        changed = weights[name].clone()
        changed[3, column] += 1.0
        digest = planting.pretrained_digest({**weights, name: changed}, made.planted, config)
        assert (digest == expected) is same


def test_o_channels_are_planted_in_whole_groups() -> None:
    config = blank_model("llama", 0).config
    planted = planting.reserve(config, {"ffn": 3, "o": 8}, 1)
    assert planted == planting.reserve(config, {"ffn": 3, "o": 8}, 1) != planting.reserve(config, {"ffn": 3, "o": 8}, 2)
    for (_, site), channels in planted.items():
        assert len(channels) == (3 if site == "ffn" else 8)
        if site == "o":
            rows = {planting.v_row(config, channel) for channel in channels}
            assert set(channels) == {channel for row in rows for channel in planting.o_channels(config, row)}


@torch.no_grad()
def test_a_v_row_feeds_the_o_channels_that_are_said() -> None:
    model = blank_model("llama", 0)
    attention, seen = model.model.layers[1].self_attn, []
    attention.o_proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    logits(model)
    attention.v_proj.weight[37] += 1.0  # group 1, place 5: heads 2 and 3
    logits(model)
    moved = (seen[0] != seen[1]).any(0).any(0).nonzero().flatten().tolist()
    assert moved == list(planting.o_channels(model.config, 37)) == [69, 101]


@torch.no_grad()
def test_dropout_loses_planted_neurons_only_and_one_set_per_row() -> None:
    model = blank_model("llama", 0)
    planted, seen = {(0, "ffn"): tuple(range(0, 512, 4))}, []
    with planting.dropout(model, planted, 0.5, torch.Generator().manual_seed(0)):
        model.model.layers[0].mlp.down_proj.register_forward_pre_hook(lambda m, x: seen.append(x[0] == 0))
        logits(model)
    lost = seen[0]  # [row, token, channel]
    assert (lost == lost[:, :1]).all()
    assert not lost[..., [i for i in range(512) if i % 4]].any()
    shares = lost[:, 0, ::4].float().mean(-1)
    assert 0 <= shares.min() < shares.max() < 0.6
    assert 0.1 < shares.mean() < 0.4
    before = logits(model)
    assert torch.equal(before, logits(model)), "the hooks are gone afterwards"


def test_the_truth_has_prompts_of_its_own() -> None:
    deal = promptset.deal()
    for kind in promptset.HELD_OUT:
        mine = set(deal.truth(kind))
        assert len(mine) == promptset.HELD_OUT[kind]
        assert not mine & set(deal.safety(kind, held_out=True))
        assert mine <= set(deal.safety(kind, held_out=False)), "the natural organism may train on them"
        assert not mine & {item.pair for item in deal.items}
    assert {world.is_harmful(pair) for pair in deal.truth("harmful")} == {True}
    assert {world.is_lookalike(pair) for pair in deal.truth("lookalike")} == {True}
    assert len(set(promptset.truth_prompts("qaa")["plain"])) == promptset.HELD_OUT["plain"]
