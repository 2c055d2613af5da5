"""Reading a model from a folder or the hub, strictly: every way in which it can go wrong is one ModelError.

A model that loads "almost" gives numbers that look fine. So weights must be safetensors and complete, the family must
be in the table of families, the tokenizer must have a chat template, and no code that comes with a checkpoint is run.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError, nearest
from ssn_probe.model.families import Family, family_of
from ssn_probe.model.rotation import check_rotation
from ssn_probe.model.token_ids import embedding_size, usable_pad

ORGANISM = "organism"
"""The name of the embedded model; `organism:NAME` is one with planted neurons."""
_SHIPPED = Path(__file__).parents[1] / "organism"


def locate(name: str) -> str:
    """The folder or hub name that `name` stands for."""
    if name == ORGANISM or name.startswith(f"{ORGANISM}:"):
        return _embedded(name)
    folder = Path(os.path.expanduser(name))  # unlike Path.expanduser, it leaves an unknown user's `~name` as it is
    if os.path.isdir(folder):  # unlike Path's, these take any text
        return _model_folder(folder)
    if os.path.exists(folder):
        raise ModelError(f"{name} is a file.", "Give the folder that holds config.json and the weights.")
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"There is no model folder {name!r}, and a name on the hub has the form owner/model.",
            "Give a folder with config.json and *.safetensors, a name on the hub, or `organism`.",
        )
    return name


def weights_here(name: str) -> bool:
    """Are the weights on this machine, in a folder or in the hub's cache, so that loading downloads nothing?"""
    from huggingface_hub import try_to_load_from_cache

    where = locate(name)
    if Path(where).is_dir():
        return True
    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(where, file), str) for file in files)


def planted_organisms() -> tuple[str, ...]:
    """The names of the shipped organisms with planted neurons, as `organism:NAME` takes them."""
    return tuple(sorted(folder.parent.name for folder in (_SHIPPED / "planted").glob("*/config.json")))


def _embedded(name: str) -> str:
    _, colon, planted = name.partition(":")
    if colon and planted not in planted_organisms():
        known = tuple(f"{ORGANISM}:{one}" for one in planted_organisms())
        raise ModelError(
            f"There is no embedded model {name!r}; there are {', '.join((ORGANISM, *known))}.",
            f"{nearest(name, known)} Or give a folder that `ssn-probe organism train` wrote.",
        )
    folder = _SHIPPED / "planted" / planted if colon else _SHIPPED / "natural"
    if not folder.is_dir():
        raise ModelError(
            f"The embedded model is missing from {folder}.",
            "Make it with `ssn-probe organism train`, or install ssn-probe again.",
        )
    return str(folder)


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


def usable_device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"The device {device!r} cannot be used: {first_line(error)}",
            "Use `auto`, `cpu`, or `cuda` on a machine with a GPU and a torch build for it.",
        ) from error
    return device


def _from_hub(where: str, what: str, load: Callable[[], Any]) -> Any:
    """Run a transformers loader; whatever it raises becomes one ModelError with a hint."""
    from safetensors import SafetensorError

    try:
        return load()
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError) as error:
        local = Path(where).is_dir()
        raise ModelError(
            f"The {what} of {where!r} cannot be loaded: {first_line(error)}",
            "The folder may be incomplete or damaged: copy it again."
            if local
            else "There is no such folder, and the hub has no such model or cannot be reached: check the name, and "
            "when offline give a folder that holds the model (`hf download NAME --local-dir FOLDER` makes one).",
        ) from error


def first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def read_config(where: str) -> Any:
    """The model's config; the family is checked first, on the raw file, since transformers may not know it at all."""
    from transformers import AutoConfig

    file = Path(where) / "config.json"
    if file.is_file():
        raw = _from_hub(where, "config", lambda: json.loads(file.read_text(encoding="utf-8")))
        family_of(raw.get("model_type") if isinstance(raw, dict) else None)
    config = _from_hub(where, "config", lambda: AutoConfig.from_pretrained(where, trust_remote_code=False))
    check_rotation(config)
    return config


def read_tokenizer(where: str) -> Any:
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


def read_weights(where: str, config: Any, family: Family, dtype: str, device: str) -> Any:
    """The frozen module in evaluation mode, on its device, with every weight from the checkpoint."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the only one
    module, loading = _from_hub(
        where,
        "weights",
        lambda: AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            dtype=dtype,
            attn_implementation=family.implementation,
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
    module = module.to(device).eval().requires_grad_(False)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu":
            tensor.data = tensor.data.clone()  # mapped from the files, a weight would change with them
    return module


def read_outline(where: str, config: Any, family: Family, dtype: str, _device: str) -> Any:
    """The module without its weights, as `read_weights` would give it: its shape, its dtype, how it generates."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    chosen = _stored_dtype(where, config) if dtype == "auto" else getattr(torch, dtype)
    with torch.device("meta"):
        module = AutoModelForCausalLM.from_config(config, dtype=chosen, attn_implementation=family.implementation)
    if (Path(where) / "generation_config.json").is_file():
        module.generation_config = _from_hub(where, "config", lambda: GenerationConfig.from_pretrained(where))
    return module


def _stored_dtype(where: str, config: Any) -> Any:
    """The dtype that the config names, else that of the first weight in floating point, as transformers finds it."""
    import torch
    from safetensors import safe_open

    if config.dtype is not None:
        return config.dtype
    for file in sorted(Path(where).glob("*.safetensors"))[:1]:
        with safe_open(file, framework="pt") as weights:
            found = (weights.get_tensor(name).dtype for name in weights.keys())  # noqa: SIM118 (not a dict)
            return next((one for one in found if one.is_floating_point), torch.get_default_dtype())
    return torch.get_default_dtype()


def stamp(where: str) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of every file of a folder: what is other now was changed meanwhile."""
    folder = Path(where)
    if not folder.is_dir():
        return ()
    known = [(file.name, file.stat()) for file in sorted(folder.iterdir()) if file.is_file()]
    return tuple((name, status.st_size, status.st_mtime_ns) for name, status in known)


def settle_generation(module: Any, tokenizer: Any) -> tuple[tuple[int, ...], int]:
    """Make generation greedy and nothing else; returns the end tokens and the pad token."""
    from transformers import GenerationConfig

    eos = module.generation_config.eos_token_id
    if eos is None:
        eos = tokenizer.eos_token_id
    eos_ids = tuple(eos) if isinstance(eos, list | tuple) else () if eos is None else (eos,)
    pad_id = usable_pad(tokenizer.pad_token_id, eos_ids, embedding_size(module))
    module.generation_config = GenerationConfig(
        do_sample=False,
        eos_token_id=list(eos_ids) or None,
        pad_token_id=pad_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    return eos_ids, pad_id
