"""The rooms of the house and the one direction in which they import each other, read off the syntax tree."""

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import ssn_probe

HOUSE = Path(ssn_probe.__file__).parent
FLOORS = (
    ("errors",),
    ("text",),
    ("files", "limits"),
    ("languages",),
    ("spec",),
    ("tables",),
    ("neurons",),
    ("data",),
    ("remote",),
    ("model",),
    ("tracing", "organism"),
    ("engines",),
    ("guards",),
    ("stats",),
    ("runs",),
    ("training",),
    ("study",),
    ("report",),
    ("doctor",),
    ("api",),
    ("cli",),
)
"""From the ground up: a module imports from its own room and from the floors below, at the top or inside a function."""
LEVEL = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
ON_THE_ROOF = ("__init__", "__main__")
"""The public names and the command: they may import from every floor."""


@cache
def modules() -> dict[str, Path]:
    """Every module by its dotted name below `ssn_probe`."""
    found = {}
    for path in sorted(HOUSE.rglob("*.py")):
        name = ".".join(path.relative_to(HOUSE).with_suffix("").parts)
        found[name.removesuffix(".__init__") or "__init__"] = path
    return found


@cache
def imported(path: Path) -> frozenset[str]:
    """Modules of the package that a file imports when it runs, lazily or not; not what only type checkers read."""
    known, found = modules(), set()
    unread: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while unread:
        node = unread.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            unread += node.orelse
            continue
        unread += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[2] for one in node.names if one.name.startswith("ssn_probe.")}
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ssn_probe":
            base = node.module.partition(".")[2]
            wholes = [f"{base}.{one.name}".strip(".") for one in node.names]
            found |= {whole if whole in known else base or "__init__" for whole in wholes}
    return frozenset(found)


def room(name: str) -> str:
    return name.split(".")[0]


def test_every_module_is_in_a_room_with_a_floor() -> None:
    assert {room(name) for name in modules()} <= {*LEVEL, *ON_THE_ROOF}


def test_imports_go_down() -> None:
    upward = [
        f"{name} imports {other}"
        for name, path in modules().items()
        if name not in ON_THE_ROOF
        for other in imported(path)
        if room(other) != "recipes" and other != "__init__" and room(other) != room(name)
        if LEVEL[room(other)] >= LEVEL[room(name)]
    ]
    assert not upward, "\n".join(sorted(set(upward)))


def test_no_two_modules_import_each_other() -> None:
    """Also within a room: there is an order in which every file comes after those that it uses."""
    edges = {name: imported(path) & set(modules()) for name, path in modules().items()}
    edges = {name: others - {name, "__init__"} for name, others in edges.items() if name != "__init__"}
    while free := [name for name, others in edges.items() if not others & set(edges)]:
        for name in free:
            del edges[name]
    circle = {name: sorted(others & set(edges)) for name, others in edges.items()}
    assert not circle, "\n".join(f"{name} → {', '.join(others)}" for name, others in circle.items())


def test_no_two_files_have_one_name() -> None:
    names = Counter(path.stem for path in modules().values())
    assert not [name for name, count in names.items() if count > 1 and not name.startswith("__")]
