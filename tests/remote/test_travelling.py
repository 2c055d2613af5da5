"""What travels to a host is the source that was loaded, and names no folder of this machine."""

import importlib
import inspect
from pathlib import Path

import pytest

from ssn_probe.remote.travelling import source_of, travelling

BODY = """
def outer(model):
    def inner():
        return model
    return inner()
"""


def test_source_as_it_was_loaded_without_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "sent_bodies"
    package.mkdir()
    (package / "__init__.py").write_text("# bodies\n", encoding="utf-8")
    (package / "one.py").write_text(BODY, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert travelling("sent_bodies") == "# bodies\n" + BODY
    outer = importlib.import_module("sent_bodies.one").outer
    before = inspect.getsource(outer)
    (package / "one.py").write_text("# an upgrade\n\n\n" + BODY.replace("inner", "nested"), encoding="utf-8")
    assert inspect.getsource(outer) == before
    codes = [outer.__code__, *(one for one in outer.__code__.co_consts if inspect.iscode(one))]
    assert [code.co_filename for code in codes] == ["sent_bodies/one.py"] * 2
    assert outer(3) == 3
    (package / "one.py").unlink()
    assert source_of(outer) == before
