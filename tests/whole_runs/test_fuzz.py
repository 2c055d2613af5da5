"""Whatever is written after -T, or for a recipe, becomes a recipe that can be planned, or one clear error."""

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fuzzing import SHIPPED, clear, planned, small_set, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from ssn_probe import Prompts, Recipe, SafetyNeurons
from ssn_probe.cli.commands import main
from ssn_probe.errors import RecipeError
from ssn_probe.spec.decorator import RecipeFunction, coerce, recipe, split_assignments
from ssn_probe.spec.discovery import find_recipe, list_recipes


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_set(tmp_path_factory.mktemp("data"))


# ── -T ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=150)
@given(function=st.sampled_from(SHIPPED), drawn=st.data())
def test_any_assignment_is_a_plan_or_one_clear_error(function: RecipeFunction, drawn: st.DataObject, data: str) -> None:
    names = st.sampled_from(sorted(function.parameters)) | texts
    given = drawn.draw(st.dictionaries(names, texts | st.just(data), min_size=1, max_size=3))
    assignments = tuple(f"{name}={value}" for name, value in {"data": data, **given}.items())
    made = clear(lambda: find_recipe(function.name, split_assignments(assignments)))
    if made is not None:
        clear(lambda: planned(made))


@settings(deadline=None, max_examples=100)
@given(st.lists(texts | st.builds("{}={}".format, texts, texts), max_size=3))
def test_any_assignments_are_split_or_one_clear_error(assignments: list[str]) -> None:
    found = clear(lambda: split_assignments(tuple(assignments)))
    assert found is None or [f"{name}={value}" for name, value in found.items()] == assignments


@settings(deadline=None, max_examples=10)
@given(name=st.sampled_from(["data", "top", "anchor", "effect", "controls"]), value=texts)
def test_the_command_line_shows_one_message_and_one_hint(name: str, value: str, data: str) -> None:
    result = CliRunner().invoke(main, ["show", "suppress_ss", "-T", f"{name}={value}", "--limit", "2"])
    assert result.exit_code in (0, 1), result.output
    if result.exit_code == 1:
        assert isinstance(result.exception, SystemExit), repr(result.exception)
        lines = result.stderr.splitlines()
        assert [line[:2] for line in lines] == ["Er", "  "], result.stderr
        assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize(
    "annotation", [3, [], list, list[int], tuple, tuple[()], tuple[int, str], tuple[list, ...], Any, Prompts]
)
def test_a_parameter_whose_type_no_text_can_have(annotation: Any) -> None:
    with pytest.raises(RecipeError, match="-T cannot set x") as caught:
        coerce("x", "1", annotation)
    assert "tuple[str, ...]" in (caught.value.hint or "")


@pytest.mark.parametrize("annotation", ["nonsense", "no type at all", "1 / 0"])
def test_an_annotation_that_cannot_be_read(annotation: str) -> None:
    def mine(top=0.5):
        raise AssertionError

    mine.__annotations__["top"] = annotation
    with pytest.raises(RecipeError, match="a type in the signature of mine failed"):
        recipe(mine).from_text({"top": "1"})


def test_a_parameter_may_have_any_name() -> None:
    @recipe
    def mine(self: str = "a"):
        return Recipe(sets={"ms": SafetyNeurons(Prompts(self))})

    assert mine(self="b") == mine.from_text({"self": "b"}) != mine()


@pytest.mark.parametrize("value", ["9" * 5000, "x" * 100_000])
def test_a_long_text_makes_no_long_message(value: str) -> None:
    for assignment in (f"seed={value}", f"effect={value}", f"data={value}", f"{value}=1", value):
        clear(lambda text=assignment: planned(find_recipe("suppress_ss", split_assignments((text,)))))


# ── references ───────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=80)
@given(texts, st.sampled_from(["", ".py", ".json", "/", ".py@x", "@x"]))
def test_any_reference_is_a_recipe_or_one_clear_error(name: str, ending: str) -> None:
    clear(lambda: find_recipe(name + ending, {}))
    clear(lambda: list_recipes(Path("nowhere") / (name + ending)))
