"""A model under study: loaded once, frozen, wrapped for tracing, and identified by what can change a number.

nnsight is imported when a model is loaded, not before: it takes seconds and patches torch.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError, nearest
from ssn_probe.model.families import Anatomy, anatomy_of
from ssn_probe.model.loading import (
    first_line,
    locate,
    read_config,
    read_outline,
    read_tokenizer,
    read_weights,
    settle_generation,
    stamp,
    usable_device,
)
from ssn_probe.neurons import Site

DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Openings:
    """Token ids that begin a refusal, and that begin a compliant answer: openings of one or more tokens each."""

    refusal: tuple[tuple[int, ...], ...]
    compliant: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Direction:
    """A direction in the space of the final state, after the final norm: r(x) is the prompt's last state times it."""

    vector: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A frozen model in evaluation mode, its tokenizer, and where its neurons are.

    `identity` holds what changes a number (weights, tokenizer, template, dtype, attention), and neither device nor
    path. `model` is an nnsight `TransformersModel`, None where the weights were left where they are; `openings` are
    those the model's folder declares, per language, if it does.
    """

    name: str
    path: str
    identity: dict[str, Any]
    model: Any
    tokenizer: Any
    anatomy: Anatomy
    openings: Mapping[str, Openings] | None
    device: str
    n_layers: int
    widths: dict[Site, int]
    vocabulary: int
    pad_id: int
    eos_ids: tuple[int, ...]


def load_subject(name: str, *, dtype: str = "auto", device: str = "auto", weights: bool = True) -> Subject:
    """Load a model to be studied.

    Args:
        name: `"organism"` (the embedded model), a folder in Hugging Face layout, or a name on the hub.
        dtype: `auto` (as stored), float32, bfloat16, float16 or float64.
        device: `auto` (cuda where there is one, else cpu), or any torch device.
        weights: False for a subject that cannot run but is otherwise the same, `identity` included: what was measured
            of it before can be found and read.

    Generation is greedy: sampling settings and penalties that the checkpoint proposes are dropped, its end tokens are
    kept.

    Raises:
        ModelError: any reason for which the model cannot be studied, with what to do about it.
    """
    where = locate(name)
    device = usable_device(device)
    if dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}.", nearest(dtype, DTYPES))
    config, before = read_config(where), stamp(where)
    anatomy = anatomy_of(config)
    tokenizer = read_tokenizer(where)
    read = read_weights if weights else read_outline
    module = read(where, config, anatomy, dtype, device)
    eos_ids, pad_id = settle_generation(module, tokenizer)
    identity = _identity(name, where, module, tokenizer, anatomy, eos_ids, pad_id)
    if stamp(where) != before:
        raise ModelError(f"The files in {where} changed while they were read.", "Run again when they are complete.")
    return Subject(
        name=name,
        path=where,
        identity=identity,
        model=_traced(module, tokenizer) if weights else None,
        tokenizer=tokenizer,
        anatomy=anatomy,
        openings=_declared_openings(where, tokenizer),
        device=device,
        n_layers=anatomy.depth(module),
        widths=anatomy.widths(module),
        vocabulary=module.config.vocab_size,
        pad_id=pad_id,
        eos_ids=eos_ids,
    )


def _traced(module: Any, tokenizer: Any) -> Any:
    from nnsight import TransformersModel

    # It changes the tokenizer that it is given.
    return TransformersModel(module, tokenizer=copy.deepcopy(tokenizer), task="text-generation")


def encode(subject: Subject, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of user messages in the model's chat template, up to where the response begins."""
    return encode_with(subject.tokenizer, texts)


def encode_with(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of user messages in a tokenizer's chat template, up to where the response begins.

    The template adds its own special tokens, so none is added a second time; in thinking models the think block is
    closed.
    """
    chats = [[{"role": "user", "content": text}] for text in texts]
    if not chats:
        return []
    return tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, enable_thinking=False, tokenize=True, return_dict=False
    )


def pad_left(tokens: Sequence[Sequence[int]], pad_id: int, device: str) -> dict[str, Any]:
    """One batch: `input_ids`, `attention_mask`, `position_ids`, each [prompt, token], padded on the left.

    Positions count from a row's first real token, so that a padded row computes what the same row computes alone.
    """
    import torch

    if not tokens or not all(len(row) for row in tokens):
        raise ModelError("A prompt without tokens cannot be run.", "Leave empty prompts out.")
    width = max(map(len, tokens))
    ids = torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in tokens])
    lengths = torch.tensor([len(row) for row in tokens])
    mask = (torch.arange(width) >= (width - lengths)[:, None]).long()
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    batch = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
    return {key: value.to(device) for key, value in batch.items()}


def _identity(
    name: str,
    where: str,
    module: Any,
    tokenizer: Any,
    anatomy: Anatomy,
    eos_ids: tuple[int, ...],
    pad_id: int,
) -> dict[str, Any]:
    folder = Path(where)
    source = (
        {"digest": _digest(folder), "openings_sha256": _openings_digest(folder)}
        if folder.is_dir()
        else {"id": name, "commit": getattr(module.config, "_commit_hash", None)}
    )
    return source | {
        "family": anatomy.family,
        "dtype": str(module.dtype).removeprefix("torch."),
        "attention": module.config._attn_implementation,
        "chat_template_sha256": _sha256(json.dumps(tokenizer.chat_template).encode()),
        "tokenizer_sha256": _sha256(_tokenizer_bytes(tokenizer)),
        "special_tokens": {"bos": tokenizer.bos_token_id, "eos": list(eos_ids), "pad": pad_id},
    }


def _digest(folder: Path) -> str:
    """sha256 over config.json and the weight files, names and bytes, in order of name."""
    digest = hashlib.sha256()
    for file in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _openings_digest(folder: Path) -> str | None:
    """sha256 of openings.json, which decides what the refusal effect reads; None where there is none."""
    file = folder / "openings.json"
    return _sha256(file.read_bytes()) if file.is_file() else None


def _tokenizer_bytes(tokenizer: Any) -> bytes:
    """What decides how text becomes ids: the whole fast tokenizer, or the vocabulary of a slow one."""
    if tokenizer.is_fast:
        return tokenizer.backend_tokenizer.to_str().encode()
    return json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _declared_openings(where: str, tokenizer: Any) -> Mapping[str, Openings] | None:
    """The openings of openings.json, per language, or None where the folder declares none."""
    file = Path(where) / "openings.json"
    if not file.is_file():
        return None
    hint = 'It must be {"refusal": {language: [text, …]}, "compliant": {language: [text, …]}}.'
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        refusal, compliant = dict(raw["refusal"]), dict(raw["compliant"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{file} cannot be read: {first_line(error)}", hint) from error
    if set(refusal) != set(compliant):
        raise ModelError(f"{file} names other languages under refusal than under compliant.", hint)
    return {
        language: Openings(
            refusal=_opening_tokens(tokenizer, refusal[language], f"{file}: refusal, {language}"),
            compliant=_opening_tokens(tokenizer, compliant[language], f"{file}: compliant, {language}"),
        )
        for language in refusal
    }


def _opening_tokens(tokenizer: Any, texts: Any, where: str) -> tuple[tuple[int, ...], ...]:
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise ModelError(f"{where} is not a list of texts.", "Give at least one opening per language.")
    openings = tuple(tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts)
    if not all(openings):
        raise ModelError(f"{where} has an opening without a token.", "Leave empty openings out.")
    return tuple(dict.fromkeys(openings))
