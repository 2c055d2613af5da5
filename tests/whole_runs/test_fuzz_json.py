"""Any content of a recipe.json is a recipe that can be planned, or one clear error; nothing breaks later."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fuzzing import SHIPPED, clear, planned, small_set, stored, values
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ssn_probe.recipes import suppress_ss

from ssn_probe import ASR, MeanOf, NeuronFile, Patch, Prompts, RandomLike, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.errors import RecipeError
from ssn_probe.spec import Amplify, SetExpression
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.spec.node import DEEPEST, from_json, read_json, rewrite, to_json, walk
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.plan import make_plan


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    return small_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json") / "recipe.json"


# ── recipe.json ──────────────────────────────────────────────────────────────────────────────────────────────────────


def documents(data: str) -> list[Any]:
    """Sound recipes that between them hold every kind of node."""
    prompts = Prompts(data)
    ms = SafetyNeurons(prompts, effect="local", stable=0.9)
    some = Shared(ms, at_least=2).only(layers=[0], sites=["ffn"]) | RandomLike(ms.of("en").union()).without_strongest()
    arms = {"a": Suppress(ms.each(), to=MeanOf(prompts)), "b": Amplify(some, by=2), "c": Patch(Shared(ms))}
    everything = Recipe(arms=arms, sets={"d": Shared(SafetyNeurons(prompts), by="mean")}, measures=(ASR(prompts),))
    shipped = [function(data=data) for function in SHIPPED]
    return [to_json(one) for one in (everything, *shipped)]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    changed = dict(value) if isinstance(value, dict) else list(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], new)
    return changed


def read_and_planned(file: Path, content: str | bytes) -> None:
    file.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    made = clear(lambda: find_recipe(str(file), {}))
    if made is not None:
        assert find_recipe(str(file), {}).key == made.key
        clear(lambda: planned(made))


@settings(deadline=None, max_examples=120)
@given(drawn=st.data())
def test_a_recipe_json_with_one_or_two_values_changed(drawn: st.DataObject, data: str, file: Path) -> None:
    document = drawn.draw(st.sampled_from(documents(data)))
    for _ in range(drawn.draw(st.integers(1, 2))):
        known = sorted(places(document), key=str)
        here, other = drawn.draw(st.sampled_from(known)), drawn.draw(st.sampled_from(known))
        grafted = document
        for step in other:
            grafted = grafted[step]
        document = replaced(document, here, drawn.draw(values | st.just(grafted)))
    read_and_planned(file, json.dumps(document, ensure_ascii=drawn.draw(st.booleans())))


@settings(deadline=None, max_examples=100)
@given(document=values | st.binary(max_size=40))
@example(document=b"\xff")
@example(document=b"[" * 100_000)
@example(document=b'{"a":' * 100_000)
@example(document=b'{"kind": "Recipe", "version": 1, "seed": ' + b"9" * 5000 + b"}")
@example(document=b'{"kind": "' + b"x" * 100_000 + b'"}')
@example(document=b'{"kind": "Recipe", "version": 1, "' + b"x" * 100_000 + b'": 1}')
def test_a_recipe_json_of_anything(document: Any, file: Path) -> None:
    read_and_planned(file, document if isinstance(document, bytes) else json.dumps(document))


@settings(deadline=None, max_examples=60)
@given(at=st.integers(0, 10**6), new=st.binary(max_size=3), taken=st.integers(0, 5))
def test_a_recipe_json_with_bytes_put_in_or_taken_out(at: int, new: bytes, taken: int, data: str, file: Path) -> None:
    content = stored(documents(data)[0])
    at %= len(content)
    read_and_planned(file, content[:at] + new + content[at + taken :])


def test_a_name_that_appears_twice_is_refused(data: str, file: Path) -> None:
    file.write_text(json.dumps(to_json(suppress_ss(data=data)))[:-1] + ', "seed": 1}', encoding="utf-8")
    with pytest.raises(RecipeError, match="'seed' appears twice"):
        find_recipe(str(file), {})
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json("[" * 100_000)


def nested(depth: int, data: str = "x") -> SetExpression:
    expression: SetExpression = SafetyNeurons(Prompts(data))
    for _ in range(depth - expression.depth):
        expression = expression.union()
    return expression


def test_depth_is_bounded_before_python_gives_up(data: str) -> None:
    """At the bound everything works, with Python's own limit well away."""
    deepest = Recipe(sets={"a": nested(DEEPEST - 1, data)})
    assert deepest.depth == DEEPEST
    planned(deepest)
    assert rewrite(deepest, lambda node: node) == from_json(to_json(deepest)) == deepest
    assert len(list(walk(deepest))) == DEEPEST + 1
    with pytest.raises(RecipeError, match=f"more than {DEEPEST} nodes deep") as caught:
        nested(DEEPEST + 1)
    assert caught.value.hint


@pytest.mark.parametrize(
    "number", [2**63, -(2**63), 2**30_000, -(2**30_000)], ids=["64 bits", "-64 bits", "huge", "-huge"]
)
def test_a_number_that_no_table_can_hold(number: int) -> None:
    ms = SafetyNeurons(Prompts("a"))
    makers = (
        lambda: Recipe(sets={"ms": ms}, seed=number),
        lambda: Prompts("a", limit=number),
        lambda: RandomLike(ms, seed=number),
        lambda: ms.only(layers=[number]),
        lambda: Amplify(ms, by=number),
        lambda: SafetyNeurons(Prompts("a"), top=number),
        lambda: Prompts(number),  # type: ignore[arg-type]
    )
    for make in makers:
        assert clear(make) is None


@pytest.mark.parametrize("given", [{"layers": []}, {"sites": []}, {"languages": []}, {"languages": ["en", "en"]}])
def test_a_restriction_to_nothing_or_to_one_thing_twice(given: Any) -> None:
    """Nothing would be left, or a language would be compared with itself."""
    with pytest.raises(RecipeError, match=rf"only\(…\) got {next(iter(given))}="):
        SafetyNeurons(Prompts("a")).only(**given)
    with pytest.raises(RecipeError, match="layers="):
        SafetyNeurons(Prompts("a")).only(layers=[-1])


# ── what would break late ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_neuron_file_is_read_with_the_plan(data: str, tmp_path: Path) -> None:
    for path in (str(tmp_path / "missing.csv"), "\0", "a" * 5000, str(tmp_path)):
        for expression in (NeuronFile(path), SafetyNeurons(Prompts(data)) - NeuronFile(path).of("en")):
            assert clear(lambda one=expression: make_plan(Recipe(sets={"a": one}))) is None
        assert clear(lambda one=path: resolved_key(NeuronFile(one), {}, {})) is None


def test_languages_that_there_are_not(data: str) -> None:
    """The mean of no prompts is no number, and the crash would come after the scoring."""
    prompts, german = Prompts(data), Prompts(data, languages=("de",))
    ms, mean = SafetyNeurons(prompts), MeanOf(german)
    make_plan(Recipe(sets={"a": Shared(ms, at_least=2)}))
    with pytest.raises(RecipeError, match="at_least=3, but there are 2 languages"):
        make_plan(Recipe(sets={"a": Shared(ms, at_least=3)}))
    with pytest.raises(RecipeError, match=r"MeanOf\(…\) has no prompts in en"):
        make_plan(Recipe(arms={"a": Suppress(ms, to=mean)}, measures=(ASR(prompts),)))
    make_plan(Recipe(arms={"a": Suppress(SafetyNeurons(german), to=mean)}, measures=(ASR(german),)))
