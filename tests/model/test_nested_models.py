"""Models whose decoder is nested beside a tower for images: they load, trace and generate as their text model alone."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ndif_stand_in import host_that_says, replica, status
from safetensors.torch import load_file, save_file
from tiny import SHAPE, tiny_config, tiny_tokenizer

from ssn_probe.doctor.module_weights import projection
from ssn_probe.doctor.probing import plain_logits, prompts, traced_logits
from ssn_probe.errors import ModelError, RemoteError
from ssn_probe.model.computation import computation
from ssn_probe.model.families import FAMILIES
from ssn_probe.model.shape import shape_of
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.generate import generate

BELOW = "model.language_model"


def write_pair(kind: str, folder: Path) -> tuple[Path, Path]:
    """A random model with its tower, and its text model alone with the same weights."""
    import transformers

    config = tiny_config(kind)
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers  # one may be taken for the other
    config.text_config.final_logit_softcapping = None  # which Gemma-3 with a tower ignores
    torch.manual_seed(0)
    module = getattr(transformers, FAMILIES[kind].loader).from_config(config).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, 0.3) if parameter.dim() > 1 else parameter.add_(0.3 * torch.randn_like(parameter))
    alone = transformers.AutoModelForCausalLM.from_config(config.text_config).double()
    own = {name.replace("language_model.", ""): weight for name, weight in module.state_dict().items()}
    alone.load_state_dict({name: own[name] for name in alone.state_dict()})
    found = folder / "whole", folder / "alone"
    for one, where in zip((module, alone), found, strict=True):
        one.save_pretrained(where)
        tiny_tokenizer().save_pretrained(where)
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    return {kind: write_pair(kind, tmp_path_factory.mktemp(kind)) for kind in ("gemma3", "mistral3")}


@pytest.fixture(scope="module", params=["gemma3", "mistral3"])
def pair(request: pytest.FixtureRequest, folders: dict[str, tuple[Path, Path]]) -> tuple[Subject, Subject]:
    whole, alone = (load_subject(str(folder)) for folder in folders[request.param])
    return whole, alone


@pytest.fixture
def folder(folders: dict[str, tuple[Path, Path]], tmp_path: Path) -> Path:
    """A copy of the nested Gemma-3 that a test may spoil."""
    return Path(shutil.copytree(folders["gemma3"][0], tmp_path / "model"))


def test_a_nested_model_is_described_as_its_text_model(pair: tuple[Subject, Subject]) -> None:
    whole, alone = pair
    for name in ("n_layers", "widths", "vocabulary", "context", "limits", "turns", "pad_id"):
        assert getattr(whole, name) == getattr(alone, name), name
    described = load_subject(whole.path, weights=False)
    assert (described.identity, described.limits) == (whole.identity, whole.limits)
    assert whole.identity["digest"] != alone.identity["digest"]


def test_it_computes_what_its_text_model_computes(pair: tuple[Subject, Subject]) -> None:
    whole, alone = pair
    tokens, silenced = prompts(whole), [(0, "q", 3), (0, "ffn", 5), (1, "v", 2), (1, "o", 7)]
    assert torch.equal(plain_logits(whole, tokens), plain_logits(alone, tokens))
    assert torch.equal(traced_logits(whole, tokens), plain_logits(alone, tokens))
    assert torch.equal(traced_logits(whole, tokens, silenced), traced_logits(alone, tokens, silenced))
    assert not torch.allclose(traced_logits(whole, tokens, silenced), plain_logits(alone, tokens))
    assert generate(whole, tokens, max_new_tokens=5) == generate(alone, tokens, max_new_tokens=5)


def test_the_doctor_finds_the_weights_of_the_decoder_and_not_of_the_tower(pair: tuple[Subject, Subject]) -> None:
    whole, _ = pair
    module = whole.model._module
    for site, path in {"q": "self_attn.q_proj", "ffn": "mlp.down_proj"}.items():
        found = projection(module, 1, site)
        assert found is whole.family.part(module, f"{BELOW}.layers.1.{path}")


def test_memory_and_deltas_read_the_text_model(pair: tuple[Subject, Subject]) -> None:
    ours, theirs = (shape_of(one.model._module, one.family) for one in pair)
    tower = sum(weight.nbytes for name, weight in pair[0].model._module.named_parameters() if "language" not in name)
    tower -= pair[0].model._module.lm_head.weight.nbytes
    assert ours.windows == theirs.windows
    assert ours.weights - theirs.weights >= tower > 0
    assert computation(pair[0].model._module.config) == computation(pair[1].model._module.config) != {}


def test_loading_says_nothing_on_stderr(folders: dict[str, tuple[Path, Path]], capfd: pytest.CaptureFixture) -> None:
    load_subject(str(folders["mistral3"][0]))
    assert "not supported" not in capfd.readouterr().err


def change(folder: Path, part: str | None = None, **changes: Any) -> None:
    file = folder / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    (content if part is None else content[part]).update(changes)
    file.write_text(json.dumps(content), encoding="utf-8")


def nested(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, "text_config", **changes)


def tower(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, "vision_config", **changes)


def lose_a_layer(folder: Path) -> None:
    file = folder / "model.safetensors"
    kept = {name: weight for name, weight in load_file(file).items() if "language_model.model.layers.1" not in name}
    save_file(kept, file, metadata={"format": "pt"})


SPOILT = {
    "a quantised text model": (nested(quantization_config={"quant_method": "fp8"}), r"quantised checkpoint \(fp8"),
    "a quantised tower": (tower(quantization_config={"quant_method": "awq"}), r"quantised checkpoint \(awq"),
    "a billion layers": (nested(num_hidden_layers=10**9), "text_config.num_hidden_layers 1000000000"),
    "a tower of a billion layers": (tower(num_hidden_layers=10**9), "vision_config.num_hidden_layers 1000000000"),
    "more layers": (nested(num_hidden_layers=3), "asks for 3 layers"),
    "fewer layers": (nested(num_hidden_layers=1), "asks for 1 layers"),
    "a layer too few": (lose_a_layer, "asks for 2 layers, and its weights are of the layers 0 to 0"),
    "a text model of another family": (
        nested(model_type="llama"),
        "The text model of .* is of the family 'llama', which a gemma3 model does not have",
    ),
    "a text model that is refused": (nested(model_type="qwen3_5_text"), "family 'qwen3_5_text' are not studied: its"),
    "the class of the text model": (
        lambda folder: change(folder, architectures=["Gemma3ForCausalLM"]),
        "model_type is gemma3, and its architectures .* are of gemma3_text",
    ),
    "another width": (nested(intermediate_size=16), r"has the shape \(24, 20\), and config.json asks for \(24, 16\)"),
    "heads of another width": (nested(head_dim=3), r"has the shape \(6,\), and config.json asks for \(3,\)"),
    "several text models": (
        lambda folder: change(folder, decoder={"model_type": "llama"}, generator={"model_type": "llama"}),
        "Multiple valid text configs",
    ),
    "both directions": (nested(use_bidirectional_attention=True), "text_config.use_bidirectional_attention True"),
    "lengths that matter": (nested(rope_scaling={"rope_type": "dynamic", "factor": 2.0}), "rope_type dynamic"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "problem"), SPOILT.values(), ids=SPOILT)
def test_what_is_nested_is_judged_as_the_rest(folder: Path, spoil: Callable[[Path], None], problem: str) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=problem):
        load_subject(str(folder), weights=False)


@pytest.mark.parametrize("field", ["hidden_size", "vocab_size", "query_pre_attn_scalar"])
def test_a_hosts_nested_config_is_compared(field: str, folder: Path) -> None:
    from transformers import AutoConfig

    config = json.loads(AutoConfig.from_pretrained(folder).to_json_string())
    with host_that_says(status(replica(str(folder), config=json.dumps(config)))) as (url, _):
        assert load_subject(str(folder), remote=url, weights=False).identity
    config["text_config"][field] = 3
    with (
        host_that_says(status(replica(str(folder), config=json.dumps(config)))) as (url, _),
        pytest.raises(RemoteError, match=f"its {field} is 3"),
    ):
        load_subject(str(folder), remote=url, weights=False)


@pytest.mark.parametrize(("stated", "loads"), [({}, True), ({"tie_word_embeddings": True}, False)])
def test_a_head_of_its_own_is_used_unless_the_config_ties_it(folder: Path, stated: dict[str, Any], loads: bool) -> None:
    """Published configs of nested models say nothing of it; transformers ties them if their files have no head."""
    file = folder / "config.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for part in (content, content["text_config"]):
        part.pop("tie_word_embeddings", None)
    file.write_text(json.dumps(content | stated), encoding="utf-8")
    if not loads:
        with pytest.raises(ModelError, match="has other values"):
            load_subject(str(folder))
        return
    module = load_subject(str(folder)).model._module
    stored = load_file(folder / "model.safetensors")["language_model.lm_head.weight"]
    assert torch.equal(module.lm_head.weight, stored)
    assert not torch.equal(module.lm_head.weight, module.get_input_embeddings().weight)
    copy = folder.parent / "copy"
    module.save_pretrained(copy)
    tiny_tokenizer().save_pretrained(copy)
    assert torch.equal(load_subject(str(copy)).model._module.lm_head.weight, stored), "a copy says that it is its own"


def test_mistral_3_may_have_a_decoder_of_mistral(tmp_path: Path) -> None:
    """As Mistral-Small-3.1 has it; the queries of a Mistral do not grow with their position."""
    import transformers

    shape: dict[str, Any] = dict(SHAPE)
    config = tiny_config("mistral3")
    own = transformers.Mistral3Config(
        text_config=transformers.MistralConfig(**shape, sliding_window=None),
        vision_config=config.vision_config,
        tie_word_embeddings=False,
    )
    transformers.AutoModelForImageTextToText.from_config(own).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    subject = load_subject(str(tmp_path))
    assert subject.family.name == "mistral3"
    assert [one["growth"] for one in places_of(subject)["scores"]] == [None, None]
