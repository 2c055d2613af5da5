"""Python and notebooks: run a recipe or any expression, and look at what came out.

    from ssn_probe import run
    from ssn_probe.recipes import suppress_ss

    result = run(suppress_ss(controls=20))

The same engine, keys and folders as the command line's `ssn-probe run`. torch, nnsight and polars are imported when
something is run.
"""

import contextlib
import inspect
import linecache
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ssn_probe.api.result import Preview, Result
from ssn_probe.errors import RecipeError
from ssn_probe.runs import integrity
from ssn_probe.runs.folder import find_run
from ssn_probe.spec import (
    ASR,
    Intervention,
    OverRefusal,
    Prompts,
    Recipe,
    SafetyNeurons,
    SetExpression,
    Shared,
    Utility,
    is_several,
)
from ssn_probe.spec.decorator import RecipeFunction, check_names
from ssn_probe.spec.node import walk
from ssn_probe.text import plain

if TYPE_CHECKING:
    from ssn_probe.neurons import NeuronSet

Question = Recipe | RecipeFunction | SetExpression | Intervention | str | os.PathLike[str]
"""What can be asked: a recipe, a declared one, a set, an arm, or the name or path of a recipe."""

SETTINGS = ("label_sets", "log_odds_label_sets", "controls", "permutations", "half_samples", "seed", "system", "chat")
"""What `run` and `preview` also take for a set or an arm: a recipe's numbers, and how the model is asked."""


def run(
    what: Question,
    *,
    model: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "results",
    batch_size: int | Literal["auto"] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    limit: int | None = None,
    gradient_checkpointing: bool = False,
    fresh: bool = False,
    remote: bool | str = False,
    engine: str = "transformers",
    processes: int | Literal["auto"] = "auto",
    progress: bool = True,
    **parameters: Any,
) -> Result:
    """Runs a recipe or an expression and returns what it found; its folder is below `out`.

    `what`: a `Recipe`; a declared recipe such as `suppress_ss`, with its `parameters`; a set such as
    `Shared(SafetyNeurons(Prompts("organism")))`, which is found and not used; an arm such as `Suppress(set)`, measured
    as `suppress_ss` is, on the prompts that its set was chosen with; or a shipped name, `FILE.py[@name]` (executed),
    or a run's `recipe.json` (not executed). A set or an arm needs a `model` and takes `label_sets`,
    `log_odds_label_sets`, `controls`, `permutations`, `half_samples`, `seed`, `system` and `chat`; elsewhere `model`
    replaces the recipe's own.

    `batch_size` prompts at a time, by default as many as fit; `gradient_checkpointing` trains in less memory, and
    slower; `limit` prompts per split and context at most; `fresh` recomputes what is in the cache; `remote=True` runs
    the model on NDIF, an address on that host; `engine="vllm"` generates responses by vLLM, see docs/vllm.md;
    `processes` of this machine share the work, by default one per core where a small model has much to do, or one per
    GPU that holds the model; `progress=False` shows nothing. Raises an SSNProbeError for a mistake that you can fix.
    """
    asked = _asked(what, model, parameters, run)
    _import_tqdm()
    from ssn_probe.api.runner import Options, run_recipe
    from ssn_probe.report.terminal.command_output import console

    options = Options(
        out=Path(out),
        batch_size=_count("batch_size", None if batch_size == "auto" else batch_size),
        device=device,
        dtype=dtype,
        limit=_count("limit", limit),
        gradient_checkpointing=gradient_checkpointing,
        fresh=fresh,
        remote=remote,
        engine=engine,
        processes=_count("processes", None if processes == "auto" else processes),
        source=asked.source,
        arguments=asked.arguments,
    )
    return Result(run_recipe(asked.recipe, options, console(quiet=not progress)))


def preview(
    what: Question,
    *,
    model: str | os.PathLike[str] | None = None,
    out: str | os.PathLike[str] = "results",
    batch_size: int | Literal["auto"] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    limit: int | None = None,
    remote: bool | str = False,
    engine: str = "transformers",
    time: bool = True,
    **parameters: Any,
) -> Preview:
    """What `run` would do with these arguments, what it takes and could show, as `ssn-probe show` prints it.

    One batch of each kind of work is tried, to say how long the whole takes here; with `time=False` no weight is
    loaded and nothing runs. With `remote`, the host says whether it runs the model, and gets no prompt.
    """
    asked = _asked(what, model, parameters, preview)
    _import_tqdm()
    from ssn_probe.study.forecast import forecast

    return Preview(
        forecast(
            asked.recipe,
            _count("limit", limit),
            out=Path(out),
            batch_size=_count("batch_size", None if batch_size == "auto" else batch_size),
            device=device,
            dtype=dtype,
            remote=remote,
            engine=engine,
            calibrated=time,
        )
    )


def evaluate(
    expression: SetExpression,
    *,
    model: str | os.PathLike[str],
    out: str | os.PathLike[str] = "results",
    batch_size: int | Literal["auto"] | None = None,
    device: str = "auto",
    dtype: str = "auto",
    limit: int | None = None,
    remote: bool | str = False,
    progress: bool = True,
    system: str | None = None,
    chat: str | None = None,
) -> "NeuronSet":
    """The neurons that a set stands for: `evaluate(Shared(ms) - ms.of("en"), model=…)`, or a recipe's `sets["ss"]`.

    Nothing is tested and no run is made; what it measures is what a run with this set measures, kept in the same cache
    below `out`. To measure an arm by itself, run `recipe.part(name)`. Raises an SSNProbeError for a mistake that you
    can fix.
    """
    if not isinstance(expression, SetExpression):
        hint = "Give a set, such as Shared(…) or an arm's .neurons; run(recipe.part(name)) measures an arm."
        raise RecipeError(f"a {type(expression).__name__} is no set of neurons", hint)
    asked = _around(expression, os.fspath(model), {"system": system, "chat": chat})
    _import_tqdm()
    from ssn_probe.api.evaluation import evaluate_set
    from ssn_probe.api.runner import Options
    from ssn_probe.report.terminal.command_output import console

    options = Options(
        out=Path(out),
        batch_size=_count("batch_size", None if batch_size == "auto" else batch_size),
        device=device,
        dtype=dtype,
        limit=_count("limit", limit),
        remote=remote,
    )
    return evaluate_set(asked, options, console(quiet=not progress))


def open_run(reference: str | os.PathLike[str] = "latest", out: str | os.PathLike[str] = "results") -> Result:
    """A past run by path, by name, by a part of its name that only it has, or the latest.

    Warns of a run whose files are not as they were written. Raises ResultError where the manifest cannot be read.
    """
    found = find_run(os.fsdecode(reference), Path(out))
    if (changed := integrity.warning(found)) is not None:
        warnings.warn(plain(changed), stacklevel=2)
    return Result(found)


# ── what is asked ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A recipe, the code that declares it and the arguments that were passed, for the run's record."""

    recipe: Recipe
    source: str | None = None
    arguments: dict[str, str] = field(default_factory=dict)


def _asked(
    what: Question,
    model: str | os.PathLike[str] | None,
    parameters: Mapping[str, Any],
    asker: Callable[..., Any] | None = None,
) -> _Asked:
    """What `run` or `preview`, the `asker`, was called with; its own arguments are among the names that it knows."""
    name = None if model is None else os.fspath(model)
    own = [] if asker is None else list(inspect.signature(asker).parameters)[1:-1]
    if isinstance(what, Recipe):
        return _Asked(recipe=_settled(what, name, parameters, "a Recipe", "Pass them where it is made"))
    if isinstance(what, RecipeFunction):
        return _from_function(what, name, parameters, own)
    if isinstance(what, SetExpression | Intervention):
        return _Asked(recipe=_around(what, name, parameters, own))
    if isinstance(what, str | os.PathLike):
        return _from_reference(os.fspath(what), name, parameters, own)
    raise RecipeError(
        f"a {type(what).__name__} cannot be run",
        "Give a recipe, a set such as Shared(…), an arm such as Suppress(…), or the name or path of a recipe.",
    )


def _settled(recipe: Recipe, model: str | None, parameters: Mapping[str, Any], what: str, hint: str) -> Recipe:
    if parameters:
        raise RecipeError(f"the parameters of {what} are settled, so {', '.join(parameters)} cannot be set", f"{hint}.")
    return recipe if model is None else replace(recipe, model=model)


def _from_function(
    function: RecipeFunction, model: str | None, parameters: Mapping[str, Any], own: Sequence[str]
) -> _Asked:
    check_names(parameters, function.known, f"{function.name} has no parameter", own)
    given = dict(parameters)
    if model is not None and "model" in function.parameters:
        given["model"] = model
    recipe = function(**given)
    arguments = {name: str(value) for name, value in given.items()}
    return _Asked(recipe=_settled(recipe, model, {}, "", ""), source=_source(function), arguments=arguments)


def _source(function: RecipeFunction) -> str | None:
    """The text that declares a recipe: its file as it was executed, or a notebook's cell; None where it is not kept."""
    code = getattr(inspect.unwrap(function.build), "__code__", None)
    return "".join(linecache.getlines(code.co_filename)) or None if code is not None else None


def _from_reference(reference: str, model: str | None, parameters: Mapping[str, Any], own: Sequence[str]) -> _Asked:
    from ssn_probe.spec.discovery import find_recipe, load_function

    if reference.endswith(".json"):
        recipe = find_recipe(reference, {})
        return _Asked(recipe=_settled(recipe, model, parameters, "a recipe.json", "Run the recipe by name or file"))
    return _from_function(load_function(reference), model, parameters, own)


def _around(
    what: SetExpression | Intervention, model: str | None, parameters: Mapping[str, Any], own: Sequence[str] = ()
) -> Recipe:
    """The smallest recipe around a set or an arm."""
    if model is None:
        raise RecipeError(f"{type(what).__name__}(…) names no model", "Give one, for example model='organism'.")
    check_names(parameters, SETTINGS, f"{type(what).__name__}(…) takes no parameter", own)
    if isinstance(what, SetExpression):
        name, question = _name_of(what), "Which neurons are these, and where?"
        return Recipe(model=model, sets={name: what}, name=name, question=question, **parameters)
    name, prompts = type(what).__name__.lower(), _prompts_of(what)
    return Recipe(
        model=model,
        arms={name: what},
        measures=(ASR(prompts), OverRefusal(prompts), Utility(prompts)),
        primary=None if is_several(what) else name,
        name=name,
        question="What does this arm do to refusal, beside as many random neurons, and at what cost?",
        **parameters,
    )


def _name_of(expression: SetExpression) -> str:
    match expression:
        case SafetyNeurons():
            return "ms"
        case Shared(at_least=None, by="intersection"):
            return "ss"
    return "set"


def _prompts_of(arm: Intervention) -> Prompts:
    """The prompt set that chose an arm's neurons: its evaluate split can measure them."""
    found = list(dict.fromkeys(node for node in walk(arm.neurons) if isinstance(node, Prompts)))
    if len(found) != 1:
        raise RecipeError(
            f"cannot tell which prompt set to measure the arm on: its set reads {len(found)} prompt sets",
            "Name it in a recipe: Recipe(model=…, arms={'name': arm}, measures=(ASR(prompts), Utility(prompts))).",
        )
    return found[0]


def _import_tqdm() -> None:
    """transformers imports tqdm, which warns in a notebook without ipywidgets; no bar of it is shown here."""
    with warnings.catch_warnings(), contextlib.suppress(ImportError):
        warnings.filterwarnings("ignore", message="IProgress not found")
        import tqdm.auto  # noqa: F401  # pyright: ignore[reportMissingModuleSource, reportUnusedImport]


def _count(name: str, value: Any) -> int | None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise RecipeError(f"{name} is {value!r}", "Give a whole number of 1 or more, or leave it out.")
    return value
