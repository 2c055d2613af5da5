"""Settings of torch that change numbers by more than rounding, which therefore are a part of a model's identity.

torch's own settings are none of them, so nothing that was measured with these has another key. Settings under which
numbers differ by rounding alone, as they do between processors, are no part either: oneDNN or MKL, which kernel of
attention, in which order half precision is added up.
"""

import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from ssn_probe.model.torch_settings import computing_plainly, torch_settings

PRODUCTS, SUMS = "float32_products", "float16_sums"
"""Their names in a model's identity: what products of float32 are rounded to, and in what those of float16 are added
up."""
SETTING = {
    "cpu": "mkldnn.matmul.fp32_precision",
    "cuda": "cuda.matmul.fp32_precision",
}
"""By kind of device, the setting that says to what products of float32 are rounded."""
SIZE, ROUNDING = 512, 3e-5
"""Rows of the product that tells whether a setting does anything on a device, and how far from the truth, as a share of
its largest number, float32 is at most."""


def coarse_products(device: str, dtype: str) -> dict[str, str]:
    """What of torch's settings makes a model of this dtype compute coarser numbers on a device; as a rule nothing.

    Where torch is not imported, nobody has set anything.
    """
    kind = device.partition(":")[0]
    if "torch" not in sys.modules or kind not in SETTING:
        return {}
    found, settings = {}, torch_settings()
    products = settings.get(SETTING[kind], "none")
    if kind == "cuda" and os.environ.get("NVIDIA_TF32_OVERRIDE") == "1":
        products = "tf32"
    if dtype != "float64" and products not in ("none", "ieee") and _loses_digits(device, products):
        found[PRODUCTS] = products
    if kind == "cuda" and dtype == "float16" and settings.get("cuda.matmul.allow_fp16_accumulation"):
        found[SUMS] = "float16"
    return found


def without_coarse(identity: Mapping[str, Any]) -> dict[str, Any]:
    """A model's identity, whatever torch's settings are."""
    return {name: value for name, value in identity.items() if name not in (PRODUCTS, SUMS)}


def as_recorded(identity: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """A model's identity with the settings that a run has recorded, whatever those of this process are."""
    return without_coarse(identity) | {name: recorded[name] for name in (PRODUCTS, SUMS) if name in recorded}


@cache
def _loses_digits(device: str, _setting: str) -> bool:
    """Is a product coarser than float32 is? Many processors, and older GPUs, do not do what a setting allows."""
    import torch

    from ssn_probe.model.products import use_faster_products

    with torch.no_grad(), computing_plainly():
        layer = torch.nn.Linear(SIZE, SIZE, bias=False, dtype=torch.float32, device=device)
        matrix = torch.arange(SIZE * SIZE, dtype=torch.float64).sin().view(SIZE, SIZE).float().to(device)
        layer.weight.copy_(matrix)
        use_faster_products(layer)
        exact = matrix.cpu().double() @ matrix.cpu().double().T
        errors = [(one.cpu().double() - exact).abs().max() for one in (matrix @ matrix.T, layer(matrix))]
    return float(max(errors) / exact.abs().max()) > ROUNDING
