"""Keys of results: a node's JSON with the model's identity and the data's digest in place of their names.

They cover what changes a number (model, data, parameters, seed, method version), not device, batch size or paths.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.errors import DataError
from ssn_probe.spec import (
    Prompts,
)
from ssn_probe.spec.node import Node, digest, to_json


def resolved_key(node: Node, model: Mapping[str, Any], data: Mapping[Prompts, PromptSet]) -> str:
    """The key of a node's result: its JSON with the model's identity and the data's digest for their names."""
    return digest({"node": _resolve(to_json(node), data), "model": dict(model)})


def file_digest(path: str) -> str:
    """SHA-256 of a file's bytes. Raises DataError when it cannot be read."""
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the neuron file {path}: {error}", "Give a parquet or csv file.") from error


def _resolve(value: Any, data: Mapping[Prompts, PromptSet]) -> Any:
    if isinstance(value, list):
        return [_resolve(item, data) for item in value]
    if not isinstance(value, dict):
        return value
    if value.get("kind") == "Prompts":
        prompts = next(found for node, found in data.items() if to_json(node) == value)
        return {"kind": "Prompts", "version": value["version"], "digest": prompts.digest}
    if value.get("kind") == "NeuronFile":
        return {"kind": "NeuronFile", "version": value["version"], "sha256": file_digest(value["path"])}
    if value.get("kind") == "Recipe":
        value = {name: item for name, item in value.items() if name not in ("model", "name", "question")}
    return {name: _resolve(item, data) for name, item in value.items()}
