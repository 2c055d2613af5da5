"""Tasks of lm-eval on the model under an arm: which language's neurons apply, what decides a score, and the scores."""

import logging
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partialmethod
from glob import glob
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import polars as pl

from ssn_probe.errors import DataError, ModelError, RecipeError, SSNProbeError, first_line, nearest
from ssn_probe.files import sha256
from ssn_probe.languages.codes import language_code
from ssn_probe.model.templates import own_template
from ssn_probe.model.think_blocks import switches
from ssn_probe.spec import LMEval, Recipe
from ssn_probe.spec.node import digest
from ssn_probe.study.measurements import Change
from ssn_probe.study.trained_weights import bench_weights
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.batching import BatchSize, fitted

Note = Callable[[str], None]
"""Is told how far a task is."""
ROWS = 16
"""Rows of a batch, where none are asked for: lm-eval keeps the logits of all their positions."""
SCORES = {
    "task": pl.String,
    "part_of": pl.String,
    "metric": pl.String,
    "filter": pl.String,
    "value": pl.Float64,
    "stderr": pl.Float64,
    "n": pl.Int64,
    "num_fewshot": pl.Int64,
}


def measure_of(recipe: Recipe) -> LMEval | None:
    """The recipe's LMEval, if it has one."""
    return next((measure for measure in recipe.measures if isinstance(measure, LMEval)), None)


def task_language(node: LMEval, task: str, languages: Iterable[str], anchor: str | None) -> str:
    """Whose neurons an arm applies in a task: the language that the recipe names for it, else the one that the task's
    name ends in (`mgsm_direct_bn`), else the anchor."""
    known = list(languages)
    if node.languages is not None and task in node.languages:
        return node.languages[task]
    name, underscore, last = _name(task).rpartition("_")
    for code in (last, language_code(last)) if underscore and name else ():
        if code in known:
            return str(code)
    return anchor or known[0]


def _name(task: str) -> str:
    return Path(task).stem if _is_file(task) else task


def _is_file(task: str) -> bool:
    return task.endswith((".yaml", ".yml"))


# ── before anything long ─────────────────────────────────────────────────────────────────────────────────────────────


def check_tasks(recipe: Recipe) -> None:
    """Loads the tasks with their data, so that what is missing is known before the model runs.

    Raises:
        RecipeError: a task that does not exist, or a language that the study does not have.
        DataError: lm-eval is not installed, or a task's data cannot be loaded.
    """
    node = measure_of(recipe)
    if node is not None:
        with quiet():
            manager = task_manager(node.tasks)
            for task in node.tasks:
                _load(manager, task)


def task_manager(tasks: Iterable[str]) -> Any:
    """What knows the tasks; to read all of lm-eval's own takes a quarter of a minute, so it is done once, if at all."""
    return _manager(all(map(_is_file, tasks)))


@cache
def _manager(only_files: bool) -> Any:
    try:
        return import_module("lm_eval.tasks").TaskManager(include_defaults=not only_files)
    except ImportError as error:
        raise DataError(f"LMEval needs lm-eval: {error}", "pip install 'ssn-probe[lm-eval]'") from error


def _load(manager: Any, task: str) -> None:
    known = [*manager.all_tasks]
    if task not in known and not (_is_file(task) and Path(task).is_file()):
        hint = nearest(task, known) if nearest(task, known).startswith("Did") else "`lm-eval ls tasks` lists all."
        raise RecipeError(f"lm-eval has no task {task!r}", f"{hint} A task of your own: the path of its .yaml file.")
    try:
        manager.load([task])
    except Exception as error:
        hint = "Does its data have documents, and the splits and fields that its .yaml file names? Else leave it out."
        if isinstance(error, OSError | httpx.HTTPError):
            hint = (
                "Is the file there? Of a data set on the hub: is there a network, and is it open to you? Load it once "
            )
            hint += "where there is one (HF_HOME names the folder that keeps it), or leave the task out."
        message = f"the lm-eval task {task!r} or its data cannot be loaded: {first_line(error)}"
        raise DataError(message, hint) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Without lm-eval's own progress, notes and warnings."""
    from tqdm import tqdm

    loggers = {name: logging.getLogger(name) for name in ("lm_eval", "huggingface_hub", "datasets")}
    levels, begin = {name: logger.level for name, logger in loggers.items()}, tqdm.__init__
    for logger in loggers.values():
        logger.setLevel(logging.ERROR)
    tqdm.__init__ = partialmethod(_hidden, begin)  # type: ignore[method-assign]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        tqdm.__init__ = begin  # type: ignore[method-assign]
        for name, logger in loggers.items():
            logger.setLevel(levels[name])


def _hidden(bar: Any, begin: Callable[..., None], *arguments: Any, **options: Any) -> None:
    begin(bar, *arguments, **options | {"disable": True})


# ── scores ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def score_inputs(bench: Workbench, node: LMEval, task: str, change: Change) -> dict[str, Any]:
    """What decides the scores of a task: its definition, how it is asked, and the change."""
    asked: dict[str, Any] = {"limit": node.limit, "num_fewshot": node.num_fewshot, "chat_template": node.chat_template}
    if node.chat_template and switches(own_template(bench.subject.tokenizer)):
        asked["thinking"] = "off"  # with which documents were once asked as the template has it
    return bench.inputs("lm-eval", task=_definition(task), **asked, **change.inputs)


def _definition(task: str) -> Mapping[str, Any]:
    """A task of lm-eval by its name and lm-eval's version, one of the user's by the bytes of its files."""
    from importlib.metadata import PackageNotFoundError, version

    if _is_file(task):
        try:
            return {"files": [sha256(path) for path in _files(Path(task))]}
        except Exception as error:
            hint = "Give the path of a .yaml file that lm-eval takes."
            raise DataError(f"cannot read the lm-eval task {task!r}: {first_line(error)}", hint) from error
    try:
        return {"name": task, "lm_eval": version("lm-eval")}
    except PackageNotFoundError as error:
        raise DataError("LMEval needs lm-eval", "pip install 'ssn-probe[lm-eval]'") from error


def _files(path: Path) -> Iterator[Path]:
    """A task's file, what it includes, the modules beside it whose functions it names, and its local data."""
    import yaml

    yield path
    text = path.read_text("utf-8")
    fields = yaml.load(text, yaml.BaseLoader) or {}
    for module in dict.fromkeys(re.findall(r"!function\s+([\w.]+)\.\w+", text)):
        yield from _local(str(path.parent / f"{module.replace('.', '/')}.py"))
    options, folder = fields.get("dataset_kwargs") or {}, fields.get("dataset_path") or ""
    for name in ("" if _is_format(folder) else folder, options.get("data_dir"), *_each(options.get("data_files"))):
        yield from _local(name) if name else ()
    for included in _each(fields.get("include")):
        yield from _files(path.parent / included)


def _is_format(name: str) -> bool:
    """Does `datasets` take the name for one of its formats, such as json, whatever is called so here?"""
    return Path(name).exists() and name in import_module("datasets.packaged_modules")._PACKAGED_DATASETS_MODULES


def _each(named: Any) -> list[str]:
    """The names in a field that has none, one, several, or several by split."""
    if isinstance(named, dict):
        named = [*named.values()]
    return [name for one in named for name in _each(one)] if isinstance(named, list) else [named] if named else []


def _local(name: str) -> Iterator[Path]:
    """The files on this machine that are named by their path, their folder's or a pattern."""
    for found in [name] if Path(name).exists() else sorted(glob(name, recursive=True)):
        yield from [Path(found)] if Path(found).is_file() else sorted(filter(Path.is_file, Path(found).rglob("*")))


def is_kept(bench: Workbench, inputs: Mapping[str, Any]) -> bool:
    """Are the scores in the cache?"""
    if bench.cache is None:
        return False
    with bench.cache.entry(inputs) as entry:
        return "scores" in entry.frames()


def scores(bench: Workbench, node: LMEval, task: str, change: Change, note: Note) -> pl.DataFrame:
    """The scores of a task and of its parts under a change or with the bench's weights: `SCORES`."""
    inputs = score_inputs(bench, node, task, change)

    def compute() -> pl.DataFrame:
        if bench.cache is None:
            return _run(bench, node, task, change, note)
        with bench.cache.entry(inputs) as entry:
            found = entry.frames().get("scores")
            bench.cache.count(found is not None, inputs)
            if found is None:
                found = _run(bench, node, task, change, note)
                entry.write("scores", ".parquet", found.write_parquet)
            return found

    return bench.remember(("lm-eval", digest(inputs)), compute)


def _run(bench: Workbench, node: LMEval, task: str, change: Change, note: Note) -> pl.DataFrame:
    from ssn_probe.tracing.lm_eval_model import lm_eval_model

    harness: Any = import_module("lm_eval.evaluator")

    def attempt(rows: int) -> Any:
        done = 0

        def advance(more: int) -> None:
            nonlocal done
            done += more
            note(f"{task}: {done:,} rows")

        return harness.simple_evaluate(
            model=lm_eval_model(bench.subject, change.edits, rows, advance),
            tasks=[task],
            limit=node.limit,
            num_fewshot=node.num_fewshot,
            apply_chat_template=node.chat_template,
            log_samples=False,
            task_manager=task_manager(node.tasks),
            bootstrap_iters=1,  # with none there would be no error of a mean either
        )

    try:
        with quiet(), _without_bootstrap(), bench_weights(bench):
            found = fitted(BatchSize(bench.batch_size or ROWS, auto=bench.batch_size is None), attempt)
    except SSNProbeError:
        raise
    except Exception as error:
        raise ModelError(f"lm-eval failed in the task {task!r}: {first_line(error)}", "Leave the task out.") from error
    return _table(found)


@contextmanager
def _without_bootstrap() -> Iterator[None]:
    """Inside, what has no standard error in closed form, such as F1 and BLEU, has none: lm-eval would fork for it."""
    metrics: Any = import_module("lm_eval.api.metrics")
    begin = metrics.bootstrap_stderr
    metrics.bootstrap_stderr = lambda *_, **__: "N/A"  # as lm-eval itself says that there is none
    try:
        yield
    finally:
        metrics.bootstrap_stderr = begin


def _table(found: Mapping[str, Any]) -> pl.DataFrame:
    """lm-eval's results as rows: a task's own, and those of the tasks that it is made of.

    A group without a score of its own is named nowhere, and its tasks are parts of what it is part of.
    """
    scored = {task for task, figures in found["results"].items() if any("," in key for key in figures)}
    above = {part: group for group, parts in found.get("group_subtasks", {}).items() for part in parts}

    def part_of(task: str) -> str | None:
        group = above.get(task)
        return group if group is None or group in scored else part_of(group)

    rows = []
    for task, figures in found["results"].items():
        for key, value in figures.items():
            metric, comma, chosen = key.partition(",")
            if not comma or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            error = figures.get(f"{metric}_stderr,{chosen}")
            rows.append(
                {
                    "task": task,
                    "part_of": part_of(task),
                    "metric": metric,
                    "filter": chosen,
                    "value": float(value),
                    "stderr": float(error) if isinstance(error, int | float) else None,
                    "n": figures.get("sample_len"),
                    "num_fewshot": found["n-shot"].get(task),
                }
            )
    return pl.DataFrame(rows, schema=SCORES)
