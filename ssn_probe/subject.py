"""A model under study: loaded once, frozen, wrapped for tracing, and identified by what can change a number.

Loading is strict, since a model that loads "almost" gives numbers that look fine: weights must be safetensors and
complete, the family must be in the anatomy table, the tokenizer must have a chat template, and no code from the hub
is run. nnsight is imported when a model is loaded, not before: it takes seconds and patches torch.
"""

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssn_probe.anatomy import Anatomy, anatomy_of
from ssn_probe.errors import ModelError, nearest
from ssn_probe.neurons import Site

ORGANISM = "organism"
DTYPES = ("auto", "float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True)
class Openings:
    """Token ids that begin a refusal, and that begin a compliant answer: several openings of one or more tokens each."""

    refusal: tuple[tuple[int, ...], ...]
    compliant: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Subject:
    """A frozen model in evaluation mode, its tokenizer, and where its neurons are.

    `identity` holds what changes a number (weights, tokenizer, template, dtype, attention), and neither device nor
    path. `model` is an nnsight `TransformersModel`; `openings` are those the model's folder declares, per language,
    if it does.
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
    pad_id: int
    eos_ids: tuple[int, ...]


def load_subject(name: str, *, dtype: str = "auto", device: str = "auto") -> Subject:
    """Load a model to be studied.

    Args:
        name: `"organism"` (the embedded model), a folder in Hugging Face layout, or a name on the hub.
        dtype: `auto` (as stored), float32, bfloat16, float16 or float64.
        device: `auto` (cuda where there is one, else cpu), or any torch device.

    Generation is greedy: sampling settings and penalties that the checkpoint proposes are dropped, its end tokens are
    kept.

    Raises:
        ModelError: any reason for which the model cannot be studied, with what to do about it.
    """
    from nnsight import TransformersModel

    where = _locate(name)
    device = _device(device)
    if dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}.", nearest(dtype, DTYPES))
    config = _config(where)
    anatomy = anatomy_of(config)
    tokenizer = _tokenizer(where)
    module = _weights(where, anatomy, dtype, device)
    eos_ids, pad_id = _settle_generation(module, tokenizer)
    return Subject(
        name=name,
        path=where,
        identity=_identity(name, where, module, tokenizer, anatomy, eos_ids, pad_id),
        model=TransformersModel(module, tokenizer=copy.deepcopy(tokenizer), task="text-generation"),
        tokenizer=tokenizer,
        anatomy=anatomy,
        openings=_declared_openings(where, tokenizer),
        device=device,
        n_layers=anatomy.depth(module),
        widths=anatomy.widths(module),
        pad_id=pad_id,
        eos_ids=eos_ids,
    )


def encode(subject: Subject, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of user messages in the model's chat template, up to where the response begins.

    The template adds its own special tokens, so none is added a second time; in thinking models the think block is
    closed.
    """
    chats = [[{"role": "user", "content": text}] for text in texts]
    if not chats:
        return []
    return subject.tokenizer.apply_chat_template(
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


# ----------------------------------------------------------------------------------------------------------------
loading


def _locate(name: str) -> str:
    """The folder or hub name that `name` stands for."""
    if name == ORGANISM:
        folder = Path(__file__).parent / "organism" / "natural"
        if not folder.is_dir():
            raise ModelError(
                f"The embedded model is missing from {folder}.",
                "Make it with `ssn-probe organism train`, or install ssn-probe again.",
            )
        return str(folder)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _model_folder(folder)
    if folder.exists():
        raise ModelError(f"{name} is a file.", "Give the folder that holds config.json and the weights.")
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise ModelError(
            f"There is no folder {name!r}.",
            "Give a folder with config.json and *.safetensors, a name on the hub, or `organism`.",
        )
    return name


def _model_folder(folder: Path) -> str:
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} is not a model: it has no config.json.",
            "Give a folder as `save_pretrained` writes it: config.json, *.safetensors and a tokenizer.",
        )
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"{folder} has no *.safetensors; other weight formats are not loaded.",
            "Load the model with transformers once and save it again with `save_pretrained`.",
        )
    return str(folder)


def _device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"The device {device!r} cannot be used: {_first_line(error)}",
            "Use `auto`, `cpu`, or `cuda` on a machine with a GPU and a torch build for it.",
        ) from error
    return device


def _from_hub(where: str, what: str, load: Callable[[], Any]) -> Any:
    """Run a transformers loader; whatever it raises becomes one ModelError that says what to do."""
    from safetensors import SafetensorError

    try:
        return load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        local = Path(where).is_dir()
        raise ModelError(
            f"The {what} of {where!r} cannot be loaded: {_first_line(error)}",
            "The folder may be incomplete or damaged: copy it again."
            if local
            else "There is no such folder, and the hub has no such model or cannot be reached: check the name, and when "
            "offline give a folder that holds the model (`hf download NAME --local-dir FOLDER` makes one).",
        ) from error


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _config(where: str) -> Any:
    """The model's config; the family is checked first, on the raw file, since transformers may not know it at all."""
    from transformers import AutoConfig

    file = Path(where) / "config.json"
    if file.is_file():
        raw = _from_hub(where, "config", lambda: json.loads(file.read_text(encoding="utf-8")))
        anatomy_of(raw.get("model_type") if isinstance(raw, dict) else None or "?")
    return _from_hub(where, "config", lambda: AutoConfig.from_pretrained(where, trust_remote_code=False))


def _tokenizer(where: str) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    declared = _from_hub(where, "tokenizer", lambda: get_tokenizer_config(where)).get("tokenizer_class")
    # AutoTokenizer replaces a generic tokenizer by the family's own class (seen with qwen2), and so its splitting rules
    generic = declared in ("TokenizersBackend", "PreTrainedTokenizerFast")
    loader = PreTrainedTokenizerFast if generic else AutoTokenizer
    tokenizer = _from_hub(where, "tokenizer", lambda: loader.from_pretrained(where, trust_remote_code=False))
    if not tokenizer.chat_template:
        raise ModelError(
            f"The tokenizer of {where!r} has no chat template, so it is not clear how to ask the model anything.",
            "Use the instruction-tuned variant, or put a chat_template.jinja beside the tokenizer.",
        )
    return tokenizer


def _weights(where: str, anatomy: Anatomy, dtype: str, device: str) -> Any:
    """The frozen module in evaluation mode, on its device, with every weight from the checkpoint."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the only one
    module, loading = _from_hub(
        where,
        "weights",
        lambda: AutoModelForCausalLM.from_pretrained(
            where,
            dtype=dtype,
            attn_implementation=anatomy.attention,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        ),
    )
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"The checkpoint {where!r} lacks {len(missing)} weights, such as {missing[0]}.",
            "They would be random numbers: get the complete checkpoint.",
        )
    return module.to(device).eval().requires_grad_(False)


def _settle_generation(module: Any, tokenizer: Any) -> tuple[tuple[int, ...], int]:
    """Make generation greedy and nothing else; returns the end tokens and the pad token."""
    from transformers import GenerationConfig

    eos = module.generation_config.eos_token_id
    if eos is None:
        eos = tokenizer.eos_token_id
    eos_ids = tuple(eos) if isinstance(eos, list | tuple) else () if eos is None else (eos,)
    pad_id = tokenizer.pad_token_id
    if pad_id is None:
        pad_id = eos_ids[0] if eos_ids else 0
    module.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=list(eos_ids) or None,
        pad_token_id=pad_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    return eos_ids, pad_id


# ---------------------------------------------------------------------------------------------------------------
identity


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
        {"id": name if name == ORGANISM else folder.resolve().name, "digest": _digest(folder)}
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


def _tokenizer_bytes(tokenizer: Any) -> bytes:
    """What decides how text becomes ids: the whole fast tokenizer, or the vocabulary of a slow one."""
    if tokenizer.is_fast:
        return tokenizer.backend_tokenizer.to_str().encode()
    return json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# ---------------------------------------------------------------------------------------------------------------
openings


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
        raise ModelError(f"{file} cannot be read: {_first_line(error)}", hint) from error
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


def describe(name: str) -> tuple[int, dict[Site, int]]:
    """The number of layers and the neurons of each site in one layer, from the configuration alone.

    Raises:
        ModelError: as `load_subject` does for a model that cannot be found or is of an unknown family.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = _config(_locate(name))
    anatomy = anatomy_of(config)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config)
    return anatomy.depth(module), anatomy.widths(module)
