"""Contracts 1 and 8: a recipe is found by name, path or recipe.json; listing and JSON execute nothing."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import ssn_probe.recipes
from ssn_probe.recipes import suppress_ss

from ssn_probe.errors import RecipeError
from ssn_probe.spec.decorator import RecipeFunction
from ssn_probe.spec.discovery import Loaded, find_recipe, list_recipes, load_function, load_recipe, shipped
from ssn_probe.spec.node import to_json

SHIPPED: dict[str, RecipeFunction] = {name: getattr(ssn_probe.recipes, name) for name in ssn_probe.recipes.__all__}


TWO = '''
from pathlib import Path
from ssn_probe import Prompts, Recipe, SafetyNeurons, recipe
import ssn_probe

Path(__file__).with_suffix(".executed").touch()


@recipe
def first(top: float | None = None, *, words: str = "a, b"):
    """Is it the first?

    Not part of the question.
    """
    return Recipe(sets={"first": SafetyNeurons(Prompts("x"), top=top)})


def helper(top: float = 1.0):
    """No recipe."""


@ssn_probe.recipe
def second():
    return Recipe(sets={"second": SafetyNeurons(Prompts("x"))})
'''


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def two(tmp_path: Path) -> Path:
    """A file in a folder whose name has an @, as a reference to one of several recipes has."""
    folder = tmp_path / "me@home"
    folder.mkdir()
    return write(folder, TWO, "two.py")


def test_listing_reads_the_syntax_tree_and_executes_nothing(two: Path) -> None:
    first, second = list_recipes(two)
    assert (first.name, first.question, first.path) == ("first", "Is it the first?", two)
    assert first.parameters == (("top", "float | None", "None"), ("words", "str", "'a, b'"))
    assert (second.name, second.question, second.parameters) == ("second", "", ())
    assert not two.with_suffix(".executed").exists()
    assert load_function(f"{two}@first").name == "first"
    assert two.with_suffix(".executed").exists(), "the marker must show an execution, or this test shows nothing"


def test_a_folder_is_listed_in_order_of_file_names_and_imports_nothing(two: Path) -> None:
    write(two.parent, "import no_such_module\n\n@recipe\ndef zero(top: int = 1): ...\n", "a.py")
    write(two.parent, "not python at all", "notes.txt")
    assert [one.name for one in list_recipes(two.parent)] == ["zero", "first", "second"]


def test_the_shipped_recipes_are_listed_as_their_signatures_say() -> None:
    listings = {one.name: one for one in list_recipes()}
    assert set(listings) == set(SHIPPED)
    for name, function in SHIPPED.items():
        assert listings[name].question == function.question
        assert [one[0] for one in listings[name].parameters] == list(function.parameters)
        assert [one[2] for one in listings[name].parameters] == [
            repr(one.default) for one in function.parameters.values()
        ]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_found_by_name_and_by_path(name: str) -> None:
    by_name = find_recipe(name, {"top": "0.25"})
    assert by_name == SHIPPED[name](top=0.25)
    assert by_name == find_recipe(str(shipped() / f"{name}.py"), {"top": "0.25"})
    assert load_recipe(name, {}).source == (shipped() / f"{name}.py").read_text(encoding="utf-8")


def test_several_recipes_in_a_file_are_told_apart_by_name(two: Path) -> None:
    assert list(find_recipe(f"{two}@first", {"top": "0.5"}).sets) == ["first"]
    assert list(find_recipe(f"{two}@second", {}).sets) == ["second"]
    assert load_recipe(f"{two}@second", {}).source == two.read_text(encoding="utf-8")
    with pytest.raises(RecipeError, match="declares 2 recipes") as caught:
        find_recipe(str(two), {})
    assert f"{two}@first" in (caught.value.hint or "")
    with pytest.raises(RecipeError, match="no recipe 'secnd'") as caught:
        find_recipe(f"{two}@secnd", {})
    assert "'second'" in (caught.value.hint or "")
    with pytest.raises(RecipeError, match="no recipe 'helper'"):
        find_recipe(f"{two}@helper", {})


def test_a_name_after_a_shipped_recipe_is_not_dropped() -> None:
    assert load_function("overlap@overlap").name == "overlap"
    with pytest.raises(RecipeError, match="no recipe 'transfer'"):
        load_function("overlap@transfer")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(RecipeError, match="unknown recipe 'supress_ss'") as caught:
        load_function("supress_ss")
    assert "'suppress_ss'" in (caught.value.hint or "")


@pytest.mark.parametrize("reference", ["missing.py", "./missing", "missing.py@name"])
def test_a_missing_file(reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="no recipe file") as caught:
        load_function(reference)
    assert "ssn-probe list" in (caught.value.hint or "")


def test_a_missing_folder_cannot_be_listed(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no file or folder"):
        list_recipes(tmp_path / "missing")


MINE = "from ssn_probe import NeuronFile, Prompts, Recipe, recipe\n{}\n\n@recipe\ndef mine():\n    {}\n"
BROKEN = {
    "syntax": ("x = 1\n\ndef mine(:\n", "line 3: invalid syntax"),
    "indent": ("x = 1\n  y = 2\n", "line 2: unexpected indent"),
    "not utf-8": ("# caf\udce9\n", "cannot read"),
    "null byte": ("x = '\x00'\n", "null byte"),
    "no recipe": ("x = 1\n", "declares no recipe"),
    "empty": ("", "declares no recipe"),
    "import": (MINE.format("import no_such_module", "pass"), "ModuleNotFoundError: No module named 'no_such_module'"),
    "name": (MINE.format("nonsense", "pass"), "NameError"),
    "lambda": (MINE.format("Prompts(lambda: 1)", "pass"), r"Prompts\.source is a function"),
    "live object": (MINE.format("Prompts('x', languages=[object()])", "pass"), r"Prompts\.languages is a object"),
    "inside": (MINE.format("", "return Recipe(sets={'a': NeuronFile(lambda: 1)})"), r"NeuronFile\.path is a function"),
    "not ours": ("def recipe(f):\n    return f\n\n@recipe\ndef mine(): ...\n", "not declared with ssn_probe's"),
}


@pytest.mark.parametrize(("text", "message"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_is_no_recipe_is_one_clear_error(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RecipeError, match=message) as caught:
        find_recipe(str(path), {})
    assert caught.value.hint


def test_a_recipe_may_define_values_that_look_up_their_module(tmp_path: Path) -> None:
    """`from __future__ import annotations` turns every annotation into text; parameters are coerced all the same."""
    body = "@recipe\ndef mine(top: float | None = None):\n    return Recipe(sets={'a': SafetyNeurons(P, top=top)})\n"
    head = "from __future__ import annotations\nfrom ssn_probe import Prompts, Recipe, SafetyNeurons, recipe\n"
    path = write(tmp_path, f"{head}P = Prompts('x')\n\n{body}")
    made = find_recipe(str(path), {"top": "0.5"})
    assert made.sets["a"].top == 0.5  # type: ignore[attr-defined]


def saved(folder: Path, data: Any) -> str:
    return str(write(folder, data if isinstance(data, str) else json.dumps(data), "recipe.json"))


def test_a_recipe_json_reads_back_as_it_was(tmp_path: Path) -> None:
    recipe, path = suppress_ss(top=0.25, anchor="qaä"), tmp_path / "recipe.json"
    for mark, ensure_ascii in ((b"", True), (b"\xef\xbb\xbf", False)):
        path.write_bytes(mark + json.dumps(to_json(recipe), ensure_ascii=ensure_ascii).encode())
        assert load_recipe(str(path), {}) == Loaded(recipe, None)


def test_a_recipe_json_executes_nothing(tmp_path: Path, two: Path) -> None:
    """Neither a name in it nor a recipe file beside it is imported."""
    modules = set(sys.modules)
    hostile = [
        {"kind": "two.first", "version": 1},
        {"kind": "__import__", "version": 1, "name": "two"},
        {"kind": "Recipe", "version": 2, "sets": {"a": {"kind": "eval", "version": 1, "text": "open('x', 'w')"}}},
    ]
    for data in hostile:
        with pytest.raises(RecipeError, match="unknown node"):
            find_recipe(saved(tmp_path, data), {})
    with pytest.raises(RecipeError, match="name is"):
        find_recipe(saved(tmp_path, to_json(suppress_ss()) | {"name": str(two)}), {})
    find_recipe(saved(tmp_path, to_json(suppress_ss()) | {"model": str(two)}), {})
    assert not two.with_suffix(".executed").exists()
    assert set(sys.modules) == modules


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{", "cannot read"),
        ("", "cannot read"),
        ([], "is not a recipe"),
        (to_json(suppress_ss().arms["ms"]), "is not a recipe"),
        ({}, "is not a recipe"),
        (to_json(suppress_ss()) | {"version": 1}, "version 1"),
        (to_json(suppress_ss()) | {"controls": -1}, "controls is -1"),
        ({"kind": "Recipe", "version": 2, "seed": float("nan")}, r"Recipe\.seed is nan"),
    ],
)
def test_a_json_file_that_is_no_recipe(data: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Cannot read"):
        find_recipe(str(tmp_path / "recipe.json"), {})
    reference = saved(tmp_path, data)
    with pytest.raises(RecipeError, match=message):
        find_recipe(reference, {})
    with pytest.raises(RecipeError, match="-T does not apply"):
        find_recipe(reference, {"top": "0.5"})


def test_a_recipe_file_may_import_its_neighbour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    (tmp_path / "beside_it.py").write_text("TOP = 0.25\n", encoding="utf-8")
    text = "from beside_it import TOP\nfrom ssn_probe import *\n@recipe\ndef mine(top: float = TOP):\n    'Q?'\n"
    (tmp_path / "mine.py").write_text(
        text + "    return Recipe(sets={'ms': SafetyNeurons(Prompts('a'), top=top)})\n", encoding="utf-8"
    )
    before = list(sys.path)
    assert find_recipe(str(tmp_path / "mine.py"), {}).sets["ms"].top == 0.25  # type: ignore[attr-defined]
    assert sys.path == before


def test_a_file_that_cannot_be_read_hides_no_other_of_its_folder(two: Path) -> None:
    (two.parent / "broken.py").write_text("def (", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"broken\.py, line 1"):
        list_recipes(two.parent)
    skipped: list[RecipeError] = []
    assert [one.name for one in list_recipes(two.parent, skipped.append)] == ["first", "second"]
    assert ["broken.py, line 1" in error.message for error in skipped] == [True]
