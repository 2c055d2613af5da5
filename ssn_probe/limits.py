"""How large a file that somebody else wrote may be, and the one way in which such a file is opened.

A FIFO would block for ever, a device has no end, and a file of gigabytes would fill the memory before any check of its
content. So what a path leads to is looked at first: only regular files within the stated limit are read.
"""

import os
import stat
from pathlib import Path

from ssn_probe.errors import SSNProbeError
from ssn_probe.text import size

MB = 1_000_000
RECIPE = 10 * MB
"""recipe.json, a recipe file in Python, and files of `--extend`."""
CARD = 10 * MB
"""dataset.json."""
PROMPTS = 2_000 * MB
"""A table of prompts, as it is on disk."""
TABLE_ROWS, TABLE_BYTES = 100_000_000, 2_000 * MB
"""A table in parquet, which can be far smaller than what it holds: its rows, and its known columns decompressed."""
RUN_CELLS, RUN_BYTES = 1_000_000_000, 16_000 * MB
"""A table of a run: rows times columns, and what it holds decompressed."""
NEURON_FILE = 2_000 * MB
MANIFEST = 100 * MB
"""manifest.json and the other JSON files of a run or a cache entry."""
CONFIG = 10 * MB
"""config.json, generation_config.json, tokenizer_config.json and the like."""
OPENINGS = MB
"""openings.json."""
TEMPLATE = MB
"""A chat template."""
RENDERED = 20 * MB
"""What a chat template may write for one prompt, in characters."""
TOKENIZER = 200 * MB
"""tokenizer.json, or another file of a vocabulary."""
DELTA = 64_000 * MB
"""A delta file or the checkpoint of a training; the memory has to hold it twice, too."""
SHARD_INDEX = 100 * MB
"""model.safetensors.index.json."""


def check_regular(path: Path, limit: int | None, raises: type[SSNProbeError]) -> int:
    """The size of a regular file in bytes; `limit` None for files that are never read whole, such as weights.

    Raises:
        raises: the path leads to a directory, a FIFO, a socket or a device, to nothing, or to more than `limit` bytes.
    """
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise raises(f"Cannot read {path}: {reason}.", "Give a file that can be read.") from error
    _check(path, status, limit, raises)
    return status.st_size


def read_limited(path: Path, limit: int, raises: type[SSNProbeError]) -> bytes:
    """The bytes of a regular file of at most `limit` bytes.

    Raises:
        raises: it is no regular file, is larger, or cannot be read; the message names the file and the limit.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO waits for somebody to write.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as stream:
            status = os.fstat(handle)
            _check(path, status, limit, raises)
            content = stream.read(status.st_size + 1)  # memory is taken for as many bytes as are asked for
            if len(content) > status.st_size:  # some file systems know no sizes
                content += stream.read(limit + 1 - len(content))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise raises(f"Cannot read {path}: {reason}.", "Give a file that can be read.") from error
    if len(content) > limit:  # it grew meanwhile
        raise _too_large(path, limit, raises)
    return content


def _check(path: Path, status: os.stat_result, limit: int | None, raises: type[SSNProbeError]) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a pipe, a socket or a device"
        raise raises(f"{path} is not a file, but {kind}.", "Give a regular file.")
    if limit is not None and status.st_size > limit:
        raise _too_large(path, limit, raises)


def _too_large(path: Path, limit: int, raises: type[SSNProbeError]) -> SSNProbeError:
    return raises(f"{path} has more than {size(limit)}, the limit for such a file.", "Give a smaller file.")
