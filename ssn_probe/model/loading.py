"""Reading a model from a folder or the hub, strictly: every way in which it can go wrong is one ModelError.

A model that loads "almost" gives numbers that look fine. So weights must be safetensors and complete, the family must
be in the table of families, the tokenizer must have a chat template, and no code that comes with a checkpoint is run.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError, first_line, nearest
from ssn_probe.model.anatomy import check_anatomy, check_finite
from ssn_probe.model.asking import NO_WISH, Asking, put_form, settle_system
from ssn_probe.model.config_file import (
    UNQUANTISED,
    check_config,
    check_depth,
    check_layer_kinds,
    check_names,
    check_stored,
    check_text_config,
    check_text_family,
)
from ssn_probe.model.context_length import silence_reminders
from ssn_probe.model.families import Family, family_of
from ssn_probe.model.fetched import FETCHED, locate_fetched
from ssn_probe.model.foreign_adapters import check_hub_adapter, check_no_adapter
from ssn_probe.model.hub import ask_hub, hub_file
from ssn_probe.model.model_files import check_files, read_object
from ssn_probe.model.placement import BALANCED, settle_spread, spread_over
from ssn_probe.model.quiet import quiet
from ssn_probe.model.ranks import check_degree, degree, device_of_rank, split
from ssn_probe.model.remedies import read_foreign
from ssn_probe.model.rotation import check_rotation
from ssn_probe.model.templates import MESSAGES, check_kind
from ssn_probe.model.text_config import raw_text_config, text_config
from ssn_probe.model.trial import try_chats, try_tokenizer
from ssn_probe.model.weight_files import first_dtype, hub_weight_files, stored_tensors, weight_files

ORGANISM = "organism"
"""The name of the embedded model; `organism:NAME` is one with planted neurons."""
_SHIPPED = Path(__file__).parents[1] / "organism"


def locate(name: str, *, weights: bool = True) -> str:
    """The folder or hub name that `name` stands for; a folder must hold weights, unless they are not needed here."""
    if name == ORGANISM or name.startswith(f"{ORGANISM}:"):
        return _embedded(name)
    if name in FETCHED:
        return _model_folder(locate_fetched(name), weights)
    folder = Path(os.path.expanduser(name))  # unlike Path.expanduser, it leaves an unknown user's `~name` as it is
    if os.path.isdir(folder):  # unlike Path's, these take any text
        return _model_folder(folder, weights)
    if os.path.exists(folder):
        hint = "Give the folder that holds config.json and the weights in safetensors."
        raise ModelError(f"{name} is a file.", f"{hint} {UNQUANTISED}" if name.endswith(".gguf") else hint)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(
            f"There is no model folder {name!r}, and a name on the hub has the form owner/model.",
            "Give a folder with config.json and *.safetensors, a name on the hub, `organism`, or "
            f"{' or '.join(f'`{one}`' for one in FETCHED)}.",
        )
    return name


def weights_here(name: str) -> bool:
    """Are the weights on this machine, in a folder or in the hub's cache, so that loading downloads nothing?"""
    from huggingface_hub import try_to_load_from_cache

    where = locate(name, weights=False)
    if Path(where).is_dir():
        return bool(files_here(where))
    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(where, file), str) for file in files)


def planted_organisms() -> tuple[str, ...]:
    """The names of the shipped organisms with planted neurons, as `organism:NAME` takes them."""
    return tuple(sorted(folder.parent.name for folder in (_SHIPPED / "planted").glob("*/config.json")))


def is_embedded(where: str) -> bool:
    """Does a folder come with ssn-probe, so that its template and tokenizer are ours?"""
    return Path(where).is_relative_to(_SHIPPED)


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


def _model_folder(folder: Path, weights: bool) -> str:
    check_no_adapter(folder)
    config, generation = folder / "config.json", folder / "generation_config.json"
    if not (config.exists() or config.is_symlink()):
        raise ModelError(
            f"{folder} is not a model: it has no config.json.",
            "Give a folder as `save_pretrained` writes it: config.json, *.safetensors and a tokenizer.",
        )
    missing = not any(folder.glob("*.safetensors*"))
    if missing and (held := sorted(path.name for path in folder.glob("*.gguf"))):
        raise ModelError(f"{folder} has no *.safetensors but {held[0]}, and GGUF files are not read.", UNQUANTISED)
    if missing and weights:
        raise ModelError(
            f"{folder} has no *.safetensors; other weight formats are not loaded.",
            "Load the model with transformers once and save it again with `save_pretrained`.",
        )
    check_files(folder)
    if generation.exists():
        read_object(generation)
    files_here(str(folder))
    return str(folder)


def files_here(where: str) -> tuple[Path, ...]:
    """The files that a folder's weights are read from; none on the hub, or where a folder has no safetensors."""
    folder = Path(where)
    return weight_files(folder) if folder.is_dir() and any(folder.glob("*.safetensors*")) else ()


def usable_device(device: str) -> str:
    if degree() > 1:
        return device_of_rank(device)
    if device in (BALANCED, "cpu") or (device == "auto" and _has_no_gpu()):
        return "cpu" if device == "auto" else device
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"The device {device!r} cannot be used: {first_line(error)}",
            "Use `auto`, `cpu`, or `cuda` on a machine with a GPU and a torch build for it. `balanced` spreads the "
            "layers over all GPUs, as device_map of transformers does.",
        ) from error
    return device


def _has_no_gpu() -> bool:
    """Can it be told without torch, whose import takes seconds, that it finds no GPU? False where it must be asked."""
    if "torch" in sys.modules or sys.platform != "linux":
        return False
    return not any(glob(f"/dev/{device}") for device in ("nvidia*", "dxg", "kfd"))  # CUDA, in WSL, ROCm


def read_config(where: str, revision: str | None = None, weights: bool = True) -> Any:
    """The model's config, judged on the raw file first; of a model on the hub, it says which commit was read.

    Args:
        revision: of a model on the hub, other than main.
        weights: False if they are not needed here, for advice where the hub cannot be reached.
    """
    from transformers import AutoConfig
    from transformers.utils.hub import extract_commit_hash

    local = Path(where).is_dir()
    asked = None if local else ask_hub(where, revision, weights)
    if not local:
        check_hub_adapter(where, asked)
    file = read_foreign(where, "config", lambda: hub_file(where, "config.json", asked))
    if file is None:
        raise ModelError(
            f"{where!r} on the hub has no config.json.",
            "It may hold GGUF files or no model at all: give the model in safetensors that it was made from.",
        )
    raw = read_object(Path(file))
    family = family_of(raw)
    check_config(where, raw)
    check_text_family(where, raw, family)
    check_layer_kinds(where, raw, family)
    files = files_here(where)
    held = stored_tensors(where, files) if files else {}
    check_depth(where, raw_text_config(raw).get("num_hidden_layers"), held, family)
    commit = None if local else extract_commit_hash(file, None)
    config = read_foreign(
        where, "config", lambda: AutoConfig.from_pretrained(where, revision=commit, trust_remote_code=False)
    )
    check_text_config(where, config)
    check_depth(where, text_config(config).num_hidden_layers, held, family)
    config._commit_hash = commit
    text = raw_text_config(raw)
    # transformers ties what a nested config says nothing of, and leaves a head alone that the weights have
    config._may_untie = text is not raw and not any(part.get("tie_word_embeddings") for part in (raw, text))
    for part in (config, text_config(config)):
        if getattr(part, "gradient_checkpointing", False):  # of a training: transformers would hang hooks on the module
            part.gradient_checkpointing = False
    check_rotation(config)
    return config


def read_tokenizer(where: str, commit: str | None = None, asking: Asking | None = NO_WISH) -> Any:
    """The model's tokenizer, of one commit on the hub, with the chat template that `asking` decides.

    `asking` None: the model is not asked anything, so that it needs no chat template.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    if foreign := not is_embedded(where):
        try_tokenizer(where)
    declared = read_foreign(where, "tokenizer", lambda: dict(get_tokenizer_config(where, revision=commit)))
    # AutoTokenizer replaces a generic tokenizer by the family's own class (seen with qwen2), and so its splitting rules
    generic = declared.get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
    loader = PreTrainedTokenizerFast if generic else AutoTokenizer
    tokenizer = read_foreign(
        where, "tokenizer", lambda: loader.from_pretrained(where, revision=commit or "main", trust_remote_code=False)
    )
    if tokenizer.is_fast and getattr(tokenizer.backend_tokenizer.model, "dropout", None):
        raise ModelError(
            f"The tokenizer of {where!r} leaves out merges at random (dropout in tokenizer.json).",
            "The same prompt would get other tokens each time: set dropout to null in tokenizer.json.",
        )
    silence_reminders(tokenizer)
    if asking is None:
        return tokenizer
    put_form(tokenizer, asking.chat)
    check_kind(tokenizer)
    if foreign:
        try_chats(tokenizer, [MESSAGES[0]])
    settle_system(tokenizer, asking.system)
    return tokenizer


def read_weights(where: str, config: Any, family: Family, dtype: str, device: str) -> Any:
    """The frozen module in evaluation mode, on its device, with every weight from the checkpoint and nothing else."""
    import transformers

    from ssn_probe.model.products import use_faster_products

    commit = commit_of(config)
    check_degree(where, config)
    _repeatable()
    _generation_config(where, commit)  # read with the weights, its errors would be blamed on them
    files = weight_files(Path(where)) if Path(where).is_dir() else hub_weight_files(where, commit)
    outline = _outline(where, config, family, _dtype(where, config, dtype, files))
    check_stored(where, stored_tensors(where, files), outline)
    with quiet():
        module, loading = read_foreign(
            where,
            "weights",
            lambda: getattr(transformers, family.loader).from_pretrained(
                where,
                config=config,
                revision=commit,
                dtype=dtype,
                attn_implementation=family.implementation,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **(spread_over() if device == BALANCED else split()),
            ),
        )
    _check_report(where, loading, outline)
    module = read_foreign(where, "weights", lambda: _settled(module, device))
    if device == BALANCED:
        settle_spread(module, family)
    _state_ties(module, family)
    check_anatomy(module, family, spread=degree() > 1 or device == BALANCED)
    check_finite(module)
    if degree() == 1 and device == "cpu":
        use_faster_products(module)
    return module


def _state_ties(module: Any, family: Family) -> None:
    """Where a nested config says nothing of a tied head, it says what is the case: a copy of the model must say it."""
    if vars(module.config).pop("_may_untie", False):
        tied = family.part(module, family.head).weight is family.part(module, family.embedding).weight
        for part in (module.config, text_config(module.config)):
            part.tie_word_embeddings = tied


def _repeatable() -> None:
    """Leaves out the attention of cuDNN, whose results differ between equal runs; it is what torch prefers on an H100.

    Seen with torch 2.11 as a response is generated: one query to a prompt without padding. torch's other kernels gave
    the same bits in every run.
    """
    import torch

    torch.backends.cuda.enable_cudnn_sdp(False)


def commit_of(config: Any) -> str | None:
    """The commit on the hub that `read_config` read; None of a folder."""
    return getattr(config, "_commit_hash", None)


def _check_report(where: str, loading: Mapping[str, Any], outline: Any) -> None:
    check_names(where, loading["unexpected_keys"], outline)
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"The checkpoint {where!r} lacks {len(missing)} weights, such as {missing[0]}.",
            "They would be random numbers: get the complete checkpoint.",
        )
    others = [
        str(one) for name in ("mismatched_keys", "error_msgs", "conversion_errors") for one in loading.get(name, ())
    ]
    if others:
        raise ModelError(f"The weights of {where!r} cannot be loaded: {others[0]}", "Get the complete checkpoint.")


def _settled(module: Any, device: str) -> Any:
    module = module.eval().requires_grad_(False)
    if degree() == 1 and device != BALANCED:  # else every part is where it belongs
        module = module.to(device)
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.device.type == "cpu":
            own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            own.data = own.data.clone()  # mapped from the files, a weight would change with them
    return module


def read_outline(where: str, config: Any, family: Family, dtype: str, _device: str) -> Any:
    """The module without its weights, as `read_weights` would give it: its shape, its dtype, how it generates."""
    files = files_here(where)
    module = _outline(where, config, family, _dtype(where, config, dtype, files))
    check_anatomy(module, family)
    if files:
        check_stored(where, stored_tensors(where, files), module)
    if (asked := _generation_config(where, commit_of(config))) is not None:
        module.generation_config = asked
    return module


def _generation_config(where: str, commit: str | None) -> Any:
    """What generation_config.json of a folder or of a model on the hub says; None where there is none."""
    from transformers import GenerationConfig

    def read() -> Any:
        if hub_file(where, "generation_config.json", commit) is None:
            return None
        return GenerationConfig.from_pretrained(where, revision=commit or "main")

    return read_foreign(where, "generation config", read)


def _outline(where: str, config: Any, family: Family, dtype: Any) -> Any:
    import torch
    import transformers

    loader = getattr(transformers, family.loader)

    def build() -> Any:
        with quiet(), torch.device("meta"):
            return loader.from_config(config, dtype=dtype, attn_implementation=family.implementation)

    return read_foreign(where, "config", build)


def _dtype(where: str, config: Any, dtype: str, files: Sequence[Path]) -> Any:
    """The dtype that the weights get: the one asked for, or the config's, or else what transformers finds in them."""
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    found = config.dtype
    if found is None:
        found = read_foreign(where, "weights", lambda: first_dtype(files)) if files else torch.get_default_dtype()
    if found not in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        raise ModelError(
            f"config.json of {where!r} asks for the dtype {found}.",
            "Choose float32, bfloat16, float16 or float64 with --dtype.",
        )
    return found
