"""Whatever a recipe file holds or does is a recipe, or one clear error; the text that is kept is the text that ran."""

import builtins
import inspect
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
from fuzzing import clear, texts
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ssn_probe.recipes import overlap

from ssn_probe.errors import RecipeError
from ssn_probe.spec.decorator import recipe
from ssn_probe.spec.discovery import Loaded, find_recipe, list_recipes, load_function, load_recipe
from ssn_probe.spec.node import NODES

HEAD = "from ssn_probe import *\n"
BODY = """
@recipe
def mine(top: float = 0.5):
    "Is it mine?"
    return Recipe(sets={"ms": SafetyNeurons(Prompts("x"), top=top)})
"""
GOOD = HEAD + BODY


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recipes") / "mine.py"


def read(file: Path, content: str | bytes, **texts: str) -> Loaded | None:
    """A recipe, or one clear error: for `list`, and for `show` and `run`."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    clear(lambda: list_recipes(file))
    known = set(NODES)
    try:
        return clear(lambda: load_recipe(str(file), texts))
    finally:
        for name in set(NODES) - known:
            del NODES[name]


# ── hostile files ────────────────────────────────────────────────────────────────────────────────────────────────────

lines = st.sampled_from(
    [
        *GOOD.splitlines(),
        "@recipe",
        "@recipe()",
        "@property",
        "@staticmethod",
        "class mine:",
        "async def mine():",
        "  x = (",
        "'''",
    ]
)


@settings(deadline=None, max_examples=80)
@given(content=st.lists(lines | texts, max_size=8).map("\n".join) | st.binary(max_size=40))
@example(content=b"\xff\xfe" + GOOD.encode("utf-16-le"))
@example(content="# -*- coding: nonsense -*-\n" + GOOD)
def test_a_recipe_file_of_any_lines(content: str | bytes, file: Path) -> None:
    read(file, content)


@settings(deadline=None, max_examples=80)
@given(at=st.integers(0, 999), new=texts, taken=st.integers(0, 3), top=texts)
def test_a_recipe_file_with_a_text_put_in_or_taken_out(at: int, new: str, taken: int, top: str, file: Path) -> None:
    at %= len(GOOD)
    read(file, GOOD[:at] + new[:50] + GOOD[at + taken :], top=top)


DEEP = {
    "signs": "x = " + "-" * 20_000 + "1\n",
    "sum": "x = " + "+".join(["1"] * 50_000) + "\n",
    "attributes": "x = a" + ".a" * 20_000 + "\n",
    "decorator": "@(recipe" + ".a" * 3000 + ")\ndef x(): ...\n",
    "default": "@recipe\ndef x(a: int = " + "-" * 3000 + "1): ...\n",
    "parentheses": "x = " + "(" * 500 + ")" * 500 + "\n",
    "digits": "@recipe\ndef x(a: int = 0x" + "f" * 6000 + "): ...\n",
}


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_file_beyond_what_python_reads(text: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(HEAD + text + BODY, encoding="utf-8")
    for find in (lambda: list_recipes(path), lambda: find_recipe(str(path), {})):
        with pytest.raises(RecipeError, match=r"mine\.py") as caught:
            find()
        assert caught.value.hint


RAISED = {
    "exit": ("raise SystemExit", "SystemExit"),
    "generator": ("raise GeneratorExit", "GeneratorExit"),
    "stop": ("raise StopIteration", "StopIteration"),
    "own": ("class Own(BaseException): ...\nraise Own('why')", "Own: why"),
    "unspeakable": ("class E(Exception):\n    def __str__(self): return 1 / 0\nraise E", "failed: E\nFix"),
    "recursion": ("def f(): f()\nf()", "RecursionError"),
    "memory": ("raise MemoryError", "failed: MemoryError\nFix"),
    "interrupt": ("raise KeyboardInterrupt", "^$"),
    "half a character": ("raise ValueError('\\ud800')", "ValueError"),
}


@pytest.mark.parametrize(("body", "message"), RAISED.values(), ids=RAISED)
@pytest.mark.parametrize("inside", [True, False])
def test_whatever_a_recipe_raises(body: str, message: str, inside: bool, tmp_path: Path) -> None:
    indented = "\n".join(f"    {line}" for line in body.splitlines())
    text = f"{HEAD}@recipe\ndef mine():\n{indented}\n" if inside else f"{HEAD}{body}\n{BODY}"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    with pytest.raises(KeyboardInterrupt if "Interrupt" in body else RecipeError, match=message):
        find_recipe(str(tmp_path / "mine.py"), {})


DONE: dict[str, str] = {
    "deleted": "del mine",
    "another value": "mine = 3",
    "path emptied": "import sys; sys.path.clear()",
    "path replaced": "import sys; sys.path = []",
    "module gone": "import sys; del sys.modules[__name__]",
}


@pytest.mark.parametrize("line", DONE.values(), ids=DONE)
def test_whatever_a_recipe_does_to_its_surroundings(line: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = read(file, f"{GOOD}{line}\n")
    assert (found is None) == ("mine" in line)


class Called:
    """Callable, but not a function."""

    def __call__(self) -> None: ...


@pytest.mark.parametrize("thing", [3, None, dict, Called, Called(), property(), "mine", overlap])
def test_a_thing_that_is_no_function_cannot_be_declared(thing: Any) -> None:
    with pytest.raises(RecipeError, match=r"@recipe decorates .*, which is not a function") as caught:
        recipe(thing)
    assert "`def`" in (caught.value.hint or "")


# ── what ran is what is kept ─────────────────────────────────────────────────────────────────────────────────────────

REWRITING = GOOD.replace(
    "\n@recipe", "from pathlib import Path\nPath(__file__).write_text('changed = True\\n')\n\n@recipe", 1
)


def test_a_file_that_changes_while_it_runs_keeps_the_text_that_ran(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(REWRITING, encoding="utf-8")
    found = load_recipe(str(path), {"top": "0.25"})
    assert path.read_text(encoding="utf-8") == "changed = True\n", "otherwise this test shows nothing"
    assert found.source == REWRITING
    assert found.recipe.sets["ms"].top == 0.25  # type: ignore[attr-defined]


def test_a_file_that_changes_between_reading_and_running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The declared names, the code and the kept text are of one reading, however many there were before."""
    path = tmp_path / "mine.py"
    path.write_text(GOOD, encoding="utf-8")
    compiled = builtins.compile

    def change_first(*arguments: Any, **options: Any) -> Any:
        path.write_text("nothing = 1\n", encoding="utf-8")
        return compiled(*arguments, **options)

    monkeypatch.setattr(builtins, "compile", change_first)
    found = load_recipe(str(path), {})
    assert path.read_text(encoding="utf-8") == "nothing = 1\n"
    assert (found.source, found.recipe.name) == (GOOD, "mine")


def test_a_file_that_changed_within_a_second_is_run_as_it_is_now(tmp_path: Path) -> None:
    """Python's bytecode cache would run the old one: same time of change, same size."""
    path = tmp_path / "mine.py"
    for top in ("0.25", "0.75"):
        path.write_text(GOOD.replace("0.5", top), encoding="utf-8")
        os.utime(path, (1_700_000_000, 1_700_000_000))
        found = load_recipe(str(path), {})
        assert found.recipe.sets["ms"].top == float(top)  # type: ignore[attr-defined]
        assert found.source == path.read_text(encoding="utf-8")
    assert not (tmp_path / "__pycache__").exists()


def test_a_traceback_shows_the_lines_that_ran(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    text = REWRITING.replace("    return", "    1 / 0  # here\n    return")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match="ZeroDivisionError") as caught:
        find_recipe(str(path), {})
    shown = "".join(traceback.format_exception(caught.value))
    assert f'File "{path}", line ' in shown
    assert "1 / 0  # here" in shown
    path.write_text(text, encoding="utf-8")
    assert "1 / 0  # here" in inspect.getsource(load_function(str(path)).build)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_marks_and_line_endings_of_other_editors(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", ending).encode())
    assert [one.name for one in list_recipes(path)] == ["mine"]
    assert load_recipe(str(path), {}).source == GOOD
