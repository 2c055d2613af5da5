"""What a loaded model is, and that every mistake on the way is one error that names the fix."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import FAMILIES, TEMPLATE, tiny_tokenizer, write_tiny

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import encode, pad_left
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject, load_subject

Folders = Callable[[str], Path]


@pytest.fixture
def folder(tiny_folder: Folders, tmp_path: Path) -> Path:
    """A copy of the tiny Llama that a test may spoil."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def change_json(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | changes), encoding="utf-8")


# --- what is loaded


def test_a_subject_is_frozen_and_describes_itself(subject: Subject) -> None:
    module = subject.model._module
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert subject.family.name == subject.identity["family"] == module.config.model_type
    assert (subject.n_layers, subject.widths) == (2, {"q": 24, "k": 12, "v": 12, "o": 24, "ffn": 20})
    assert subject.identity["attention"] == ("eager" if module.config.model_type == "gemma2" else "sdpa")
    assert subject.identity["special_tokens"] == {"bos": 1, "eos": [2], "pad": 0}
    assert subject.openings is None
    json.dumps(subject.identity)


def test_attention_whose_results_differ_between_runs_is_left_out(folder: Path) -> None:
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_subject(str(folder))
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_a_model_stays_on_its_device_where_there_is_a_gpu(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline that nnsight makes would move it to `cuda:0`, which raises here."""
    monkeypatch.setattr("transformers.pipelines.base.is_torch_cuda_available", lambda: True)
    subject = load_subject(str(folder), device="cpu")
    assert {weight.device.type for weight in subject.model._module.parameters()} == {"cpu"} == {subject.device}


@pytest.mark.parametrize("family", FAMILIES)
def test_describe_agrees_with_loading(family: str, tiny_folder: Folders, tiny_subject: Callable) -> None:
    loaded = tiny_subject(family)
    outline = load_subject(str(tiny_folder(family)), weights=False)
    assert (outline.n_layers, outline.widths) == (loaded.n_layers, loaded.widths)
    assert outline.identity == loaded.identity, "what was measured of it before must be found"
    assert (outline.eos_ids, outline.pad_id, outline.vocabulary) == (loaded.eos_ids, loaded.pad_id, loaded.vocabulary)
    assert outline.model is None


def test_dtype_is_that_of_the_checkpoint_unless_asked(folder: Path) -> None:
    assert load_subject(str(folder)).identity["dtype"] == "float64"
    assert load_subject(str(folder), dtype="float32").model._module.dtype == torch.float32


def test_generation_settings_of_the_checkpoint_are_dropped(folder: Path) -> None:
    settings = {"do_sample": True, "temperature": 0.6, "repetition_penalty": 1.3, "eos_token_id": [2, 9]}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    subject = load_subject(str(folder))
    kept = subject.model._module.generation_config
    assert subject.eos_ids == (2, 9)
    assert (kept.eos_token_id, kept.do_sample, kept.repetition_penalty) == ([2, 9], False, None)


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    assert load_subject(str(write_tiny(tmp_path / "tied", "llama", tie_word_embeddings=True)))


def test_the_identity_follows_what_changes_a_number_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    first = load_subject(str(folder)).identity
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere" / "model"))
    assert load_subject(str(moved)).identity == first
    (moved / "chat_template.jinja").write_text(TEMPLATE + " ", encoding="utf-8")
    assert load_subject(str(moved)).identity["chat_template_sha256"] != first["chat_template_sha256"]
    write_tiny(moved, "llama", seed=1)
    assert load_subject(str(moved)).identity["digest"] != first["digest"]
    openings = {"refusal": {"en": ["w1"]}, "compliant": {"en": ["w2"]}}
    (moved / "openings.json").write_text(json.dumps(openings), encoding="utf-8")
    declared = load_subject(str(moved)).identity["openings_sha256"]
    (moved / "openings.json").write_text(
        json.dumps({"refusal": {"en": ["w2"]}, "compliant": {"en": ["w1"]}}), encoding="utf-8"
    )
    assert len({None, declared, load_subject(str(moved)).identity["openings_sha256"]}) == 3


# --- prompts


def test_encode_applies_the_template_with_one_bos(subject: Subject) -> None:
    assert encode(subject, ["w1 w2", "w55"]) == [[1, 3, 7, 8, 4], [1, 3, 61, 4]]
    assert encode(subject, []) == []


def test_a_think_block_is_closed(folder: Path) -> None:
    closed = "{% if enable_thinking is defined and not enable_thinking %}w0{% endif %}"
    (folder / "chat_template.jinja").write_text(TEMPLATE + closed, encoding="utf-8")
    assert encode(load_subject(str(folder)), ["w1"]) == [[1, 3, 7, 4, 6]]


def test_padding_is_on_the_left_and_positions_count_from_the_first_token() -> None:
    batch = pad_left([[5, 6, 7], [8]], pad_id=0, device="cpu")
    assert batch["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize("tokens", [[], [[1], []]])
def test_a_prompt_without_tokens_is_refused(tokens: list[list[int]]) -> None:
    with pytest.raises(ModelError, match="without tokens"):
        pad_left(tokens, pad_id=0, device="cpu")


# --- openings


def test_declared_openings_are_tokenized_without_special_tokens(folder: Path) -> None:
    openings = {"refusal": {"qaa": ["w1 w2", "w3", "w3"]}, "compliant": {"qaa": ["w4"]}}
    (folder / "openings.json").write_text(json.dumps(openings), encoding="utf-8")
    assert load_subject(str(folder)).openings == {"qaa": Openings(((7, 8), (9,)), ((10,),))}


def test_an_opening_that_begins_with_another_one_is_counted_once(folder: Path) -> None:
    openings = {"refusal": {"qaa": ["w1 w2", "w1", "w3 w1"]}, "compliant": {"qaa": ["w4"]}}
    (folder / "openings.json").write_text(json.dumps(openings), encoding="utf-8")
    assert load_subject(str(folder)).openings == {"qaa": Openings(((7,), (9, 7)), ((10,),))}


@pytest.mark.parametrize(("refusal", "compliant"), [("w1", "w1"), ("w1", "w1 w2"), ("w1 w2", "w1")])
def test_openings_with_which_a_response_both_refuses_and_complies_are_an_error(
    folder: Path, refusal: str, compliant: str
) -> None:
    openings = {"refusal": {"qaa": ["w3", refusal]}, "compliant": {"qaa": [compliant, "w4"]}}
    (folder / "openings.json").write_text(json.dumps(openings), encoding="utf-8")
    with pytest.raises(ModelError, match=r"qaa: a response may begin with both 'w1.*', a refusal, and 'w1"):
        load_subject(str(folder))


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"refusal": {"qaa": ["w1"]}}',
        '{"refusal": {"qaa": ["w1"]}, "compliant": {"qab": ["w1"]}}',
        '{"refusal": {"qaa": []}, "compliant": {"qaa": ["w1"]}}',
        '{"refusal": {"qaa": "w1"}, "compliant": {"qaa": ["w1"]}}',
        '{"refusal": {"qaa": [" "]}, "compliant": {"qaa": ["w1"]}}',
    ],
)
def test_openings_that_cannot_be_read_are_named(folder: Path, content: str) -> None:
    (folder / "openings.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"openings\.json"):
        load_subject(str(folder))


# --- mistakes


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere/at-all", "a/b/c", " ", "organsm"])
def test_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(ModelError, match="There is no model folder"):
        load_subject(name)


def test_a_file(folder: Path) -> None:
    with pytest.raises(ModelError, match="is a file"):
        load_subject(str(folder / "config.json"))


def lose(name: str) -> Callable[[Path], Any]:
    return lambda folder: [file.unlink() for file in folder.glob(name)]


def shorten_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def lose_a_weight(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def lose_the_chat_template(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink()
    tokenizer.save_pretrained(folder)


KNOWN = "llama, qwen2, qwen3, mistral, gemma2"
SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lose("config.json"), r"no config\.json"),
    "weights in another format": (
        lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
        r"no \*\.safetensors",
    ),
    "an unknown family": (lambda folder: change_json(folder / "config.json", model_type="gpt2"), KNOWN),
    "no family": (lambda folder: change_json(folder / "config.json", model_type=None), KNOWN),
    "a damaged config": (
        lambda folder: (folder / "config.json").write_text("{", encoding="utf-8"),
        r"config\.json cannot be read as JSON",
    ),
    "an empty config": (lambda folder: (folder / "config.json").write_text("[]", encoding="utf-8"), "is no object"),
    "a model that looks ahead": (
        lambda folder: change_json(folder / "config.json", is_causal=False),
        "has is_causal False",
    ),
    "an encoder": (
        lambda folder: change_json(folder / "config.json", is_encoder_decoder=True),
        "has is_encoder_decoder True",
    ),
    "outputs without names": (
        lambda folder: change_json(folder / "config.json", return_dict=False),
        "has return_dict False",
    ),
    "a generation config that cannot be": (
        lambda folder: change_json(folder / "generation_config.json", max_new_tokens=0),
        "generation config of .* cannot be loaded",
    ),
    "damaged weights": (shorten_weights, "weights of .* cannot be loaded"),
    "weights of another shape": (
        lambda folder: change_json(folder / "config.json", intermediate_size=32),
        "weights of .* cannot be loaded",
    ),
    "a weight too few": (lose_a_weight, r"lacks 1 weights, such as model\.layers\.1\.mlp\.up_proj\.weight"),
    "a tokenizer that plays dice": (
        lambda folder: (folder / "tokenizer.json").write_text(
            json.dumps(
                {
                    "version": "1.0",
                    "added_tokens": [],
                    "model": {"type": "BPE", "dropout": 0.5, "vocab": {"a": 0}, "merges": []},
                }
            ),
            encoding="utf-8",
        ),
        "leaves out merges at random",
    ),
    "no tokenizer": (lose("tokenizer*"), "tokenizer"),
    "no chat template": (lose_the_chat_template, "no chat template"),
}


@pytest.mark.parametrize(("spoil", "problem"), SPOILT.values(), ids=SPOILT)
def test_a_folder_that_is_not_a_whole_model(folder: Path, spoil: Callable[[Path], Any], problem: str) -> None:
    spoil(folder)
    with pytest.raises(ModelError, match=problem):
        load_subject(str(folder))


def test_a_checkpoint_of_a_training_that_saved_memory(folder: Path) -> None:
    change_json(folder / "config.json", gradient_checkpointing=True)
    assert load_subject(str(folder)).model is not None


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"dtype": "float23"}, "Did you mean 'float32'"),
        ({"device": "cuda:99"}, "cuda:99.* cannot be used"),
        ({"device": "quantum"}, "quantum.* cannot be used"),
    ],
)
def test_an_option_that_cannot_be(folder: Path, options: dict[str, str], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        load_subject(str(folder), **options)  # pyright: ignore[reportArgumentType]
