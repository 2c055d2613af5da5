"""A model that is not what was asked for: adapters, quantised weights, other layers, other modules, other numbers."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_module, write_tiny

from ssn_probe.doctor.examine import examine_model
from ssn_probe.errors import ModelError
from ssn_probe.model.anatomy import check_anatomy
from ssn_probe.model.families import BUILT_IN, FAMILIES, Family, family_of
from ssn_probe.model.identity import row_of
from ssn_probe.model.subject import load_subject

UP = "model.layers.0.mlp.up_proj.weight"
Spoil = Callable[[Path], Any]


@pytest.fixture
def folder(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama that a test may spoil."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def configured(**changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return spoil


def holding(**tensors: torch.Tensor) -> Spoil:
    """With these weights, too; `__` stands for a dot."""

    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        new = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
        save_file(load_file(file) | new, file, metadata={"format": "pt"})

    return spoil


def changing(change: Callable[[torch.Tensor], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        tensors = load_file(file)
        save_file(tensors | {UP: change(tensors[UP])}, file, metadata={"format": "pt"})

    return spoil


def writing(name: str, text: str = "{}") -> Spoil:
    return lambda folder: (folder / name).write_text(text, encoding="utf-8")


def adapter(base: str | None = None, kind: str = "LORA") -> Spoil:
    return writing("adapter_config.json", json.dumps({"peft_type": kind, "base_model_name_or_path": base}))


def adapter_alone(folder: Path) -> None:
    about = {"peft_type": "LORA", "base_model_name_or_path": "some/base"}
    (folder / "adapter_config.json").write_text(json.dumps(about), encoding="utf-8")
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()


ADAPTED = {
    "an adapter's config": (writing("adapter_config.json"), "beside the model's own weights"),
    "an adapter's weights": (writing("adapter_model.bin"), "beside the model's own weights"),
    "an adapter alone": (adapter_alone, "is a LORA adapter of 'some/base' and not a model"),
    "left over": (holding(model__layers__0__mlp__up_proj__lora_A__weight=torch.ones(1)), "they are an adapter's"),
}
QUANTISED = {
    **{
        method: (configured(quantization_config={"quant_method": method}), method)
        for method in ("fp8", "gptq", "awq", "bitsandbytes", "compressed-tensors", "mxfp4", "hqq", "torchao")
    },
    "int8": (changing(lambda weight: weight.to(torch.int8)), "stored as I8"),
    "float8": (changing(lambda weight: weight.to(torch.float8_e4m3fn)), "stored as F8_E4M3"),
    "4 bits in bytes": (changing(lambda weight: weight[:, :12].to(torch.uint8)), "stored as U8"),
    "GPTQ's names": (holding(model__layers__0__mlp__up_proj__qweight=torch.ones(1)), "they are a quantiser's"),
    "a GGUF file": (
        lambda folder: [(folder / "model.safetensors").unlink(), writing("model.Q4_K_M.gguf")(folder)],
        "GGUF files are not read",
    ),
    "left over": (holding(model__layers__0__mlp__up_proj__weight_scale=torch.ones(1)), "they are a quantiser's"),
}
OTHER = {
    "layers beyond": (holding(model__layers__2__mlp__up_proj__weight=torch.ones(20, 24)), "asks for 2 layers"),
    "fewer layers": (configured(num_hidden_layers=1), "asks for 1 layers"),
    "a billion layers": (configured(num_hidden_layers=10**9), "num_hidden_layers 1000000000"),
    "a wide config": (configured(hidden_size=24 * 10**5), "config.json asks for"),
    "biases off": (holding(model__layers__0__self_attn__q_proj__bias=torch.ones(24)), "switches biases"),
    "biases on": (configured(attention_bias=True), "lacks 8 weights"),
    "an own head": (configured(tie_word_embeddings=True), "has other values"),
    "twice": (holding(norm__weight=torch.ones(24)), "and again in"),
    "the class of another family": (
        configured(architectures=["Qwen3ForCausalLM"]),
        r"model_type is llama, and its architectures \(Qwen3ForCausalLM\) are of qwen3",
    ),
    "the family of another class": (
        configured(model_type="mistral"),
        "model_type is mistral, and its .* are of .*llama",
    ),
    "a nested model": (configured(text_config={"num_hidden_layers": 2}), "models of the family 'llama' do not have"),
    "another nested model": (configured(decoder={"model_type": "llama"}), "models of the family 'llama' do not have"),
    "kinds of too few layers": (
        lambda folder: [configured(model_type="qwen3", architectures=None, layer_types=["full_attention"])(folder)],
        "config of .* cannot be loaded",
    ),
    "NaN": (changing(lambda weight: weight * float("nan")), "NaN or infinite in float64"),
    "too large": (
        lambda folder: [changing(lambda weight: weight * 1e9)(folder), configured(dtype="float16")(folder)],
        "NaN or infinite in float16",
    ),
    "another file": (configured(transformers_weights="other.safetensors"), "another file of weights"),
    "another config": (configured(configuration_files=["config.1.0.0.json"]), "other configuration files"),
    "fused": (configured(fusion_config={"patch_embeddings": True}), "fused"),
    "layers of their own": (
        configured(per_layer_config={"1": {"num_key_value_heads": 4}}),
        "settings of single layers",
    ),
    "its own code": (configured(auto_map={"AutoModelForCausalLM": "own.Model"}), "never run"),
    "code of another family": (configured(auto_map={"AutoModelForCausalLM": "phi.Phi3ForCausalLM"}), "never run"),
    "a quantised dtype": (configured(dtype="int8"), r"dtype torch\.int8"),
    "an unknown activation": (configured(hidden_act="nonsense"), "config of .* cannot be loaded"),
    "a text for a number": (configured(hidden_size="24"), "expected int, got str"),
    "too nested": (writing("config.json", "[" * 10**5), "as JSON"),
    "a setting that is a list": (writing("generation_config.json", "[]"), "no object but list"),
}


@pytest.mark.parametrize(("spoil", "problem"), ADAPTED.values(), ids=ADAPTED)
def test_an_adapter_is_refused_and_to_be_merged(folder: Path, spoil: Spoil, problem: str) -> None:
    spoil(folder)
    for weights in (True, False):
        with pytest.raises(ModelError, match=problem) as error:
            load_subject(str(folder), weights=weights)
        assert "merge_and_unload" in str(error.value.hint)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks for it
def test_the_advice_for_an_adapter_merges_it(tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    """The lines of the hint are run as they stand, and what they write is the model with the adapter's change."""
    from peft import LoraConfig, get_peft_model

    base, place, monkey = tiny_folder("llama"), tmp_path / "adapter", pytest.MonkeyPatch()
    module = get_peft_model(tiny_module("llama"), LoraConfig(r=2, target_modules=["up_proj"], init_lora_weights=False))
    module.peft_config["default"].base_model_name_or_path = str(base)
    module.save_pretrained(str(place))
    with pytest.raises(ModelError, match="is a LORA adapter of") as error:
        load_subject(str(place))
    lines = str(error.value.hint).partition("here 'merged': ")[2]
    monkey.chdir(tmp_path)
    exec(lines)
    monkey.undo()
    merged = load_subject(str(tmp_path / "merged")).model._module.get_parameter(UP)
    assert torch.allclose(merged, module.merge_and_unload().get_parameter(UP))
    assert not torch.allclose(merged, load_subject(str(base)).model._module.get_parameter(UP))


def test_an_adapter_that_cannot_be_merged_is_not_to_be_merged(folder: Path) -> None:
    adapter("some/base", "PREFIX_TUNING")(folder)
    with pytest.raises(ModelError, match="a PREFIX_TUNING adapter of 'some/base'") as error:
        load_subject(str(folder))
    assert "cannot be merged" in str(error.value.hint)


@pytest.mark.parametrize(("spoil", "problem"), QUANTISED.values(), ids=QUANTISED)
def test_quantised_weights_are_refused_with_what_to_give_instead(folder: Path, spoil: Spoil, problem: str) -> None:
    spoil(folder)
    for weights in (True, False):
        with pytest.raises(ModelError, match=problem) as error:
            load_subject(str(folder), weights=weights)
        assert "unquantised checkpoint" in str(error.value.hint)


@pytest.mark.parametrize(("spoil", "problem"), OTHER.values(), ids=OTHER)
def test_a_model_that_the_folder_does_not_hold_is_refused(folder: Path, spoil: Spoil, problem: str) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=problem):
        load_subject(str(folder))


def test_what_was_read_from_a_gguf_file_is_a_model_of_its_own(folder: Path) -> None:
    configured(quantization_config={"quant_method": "gguf"})(folder)
    with pytest.raises(ModelError, match=r"\(gguf, by its config.json") as error:
        load_subject(str(folder))
    assert "remove quantization_config from config.json" in str(error.value.hint)


def test_the_doctor_names_the_adapter_and_not_the_family(folder: Path) -> None:
    writing("adapter_config.json")(folder)
    (check,) = examine_model(str(folder))
    assert (check.status, check.name) == ("failed", "model")
    assert "adapter" in check.found
    assert "merge" in check.remedy


def test_code_for_a_class_that_transformers_has_is_left_out_and_noted(folder: Path) -> None:
    """As the published Phi-3 has it."""
    before = load_subject(str(folder)).identity["digest"]
    (folder / "own.py").write_text("raise RuntimeError", encoding="utf-8")
    configured(auto_map={"AutoModelForCausalLM": "own.LlamaForCausalLM", "AutoConfig": "own.LlamaConfig"})(folder)
    subject = load_subject(str(folder))
    assert type(subject.model._module).__module__ == "transformers.models.llama.modeling_llama"
    (note,) = subject.template_notes
    assert "(own.LlamaForCausalLM), which is never run" in note
    assert subject.identity["digest"] != before, "config.json is part of it"


def test_what_is_harmless_loads(folder: Path, tmp_path: Path) -> None:
    holding(model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(3))(folder)
    assert load_subject(str(folder))
    tied = write_tiny(tmp_path / "tied", "llama", tie_word_embeddings=True)
    head = load_file(tied / "model.safetensors")["model.embed_tokens.weight"].clone()
    holding(lm_head__weight=head)(tied)
    assert load_subject(str(tied))


PIPES = ("config.json", "tokenizer.json", "generation_config.json", "model.safetensors", "openings.json")


@pytest.mark.parametrize("name", [*PIPES, "chat_template.jinja", "adapter_config.json"])
def test_a_pipe_is_an_error_at_once(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match="a pipe, a socket or a device"):
        load_subject(str(folder))


@pytest.mark.parametrize("texts", [["w1 " * 1000], ["w1"] * 1001])
def test_openings_have_a_limit(folder: Path, texts: list[str]) -> None:
    openings = {"refusal": {"en": texts}, "compliant": {"en": ["w2"]}}
    writing("openings.json", json.dumps(openings))(folder)
    with pytest.raises(ModelError, match="Give at most 1,000 openings"):
        load_subject(str(folder), weights=False)


def hook(module: Any) -> None:
    module.model.layers[1].mlp.register_forward_hook(lambda *_: None)


def parametrise(module: Any) -> None:
    torch.nn.utils.parametrizations.weight_norm(module.model.layers[1].mlp.up_proj)


def replace_forward(module: Any) -> None:
    module.model.layers[0].self_attn.forward = lambda *_: None


def wrap(module: Any) -> None:
    module.model.layers[1].mlp.down_proj = torch.nn.Sequential(module.model.layers[1].mlp.down_proj)


def narrow(module: Any) -> None:
    module.model.layers[1].mlp.up_proj = torch.nn.Linear(24, 19, bias=False)


def lose_layer(module: Any) -> None:
    del module.model.layers[1]


def adapt(module: Any) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    inject_adapter_in_model(LoraConfig(r=2, target_modules=["q_proj"]), module)


class Packed(torch.Tensor):
    """A weight that computes as a matrix of floats and is stored in another way, as torchao's."""


def weigh(weight: torch.Tensor) -> Callable[[Any], None]:
    def change(module: Any) -> None:
        kept = torch.nn.Parameter(weight, requires_grad=False)
        del module.model.layers[1].mlp.up_proj.weight
        module.model.layers[1].mlp.up_proj.register_parameter("weight", kept)

    return change


class Linear4bit(torch.nn.Linear):
    """As bitsandbytes has one."""


Linear4bit.__module__ = "bitsandbytes.nn.modules"


def replace(module: Any) -> None:
    module.model.layers[1].mlp.up_proj = Linear4bit(24, 20, bias=False)


def quantiser(module: Any) -> None:
    module.hf_quantizer = object()


QUANTISED_MODULES = {
    "in bytes": (weigh(torch.ones(20, 24, dtype=torch.int8)), "up_proj.weight is stored as torch.int8"),
    "in 8 bits": (weigh(torch.ones(20, 24).to(torch.float8_e4m3fn)), "up_proj.weight is stored as torch.float8_e4m3fn"),
    "as it says itself": (quantiser, "The model is a LlamaForCausalLM with quantised weights"),
    "as tensors of another kind": (weigh(torch.ones(20, 24).as_subclass(Packed)), "no plain tensor but Packed"),
    "in modules of a quantiser": (replace, "a Linear4bit with quantised weights"),
}


@pytest.mark.parametrize(("change", "problem"), QUANTISED_MODULES.values(), ids=QUANTISED_MODULES)
def test_a_module_with_quantised_weights_is_refused(change: Callable[[Any], None], problem: str) -> None:
    module = tiny_module("llama")
    change(module)
    with pytest.raises(ModelError, match=problem) as error:
        check_anatomy(module, family_of(module.config))
    assert "unquantised checkpoint" in str(error.value.hint)


MODULES = {
    "hooked on": hook,
    "parametrizations": parametrise,
    "something else": replace_forward,
    "Sequential and not": wrap,
    "19": narrow,
    "1 layers": lose_layer,
    "adapter in it": adapt,
}


@pytest.mark.parametrize(("problem", "change"), MODULES.items(), ids=MODULES)
def test_every_layer_is_compared_with_the_row(problem: str, change: Callable[[Any], None]) -> None:
    module = tiny_module("llama")
    check_anatomy(module, family_of(module.config))
    change(module)
    with pytest.raises(ModelError, match=problem):
        check_anatomy(module, family_of(module.config))


@pytest.mark.parametrize("family", [row.name for row in BUILT_IN])
def test_every_family_has_its_anatomy(family: str) -> None:
    check_anatomy(tiny_module(family), FAMILIES[family])


def test_two_rows_of_one_name_are_two_identities() -> None:
    assert all(row_of(family) == {} for family in BUILT_IN)
    assert row_of(Family(name="arcee")) == {}
    assert row_of(Family(name="arcee", norm_eps="eps")) == {"family_row": {"norm_eps": "eps"}}
