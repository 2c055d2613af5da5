"""Which safetensors files a model's weights are read from, exactly as transformers chooses them, and what is in them.

Of a folder these are model.safetensors, or else the shards that model.safetensors.index.json names. Other files in the
folder are neither read nor part of the model's identity. Whatever would make another tool read other weights from the
same folder is refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.limits import check_regular
from ssn_probe.model.hub import hub_file
from ssn_probe.model.model_files import read_json
from ssn_probe.model.remedies import read_foreign

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
COPY_AGAIN = "The folder is incomplete or was put together from several models: copy it again."


@dataclass(frozen=True)
class Stored:
    """A tensor as a file declares it; `dtype` in the words of safetensors, such as BF16."""

    shape: tuple[int, ...]
    dtype: str


def weight_files(folder: Path) -> tuple[Path, ...]:
    """The files of a folder that its weights are read from, in order of name.

    Raises:
        ModelError: there are none, one is missing or no regular file, or it is not clear which files they are.
    """
    single, index = folder / SINGLE, folder / INDEX
    if any(re.match(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors$", path.name) for path in folder.glob("shard-*")):
        raise ModelError(
            f"{folder} holds the parts of a distributed training (shard-…-model-…-of-….safetensors).",
            "Load the model with transformers once and save it again with `save_pretrained`.",
        )
    if index.is_file():
        shards = shards_of(index)
        if single.is_file() and shards != (SINGLE,):
            raise ModelError(
                f"{folder} holds both {SINGLE} and {INDEX}, so it is not clear which weights are the model's.",
                "Move one of them away: transformers would read the former, other tools the latter.",
            )
    elif not (single.exists() or single.is_symlink()):
        others = ", ".join(sorted(path.name for path in folder.glob("*.safetensors"))[:3])
        raise ModelError(
            f"{folder} has neither {SINGLE} nor {INDEX}; transformers would not read {others or 'anything else'}.",
            "Rename the file that holds the weights, or copy the index, which comes with several of them.",
        )
    else:
        shards = (SINGLE,)
    for name in shards:
        if not (folder / name).exists():
            raise ModelError(f"{folder} lacks {name}, which {INDEX} names.", COPY_AGAIN)
        check_regular(folder / name, None, ModelError)
    return tuple(folder / name for name in shards)


def shards_of(index: Path) -> tuple[str, ...]:
    """The files that an index names, in order of name. Raises ModelError for one outside the index's own folder."""
    names = sorted(set(weight_map(index).values()))
    for name in names:
        if Path(name).name != name or "\\" in name or "\0" in name or not name.endswith(".safetensors"):
            raise ModelError(
                f"{index} places weights in {name!r}, which is no safetensors file in the same folder.",
                "Get the model's own index, or save the model again with `save_pretrained`.",
            )
    return tuple(names)


def weight_map(index: Path) -> Mapping[str, str]:
    """The name of every weight → the file that an index places it in."""
    content = read_json(index)
    places = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise ModelError(f"{index} has no weight_map from names of weights to files.", COPY_AGAIN)
    if not isinstance(content.get("metadata"), dict):
        raise ModelError(f"{index} has no metadata, which transformers asks for.", 'Add `"metadata": {}` to it.')
    return places


def hub_weight_files(where: str, commit: str | None) -> tuple[Path, ...]:
    """The files of a model on the hub, which are downloaded unless they are there. Raises ModelError."""

    def found(name: str) -> Path | None:
        path = hub_file(where, name, commit)
        return Path(path) if path else None

    if single := read_foreign(where, "weights", lambda: found(SINGLE)):
        return (single,)
    index = read_foreign(where, "weights", lambda: found(INDEX))
    if index is None:
        raise ModelError(
            f"{where!r} has no weights in safetensors; other formats are not loaded.",
            "Load the model with transformers once, save it with `save_pretrained`, and give that folder.",
        )
    files = [read_foreign(where, "weights", lambda name=name: found(name)) for name in shards_of(index)]
    if not all(files):
        raise ModelError(f"{where!r} lacks files that its {INDEX} names.", "Ask its owner, or use another model.")
    return tuple(files)


def stored_tensors(where: str, files: Sequence[Path]) -> dict[str, Stored]:
    """Every weight that the files declare; their headers are read, not the weights.

    Raises:
        ModelError: a damaged file, a weight that is in two files, or one that is not in the file that the index names.
    """
    found: dict[str, Stored] = {}
    homes: dict[str, str] = {}
    for path in files:
        for name, tensor in read_foreign(where, "weights", lambda path=path: _header(path)).items():
            plain = name.removeprefix("model.")  # transformers takes a weight with and without it for the same
            if plain in homes:
                raise ModelError(f"The weight {name} is in {path.name} and again in {homes[plain]}.", COPY_AGAIN)
            homes[plain] = path.name
            found[name] = tensor
    index = files[0].with_name(INDEX)
    if files[0].name != SINGLE:
        for name, file in weight_map(index).items():
            if homes.get(name.removeprefix("model.")) != file:
                raise ModelError(f"{INDEX} places {name} in {file}, which does not hold it.", COPY_AGAIN)
    return found


def _header(path: Path) -> dict[str, Stored]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        return {name: Stored(tuple(one.get_shape()), str(one.get_dtype())) for name, one in slices.items()}


def first_dtype(files: Sequence[Path]) -> Any:
    """The dtype that transformers takes where the config names none: the index's, or the first weight's in float."""
    import torch
    from safetensors import safe_open

    if files[0].name != SINGLE and (named := read_json(files[0].with_name(INDEX))["metadata"].get("dtype")):
        return getattr(torch, str(named), None)
    with safe_open(files[0], framework="pt") as weights:
        found = (weights.get_tensor(name).dtype for name in weights.keys())  # noqa: SIM118 (not a dict)
        return next((one for one in found if one.is_floating_point), torch.get_default_dtype())
