"""Low-rank adapters as a value (LoRA, Hu et al. 2021): W + scale · B A, matrix by matrix; and as peft's own folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.files import write_json
from ssn_probe.spec import Site
from ssn_probe.training.delta_file.tensors import write_tensors

if TYPE_CHECKING:
    from ssn_probe.training.delta_file.file import DeltaFile


@dataclass(frozen=True, kw_only=True, eq=False)
class Factors:
    """One matrix's adapter: `module` is the path of the linear layer, whose weight is [output, input]."""

    module: str
    layer: int
    site: Site
    a: Float[Tensor, "rank input"]
    b: Float[Tensor, "output rank"]
    scale: float = 1.0

    @property
    def parameters(self) -> int:
        return self.a.numel() + self.b.numel()

    def merged(self, weight: Tensor) -> Tensor:
        """Weight plus adapter, added in float32 or better and rounded once."""
        wide = torch.promote_types(weight.dtype, torch.float32)
        change = self.scale * (self.b.to(weight.device, wide) @ self.a.to(weight.device, wide))
        return (weight.to(wide) + change).to(weight.dtype)


@dataclass(frozen=True, kw_only=True, eq=False)
class Adapter:
    """The adapters that training made, float32 on the CPU, one per matrix, in order of layer and site."""

    parts: tuple[Factors, ...]

    @property
    def parameters(self) -> int:
        """How many weights were trained."""
        return sum(part.parameters for part in self.parts)


def save_adapter(folder: Path, file: "DeltaFile") -> None:
    """Writes an adapter as `peft.PeftModel.from_pretrained(base, folder)` loads it; what is stated lies beside it.

    Raises ModelError for a delta of neurons, and ResultError for what a disk can say.
    """
    adapter = file.delta
    if not isinstance(adapter, Adapter):
        raise ModelError("The file holds a delta of neurons, not LoRA adapters.", "Use `ssn-probe delta merge`.")
    tensors: dict[str, Tensor] = {}
    for part in adapter.parts:
        tensors[f"base_model.model.{part.module}.lora_A.weight"] = part.a
        tensors[f"base_model.model.{part.module}.lora_B.weight"] = part.b
    write_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    write_json(folder / "adapter_config.json", _config(adapter, file.about["base"].get("name")))
    write_json(folder / "about.json", dict(file.about))


def _config(adapter: Adapter, base: Any) -> dict[str, Any]:
    from ssn_probe.training.weights.lora import lora_config

    config = lora_config({part.module: len(part.a) for part in adapter.parts}).to_dict()
    config |= {
        "base_model_name_or_path": base,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
    return json.loads(json.dumps(config, default=str))
