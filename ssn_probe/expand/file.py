"""The delta file: what training changed, and where it came from, in one safetensors file.

For every matrix three tensors: `indices/PATH` (the rows or columns, ascending), `base/PATH` (their weights before, in
the base's dtype) and `change/PATH` (float32). The metadata hold the format and, as JSON, `about`: base (name, revision,
SHA-256 of its weights), neurons, method, data and their check, settings, seed, steps, parameters, packages. The base
rows make a merge reversible without the base.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssn_probe.errors import ResultError
from ssn_probe.expand.delta import Delta, Part
from ssn_probe.expand.places import WEIGHTS, Place
from ssn_probe.expand.stated import check_stated
from ssn_probe.expand.tensors import read_tensors, write_tensors
from ssn_probe.expand.train import Trained
from ssn_probe.results import versions
from ssn_probe.shown import Shown

FORMAT = "ssn-probe delta"
VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class DeltaFile(Shown):
    """A delta, and what is stated about it (plain JSON; see the module's text)."""

    delta: Delta
    about: Mapping[str, Any]

    @property
    def base_digest(self) -> str:
        """SHA-256 of the weights that the delta belongs to (`digest.module_digest`)."""
        return self.about["base"]["sha256"]

    def __rich__(self) -> Any:
        from ssn_probe.expand.describe import delta_card

        return delta_card(self)


def delta_file(trained: Trained, *, model: str, revision: str | None, neurons: str) -> DeltaFile:
    """What training gave, with its origin: the name and the revision of the base, and the set of neurons in words."""
    about = dict(trained.record)
    about["base"] = {"name": model, "revision": revision} | about["base"]
    return DeltaFile(delta=trained.delta, about=about | {"neurons": neurons, "made_with": versions()})


def write_delta(path: Path, file: DeltaFile) -> None:
    """Writes a delta file, whole or not at all. Raises ResultError for what a disk can say."""
    tensors: dict[str, Tensor] = {}
    for part in file.delta.parts:
        name = part.place.module
        tensors[f"indices/{name}"] = torch.tensor(part.place.indices, dtype=torch.int32)
        tensors[f"base/{name}"], tensors[f"change/{name}"] = part.base, part.change
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "places": json.dumps([_told(part.place) for part in file.delta.parts]),
        "about": json.dumps(file.about, ensure_ascii=False, sort_keys=True),
    }
    write_tensors(path, tensors, metadata)


def _told(place: Place) -> dict[str, Any]:
    return {"module": place.module, "layer": place.layer, "site": place.site, "axis": place.axis}


def read_delta(path: Path) -> DeltaFile:
    """Reads a delta file.

    Raises:
        ResultError: no such file, one that is damaged, of a newer release, or whose record does not say that its
            training data passed the safety check.
    """
    metadata, tensors = read_tensors(path, "Give a delta file that training wrote.")
    _check_format(path, metadata)
    try:
        about, places = json.loads(metadata["about"]), json.loads(metadata["places"])
        delta = Delta(parts=tuple(_part(place, tensors) for place in places))
        check_stated(about, delta)
    except KeyError as error:
        raise ResultError(f"{path} is damaged: it lacks {error}", "Copy it again, or train again.") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} is damaged: {error}", "Copy it again, or train again.") from error
    return DeltaFile(delta=delta, about=about)


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise ResultError(f"{path} is no delta file.", "Give the safetensors file that training wrote.")
    if metadata.get("version") != str(VERSION):
        raise ResultError(
            f"{path} has format version {metadata.get('version')}, and this release reads {VERSION}.",
            "Use the release of ssn-probe that wrote it, or a newer one.",
        )


def _part(told: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Part:
    name, layer = told["module"], told["layer"]
    if not isinstance(name, str) or not isinstance(layer, int):
        raise ValueError("it does not say where its weights belong")
    if (axis := _axis(told["site"], name)) != told["axis"]:
        raise ValueError(f"{name} holds {axis}s, not {told['axis']}s")
    indices, base, change = (tensors[f"{kind}/{name}"] for kind in ("indices", "base", "change"))
    if not _ascending(indices) or change.dim() != 2 or base.shape != change.shape or len(change) != len(indices):
        raise ValueError(f"the tensors of {name} do not fit each other")
    if not base.is_floating_point():
        raise ValueError(f"the base of {name} is {base.dtype}")
    if change.dtype != torch.float32 or not bool(change.isfinite().all()):
        raise ValueError(f"the change of {name} is not finite float32")
    place = Place(module=name, layer=layer, site=told["site"], axis=told["axis"], indices=tuple(indices.tolist()))
    return Part(place=place, base=base, change=change)


def _ascending(indices: Tensor) -> bool:
    """Whole numbers from 0, each once, at least one."""
    if indices.dtype != torch.int32 or indices.dim() != 1 or not len(indices):
        return False
    return bool(indices[0] >= 0) and bool((indices.diff() > 0).all())


def _axis(site: Any, module: str) -> str:
    for path, axis in WEIGHTS[site]:
        if module.endswith(f".{path}"):
            return axis
    raise ValueError(f"{module} has no neurons of site {site}")
