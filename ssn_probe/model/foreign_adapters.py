"""An adapter (LoRA and the like) in a checkpoint: transformers would put it into the model without a word.

What is read and written then is not what a matrix gives, so an adapter is refused, with how to merge it into its base.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.hub import hub_file
from ssn_probe.model.model_files import read_object
from ssn_probe.model.remedies import read_foreign

CONFIG = "adapter_config.json"
ADAPTER = re.compile(r"\.(lora_[AB]|lora_embedding_[AB]|base_layer|modules_to_save)\.")
"""Names of an adapter's weights."""
MERGE = "Merge it first (`merge_and_unload` of peft, then `save_pretrained` into a new folder), and give that folder."
PROMPTS = (
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "CARTRIDGE",
    "CPT",
    "ADAPTION_PROMPT",
)
"""Kinds of adapters that peft cannot merge: they add vectors in front of the prompt or in the attention."""


def check_no_adapter(folder: Path) -> None:
    """Raises ModelError for a folder with an adapter, saying how to merge it."""
    config, weights = folder / CONFIG, sorted(folder.glob("adapter_model.*"))
    held = [*([config] if config.exists() or config.is_symlink() else []), *weights]
    if not held:
        return
    about = read_object(config) if config.exists() or config.is_symlink() else {}
    kind, names = _kind(about), ", ".join(path.name for path in held)
    tokenizer = (folder / "tokenizer_config.json").is_file()
    if not (folder / "config.json").exists() or not any(folder.glob("model*.safetensors*")):
        raise ModelError(f"{folder} is {kind} and not a model ({names}).", _merge(str(folder), about, tokenizer))
    raise ModelError(
        f"{folder} holds {kind} beside the model's own weights ({names}): it is not clear which model is meant.",
        f"To study the model without it, move {names} away. {_merge(str(folder), about, tokenizer)}",
    )


def check_hub_adapter(where: str, commit: str | None) -> None:
    """Raises ModelError for a model on the hub with an adapter."""
    file = read_foreign(where, "config", lambda: hub_file(where, CONFIG, commit))
    if file is not None:
        about = read_object(Path(file))
        raise ModelError(
            f"{where!r} holds {_kind(about)} ({CONFIG}), which would be put into the model.",
            _merge(where, about, False),
        )


def _kind(about: Mapping[str, Any]) -> str:
    kind, base = about.get("peft_type"), about.get("base_model_name_or_path")
    of = f" of {base!r}" if isinstance(base, str) and base else ""
    return (f"a {kind} adapter" if isinstance(kind, str) else "an adapter") + of


def _merge(where: str, about: Mapping[str, Any], tokenizer: bool) -> str:
    """How to merge an adapter, in lines that run as they stand. `tokenizer`: the adapter comes with one of its own."""
    base = about.get("base_model_name_or_path")
    if about.get("peft_type") in PROMPTS:
        return "It cannot be merged into the weights, and is not studied: give the base model."
    if not isinstance(base, str) or not base:
        return f"{MERGE} Its config does not name the base."
    return (
        "Merge it into its base, in Python, and give the new folder, here 'merged': "
        "from peft import AutoPeftModelForCausalLM; from transformers import AutoTokenizer; "
        f"AutoPeftModelForCausalLM.from_pretrained({where!r}).merge_and_unload().save_pretrained('merged'); "
        f"AutoTokenizer.from_pretrained({(where if tokenizer else base)!r}).save_pretrained('merged')"
    )
