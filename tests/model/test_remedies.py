"""What is advised fits what happened: one cause has many exceptions, and one exception many causes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ssn_probe.errors import ModelError
from ssn_probe.model.remedies import read_foreign


class PanicException(BaseException):
    """As pyo3 raises it: not an Exception."""


class GatedRepoError(OSError):
    """As huggingface_hub names it."""


CAUSES = {
    "a package": (ImportError("This needs it: `pip install sentencepiece`"), "`pip install sentencepiece`"),
    "a module": (ModuleNotFoundError("No module named 'tiktoken'"), "`pip install tiktoken`"),
    "the memory of a card": (torch.OutOfMemoryError("CUDA out of memory"), "smaller dtype or another device"),
    "the memory": (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "smaller dtype or another device"),
    "no permission": (PermissionError(13, "Permission denied"), "change the permissions"),
    "a damaged header": (SafetensorError("invalid header"), "copy or download it again"),
    "code of its own": (ValueError("contains custom code which must be executed"), "which ssn-probe never does"),
    "a gated model": (GatedRepoError("401"), "hf auth login"),
    "gated, in words": (OSError("You are trying to access a gated repo."), "hf auth login"),
    "too nested": (RecursionError("maximum recursion depth exceeded"), "nested more deeply"),
    "an unknown architecture": (ValueError("does not recognize this architecture"), "newer transformers"),
    "a panic": (PanicException("called `Option::unwrap()`"), "get the original file"),
    "anything else of a folder": (ZeroDivisionError("division by zero"), "copy it again"),
}


def fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(("cause", "remedy"), CAUSES.values(), ids=CAUSES)
def test_the_remedy_fits(tmp_path: Path, cause: BaseException, remedy: str) -> None:
    with pytest.raises(ModelError, match=r"weights of .* cannot be loaded") as error:
        read_foreign(str(tmp_path), "weights", lambda: fail(cause))
    assert remedy in str(error.value.hint)


def test_the_remedy_is_found_behind_another_exception(tmp_path: Path) -> None:
    def load() -> None:
        try:
            fail(SafetensorError("invalid header"))
        except SafetensorError as error:
            raise OSError("Unable to load weights") from error

    with pytest.raises(ModelError) as error:
        read_foreign(str(tmp_path), "weights", load)
    assert "copy or download it again" in str(error.value.hint)


def test_a_newer_transformers_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"transformers_version": "99.1"}), encoding="utf-8")
    with pytest.raises(ModelError) as error:
        read_foreign(str(tmp_path), "config", lambda: fail(KeyError("new_thing")))
    assert "saved with transformers 99.1" in str(error.value.hint)
    assert error.value.message.endswith("cannot be loaded: there is no 'new_thing'")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), SystemExit(3), ModelError("as it is")])
def test_what_stops_a_run_and_our_own_errors_pass(tmp_path: Path, stop: BaseException) -> None:
    with pytest.raises(type(stop)) as error:
        read_foreign(str(tmp_path), "weights", lambda: fail(stop))
    assert error.value is stop
