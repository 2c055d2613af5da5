"""A merged model as an ordinary Hugging Face folder, which loads without ssn-probe.

Beside weights, configuration and tokenizer stand a model card, which says what was trained on what and what came of
it, and `expand/delta.safetensors`, with which `unmerge` gives the base back.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.files import disk_errors
from ssn_probe.training.delta_file.file import DeltaFile, write_delta
from ssn_probe.training.export.merging import applied
from ssn_probe.training.export.model_card import DELTA, model_card
from ssn_probe.training.weights.delta import rounding

GENERATION = "generation_config.json"
CARRIED = (GENERATION, "openings.json")
"""Files of the base's folder that belong to the merged model as they are."""
DTYPES = ("float32", "bfloat16", "float16", "float64")


def save_merged(
    folder: Path,
    module: Any,
    tokenizer: Any,
    file: DeltaFile,
    *,
    source: Path | None = None,
    dtype: str | None = None,
) -> None:
    """Writes the merged model; `module` is the base, and is as it was afterwards, bit for bit.

    Args:
        folder: the new folder; it must not exist, or be empty.
        module: the base, loaded.
        tokenizer: its tokenizer.
        file: the delta.
        source: the base's folder, for its generation settings; without it, those of the loaded module are written.
        dtype: of the written weights; None for the base's. In bfloat16 small changes can round away, and the card
            says how much; `"float32"` keeps them.

    Raises:
        ModelError: another base, or an unknown dtype.
        ResultError: a folder that has something in it, or a disk that cannot be written.
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
    """Raises ResultError unless the folder can be made anew: nothing is ever written over."""
    with disk_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ResultError(f"{folder} is there already.", "Choose another folder, or remove it.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its name at the end: it is whole, or not there.

    Raises ResultError for a folder that has something in it, and for what a disk can say.
    """
    check_free(folder)
    whole = Path(os.path.abspath(folder))
    temporary = whole.with_name(f".{whole.name}.{os.getpid()}.tmp")
    with disk_errors(folder):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in sorted(temporary.rglob("*.safetensors")):
                file.chmod(0o644)  # safetensors writes files that only their owner can read
            os.replace(temporary, whole)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def save_plain(folder: Path, module: Any, tokenizer: Any, source: Path | None) -> None:
    """Weights, configuration and tokenizer as transformers reads them, and what is carried over from `source`."""
    kept = module.generation_config
    try:
        if source is not None and (source / GENERATION).is_file():
            # Carried over as it is: transformers would refuse to write settings that it reads, such as a temperature
            # without sampling.
            module.generation_config = type(kept)()
        module.save_pretrained(folder)
    finally:
        module.generation_config = kept
    tokenizer.save_pretrained(folder)
    _carry(source, folder)


@contextmanager
def _in_dtype(module: Any, dtype: torch.dtype) -> Iterator[None]:
    """Inside, the weights are in a dtype that holds them exactly."""
    before = module.dtype
    if torch.promote_types(before, dtype) != dtype:
        raise ModelError(f"{dtype} does not hold {before} weights exactly.", "Leave dtype out, or give a wider one.")
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
