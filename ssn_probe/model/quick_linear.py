"""Linear layers in single precision by oneDNN, on processors where MKL leaves half of the arithmetic units idle.

torch multiplies matrices of float32 with Intel's MKL, which on AMD's processors uses AVX2 although they have AVX-512:
110 against 250 GFLOPS on a core of an EPYC with torch 2.13. oneDNN, which torch brings along, does not ask who made the
processor. It sums in another order, so results are the same to rounding, and those of a row do not depend on how many
there are. `SSN_PROBE_ONEDNN=0` leaves everything to MKL.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import Linear

ROWS = 32
"""Tokens of a batch below which oneDNN takes no less time."""
SWITCH = "SSN_PROBE_ONEDNN"


class QuickLinear(Linear):
    """torch's Linear, whose product oneDNN makes where no gradient is asked for."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // self.in_features
        if torch.is_grad_enabled() or rows < ROWS or not _is_plain(input) or not _is_plain(self.weight):
            return torch.nn.functional.linear(input, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")


def _is_plain(tensor: Tensor) -> bool:
    return (
        tensor.dtype == torch.float32 and tensor.device.type == "cpu" and type(tensor) in (Tensor, torch.nn.Parameter)
    )


def with_quick_linears(module: Any) -> Any:
    """The module, on a processor that gains by it with its linear layers as `QuickLinear`s: the same weights."""
    if is_worth_it():
        for part in module.modules():
            if type(part) is Linear:
                part.__class__ = QuickLinear
    return module


def is_worth_it() -> bool:
    """Does this machine multiply with MKL on an AMD processor with AVX-512, and is nothing else wished?"""
    asked = os.environ.get(SWITCH) != "0" and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    has_both = torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available()
    return asked and has_both and torch.backends.cpu.get_cpu_capability() == "AVX512" and _maker() == "AuthenticAMD"


def _maker() -> str:
    """Who made the processor, where Linux tells; else empty."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
