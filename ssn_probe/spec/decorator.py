"""`@recipe`: a function whose signature declares the recipe's parameters.

The signature, with a type and a default for every parameter, is the only schema: the text of `-T name=value` is
converted to the annotated type. A text that does not convert, or an unknown name, is an error; nothing is ignored.
"""

import contextlib
import inspect
import os.path
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ssn_probe.errors import RecipeError, SSNProbeError, nearest
from ssn_probe.spec import LMEval, Prompts, Recipe, SafetyNeurons
from ssn_probe.spec.display import Displayed
from ssn_probe.spec.node import Node, brief, rewrite

_OURS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
"""The folder of this package."""
_PYTHON = os.path.join(os.path.dirname(os.path.abspath(os.__file__)), "")
"""The folder of Python's own modules, with what is installed beside them."""


def every_recipe(
    languages: tuple[str, ...] | None = None,
    max_new_tokens: int | None = None,
    judge: str = "",
    system: str = "none",
    chat: str = "",
    tasks: tuple[str, ...] | None = None,
    task_limit: int | None = None,
    scoring_dtype: str | None = None,
) -> dict[str, Any]:
    """The parameters that every recipe has, beside those that its own signature declares.

    `languages`: use only these of every prompt set. `max_new_tokens`: the length of responses. `judge`: the judge of
    responses, instead of the one that the data declare; `none` for no judge. `system`: the system prompt, which may be
    empty; `none` for what the chat template writes by itself. `chat`: `plain` asks in a plain form in place of the
    tokenizer's chat template. `tasks`: tasks of lm-eval to measure under every arm as well, `task_limit` documents of
    each. `scoring_dtype`: neurons are scored with the same weights in this dtype, `float32` for a model in half
    precision; everything else is done in the model's own.
    """
    asked = {"system": None if system == "none" else system, "chat": chat or None}
    shared = {"languages": languages, "max_new_tokens": max_new_tokens, "judge": judge or None, **asked}
    return shared | {"tasks": tasks or None, "task_limit": task_limit, "scoring_dtype": scoring_dtype or None}


@dataclass(frozen=True)
class RecipeFunction(Displayed):
    """A declared recipe: call it with parameters to get a `Recipe`."""

    build: Callable[..., Recipe]
    name: str
    question: str

    @property
    def parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.build).parameters

    @property
    def known(self) -> list[str]:
        """The names of its own parameters, and of those that every recipe has."""
        return list(dict.fromkeys([*self.parameters, *inspect.signature(every_recipe).parameters]))

    def __call__(self, /, **arguments: Any) -> Recipe:
        self._check(arguments)
        own = self.parameters
        if "judge" in arguments:
            arguments = arguments | {"judge": _name_of_judge(arguments["judge"])}
        with users_code(self.name, "Fix the recipe."):
            made = self.build(**{name: value for name, value in arguments.items() if name in own})
        if not isinstance(made, Recipe):
            raise RecipeError(f"{self.name} returned a {type(made).__name__}", "A recipe function returns Recipe(…).")
        shared = every_recipe(**{name: value for name, value in arguments.items() if name not in own})
        return _with_shared(replace(made, name=self.name, question=self.question), shared)

    def from_text(self, texts: Mapping[str, str]) -> Recipe:
        """The recipe for the texts of `-T`, each converted to the annotated type."""
        self._check(texts)
        with users_code(f"a type in the signature of {self.name}", "Fix the recipe."):
            hints = typing.get_type_hints(every_recipe) | typing.get_type_hints(self.build)
        return self(**{name: coerce(name, text, hints.get(name, str)) for name, text in texts.items()})

    def _check(self, arguments: Mapping[str, Any]) -> None:
        check_names(arguments, self.known, f"{self.name} has no parameter")


def check_names(given: Iterable[str], known: Sequence[str], lacking: str, beside: Sequence[str] = ()) -> None:
    """Raises RecipeError for a name that is not known; its hint looks among names `beside` them, too."""
    for name in given:
        if name not in known:
            raise RecipeError(f"{lacking} {brief(name)}", nearest(name[:80], list(dict.fromkeys([*known, *beside]))))


def _with_shared(made: Recipe, shared: Mapping[str, Any]) -> Recipe:
    """The recipe with the parameters that every recipe has, where they are given."""
    given: dict[str, Any] = {name: value for name, value in shared.items() if value is not None}
    own: dict[str, Any] = {name: given.pop(name) for name in ("judge", "system", "chat") if name in given}
    limit, scoring = given.pop("task_limit", None), given.pop("scoring_dtype", None)
    if "tasks" in given:
        added = LMEval(given.pop("tasks"), limit=limit)
        own["measures"] = (*(one for one in made.measures if not isinstance(one, LMEval)), added)
    elif limit is not None:
        raise RecipeError("task_limit is given without tasks", "Name tasks of lm-eval, too: -T tasks=mmlu.")

    def changed(node: Node) -> Node:
        if isinstance(node, SafetyNeurons) and scoring is not None:
            return replace(node, scoring_dtype=scoring)
        return replace(node, **given) if isinstance(node, Prompts) else node

    return replace(rewrite(made, changed) if given or scoring is not None else made, **own)


def _name_of_judge(judge: Any) -> Any:
    """The name of a judge; of a function, as `python:FILE.py@function`, so that the recipe can be run again."""
    if not callable(judge):
        return judge
    name = getattr(judge, "__qualname__", "")
    with contextlib.suppress(TypeError, OSError):  # built in, or made where there is no file
        file = inspect.getsourcefile(judge)
        if file and os.path.isfile(file) and name.isidentifier():
            return f"python:{os.path.abspath(file)}@{name}"
    raise RecipeError(
        f"the judge {brief(judge)} is no function at the top of a file",
        "Write it into a file, and import it from there: verdicts are kept for the text of that file.",
    )


@contextlib.contextmanager
def users_code(what: str, hint: str) -> Iterator[None]:
    """A user's code may raise any exception: all but Ctrl-C become one RecipeError."""
    try:
        yield
    except (SSNProbeError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RecipeError(f"{what}{_line(error)} failed: {_described(error)}", hint) from error


def _line(error: BaseException) -> str:
    """Where the user's own file raised: its last line in the traceback, before whatever libraries it called.

    Empty where Python was asked first, as it is for the types of a signature, which it evaluates.
    """
    frames = traceback.extract_tb(error.__traceback__)
    file = next((one.filename for one in frames if not one.filename.startswith(_OURS)), None)
    if file is None or file.startswith((_PYTHON, "<")):
        return ""
    return f" ({os.path.basename(file)}, line {[one.lineno for one in frames if one.filename == file][-1]})"


def _described(error: BaseException) -> str:
    """An exception's type and text; the text may be empty, or fail to be made."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def recipe(build: Callable[..., Recipe]) -> RecipeFunction:
    """Declares a recipe: the function's name, the first line of its docstring as the question, its signature.

    The function returns a `Recipe`; its parameters are typed and have defaults, and `-T name=value` sets them. Raises
    RecipeError for a parameter that the command line could not give.
    """
    if not callable(build) or isinstance(build, type) or not hasattr(build, "__name__"):
        raise RecipeError(f"@recipe decorates {brief(build)}, which is not a function", "Write it once, above a `def`.")
    question = (inspect.getdoc(build) or "").partition("\n")[0]
    for parameter in inspect.signature(build).parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise RecipeError(
                f"{build.__name__}: the parameter {parameter.name!r} cannot be given by name",
                "Remove the `/` from the signature.",
            )
        if parameter.default is parameter.empty or parameter.annotation is parameter.empty:
            raise RecipeError(
                f"{build.__name__}: the parameter {parameter.name!r} lacks a type or a default",
                "Write every parameter as `name: type = default`.",
            )
    return RecipeFunction(build, build.__name__, question)


def split_assignments(texts: tuple[str, ...]) -> dict[str, str]:
    """`("a=1", "b=x")` as a dict. Raises RecipeError for a missing `=` and for a repeated name."""
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise RecipeError(f"-T {brief(text)} has no '='", f"Write -T {name[:80] or 'name'}=VALUE.")
        if name in values:
            raise RecipeError(f"-T {name[:80]} is given twice", "Give each parameter once.")
        values[name] = value
    return values


def coerce(name: str, text: str, annotation: Any) -> Any:
    """`text` as a value of the annotated type: str, int, float, bool, a tuple of them (with commas), or None."""
    allowed = _members(annotation)
    if not all(map(_is_written_as_text, allowed)):
        raise RecipeError(
            f"-T cannot set {name}, which is declared as {brief(annotation)}",
            "Declare it as str, int, float, bool or tuple[str, ...], each with None if you like; or set it in Python.",
        )
    if type(None) in allowed and text.lower() in ("none", ""):
        return None
    for kind in (bool, int, float):
        if kind in allowed:
            value = _number(text, kind)
            if value is not None:
                return value
    for kind in allowed:
        if typing.get_origin(kind) is tuple:
            return tuple(coerce(name, part.strip(), typing.get_args(kind)[0]) for part in text.split(","))
    if str in allowed:
        return text
    wanted = " or ".join("none" if kind is type(None) else kind.__name__ for kind in allowed)
    raise RecipeError(f"-T {name}={brief(text)} is not {wanted}", f"Give {name} as {wanted}.")


def _members(annotation: Any) -> tuple[Any, ...]:
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        return typing.get_args(annotation)
    return (annotation,)


def _is_written_as_text(kind: Any) -> bool:
    """Can a text be converted to this type?"""
    if typing.get_origin(kind) is tuple:
        item, *rest = typing.get_args(kind) or (None,)
        return rest == [...] and all(map(_is_written_as_text, _members(item)))
    return kind in (str, int, float, bool, type(None))


def _number(text: str, kind: type) -> bool | int | float | None:
    if kind is bool:
        return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get(text.lower())
    try:
        return kind(text)
    except ValueError:
        return None
