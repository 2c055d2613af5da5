"""What loading a model and reading texts by its tokenizer gave, kept between runs under all that decides it.

Most of a short run goes into importing transformers, building a module and tokenising prompts, for facts that are the
same every time. They lie in `cache/models/<state>/`, one JSON file each. The state is the SHA-256 of the bytes of the
model's files, of how the model is asked, of the versions of all packages that read it, and of ssn-probe's own source:
where any of these is another, nothing that was kept is found. Every file begins with the SHA-256 of the rest, and one
that is damaged is computed again.
"""

import contextlib
import hashlib
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.files import disk_errors, sha256
from ssn_probe.limits import MANIFEST, TOKENIZER, read_limited
from ssn_probe.model.asking import Asking
from ssn_probe.model.weight_files import weight_files
from ssn_probe.spec.node import digest

FOLDER = "models"
"""Below the cache of a results folder."""
READERS = (
    *("ssn-probe", "torch", "transformers", "tokenizers", "safetensors", "huggingface-hub", "jinja2", "nnsight"),
    *("numpy", "sentencepiece", "tiktoken", "protobuf", "mistral-common"),
)
"""The packages that can change what is read from a model's files."""
TEMPLATES = "additional_chat_templates"
"""The one folder inside a model's that transformers reads, too."""
_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Kept:
    """The facts of one state of a model. Without a `folder` nothing is kept; without `writes`, what is there is read.

    `stamp`: size, times and inode of every file when the state was found.
    """

    folder: Path | None = None
    writes: bool = True
    stamp: object = None
    memory: dict[str, Any] = field(default_factory=dict)

    def find(self, kind: str, given: Any) -> Any:
        """What is kept of this kind, for what it was computed from; None where that is nothing, or damaged."""
        return None if self.folder is None else self._read(self._path(kind, given))

    def value(self, kind: str, given: Any, compute: Callable[[], Any]) -> Any:
        """A value in JSON that nothing decides but the state and `given`, computed where it is not kept."""
        if self.folder is None:
            return compute()
        path = self._path(kind, given)
        found = self._read(path)
        if found is None:
            text = json.dumps(compute(), allow_nan=False)
            found = self.memory[path.name] = json.loads(text)
            self._write(path, text)
        return found

    def keep(self, kind: str, given: Any, value: Any) -> None:
        """Keeps a value."""
        if self.folder is not None:
            self._write(self._path(kind, given), json.dumps(value, allow_nan=False))

    def _path(self, kind: str, given: Any) -> Path:
        assert self.folder is not None
        return self.folder / f"{kind.replace(' ', '-')}.{digest(given)}.json"

    def _read(self, path: Path) -> Any:
        if path.name not in self.memory and path.is_file():
            with contextlib.suppress(ModelError, ValueError, RecursionError):
                said, _, text = read_limited(path, MANIFEST, ModelError).decode("ascii").partition("\n")
                if said == hashlib.sha256(text.encode("ascii")).hexdigest():
                    self.memory[path.name] = json.loads(text)
        return self.memory.get(path.name)

    def _write(self, path: Path, text: str) -> None:
        """In place: a file that is half written does not have its digest, and is written again."""
        if not self.writes:
            return
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{hashlib.sha256(text.encode('ascii')).hexdigest()}\n{text}", encoding="ascii")


NOTHING_KEPT = Kept()


def kept_of(cache: Path, name: str, where: str, asking: Asking, *, writes: bool) -> Kept:
    """What the cache of a results folder has of the model in a folder, as its files are now."""
    folder = Path(where)
    stamp = stamp_of(folder)
    state = {
        "name": [name, where],
        "asking": asdict(asking),
        "files": _contents(folder),
        "packages": installed(READERS),
        "source": source_digest(),
        "python": platform.python_version(),
        "default": _default_dtype(),
    }
    return Kept(folder=cache / FOLDER / digest(state), writes=writes, stamp=stamp)


def stamp_of(folder: Path) -> object:
    """Name, size, times of change and inode of every file that can decide what is read: what is other was changed."""
    found = {str(path.relative_to(folder)): path.stat() for path in _files(folder)}
    return tuple((name, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for name, one in found.items())


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in (*folder.glob("*"), *folder.glob(f"{TEMPLATES}/*")) if path.is_file())


def _contents(folder: Path) -> Mapping[str, Any]:
    """Name → SHA-256. Of large files that no weights are read from (`pytorch_model.bin`), size and time of change."""
    weights = weight_files(folder) if any(folder.glob("*.safetensors*")) else ()
    found: dict[str, Any] = {}
    for path in _files(folder):
        status = path.stat()
        large = status.st_size > TOKENIZER and path not in weights
        found[str(path.relative_to(folder))] = [status.st_size, status.st_mtime_ns] if large else sha256(path)
    return found


def installed(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those of some packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


@cache
def source_digest() -> str:
    """Over ssn-probe's own source: whoever changes how a model is read has other facts."""
    total = hashlib.sha256()
    for path in sorted(_PACKAGE.glob("*/**/*.py")):
        total.update(str(path.relative_to(_PACKAGE)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()


def _default_dtype() -> str | None:
    """What torch takes where neither config nor weights say it; None while it is torch's own."""
    default = str(sys.modules["torch"].get_default_dtype()) if "torch" in sys.modules else "torch.float32"
    return None if default == "torch.float32" else default
