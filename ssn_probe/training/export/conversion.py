"""A model and a delta as a Hugging Face folder that loads without ssn-probe, and back to the base, on the CPU.

Beside weights, configuration and tokenizer a merged folder has a model card, and `expand/delta.safetensors`, from which
`unmerge_folder` restores the base. The base is loaded in the precision in which the delta was trained: there it has the
digest that the delta names.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssn_probe.errors import ModelError, ResultError, nearest
from ssn_probe.files import disk_errors, let_others_read, sync_file, sync_folder
from ssn_probe.model.families import family_of
from ssn_probe.model.loading import commit_of, locate, read_config, read_tokenizer, read_weights
from ssn_probe.training.delta_file.file import DeltaFile, read_delta, write_delta
from ssn_probe.training.delta_file.record import DTYPES
from ssn_probe.training.export.merging import check_base, unmerge, write_in
from ssn_probe.training.export.model_card import DELTA, model_card
from ssn_probe.training.weights.delta import Rounding, rounding

GENERATION = "generation_config.json"
LOCK = "lock"
"""Of a folder that is being written: whoever writes it has locked this file."""
CARRIED = (GENERATION, "openings.json", "preprocessor_config.json", "processor_config.json")
"""Files that are copied from the base's folder unchanged; the last two say how a model for texts takes images, too."""


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
    tokenizer = read_tokenizer(where, commit_of(config), asking=None)
    module = read_weights(where, config, family_of(config), dtype, "cpu")
    folder = Path(where)
    if not folder.is_dir():
        folder = Path(str(cached_file(where, "config.json", revision=commit_of(config)))).parent
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
        dtype: of the written weights; None for that of the training. In bfloat16 small changes can round away: the card
            states how many. `"float32"` keeps them.

    Raises:
        ModelError: a model that cannot be loaded, or that is not the base of the delta, or an unknown dtype.
        ResultError: a folder that has something in it, or a disk that cannot be written.
    """
    _check_free(folder)
    base = load_plain(model, precision(file, dtype))
    loaded = base.module.dtype
    wanted = getattr(torch, dtype) if dtype else loaded
    if torch.promote_types(loaded, wanted) != wanted:
        raise ModelError(f"{wanted} cannot represent {loaded} weights exactly.", "Omit dtype, or give a wider one.")
    check_base(base.module, file)
    _cast(base.module, wanted)
    write_in(base.module, file.rows)
    cost = rounding(file.rows, wanted)
    with _new_folder(folder) as temporary:
        _save(temporary, base)
        write_delta(temporary / DELTA, file)
        (temporary / "README.md").write_text(model_card(file, cost), encoding="utf-8")
    return cost


def unmerge_folder(merged: Path, folder: Path) -> DeltaFile:
    """Writes the base of a merged folder, bit for bit, from the rows that the folder keeps. Returns the delta.

    The digest is checked before anything is written. The weights have the precision of the training, or that of the
    merged folder where it is narrower.

    Raises:
        ModelError: a folder that cannot be loaded, does not have its delta, or was also changed elsewhere.
        ResultError: a folder that was not merged, a new folder that already exists, or a disk that cannot be written.
    """
    _check_free(folder)
    if not (merged / DELTA).is_file():
        raise ResultError(f"{merged} has no {DELTA}.", "Give a folder that `ssn-probe delta merge` wrote.")
    file = read_delta(merged / DELTA)
    loaded = load_plain(str(merged.absolute()))
    unmerge(loaded.module, file)
    if torch.promote_types(loaded.module.dtype, file.rows.dtype) == loaded.module.dtype:
        _cast(loaded.module, file.rows.dtype)  # exact, by the digest
    with _new_folder(folder) as temporary:
        _save(temporary, loaded)
    return file


def _check_free(folder: Path) -> None:
    """Raises ResultError unless the folder is absent or empty: nothing is ever overwritten."""
    with disk_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ResultError(f"{folder} already exists.", "Choose another folder, or remove it.")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it at the end: `folder` is complete, or absent.

    What a killed process left in the temporary folder is removed by the next that writes the same; it is locked.

    Raises ResultError for a folder that is not empty, and for a disk that cannot be written.
    """
    _check_free(folder)
    whole = Path(os.path.abspath(folder))
    temporary = whole.with_name(f".{whole.name}.tmp")
    with disk_errors(folder), _taken(temporary, folder) as lock:
        try:
            yield temporary
            for file in sorted(temporary.rglob("*.safetensors")):
                let_others_read(file)
            for file in sorted(path for path in temporary.rglob("*") if path.is_file() and path.name != LOCK):
                sync_file(file)
            if os.name == "nt":  # Windows renames no folder in which a file is open
                lock.release()
            os.replace(temporary, whole)
            sync_folder(whole.parent)
            (whole / LOCK).unlink(missing_ok=True)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _taken(temporary: Path, folder: Path) -> Iterator[Any]:
    """The lock of a temporary folder, which is made, or emptied of what a killed process has left."""
    from filelock import FileLock, Timeout

    if temporary.is_symlink() or (temporary.exists() and not (temporary / LOCK).is_file() and any(temporary.iterdir())):
        raise ResultError(f"{temporary} is in the way.", "Remove it, or choose another folder.")
    temporary.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(temporary / LOCK)
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ResultError(f"Another process is writing {folder}.", "Wait for it, or choose another folder.") from error
    try:
        for left in sorted(temporary.iterdir()):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            elif left.name != LOCK:
                left.unlink()
        yield lock
    finally:
        lock.release()


def _save(folder: Path, loaded: Loaded) -> None:
    """Weights, configuration and tokenizer as transformers reads them, and the files that are copied from the base."""
    carried = [loaded.folder / name for name in CARRIED if (loaded.folder / name).is_file()]
    if any(path.name == GENERATION for path in carried):
        # transformers refuses to write some settings that it reads, such as a temperature without sampling.
        loaded.module.generation_config = type(loaded.module.generation_config)()
    loaded.module.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    for path in carried:
        shutil.copyfile(path, folder / path.name)


def _cast(module: Any, dtype: torch.dtype) -> None:
    """The weights alone: buffers such as rotary frequencies keep the precision that they were computed in."""
    for weight in module.parameters():
        weight.data = weight.data.to(dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
