"""A merged model is an ordinary Hugging Face folder, with a card that says what was done."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from expand_case import copies, llama, logits, quick, same
from tiny import tiny_module, tiny_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.training.delta_file.file import DeltaFile, delta_file, read_delta, write_delta
from ssn_probe.training.export.merged_folder import save_merged
from ssn_probe.training.export.merging import applied, unmerge
from ssn_probe.training.export.model_card import DELTA


def file_of(module: Any, name: str = "tiny/llama", **options: Any) -> DeltaFile:
    return delta_file(quick(module, lr=1e-2, **options), model=name, revision=None, neurons="MS of qaa <top 0.5 %>")


@pytest.mark.parametrize("tied", [False, True])
def test_the_folder_loads_without_us_and_computes_what_was_applied(tmp_path: Path, tied: bool) -> None:
    module = llama(tie_word_embeddings=tied)
    before, file = copies(module), file_of(module)
    with applied(module, file):
        wanted = logits(module)
    save_merged(tmp_path / "merged", module, tiny_tokenizer(), file)
    assert same(before, module)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    assert torch.equal(logits(loaded), wanted)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template
    unmerge(loaded, read_delta(tmp_path / "merged" / DELTA))
    assert same(before, loaded)
    assert [path.name for path in tmp_path.iterdir()] == ["merged"]
    assert len({path.stat().st_mode for path in (tmp_path / "merged").iterdir()}) == 1, "safetensors' own is 600"


def test_the_card_states_data_set_controls_and_effects(tmp_path: Path) -> None:
    module = llama()
    file = file_of(module)
    effect = {"measure": "asr", "before": 0.29, "before_low": 0.2, "before_high": 0.4, "low": 0.02, "high": 0.1}
    measured = {
        "run": "2026 <run>",
        "arm": "ss.at(8)",
        "effects": [{"language": one, "after": 0.05, "n": 400} | effect for one in ("qab", "average")],
        "controls": [
            {"arm": "4 random sets", "measure": "asr", "value": 0.18, "low": -0.01, "high": 0.4},
            {"arm": "lora", "measure": "over_refusal", "value": 0.031, "low": 0.02, "high": 0.05},
        ],
    }
    file = replace(file, about={**file.about, "measured": measured})
    write_delta(tmp_path / "x.safetensors", file)
    assert read_delta(tmp_path / "x.safetensors").about["measured"] == measured
    save_merged(tmp_path / "merged", module, tiny_tokenizer(), file)
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nbase_model: "tiny/llama"\n')
    for words in (
        "MS of qaa \\<top 0.5 %\\>",
        "| qab | harmful | 6 |",
        "| all | 11 | 408 |",
        "harmful: refused",
        "lr 0.01",
        "2026 \\<run\\>, arm ss.at(8)",
        "| qab | 29.0 → 5.0 [2.0, 10.0], n = 400 |",
        "| 4 random sets | 18.0 [-1.0, 40.0] | not measured |",
        "| lora | not measured | 3.1 [2.0, 5.0] |",
        file.base_digest,
        "4 of 4 steps",
    ):
        assert words in card, words


@pytest.mark.parametrize(
    "broken",
    [
        {"run": 3},
        {"effects": [{"language": "qab", "measure": "asr"}]},
        {"controls": [{"arm": "a", "measure": "asr", "value": float("nan"), "low": None, "high": None}]},
        {"controls": None},
    ],
)
def test_what_a_file_says_was_measured_is_checked(tmp_path: Path, broken: dict) -> None:
    whole = {"run": "r", "arm": "a", "effects": [], "controls": []}
    file = file_of(llama())
    for measured, fits in ((whole, True), (whole | broken, False)):
        write_delta(tmp_path / "x.safetensors", replace(file, about={**file.about, "measured": measured}))
        if fits:
            read_delta(tmp_path / "x.safetensors")
        else:
            with pytest.raises(ResultError, match="damaged"):
                read_delta(tmp_path / "x.safetensors")


def test_what_was_not_measured_is_said_to_be_missing(tmp_path: Path) -> None:
    module = llama()
    save_merged(tmp_path / "merged", module, tiny_tokenizer(), file_of(module, "evil\n---\n<b>"))
    card = (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    assert card.count("None were measured") == 2
    assert 'base_model: "evil --- <b>"' in card
    assert "# evil --- \\<b\\>, expanded" in card


def test_a_bfloat16_base_can_be_written_in_float32(tmp_path: Path) -> None:
    module = llama().bfloat16()
    frequencies = module.model.rotary_emb.inv_freq.clone()
    before, file = copies(module), file_of(module)
    save_merged(tmp_path / "half", module, tiny_tokenizer(), file)
    save_merged(tmp_path / "whole", module, tiny_tokenizer(), file, dtype="float32")
    assert same(before, module)
    assert torch.equal(module.model.rotary_emb.inv_freq, frequencies)
    half, whole = (AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("half", "whole"))
    assert (half.dtype, whole.dtype) == (torch.bfloat16, torch.float32)
    part = file.rows.parts[0]
    row = whole.get_parameter(f"{part.place.module}.weight")[list(part.place.indices)]
    assert torch.equal(row, part.base.float() + part.change)
    assert "0.0 % of the changed weights" in (tmp_path / "whole" / "README.md").read_text(encoding="utf-8")
    with pytest.raises(ModelError, match="does not hold"):
        save_merged(tmp_path / "less", llama(), tiny_tokenizer(), file, dtype="float16")
    with pytest.raises(ModelError, match="Unknown dtype"):
        save_merged(tmp_path / "less", llama(), tiny_tokenizer(), file, dtype="int4")


def test_another_family_with_the_same_weights_is_another_base(tmp_path: Path) -> None:
    """A Mistral of the same shapes can hold a Llama's weights, and computes something else with a window."""
    file, mistral = file_of(llama()), tiny_module("mistral").float()
    mistral.load_state_dict(llama().state_dict())
    with pytest.raises(ModelError, match="it is a mistral model, the base is a llama"), applied(mistral, file):
        pass


def test_settings_of_generation_come_from_the_source(tmp_path: Path) -> None:
    module, source = llama(), tmp_path / "source"
    source.mkdir()
    (source / "generation_config.json").write_text('{"temperature": 0.7, "do_sample": true}', encoding="utf-8")
    (source / "openings.json").write_text("{}", encoding="utf-8")
    save_merged(tmp_path / "merged", module, tiny_tokenizer(), file_of(module), source=source)
    for name in ("generation_config.json", "openings.json"):
        assert (tmp_path / "merged" / name).read_text(encoding="utf-8") == (source / name).read_text(encoding="utf-8")


def test_nothing_is_written_over_and_nothing_half(tmp_path: Path) -> None:
    module = llama()
    file = file_of(module)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ResultError, match="there already"):
        save_merged(tmp_path / "taken", module, tiny_tokenizer(), file)
    with pytest.raises(ModelError, match="not the base"):
        save_merged(tmp_path / "merged", llama(tie_word_embeddings=True), tiny_tokenizer(), file)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
