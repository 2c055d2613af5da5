"""Everything in which two runs were made differently: the recipe node by node, the model, data, versions, machine."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ssn_probe.spec.node import to_json
from ssn_probe.study.comparable_runs import StoredRun

MADE_WITH = (
    *("model", "neurons", "data", "judges", "anchor", "evaluated", "generation", "options", "device", "remote"),
    *("packages", "python", "platform", "git"),
)
"""The fields of a manifest that say how a run was made; its recipe, which is compared too, has the seed."""
NOTHING = "none"


@dataclass(frozen=True)
class RunDifference:
    """`where`: a path such as `recipe.arms.ss.by`; `places`: in how many like it the same two values stand."""

    where: str
    first: str
    second: str
    places: int = 1


def run_differences(first: StoredRun, second: StoredRun) -> tuple[RunDifference, ...]:
    """The list, in the order of the recipe and the manifest; a value that differs alike in many places is one line."""
    merged: dict[tuple[str, str, str], RunDifference] = {}
    for where, one, other in _unequal("", _made(first), _made(second)):
        key = where.rpartition(".")[2], _text(one), _text(other)
        known = merged.get(key)
        merged[key] = RunDifference(known.where if known else where, *key[1:], known.places + 1 if known else 1)
    return tuple(merged.values())


def _made(run: StoredRun) -> dict[str, Any]:
    manifest = {name: run.manifest.get(name) for name in MADE_WITH}
    manifest["data"] = [{name: it for name, it in one.items() if name != "prompts"} for one in manifest["data"] or ()]
    recipe = {name: it for name, it in to_json(run.recipe).items() if name != "question"}
    return {"recipe": recipe} | manifest


def _unequal(where: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """The innermost places where two JSON values differ; two nodes of different kinds differ as a whole."""
    if one == other and type(one) is type(other):
        return
    both = isinstance(one, Mapping) and isinstance(other, Mapping) and one.get("kind") == other.get("kind")
    if both:
        for name in dict.fromkeys((*one, *other)):
            yield from _unequal(f"{where}.{name}".lstrip("."), one.get(name), other.get(name))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for place, pair in enumerate(zip(one, other, strict=True), start=1):
            yield from _unequal(f"{where}.{place}", *pair)
    else:
        yield where, one, other


def _text(value: Any) -> str:
    """A value for a reader: nodes by their kinds, `Suppress(Shared(SafetyNeurons))`, and no list without its end."""
    if isinstance(value, Mapping):
        inner = [_text(it) for it in value.values() if isinstance(it, Mapping)]
        kind = value.get("kind")
        if kind is not None:
            return f"{kind}({', '.join(inner)})" if inner else str(kind)
        return ", ".join(f"{name}: {_text(it)}" for name, it in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(_text(it) for it in value) or NOTHING
    return NOTHING if value is None else {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
