"""From a model's name to a merged folder, and from a merged folder back to the base, on the CPU.

The base is loaded in the precision in which the delta was trained: there it has the digest that the delta names.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssn_probe.errors import ModelError, ResultError, nearest
from ssn_probe.model.families import family_of
from ssn_probe.model.loading import locate, read_config, read_tokenizer, read_weights
from ssn_probe.training.delta_file.file import DeltaFile, read_delta
from ssn_probe.training.delta_file.record import DTYPES
from ssn_probe.training.export.merged_folder import DELTA, cast, check_free, new_folder, save_merged, save_plain
from ssn_probe.training.export.merging import unmerge
from ssn_probe.training.weights.delta import Rounding, rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A model as transformers loads it, with its own settings of generation; `folder` is where its files are."""

    module: Any
    tokenizer: Any
    folder: Path


def load_plain(name: str, dtype: str = "auto") -> Loaded:
    """A model by folder, name on the hub, or `organism`, frozen, on the CPU. Raises ModelError if it cannot be."""
    from transformers.utils.hub import cached_file

    where = locate(name)
    config = read_config(where)
    tokenizer = read_tokenizer(where)
    module = read_weights(where, config, family_of(config), dtype, "cpu")
    folder = Path(where) if Path(where).is_dir() else Path(str(cached_file(where, "config.json"))).parent
    return Loaded(module=module, tokenizer=tokenizer, folder=folder)


def precision(file: DeltaFile, dtype: str | None = None) -> str:
    """The dtype in which to load the base of a delta that is to be used in `dtype` (None: that of its training).

    A narrower dtype than that of the training is tried: a bfloat16 checkpoint that was trained in float32 has the same
    digest in both, and any other base is refused by its digest. A wider dtype matters for writing, not for loading.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}.", nearest(dtype, DTYPES))
    trained = file.base_dtype
    wanted = getattr(torch, dtype) if dtype else trained
    return _name(wanted if torch.promote_types(wanted, trained) == trained else trained)


def merge_folder(model: str, file: DeltaFile, folder: Path, *, dtype: str | None = None) -> Rounding:
    """Writes `model` with the delta in it as an ordinary Hugging Face folder, and returns what rounding cost.

    Args:
        model: the base: a folder, a name on the hub, or `organism`.
        folder: the new folder: absent or empty.
        dtype: of the written weights; None for that of the training. See `save_merged`.

    Raises:
        ModelError: a model that cannot be loaded, or that is not the base of the delta.
        ResultError: a folder that has something in it, or a disk that cannot be written.
    """
    check_free(folder)
    base = load_plain(model, precision(file, dtype))
    save_merged(folder, base.module, base.tokenizer, file, source=base.folder, dtype=dtype)
    return rounding(file.rows, getattr(torch, dtype or _name(base.module.dtype)))


def unmerge_folder(merged: Path, folder: Path) -> DeltaFile:
    """Writes the base of a merged folder, bit for bit, from the rows that the folder keeps. Returns the delta.

    The digest is checked before anything is written. The weights have the precision of the training, or that of the
    merged folder where it is narrower.

    Raises:
        ModelError: a folder that cannot be loaded, does not have its delta, or was also changed elsewhere.
        ResultError: a folder that was not merged, a new folder that already exists, or a disk that cannot be written.
    """
    check_free(folder)
    if not (merged / DELTA).is_file():
        raise ResultError(f"{merged} has no {DELTA}.", "Give a folder that `ssn-probe delta merge` wrote.")
    file = read_delta(merged / DELTA)
    loaded = load_plain(str(merged.absolute()))
    unmerge(loaded.module, file)
    if torch.promote_types(loaded.module.dtype, file.rows.dtype) == loaded.module.dtype:
        cast(loaded.module, file.rows.dtype)  # exact, by the digest
    with new_folder(folder) as temporary:
        save_plain(temporary, loaded.module, loaded.tokenizer, loaded.folder)
    return file


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
