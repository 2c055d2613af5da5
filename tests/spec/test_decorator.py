"""Contract 5: the function's signature is the only schema, and `-T` is coerced from it without dropping anything."""

import re
from typing import Any

import pytest
from fuzzing import SHIPPED
from hypothesis import given, settings
from hypothesis import strategies as st

from ssn_probe import Prompts, Recipe, SafetyNeurons, recipe
from ssn_probe.errors import RecipeError
from ssn_probe.spec.decorator import RecipeFunction, coerce, split_assignments
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.spec.node import to_json, walk


@recipe
def question(
    model: str = "organism",
    top: float | None = None,
    controls: int = 20,
    quick: bool = False,
    languages: tuple[str, ...] | None = None,
    layers: tuple[int, ...] = (0,),
):
    """Is it so?

    More about it.
    """
    ms = SafetyNeurons(Prompts("x", languages=languages), top=top).only(layers=layers)
    return Recipe(model=model, sets={"quick" if quick else "ms": ms}, controls=controls)


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("-3", int, -3),
        ("3", float, 3.0),
        ("1e-3", float, 0.001),
        (".005", float | None, 0.005),
        ("none", float | None, None),
        ("None", str | None, None),
        ("", str | None, None),
        ("", str, ""),
        ("none", str, "none"),
        ("3", str, "3"),
        ("a=b", str, "a=b"),
        ("true", bool, True),
        ("YES", bool, True),
        ("1", bool, True),
        ("False", bool, False),
        ("no", bool, False),
        ("0", bool | None, False),
        ("none", bool | None, None),
        ("en", tuple[str, ...], ("en",)),
        ("en, de,sw", tuple[str, ...], ("en", "de", "sw")),
        ("none", tuple[str, ...] | None, None),
        ("1,2", tuple[int, ...], (1, 2)),
        ("1, .5", tuple[float, ...] | None, (1.0, 0.5)),
        ("3", int | str, 3),
        ("three", int | str, "three"),
        ("3", int | float, 3),
        ("3.5", int | float, 3.5),
    ],
)
def test_a_text_becomes_a_value_of_the_annotated_type(text: str, annotation: Any, value: Any) -> None:
    found = coerce("x", text, annotation)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "wanted"),
    [
        ("three", int, "int"),
        ("3.0", int, "int"),
        ("", int, "int"),
        ("none", int, "int"),
        ("high", float | None, "float or none"),
        ("maybe", bool, "bool"),
        ("2", bool, "bool"),
        ("1,x", tuple[int, ...], "int"),
        ("", tuple[int, ...], "int"),
    ],
)
def test_a_text_of_another_type_is_an_error_that_names_the_right_one(text: str, annotation: Any, wanted: str) -> None:
    with pytest.raises(RecipeError, match=re.escape("-T top=")) as caught:
        coerce("top", text, annotation)
    assert wanted in caught.value.message
    assert wanted in (caught.value.hint or "")


@settings(deadline=None, max_examples=50)
@given(st.integers() | st.floats(allow_nan=False) | st.booleans())
def test_what_python_prints_is_read_back(value: float) -> None:
    found = coerce("x", str(value), type(value))
    assert found == value
    assert type(found) is type(value)


def test_texts_reach_the_recipe() -> None:
    made = question.from_text({"top": "0.25", "controls": "3", "quick": "yes", "languages": "en,de", "layers": "4"})
    assert made == question(top=0.25, controls=3, quick=True, languages=("en", "de"), layers=(4,))
    assert made.controls == 3
    assert "quick" in made.sets


def test_the_function_gives_name_question_and_defaults() -> None:
    assert isinstance(question, RecipeFunction)
    assert (question.name, question.question) == ("question", "Is it so?")
    assert (question().name, question().question) == ("question", "Is it so?")
    assert question.from_text({}) == question() == question(controls=20)
    parameters = question.parameters
    assert list(parameters) == ["model", "top", "controls", "quick", "languages", "layers"]
    assert parameters["controls"].default == 20


@pytest.mark.parametrize("call", [lambda: question.from_text({"contrls": "3"}), lambda: question(contrls=3)])
def test_an_unknown_parameter_names_the_nearest(call: Any) -> None:
    with pytest.raises(RecipeError, match="no parameter 'contrls'") as caught:
        call()
    assert "'controls'" in (caught.value.hint or "")


def test_an_unknown_parameter_far_from_all_lists_them() -> None:
    with pytest.raises(RecipeError) as caught:
        question(zzzzzz=1)
    assert all(name in (caught.value.hint or "") for name in question.parameters)


def test_not_a_number_is_refused_by_name() -> None:
    with pytest.raises(RecipeError, match=r"SafetyNeurons\.top is nan"):
        question.from_text({"top": "nan"})


def no_default(top: float):
    raise AssertionError


def no_type(top=3):
    raise AssertionError


def rest(**options: int):
    raise AssertionError


def positional(top: float = 0.5, /):
    raise AssertionError


LACKING = ("lacks a type or a default", "name: type = default")


@pytest.mark.parametrize(
    ("build", "message", "hint"),
    [*((build, *LACKING) for build in (no_default, no_type, rest)), (positional, "cannot be given by name", "`/`")],
)
def test_a_parameter_that_cannot_be_declared(build: Any, message: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        recipe(build)
    assert hint in (caught.value.hint or "")


def test_a_function_that_returns_no_recipe() -> None:
    @recipe
    def broken(top: int = 1):
        """?"""
        return {"top": top}

    with pytest.raises(RecipeError, match="broken returned a dict"):
        broken()


def test_assignments_are_split_at_the_first_equals_sign() -> None:
    assert split_assignments(("a=1", "b=x=y", "c=")) == {"a": "1", "b": "x=y", "c": ""}
    assert split_assignments(()) == {}


@pytest.mark.parametrize(
    ("texts", "message", "hint"),
    [
        (("top",), "-T 'top' has no '='", "-T top=VALUE"),
        (("=3",), "-T '=3' has no '='", "-T name=VALUE"),
        (("",), "-T '' has no '='", "-T name=VALUE"),
        (("top=1", "seed=2", "top=1"), "-T top is given twice", "once"),
    ],
)
def test_assignments_that_cannot_be(texts: tuple[str, ...], message: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)) as caught:
        split_assignments(texts)
    assert hint in (caught.value.hint or "")


OTHER_VALUE = {
    "model": "elsewhere",
    "data": "elsewhere",
    "harmless": "elsewhere",
    "anchor": "qab",
    "effect": "local",
    "rule": "harmful",
    "top": "0.5",
    "stable": "0.9",
    "fdr": "0.05",
    "source": "qab",
    "doses": "0.5",
    "controls": "21",
    "label_sets": "21",
    "log_odds_label_sets": "98",
    "seed": "7",
}


@pytest.mark.parametrize("function", SHIPPED, ids=lambda function: function.name)
def test_a_shipped_recipe_asks_a_question_and_every_parameter_changes_it(function: RecipeFunction) -> None:
    default = function()
    assert function.question.endswith("?")
    assert default.name == function.name
    for name in function.parameters:
        assert function.from_text({name: OTHER_VALUE[name]}).key != default.key, name


def test_every_recipe_has_languages_length_and_judge() -> None:
    made = find_recipe("suppress_ss", {"languages": "qaa,qab", "max_new_tokens": "5", "judge": "phrases"})
    assert made.judge == "phrases"
    assert find_recipe("suppress_ss", {"judge": "none"}).judge == "none"
    assert find_recipe("suppress_ss", {"judge": ""}).judge is None
    prompts = [node for node in walk(made) if isinstance(node, Prompts)]
    assert {(node.languages, node.max_new_tokens) for node in prompts} == {(("qaa", "qab"), 5)}


def test_every_recipe_takes_a_system_prompt_and_the_plain_form() -> None:
    usual = find_recipe("suppress_ss", {})
    asked = find_recipe("suppress_ss", {"system": "You are none.", "chat": "plain"})
    assert (asked.system, asked.chat) == ("You are none.", "plain")
    assert {function.from_text({"system": "x"}).system for function in SHIPPED} == {"x"}
    assert find_recipe("suppress_ss", {"system": ""}).system == ""  # an empty one is one
    assert find_recipe("suppress_ss", {"system": "none", "chat": ""}).key == usual.key
    assert not {"system", "chat"} & set(to_json(usual))
    with pytest.raises(RecipeError, match="chat"):
        find_recipe("suppress_ss", {"chat": "plane"})
