"""Fixtures shared by all tests: the tiny models, as folders and loaded. Shapes and types are checked as tests run."""

import gc
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

if "SSN_PROBE_TEST_GPU" not in os.environ:  # the CPU's numbers are the same on every machine; `make test-gpu`
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # a thread that waits leaves its core to the other process

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook
from light_ndif import ndif  # noqa: F401 (a fixture)
from sketches import as_drawn, sketched
from tiny import EVERY_FAMILY, write_tiny

import ssn_probe

TRACING = Path(ssn_probe.__file__).parent / "tracing"
CHECKED = ["ssn_probe.model.chat", "ssn_probe.model.subject"]
# not the bodies, which have no annotations: wrapped, their source would no longer be all that a host needs
CHECKED += [f"ssn_probe.tracing.{path.stem}" for path in sorted(TRACING.glob("*.py")) if path.stem != "__init__"]

with install_import_hook(CHECKED, "beartype.beartype"):
    import ssn_probe.tracing.effects
    import ssn_probe.tracing.generate
    from ssn_probe.model import early_process, worker_places
    from ssn_probe.model.subject import Subject, load_subject
    from ssn_probe.tracing import kept_passes

torch.set_num_threads(1)
# The same examples in every run: a change is judged by its own tests. `pytest --hypothesis-seed=…` tries others.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")
SCANDIR, LISTDIR = os.scandir, os.listdir


class Backwards:
    """`os.scandir`, from Z to A."""

    def __init__(self, path: Any = "."):
        with SCANDIR(path) as entries:
            self.entries = sorted(entries, key=lambda entry: entry.name)

    def __iter__(self) -> "Backwards":
        return self

    def __next__(self) -> Any:
        if not self.entries:
            raise StopIteration
        return self.entries.pop()

    def __enter__(self) -> "Backwards":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.entries.clear()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs and files with slow tests come first: at the end of all, what one core still has to do is short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow and item.path.parent.name != "whole_runs")


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look through it again and again."""
    gc.freeze()


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    """Where memory runs out, what models kept to save time is given back first: who counts tries would see it."""
    kept_passes.give_back()


@pytest.fixture(autouse=True, scope="session")
def any_machine() -> Iterator[None]:
    """Folders are listed backwards, so that what relies on the order of a file system fails on every one.

    What a reader wishes of width and colour does not reach a test: where they matter, it sets them. A run has one
    process unless the test asks for more: whether a second one is worth its start depends on the machine.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "scandir", Backwards)
        patched.setattr(os, "listdir", lambda path=".": sorted(LISTDIR(path), reverse=True))
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
            patched.delenv(name, raising=False)
        for module in (worker_places, early_process):
            patched.setattr(module, "usable_cores", lambda: 1)
        yield


@pytest.fixture(autouse=True, scope="session")
def sketches() -> Iterator[None]:
    """A chart is an empty picture, so that hundreds of studies cost no second each; its specification is made."""
    with sketched():
        yield


@pytest.fixture
def pictures() -> Iterator[None]:
    """Charts are drawn."""
    with as_drawn():
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of the tiny model of a family, written once."""
    folders: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in folders:
            folders[family] = write_tiny(tmp_path_factory.mktemp(family), family)
        return folders[family]

    return folder


@pytest.fixture(scope="session")
def tiny_subject(tiny_folder: Callable[[str], Path]) -> Callable[[str], Subject]:
    """The tiny model of a family, loaded once. Tests must not change it."""
    subjects: dict[str, Subject] = {}

    def subject(family: str) -> Subject:
        if family not in subjects:
            subjects[family] = load_subject(str(tiny_folder(family)))
        return subjects[family]

    return subject


@pytest.fixture(scope="session")
def single(tiny_folder: Callable[[str], Path]) -> Callable[[str], Subject]:
    """The tiny model of a family in single precision, loaded once."""
    return cache(lambda family: load_subject(str(tiny_folder(family)), dtype="float32"))


@pytest.fixture(params=EVERY_FAMILY)
def subject(
    request: pytest.FixtureRequest,
    tiny_subject: Callable[[str], Subject],
    monkeypatch: pytest.MonkeyPatch,
) -> Subject:
    """The tiny model of every family in turn, in double precision.

    transformers' eager attention (Gemma-2) takes the softmax in single precision whatever the model's, where the mask
    of a double-precision model overflows; here the softmax keeps its argument's precision.
    """
    if request.param == "gemma2":
        softmax = torch.nn.functional.softmax
        monkeypatch.setattr(torch.nn.functional, "softmax", lambda scores, dim=-1, dtype=None: softmax(scores, dim=dim))
    return tiny_subject(request.param)


@pytest.fixture
def llama(tiny_subject: Callable[[str], Subject]) -> Subject:
    """The tiny Llama, where one family is enough."""
    return tiny_subject("llama")
