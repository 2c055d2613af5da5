"""The value that every recipe is made of: a node with a key.

A node is a frozen dataclass that holds only `str`, `int`, `float`, `bool`, `None`, tuples, dicts with string keys and
other nodes. The SHA-256 of its canonical JSON is its *key*: equal expressions have equal keys on every machine. So a
recipe can be compared, stored, sent and resumed, and reading it back executes nothing. Standard library only.
"""

import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import cache
from typing import Any, ClassVar, Literal

from ssn_probe.errors import RecipeError, nearest
from ssn_probe.spec.display import Displayed

NODES: dict[str, type["Node"]] = {}
"""Every kind of node by name, for reading JSON."""
Need = Literal["gradients", "weights", "all logits", "training", "wider weights"]
"""What a node may ask of wherever the model runs, beside forward passes."""
DEEPEST = 100
"""Nodes that may be nested within one another, so that recursion over an expression stays below Python's limit."""


@dataclass(frozen=True, eq=False)
class Node(Displayed):
    """A value with a key. Subclasses are frozen dataclasses, whose fields are checked when an instance is made."""

    version: ClassVar[int] = 1
    needs: ClassVar[tuple[Need, ...]] = ()  # of a host that runs the model for others; see `study.host_checks`
    depth: ClassVar[int] = 0  # of nested nodes; set per instance, and not a field

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if not abstract:
            NODES[cls.__name__] = cls

    def __post_init__(self):
        hints = _hints(type(self))
        for spec in fields(self):
            where, value = f"{type(self).__name__}.{spec.name}", getattr(self, spec.name)
            value = _frozen(value, where)
            if not _fits(value, hints[spec.name]):
                raise RecipeError(
                    f"{where} is {brief(value)}",
                    f"Give {spec.name} as {_name(hints[spec.name])}.{_has_it(value, spec.name)}",
                )
            object.__setattr__(self, spec.name, value)
        depth = 1 + max((node.depth for spec in fields(self) for node in _inside(getattr(self, spec.name))), default=0)
        hint = "Split it, or read part of it from a neuron file."
        require(depth <= DEEPEST, f"an expression is nested more than {DEEPEST} nodes deep", hint)
        object.__setattr__(self, "depth", depth)
        self.check()

    def check(self) -> None:
        """Raises RecipeError when the values of the fields do not fit together."""

    @property
    def key(self) -> str:
        """64 hexadecimal digits: SHA-256 of the canonical JSON."""
        return digest(to_json(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self.key == other.key

    def __hash__(self) -> int:
        return int(self.key[:15], 16)


def later(default: Any) -> Any:
    """A field that a kind of node got after its first release: JSON leaves it out at its default, so old keys stay."""
    return field(default=default, metadata={"later": True})


def _is_written(spec: "Field[Any]", value: Any) -> bool:
    return "later" not in spec.metadata or spec.default is MISSING or value != spec.default


def to_json(value: Any) -> Any:
    """A value as plain JSON data; a node becomes an object with `kind`, `version` and its fields."""
    if isinstance(value, Node):
        own = {
            spec.name: getattr(value, spec.name)
            for spec in fields(value)
            if _is_written(spec, getattr(value, spec.name))
        }
        return {"kind": type(value).__name__, "version": value.version} | {
            name: to_json(it) for name, it in own.items()
        }
    if isinstance(value, dict):
        return {name: to_json(item) for name, item in value.items()}
    return [to_json(item) for item in value] if isinstance(value, tuple) else value


def from_json(data: Any) -> Any:
    """The inverse of `to_json`. Executes nothing; raises RecipeError for unknown nodes, fields and versions."""
    if isinstance(data, list):
        return tuple(from_json(item) for item in data)
    if not isinstance(data, dict):
        return data
    if "kind" not in data:
        return {name: from_json(item) for name, item in data.items()}
    kind = data["kind"]
    if not isinstance(kind, str) or kind not in NODES:
        raise RecipeError(f"unknown node {brief(kind)} in the recipe", nearest(str(kind)[:80], list(NODES)))
    version = data.get("version")
    if type(version) is not int or version != NODES[kind].version:
        raise RecipeError(
            f"{kind} has version {brief(version)} in the recipe, but this release has version {NODES[kind].version}",
            "Its numbers differ between the versions: run the recipe by name or file instead.",
        )
    values = {name: from_json(item) for name, item in data.items() if name not in ("kind", "version")}
    try:
        return NODES[kind](**values)
    except TypeError as error:
        raise RecipeError(
            f"{kind} in the recipe has the wrong fields: {brief(error)}", "Write the file again with to_json."
        ) from error


def read_json(text: str) -> Any:
    """JSON data. Raises ValueError also for a name that appears twice in an object, since one value would be lost."""
    try:
        return _EACH_ONCE.decode(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(brief(name) for name in names if names.count(name) > 1)} appears twice in an object")
    return found


_EACH_ONCE = json.JSONDecoder(object_pairs_hook=_each_once)  # making one takes longer than decoding a line


def canonical(data: Any) -> str:
    """JSON text in its only spelling: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(data: Any) -> str:
    """SHA-256 of the canonical JSON of plain data, 64 hexadecimal digits."""
    return hashlib.sha256(canonical(data).encode()).hexdigest()


def _inside(value: Any) -> Iterator[Node]:
    """The outermost nodes inside a field's value."""
    if isinstance(value, Node):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else ():
        yield from _inside(item)


def walk(value: Any) -> Iterator[Node]:
    """Every node inside a value, outermost first."""
    for node in _inside(value):
        yield node
        for spec in fields(node):
            yield from walk(getattr(node, spec.name))


def rewrite(value: Any, change: Callable[["Node"], "Node"], leave: type["Node"] | tuple[()] = ()) -> Any:
    """The expression with `change(node)` in place of every node, innermost first; nodes of type `leave` are kept."""
    if isinstance(value, tuple):
        return tuple(rewrite(item, change, leave) for item in value)
    if isinstance(value, dict):
        return {name: rewrite(item, change, leave) for name, item in value.items()}
    if not isinstance(value, Node) or isinstance(value, leave):
        return value
    inner = {spec.name: rewrite(getattr(value, spec.name), change, leave) for spec in fields(value)}
    return change(replace(value, **inner))


@cache
def _hints(kind: type[Node]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _fits(value: Any, hint: Any) -> bool:
    """Is a value of the annotated type? A bool is not a number, and an int has 64 bits; nodes check their dicts."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return any(_fits(value, member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(item, typing.get_args(hint)[0]) for item in value)
    kind = typing.get_origin(hint) or hint
    if kind in (int, float) and isinstance(value, bool):
        return False
    if isinstance(value, int) and value.bit_length() > (63 if kind is int else 4096):
        return False  # too large for a table, or to be written as digits
    return isinstance(value, (int, float) if kind is float else kind)


def _name(hint: Any) -> str:
    """The name of a type for users."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join(_name(member) for member in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"a tuple of {_name(typing.get_args(hint)[0])}"
    if hint is int:
        return "int (64 bits)"
    return "none" if hint is type(None) else str(getattr(typing.get_origin(hint) or hint, "__name__", hint))


def _has_it(value: Any, name: str) -> str:
    """A node that is given for one of its own fields: prompts for their source."""
    has = isinstance(value, Node) and name in {spec.name for spec in fields(value)}
    return f" This {type(value).__name__} has it as .{name}." if has else ""


def brief(value: Any) -> str:
    """A value, or the text of an error, in at most 80 characters."""
    try:
        text = str(value) if isinstance(value, Exception) else repr(value)
    except ValueError:  # Python refuses to write a number with thousands of digits
        text = f"a {type(value).__name__} with a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}…"


FRAMES = {
    "DataFrame": "Data frames become prompts by ssn_probe.prompts_from_frame: give prompts_from_frame(frame).source. ",
    "LazyFrame": "Data frames become prompts by ssn_probe.prompts_from_frame: give "
    "prompts_from_frame(frame.collect()).source. ",
}
"""What to do with a frame, by the name of its class: pandas and polars are not imported to find out."""


def _frozen(value: Any, where: str) -> Any:
    if isinstance(value, list | tuple):
        return tuple(_frozen(item, where) for item in value)
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        require("kind" not in value, f"{where} has the name 'kind'", "JSON uses it to mark nodes: choose another name.")
        return {name: _frozen(item, where) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"{where} is {value}", "Give a finite number.")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RecipeError(f"{where} is not valid Unicode: {brief(value)}", "Write it in UTF-8.") from error
    if value is None or isinstance(value, str | int | float | Node):
        return value
    raise RecipeError(
        f"{where} is a {type(value).__name__}, which a recipe cannot contain",
        f"{FRAMES.get(type(value).__name__, '')}A recipe contains str, int, float, bool, None, tuples, dicts with "
        "string keys and other nodes.",
    )


def one_of(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        hint = f"{nearest(str(value)[:80], known)} Allowed: {', '.join(known)}."
        raise RecipeError(f"unknown {what} {brief(value)}", hint)


def require(holds: bool, message: str, hint: str) -> None:
    if not holds:
        raise RecipeError(message, hint)
