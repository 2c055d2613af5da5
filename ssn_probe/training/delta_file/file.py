"""The delta file: what training changed and where the change comes from, in one safetensors file.

For every matrix three tensors: `indices/PATH` (the rows or columns, ascending), `base/PATH` (their weights before, in
the base's dtype) and `change/PATH` (float32). Where a module holds several projections, PATH/q is that of the queries,
and rows count from its first. The metadata hold the format and, as JSON, `about`: base (name, revision,
SHA-256 of its weights), neurons, method, data and their check, settings, seed, steps, parameters, packages. The base
rows make a merge reversible without the base. Where neurons share a change, `clusters/PATH` tells which.

Low-rank adapters lie in a file of the same kind, with `A/PATH` and `B/PATH` instead.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssn_probe.errors import ModelError, RecipeError, ResultError
from ssn_probe.files import ELSEWHERE
from ssn_probe.model.families import Matrix
from ssn_probe.runs.environment import versions
from ssn_probe.spec.display import Displayed
from ssn_probe.spec.node import read_json
from ssn_probe.training.delta_file.record import check_record
from ssn_probe.training.loop.train import Trained
from ssn_probe.training.tensor_files import read_tensors, write_tensors
from ssn_probe.training.weights.adapter import Adapter, Factors
from ssn_probe.training.weights.delta import Delta, Part
from ssn_probe.training.weights.neuron_weights import Place, matrices_at
from ssn_probe.training.weights.trainable import Change

FORMAT, ADAPTER = "ssn-probe delta", "ssn-probe adapter"
VERSION = 1


@dataclass(frozen=True, kw_only=True, eq=False)
class DeltaFile(Displayed):
    """A delta and its record, `about` (plain JSON; see the docstring of the module)."""

    delta: Change
    about: Mapping[str, Any]

    @property
    def base_digest(self) -> str:
        """SHA-256 of the weights that the delta belongs to (`digest.module_digest`)."""
        return self.about["base"]["sha256"]

    @property
    def base_dtype(self) -> torch.dtype:
        """That of the base when it was trained."""
        return getattr(torch, self.about["base"]["dtype"]) if isinstance(self.delta, Adapter) else self.delta.dtype

    @property
    def rows(self) -> Delta:
        """The delta. Raises ModelError for LoRA adapters, which cannot be taken out again exactly."""
        if isinstance(self.delta, Adapter):
            raise ModelError(
                "The file has LoRA adapters, which keep no base rows: they cannot be taken out again bit for bit.",
                "Load them with peft from the run's folder of adapters, or use `ssn-probe delta apply`.",
            )
        return self.delta


def delta_file(
    trained: Trained, *, model: str, revision: str | None, neurons: str, step: int | None = None
) -> DeltaFile:
    """The file of a training, with its origin: name and revision of the base, and a description of the neurons.

    `step`: one of the steps that were kept; None: the step that the training chose. Raises RecipeError for others.
    """
    if step is not None and step not in trained.kept:
        kept = ", ".join(map(str, trained.kept)) or "none"
        raise RecipeError(
            f"step {step} of the training was not kept",
            f"Steps that were kept: {kept}. Train again with keep=({step},).",
        )
    about = dict(trained.record)
    about["base"] = {"name": model, "revision": revision} | about["base"]
    if step is not None:
        base, chosen = ({each.step: each.held_out for each in trained.history}.get(number) for number in (0, step))
        about["steps"] = about["steps"] | {"chosen": step}
        about["held_out_loss"] = None if base is None or chosen is None else {"base": base, "chosen": chosen}
    change = trained.delta if step is None else trained.kept[step]
    return DeltaFile(delta=change, about=about | {"neurons": neurons, "made_with": versions()})


def write_delta(path: Path, file: DeltaFile, *, elsewhere: str = ELSEWHERE) -> None:
    """Writes a delta file, whole or not at all. Raises ResultError for a disk that cannot be written.

    `elsewhere`: how to write somewhere else.
    """
    tensors: dict[str, Tensor] = {}
    places = []
    for part in file.delta.parts:
        place = {"module": part.module, "layer": part.layer, "site": part.site}
        if isinstance(part, Factors):
            stored, place["scale"] = {"A": part.a, "B": part.b}, part.scale
        else:
            indices = torch.tensor(part.place.indices, dtype=torch.int32)
            stored, place["axis"] = {"indices": indices, "base": part.base, "change": part.change}, part.place.axis
            stored |= {} if part.clusters is None else {"clusters": part.clusters}
            place |= {} if part.place.part is None else {"part": part.place.part}
        tensors |= {f"{kind}/{part.name}": tensor for kind, tensor in stored.items()}
        places.append(place)
    metadata = {
        "format": ADAPTER if isinstance(file.delta, Adapter) else FORMAT,
        "version": str(VERSION),
        "places": json.dumps(places),
        "about": json.dumps(file.about, ensure_ascii=False, sort_keys=True),
    }
    write_tensors(path, tensors, metadata, elsewhere=elsewhere)


def read_delta(path: Path) -> DeltaFile:
    """Reads a delta file.

    Raises:
        ResultError: no such file, a damaged file, a file of a newer release, or a record that does not say that the
            training data passed the safety check.
    """
    metadata, tensors = read_tensors(path, "Give a delta file that training wrote.")
    _check_format(path, metadata)
    try:
        about, places = read_json(metadata["about"]), read_json(metadata["places"])
        json.dumps(about, ensure_ascii=False).encode()  # half a surrogate pair can be read, and not be written again
        if metadata["format"] == ADAPTER:
            delta: Change = Adapter(parts=tuple(_factors(place, tensors) for place in places))
        else:
            delta = Delta(parts=tuple(_part(place, tensors) for place in places))
        check_record(about, delta)
    except KeyError as error:
        raise ResultError(f"{path} is damaged: it lacks {error}", "Copy it again, or train again.") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise ResultError(f"{path} is damaged: {error}", "Copy it again, or train again.") from error
    return DeltaFile(delta=delta, about=about)


def _check_format(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") not in (FORMAT, ADAPTER):
        raise ResultError(f"{path} is not a delta file.", "Give the safetensors file that training wrote.")
    if metadata.get("version") != str(VERSION):
        raise ResultError(
            f"{path} has format version {metadata.get('version')}; this release reads version {VERSION}.",
            "Use the release of ssn-probe that wrote it, or a newer one.",
        )


def _part(place: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Part:
    where = _place(place)
    name = where.name
    indices, base, change = (tensors[f"{kind}/{name}"] for kind in ("indices", "base", "change"))
    if not _ascending(indices) or change.dim() != 2 or base.shape != change.shape or len(change) != len(indices):
        raise ValueError(f"the tensors of {name} do not fit each other")
    if not base.is_floating_point():
        raise ValueError(f"the base of {name} is {base.dtype}")
    if change.dtype != torch.float32 or not bool(change.isfinite().all()):
        raise ValueError(f"the change of {name} is not finite float32")
    clusters = tensors.get(f"clusters/{name}")
    if clusters is not None and not _shared(clusters, change):
        raise ValueError(f"the neurons of {name} do not share the changes of their clusters")
    return Part(place=replace(where, indices=tuple(indices.tolist())), base=base, change=change, clusters=clusters)


def _place(place: Mapping[str, Any]) -> Place:
    """Where the tensors of a part belong, without the indices, which are one of them."""
    name, layer, part = place["module"], place["layer"], place.get("part")
    if not isinstance(name, str) or not isinstance(layer, int) or not isinstance(part, str | None):
        raise ValueError("it does not say where its weights belong")
    matrices = [one for one in _matrices(place["site"], layer, name) if one.part == part]
    if not matrices:
        raise ValueError(f"the neurons of {name} lie in other parts of it than {part}")
    if (axis := matrices[0].axis) != place["axis"]:
        raise ValueError(f"the neurons of {name} are {axis}s, not {place['axis']}s")
    return Place(module=name, layer=layer, site=place["site"], axis=axis, indices=(), part=part)


def _factors(place: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Factors:
    name, layer, scale = place["module"], place["layer"], place["scale"]
    if not isinstance(name, str) or not isinstance(layer, int) or not isinstance(scale, float):
        raise ValueError("it does not say where its adapters belong")
    _matrices(place["site"], layer, name)
    a, b = tensors[f"A/{name}"], tensors[f"B/{name}"]
    if a.dim() != 2 or b.dim() != 2 or len(a) != b.shape[1] or not len(a):
        raise ValueError(f"the tensors of {name} do not fit each other")
    if any(factor.dtype != torch.float32 or not bool(factor.isfinite().all()) for factor in (a, b)):
        raise ValueError(f"the adapter of {name} is not finite float32")
    return Factors(module=name, layer=layer, site=place["site"], a=a, b=b, scale=scale)


def _shared(clusters: Tensor, change: Tensor) -> bool:
    """Clusters counted from 0, and one change in each."""
    if clusters.dtype != torch.int32 or clusters.shape != change.shape[:1]:
        return False
    found, first = clusters.unique(), {}
    for row, cluster in enumerate(clusters.tolist()):
        first.setdefault(cluster, row)
    counted = found.tolist() == list(range(len(found)))
    return counted and torch.equal(change, change[[first[cluster] for cluster in clusters.tolist()]])


def _ascending(indices: Tensor) -> bool:
    """Whole numbers from 0, each once, at least one."""
    if indices.dtype != torch.int32 or indices.dim() != 1 or not len(indices):
        return False
    return bool(indices[0] >= 0) and bool((indices.diff() > 0).all())


def _matrices(site: Any, layer: int, module: str) -> list[Matrix]:
    found = matrices_at(site, layer, module)
    if not found:
        raise ValueError(f"{module} has no neurons of site {site} of layer {layer}")
    return found
