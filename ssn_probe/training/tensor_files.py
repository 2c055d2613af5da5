"""Tensors in a safetensors file, written whole or not at all, and read into memory of their own."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ssn_probe.errors import ResultError
from ssn_probe.files import let_others_read, write_whole


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes the file under another name and renames it. Raises ResultError for a disk that cannot be written."""
    from safetensors.torch import save_file

    whole = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}

    def write(temporary: Path) -> None:
        save_file(whole, temporary, metadata=dict(metadata))
        let_others_read(temporary)

    write_whole(path, write)


def read_tensors(path: Path, hint: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors. Raises ResultError, with `hint`, for a file that is missing or damaged.

    safetensors maps files into memory, where a tensor changes, or ends the process, when its file does: so they are
    copied.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as opened:
            return opened.metadata() or {}, {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ResultError(f"{path} cannot be read: {error}", hint) from error
