"""The family of docs/extend/family.md: registered from outside, proved by the doctor, and run to the end."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ssn_probe.recipes import suppress_ss

from ssn_probe import Result, register_family, run
from ssn_probe.doctor import proof
from ssn_probe.doctor.proof import require_proof
from ssn_probe.errors import ModelError
from ssn_probe.model.families import MODULES
from ssn_probe.model.loading import locate, read_tokenizer
from ssn_probe.model.subject import load_subject

PAGE = "family.md"
ROW: dict[str, Any] = {"ffn_inputs": ("mlp.up_proj",)}
Extended = Callable[..., Path]


@pytest.fixture(scope="module")
def arcee(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Arcee and the organism's tokenizer."""
    from transformers import ArceeConfig, ArceeForCausalLM

    folder, tokenizer = tmp_path_factory.mktemp("arcee"), read_tokenizer(locate("organism"))
    config = ArceeConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    module = ArceeForCausalLM(config)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0 if parameter.dim() > 1 else 1, 0.3)
    module.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def suppressed(model: str, out: Path) -> Result:
    recipe = suppress_ss(model=model, effect="local", top=0.02, controls=3, log_odds_label_sets=0)
    return run(replace(recipe, permutations=99, half_samples=10), out=out, limit=8, progress=False)


def test_suppress_ss_runs_with_it(extended: Extended, arcee: str, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ModelError, match="'arcee' is not in the table"):
        load_subject(arcee)
    extended(PAGE)
    assert suppressed(arcee, tmp_path).summary.height
    (kept,) = (tmp_path / "cache" / "proofs").iterdir()
    checks = json.loads(kept.read_text(encoding="utf-8"))["checks"]
    assert list(checks) == [
        "numbers",
        "tracing",
        *(f"site {site}" for site in MODULES),
        "local effects",
        "rows of ffn",
        "padding",
        "neighbours",
        "row",
        "proved",
    ]
    monkeypatch.setattr(proof, "examine_family", None)  # the second run rests on the proof
    assert suppressed(arcee, tmp_path).summary.height
    whole = kept.read_text(encoding="utf-8")
    for damaged in ("", "{}", "[1]", whole.replace('"family"', '"famili"'), whole[:-5]):
        kept.write_text(damaged, encoding="utf-8")
        with pytest.raises(TypeError):
            require_proof(load_subject(arcee), tmp_path)
    kept.write_text(whole, encoding="utf-8")
    register_family("arcee", **ROW, implementation="eager")
    with pytest.raises(TypeError):
        require_proof(load_subject(arcee), tmp_path)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "o and q swapped": ({"modules": MODULES | {"q": MODULES["o"], "o": MODULES["q"]}}, "site q"),
    "up_proj for ffn": ({"modules": MODULES | {"ffn": ("mlp.up_proj", "output")}}, "local effects"),
    "another norm's rotation": ({"head_norms": {"q": "input_layernorm", "k": "input_layernorm"}}, "local effects"),
}


@pytest.mark.parametrize(("row", "check"), WRONG.values(), ids=WRONG)
def test_a_wrong_row_is_refused_with_the_name_of_the_check(
    extended: Extended, arcee: str, tmp_path: Path, row: dict[str, Any], check: str
) -> None:
    extended(PAGE)
    register_family("arcee", **(ROW | row))
    with pytest.raises(ModelError, match=f"'arcee' does not describe .*: the doctor's check “{check}” failed"):
        require_proof(load_subject(arcee), tmp_path)
    assert not (tmp_path / "cache").exists()


def test_a_row_that_cannot_be(extended: Extended, arcee: str) -> None:
    extended(PAGE)
    with pytest.raises(ModelError, match="'llama' comes with ssn-probe"):
        register_family("llama")
    with pytest.raises(ModelError, match="no field 'layer'") as error:
        register_family("arcee", layer="model.layers")
    assert "Did you mean 'layers'" in error.value.hint
    register_family("arcee", **ROW, modules=MODULES | {"v": ("self_attn.value", "output")})
    with pytest.raises(ModelError, match=r"no module 'self_attn\.value' in a model of the family 'arcee'"):
        load_subject(arcee)
    with pytest.raises(ModelError, match="modules of the sites q"):
        register_family("arcee", modules={"q": MODULES["q"]})
    with pytest.raises(ModelError, match="norms over all heads that take away the mean"):
        register_family("arcee", norm_over="all heads", norm_centred=True)
    with pytest.raises(ModelError, match="rotation of the family 'arcee' is 'pair'") as error:
        register_family("arcee", rotation="pair")
    assert "Did you mean 'pairs'" in error.value.hint
    joined = MODULES | {"q": ("self_attn.qk", "output")}
    for parts in (("k", "v"), ("q", "keys")):
        with pytest.raises(ModelError, match=r"self_attn\.qk of the family 'arcee' holds .*, .*\."):
            register_family("arcee", modules=joined, fused={"self_attn.qk": parts})
    assert register_family("arcee", modules=joined, fused={"self_attn.qk": ("gate", "q")}).norm_switch is None
