"""Which base is this? SHA-256 over the weights of a loaded model.

Half precision is hashed as float32, which holds it exactly, so that a bfloat16 checkpoint has one digest however it is
loaded; rounding float32 weights to bfloat16 makes another base. Tied weights count once.
"""

import hashlib
from typing import Any

import torch

BLOCK = 2**24
"""Weights that are converted at a time."""


def module_digest(module: Any) -> str:
    """64 hexadecimal digits over name, shape and values of every weight, in order of name.

    About a second per gigabyte in float32. Every process of a sharded model must ask.
    """
    total = hashlib.sha256()
    for name, weight in sorted(module.named_parameters()):
        whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        whole = whole.detach().flatten()
        total.update(f"{name} {tuple(weight.shape)}\0".encode())
        for block in whole.split(BLOCK):
            exact = block.to(torch.promote_types(block.dtype, torch.float32)).cpu().contiguous()
            total.update(exact.view(torch.uint8).numpy().data)
    return total.hexdigest()
