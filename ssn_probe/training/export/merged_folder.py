"""A merged model as an ordinary Hugging Face folder, which loads without ssn-probe.

Beside weights, configuration and tokenizer it has a model card, and `expand/delta.safetensors`, from which `unmerge`
restores the base.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.files import disk_errors, let_others_read
from ssn_probe.training.delta_file.file import DeltaFile, write_delta
from ssn_probe.training.delta_file.record import DTYPES
from ssn_probe.training.export.merging import applied
from ssn_probe.training.export.model_card import DELTA, model_card
from ssn_probe.training.weights.delta import rounding

GENERATION = "generation_config.json"
CARRIED = (GENERATION, "openings.json")
"""Files that are copied from the base's folder unchanged."""


def save_merged(
    folder: Path,
    module: Any,
    tokenizer: Any,
    file: DeltaFile,
    *,
    source: Path | None = None,
    dtype: str | None = None,
) -> None:
    """Writes the merged model. `module`, the base, is afterwards as it was, bit for bit.

    Args:
        folder: the new folder: absent or empty.
        module: the base, loaded.
        tokenizer: its tokenizer.
        file: the delta.
        source: the base's folder, for its generation settings; without it, those of the loaded module are written.
        dtype: of the written weights; None for the base's. In bfloat16 small changes can round away: the card states
            how many. `"float32"` keeps them.

    Raises:
        ModelError: another base, or an unknown dtype.
        ResultError: a folder that is not empty, or a disk that cannot be written.
    """
    check_free(folder)
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}.", f"Known: {', '.join(DTYPES)}.")
    wanted = getattr(torch, dtype) if dtype else module.dtype
    with new_folder(folder) as temporary:
        with _in_dtype(module, wanted), applied(module, file):
            save_plain(temporary, module, tokenizer, source)
        write_delta(temporary / DELTA, file)
        card = model_card(file, rounding(file.rows, wanted))
        (temporary / "README.md").write_text(card, encoding="utf-8")


def check_free(folder: Path) -> None:
    """Raises ResultError unless the folder is absent or empty: nothing is ever overwritten."""
    with disk_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ResultError(f"{folder} already exists.", "Choose another folder, or remove it.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it at the end: `folder` is complete, or absent.

    Raises ResultError for a folder that is not empty, and for a disk that cannot be written.
    """
    check_free(folder)
    whole = Path(os.path.abspath(folder))
    temporary = whole.with_name(f".{whole.name}.{os.getpid()}.tmp")
    with disk_errors(folder):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in sorted(temporary.rglob("*.safetensors")):
                let_others_read(file)
            os.replace(temporary, whole)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def save_plain(folder: Path, module: Any, tokenizer: Any, source: Path | None) -> None:
    """Weights, configuration and tokenizer as transformers reads them, and the files that are copied from `source`."""
    kept = module.generation_config
    try:
        if source is not None and (source / GENERATION).is_file():
            # Copied unchanged below: transformers refuses to write some settings that it reads, such as a temperature
            # without sampling.
            module.generation_config = type(kept)()
        module.save_pretrained(folder)
    finally:
        module.generation_config = kept
    tokenizer.save_pretrained(folder)
    _carry(source, folder)


@contextmanager
def _in_dtype(module: Any, dtype: torch.dtype) -> Iterator[None]:
    """Inside, the weights are in a dtype that represents them exactly."""
    before = module.dtype
    if torch.promote_types(before, dtype) != dtype:
        raise ModelError(f"{dtype} cannot represent {before} weights exactly.", "Omit dtype, or give a wider one.")
    if before == dtype:
        yield
        return
    cast(module, dtype)
    try:
        yield
    finally:
        cast(module, before)


def cast(module: Any, dtype: torch.dtype) -> None:
    """The weights alone: buffers such as rotary frequencies keep the precision that they were computed in."""
    for weight in module.parameters():
        weight.data = weight.data.to(dtype)


def _carry(source: Path | None, folder: Path) -> None:
    for name in CARRIED:
        if source is not None and (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
