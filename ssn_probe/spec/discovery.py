"""Finding recipes. Listing reads the syntax tree and executes nothing; loading a recipe file executes it.

A recipe is named by a shipped name (`suppress_ss`), by the path of a Python file (`my.py`, or `my.py@name` if it
declares several) or by a run's `recipe.json`, which is read as data. A file is read once, so that the text kept with a
run is the text that was executed, even if the file changes meanwhile.
"""

import ast
import contextlib
import importlib.util
import linecache
import os.path
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import ModuleType

from ssn_probe import limits
from ssn_probe.errors import RecipeError, nearest
from ssn_probe.limits import read_limited
from ssn_probe.spec import Recipe
from ssn_probe.spec.decorator import RecipeFunction, users_code
from ssn_probe.spec.node import brief, from_json, read_json

_UNDER_WAY: ContextVar[frozenset[str]] = ContextVar("files that are being executed", default=frozenset())


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a file declares about a recipe; a parameter is (name, annotation, default), as texts."""

    name: str
    question: str
    parameters: tuple[tuple[str, str, str], ...]
    path: Path


@dataclass(frozen=True)
class Loaded:
    """A recipe and the text of the Python file that made it; None for a recipe.json."""

    recipe: Recipe
    source: str | None


def shipped() -> Path:
    """The folder of the shipped recipes."""
    return Path(str(files("ssn_probe.recipes")))


def list_recipes(path: Path | None = None, skip: Callable[[RecipeError], None] | None = None) -> list[Listing]:
    """Every recipe in a folder or in a file; by default the shipped recipes. Executes nothing.

    `skip` is told of every file of a folder that cannot be read; without it, the first is raised.
    """
    path = shipped() if path is None else path
    if not os.path.exists(path):
        raise RecipeError(f"no file or folder {brief(str(path))}", "Give a recipe file, or a folder with recipe files.")
    if not path.is_dir():
        return _listings(path, _read(path))
    found = []
    for file in sorted(path.glob("*.py")):
        try:
            found += _listings(file, _read(file))
        except RecipeError as error:
            if skip is None:
                raise
            skip(error)
    return found


def load_recipe(reference: str, texts: Mapping[str, str]) -> Loaded:
    """The recipe that `reference` names, with parameters from the texts of `-T`, and the text of its file.

    Raises RecipeError when the file, the recipe in it or a parameter is wrong.
    """
    if reference.endswith(".json"):
        return Loaded(_from_json(Path(reference), texts), None)
    function, source = _load(reference)
    return Loaded(function.from_text(texts), source)


def find_recipe(reference: str, texts: Mapping[str, str]) -> Recipe:
    """The recipe that `reference` names, with parameters from the texts of `-T`."""
    return load_recipe(reference, texts).recipe


def load_function(reference: str) -> RecipeFunction:
    """The recipe function that a shipped name or `PATH[@name]` names. Executes the file."""
    return _load(reference)[0]


def execute_file(path: Path) -> ModuleType:
    """Runs a Python file that adds effects or model families, or has a judge, and returns it as a module.

    Raises RecipeError for whatever is wrong with it.
    """
    if not os.path.isfile(path):
        raise RecipeError(f"there is no file {brief(str(path))}", "Give --extend a Python file.")
    return _execute(path, _read(path))


def _load(reference: str) -> tuple[RecipeFunction, str]:
    """The recipe function and the text of its file."""
    place, name = _split(reference)
    if place.endswith(".py") or "/" in place:
        path = Path(place)
    else:
        paths = {listing.name: listing.path for listing in list_recipes()}
        if place not in paths:
            hint = f"{nearest(place[:80], list(paths))} Or give the path of a file."
            raise RecipeError(f"unknown recipe {brief(place)}", hint)
        path, name = paths[place], name or place
    if not os.path.isfile(path):
        raise RecipeError(f"no recipe file {brief(place)}", "`ssn-probe list` shows the shipped recipes.")
    text = _read(path)
    return _pick(path, text, name), text


def _split(reference: str) -> tuple[str, str]:
    """A reference as place and name; the name of a folder may contain an @, too."""
    place, at, name = reference.rpartition("@")
    return (place, name) if at and "/" not in name and "." not in name else (reference, "")


def _read(path: Path) -> str:
    try:
        return _decoded(read_limited(path, limits.RECIPE, RecipeError))
    except ValueError as error:
        raise RecipeError(f"cannot read {path}: {error}", "Give a Python file in UTF-8.") from error


def _decoded(content: bytes) -> str:
    """Text with the line ends that Python reads from a text file."""
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _pick(path: Path, text: str, name: str) -> RecipeFunction:
    names = [listing.name for listing in _listings(path, text)]
    if not names:
        raise RecipeError(f"{path} declares no recipe", "Put `@recipe` on a function that returns Recipe(…).")
    if not name and len(names) > 1:
        raise RecipeError(f"{path} declares {len(names)} recipes", f"Choose one, for example {path}@{names[0]}.")
    if name and name not in names:
        raise RecipeError(f"{path} has no recipe {name!r}", nearest(name, names))
    function = getattr(_execute(path, text), name or names[0], None)
    if not isinstance(function, RecipeFunction):
        raise RecipeError(
            f"{name or names[0]} in {path} is not declared with ssn_probe's @recipe",
            "Write `from ssn_probe import recipe`.",
        )
    return function


def _execute(path: Path, text: str):
    """Runs the text of a recipe file under the file's real name, so that errors and traces show the lines that ran.

    Bytecode is not used: Python would take a file that changed within a second, at the same size, for unchanged.
    """
    spec = importlib.util.spec_from_file_location(f"ssn_probe_recipe_{path.stem}", path)
    if spec is None:
        raise RecipeError(f"{path} is not a Python file", "A recipe file ends in .py.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    # Without a time of change, so that a newer file does not replace these lines.
    linecache.cache[str(path)] = (len(text), None, text.splitlines(keepends=True), str(path))
    with _once(path), _neighbours(path.resolve().parent), users_code(str(path), "Fix the file."):
        exec(compile(text, str(path), "exec", dont_inherit=True), module.__dict__)
    return module


@contextlib.contextmanager
def _once(path: Path) -> Iterator[None]:
    """Raises RecipeError inside itself, where a file that is executed for its functions asks for them, too."""
    file = str(path.resolve())
    if file in _UNDER_WAY.get():
        raise RecipeError(
            f"{path} is executed to find a function in it, and then starts a run that needs the same function",
            'Write what it runs below `if __name__ == "__main__":`, or the function into a file of its own.',
        )
    before = _UNDER_WAY.set(_UNDER_WAY.get() | {file})
    try:
        yield
    finally:
        _UNDER_WAY.reset(before)


@contextlib.contextmanager
def _neighbours(folder: Path) -> Iterator[None]:
    """A recipe file may import the files beside it, wherever the command was started."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the recipe file may have removed it
            sys.path.remove(str(folder))


def _from_json(path: Path, texts: Mapping[str, str]) -> Recipe:
    if texts:
        raise RecipeError(
            "-T does not apply to a recipe.json: its parameters are fixed", "Edit it, or run the recipe by name."
        )
    try:
        value = from_json(read_json(_decoded(read_limited(path, limits.RECIPE, RecipeError))))
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"cannot read {path}: {error}", "Give the recipe.json of a run.") from error
    if not isinstance(value, Recipe):
        raise RecipeError(f"{path} is not a recipe", "Give the recipe.json of a run.")
    return value


def _listings(path: Path, text: str) -> list[Listing]:
    try:
        return [
            Listing(
                name=node.name,
                question=(ast.get_docstring(node) or "").partition("\n")[0],
                parameters=tuple(_parameters(node.args)),
                path=path,
            )
            for node in ast.parse(text, filename=str(path)).body
            if isinstance(node, ast.FunctionDef)
            and any(ast.unparse(mark).split(".")[-1] == "recipe" for mark in node.decorator_list)
        ]
    except SyntaxError as error:
        line = "" if error.lineno is None else f", line {error.lineno}"
        raise RecipeError(f"{path}{line}: {error.msg}", "Fix the syntax error.") from error
    except (RecursionError, MemoryError) as error:  # limits of the parser
        raise RecipeError(f"{path} is nested too deeply to be read", "Split its expressions.") from error
    except ValueError as error:
        raise RecipeError(f"cannot read {path}: {error}", "Give a Python file in UTF-8.") from error


def _parameters(arguments: ast.arguments) -> list[tuple[str, str, str]]:
    positional = list(zip(reversed(arguments.args), reversed(arguments.defaults), strict=False))[::-1]
    named = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    return [
        (argument.arg, ast.unparse(argument.annotation) if argument.annotation else "", ast.unparse(default))
        for argument, default in [*positional, *named]
        if default is not None
    ]
