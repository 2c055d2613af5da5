"""Low-rank adapters as the folder that peft loads."""

import json
from pathlib import Path

from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.files import write_json
from ssn_probe.training.delta_file.file import DeltaFile
from ssn_probe.training.tensor_files import write_tensors
from ssn_probe.training.weights.adapter import Adapter
from ssn_probe.training.weights.lora import lora_config


def save_adapter(folder: Path, file: DeltaFile) -> None:
    """Writes an adapter as `peft.PeftModel.from_pretrained(base, folder)` loads it, with its record in `about.json`.

    Raises:
        ModelError: a delta of neurons.
        ResultError: a disk that cannot be written.
    """
    adapter = file.delta
    if not isinstance(adapter, Adapter):
        raise ModelError("The file holds a delta of neurons, not LoRA adapters.", "Use `ssn-probe delta merge`.")
    tensors: dict[str, Tensor] = {}
    for part in adapter.parts:
        tensors[f"base_model.model.{part.module}.lora_A.weight"] = part.a
        tensors[f"base_model.model.{part.module}.lora_B.weight"] = part.b
    write_tensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    config = lora_config({part.module: len(part.a) for part in adapter.parts}).to_dict()
    config |= {
        "base_model_name_or_path": file.about["base"].get("name"),
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
    write_json(folder / "adapter_config.json", json.loads(json.dumps(config, default=str)))
    write_json(folder / "about.json", dict(file.about))
