"""Tensors in a safetensors file, written whole or not at all, and read into memory of their own.

The metadata have a digest of everything in the file. It is checked as the file is read, so that damage is no other
number; a file of an earlier release has none.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ssn_probe import limits
from ssn_probe.errors import ResultError, is_library_failure
from ssn_probe.files import ELSEWHERE, let_others_read, write_whole
from ssn_probe.limits import check_regular, read_limited
from ssn_probe.spec.node import brief, canonical, read_json
from ssn_probe.text import size

DIGEST = "sha256"
"""The entry of the metadata that has the digest of the tensors and of all other metadata."""


class DamagedError(ResultError):
    """A file of tensors that is not what was written."""


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], *, elsewhere: str = ELSEWHERE
) -> None:
    """Writes the file under another name and renames it. Raises ResultError for a disk that cannot be written.

    `elsewhere`: how to write somewhere else.
    """
    from safetensors.torch import save_file

    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    marked = {**metadata, DIGEST: _digest(metadata, whole)}

    def write(temporary: Path) -> None:
        save_file(whole, temporary, metadata=marked)
        let_others_read(temporary)

    write_whole(path, write, elsewhere=elsewhere)


def read_tensors(path: Path, hint: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors.

    safetensors would map the file into memory, where a tensor changes, or ends the process, when its file does: so it
    is read whole.

    Raises:
        DamagedError: a file that is not whole, or whose digest does not match, with `hint`.
        ResultError: a file that is missing, too large for the memory, or cannot be opened, with `hint`, too.
    """
    try:
        _check_memory(path)
        content = read_limited(path, limits.DELTA, ResultError)
    except ResultError as error:
        raise ResultError(error.message, hint) from error
    try:
        metadata, tensors = _parsed(content)
    except BaseException as error:
        if not is_library_failure(error):
            raise
        raise DamagedError(f"{path} is damaged: {brief(error)}.", hint) from error
    if metadata.get(DIGEST, found := _digest(metadata, tensors)) != found:
        raise DamagedError(f"{path} is damaged: its content does not have the SHA-256 that it names.", hint)
    return metadata, tensors


def _check_memory(path: Path) -> None:
    import psutil

    needed = 2 * check_regular(path, limits.DELTA, ResultError)
    if needed > psutil.virtual_memory().available:
        raise ResultError(
            f"Reading {path} takes {size(needed)} of memory.", "Free some memory, or use a larger machine."
        )


def _parsed(content: bytes) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors.torch import load

    tensors = load(content)  # checks the header, and that it fits the content
    header = read_json(content[8 : 8 + int.from_bytes(content[:8], "little")].decode())
    return header.get("__metadata__", {}), tensors


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Over the metadata but for the digest itself, and over name, dtype, shape and bytes of every tensor."""
    import torch

    total = hashlib.sha256(canonical({name: text for name, text in metadata.items() if name != DIGEST}).encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        total.update(tensor.flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()
