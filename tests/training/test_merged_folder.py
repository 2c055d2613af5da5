"""A merged model is an ordinary Hugging Face folder, with a card that says what was done."""

from pathlib import Path

import pytest
import torch
from tiny import tiny_module, tiny_tokenizer
from training_case import copies, file_of, llama, logits, same
from transformers import AutoModelForCausalLM, AutoTokenizer

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.training.delta_file.file import read_delta
from ssn_probe.training.export.merged_folder import save_merged
from ssn_probe.training.export.merging import applied, unmerge
from ssn_probe.training.export.model_card import DELTA


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
    assert 'base_model: "tiny/llama"' in (tmp_path / "merged" / "README.md").read_text(encoding="utf-8")
    assert len({path.stat().st_mode for path in (tmp_path / "merged").rglob("*.*")}) == 1, "safetensors' own is 600"


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
    with pytest.raises(ModelError, match="cannot represent"):
        save_merged(tmp_path / "less", llama(), tiny_tokenizer(), file, dtype="float16")
    with pytest.raises(ModelError, match="Unknown dtype"):
        save_merged(tmp_path / "less", llama(), tiny_tokenizer(), file, dtype="int4")


def test_another_family_with_the_same_weights_is_another_base(tmp_path: Path) -> None:
    """A Mistral of the same shapes can hold a Llama's weights, and computes something else with a window."""
    file, mistral = file_of(llama()), tiny_module("mistral").float()
    mistral.load_state_dict(llama().state_dict())
    with pytest.raises(ModelError, match="it is a mistral model, the base a llama model"), applied(mistral, file):
        pass


def test_settings_of_generation_come_from_the_source(tmp_path: Path) -> None:
    module, source = llama(), tmp_path / "source"
    source.mkdir()
    (source / "generation_config.json").write_text(
        '{"do_sample": false, "temperature": 0.6, "top_p": 0.9, "eos_token_id": 2}', encoding="utf-8"
    )
    (source / "openings.json").write_text("{}", encoding="utf-8")
    save_merged(tmp_path / "merged", module, tiny_tokenizer(), file_of(module), source=source)
    for name in ("generation_config.json", "openings.json"):
        assert (tmp_path / "merged" / name).read_text(encoding="utf-8") == (source / name).read_text(encoding="utf-8")


def test_nothing_is_written_over_and_nothing_half(tmp_path: Path) -> None:
    module = llama()
    file = file_of(module)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ResultError, match="already exists"):
        save_merged(tmp_path / "taken", module, tiny_tokenizer(), file)
    with pytest.raises(ModelError, match="not the base"):
        save_merged(tmp_path / "merged", llama(tie_word_embeddings=True), tiny_tokenizer(), file)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
