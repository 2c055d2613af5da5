"""Which model is this? SHA-256 over the weights of a loaded model, the files of its folder, or its tokenizer."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ssn_probe.files import sha256
from ssn_probe.model.weight_files import weight_files

BLOCK = 2**24
"""Weights that are converted at a time."""


def module_digest(module: Any, *, single: bool = False) -> str:
    """64 hexadecimal digits over name, shape and values of every weight, in order of name.

    Half precision is hashed as float32, which holds it exactly, so that a bfloat16 checkpoint has one digest however it
    is loaded; rounding float32 weights to bfloat16 makes another base. Tied weights count once.

    `single`: hash double precision as float32, too, where that holds it exactly: a base that was read in float32 or
    less has then the same digest in float64.

    About a second per gigabyte in float32. Every process of a sharded model must ask.
    """
    import torch

    total = hashlib.sha256()
    for name, weight in sorted(module.named_parameters()):
        whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        whole = whole.detach().flatten()
        total.update(f"{name} {tuple(weight.shape)}\0".encode())
        for block in whole.split(BLOCK):
            exact = block.to(torch.promote_types(block.dtype, torch.float32)).cpu().contiguous()
            if single and torch.equal(exact.float().to(exact.dtype), exact):
                exact = exact.float()
            total.update(exact.view(torch.uint8).numpy().data)
    return total.hexdigest()


def folder_digest(folder: Path) -> str:
    """Over config.json and the files of a folder that its weights are read from, names and bytes, in order of name."""
    return _over([folder / "config.json", *weight_files(folder)])


def weights_digest(folder: Path) -> str:
    """Over the files of a folder that its weights are read from, names and bytes, in order of name."""
    return _over(weight_files(folder))


def _over(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        total.update(path.name.encode() + b"\0" + bytes.fromhex(sha256(path)))
    return total.hexdigest()


def tokenizer_digest(tokenizer: Any) -> str:
    """Over what decides how text becomes ids: the whole fast tokenizer, or the vocabulary of a slow one."""
    if tokenizer.is_fast:
        return text_digest(tokenizer.backend_tokenizer.to_str())
    return text_digest(json.dumps(tokenizer.get_vocab(), sort_keys=True))


def text_digest(text: str) -> str:
    """Over a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
