"""A GGUF file as an ordinary model folder: safetensors in float32, tokenizer, chat template, generation config."""

from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.files import let_others_read, sync_file
from ssn_probe.model.quiet import quiet
from ssn_probe.model.remedies import read_foreign

MARKS = ("quantization_config", "_pre_quantization_dtype")
"""What transformers leaves in the config of a model that it has dequantised: with it, none could be loaded again."""


def check_gguf() -> None:
    """Raises ModelError where the package that reads GGUF files is missing."""
    from importlib.util import find_spec

    if find_spec("gguf") is None:
        raise ModelError("The package gguf is not installed.", "Install it: pip install 'ssn-probe[smollm2]'")


def convert(file: Path, folder: Path) -> None:
    """Writes a GGUF file's model into a folder, as `save_pretrained` does. Raises ModelError if it cannot be read."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    with quiet(), redirect_stderr(StringIO()):  # a progress bar that transformers lets nobody switch off
        module = read_foreign(
            str(file), "weights", lambda: AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
        )
        tokenizer = read_foreign(str(file), "tokenizer", lambda: AutoTokenizer.from_pretrained(**place))
        _unmark(module)
        module.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    for weights in sorted(folder.glob("*.safetensors")):
        let_others_read(weights)
        sync_file(weights)


def _unmark(module: Any) -> None:
    for name in MARKS:
        if hasattr(module.config, name):
            delattr(module.config, name)
    module.hf_quantizer = None
    module.is_quantized = False
    module.config._name_or_path = ""
