"""A run's numbers to an experiment tracker, through `init`, `log` and `finish`, which trackio and wandb both have."""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from ssn_probe.errors import RecipeError
from ssn_probe.report.sharing.private import paths_in, shared_manifest
from ssn_probe.runs.folder import RunFolder

PROJECT = "ssn-probe"


def find_tracker(name: str) -> Any:
    """The module of a tracker. Raises RecipeError where it is not installed, before anything is computed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise RecipeError(f"--track {name}: {name} is not installed", f"pip install 'ssn-probe[{name}]'") from error


def track(tracker: Any, run: RunFolder) -> str:
    """Sends what a finished run measured: names and numbers, no text of a prompt or a response.

    Returns what went wrong, in words, since a tracker that fails is no reason to lose a run; empty where nothing did.
    """
    manifest = shared_manifest(run.manifest(), paths_in(run.manifest()))
    try:
        tracker.init(project=PROJECT, name=run.name, config=_config(manifest))
        tracker.log(dict(_numbers(run, manifest)))
        tracker.finish()
    except Exception as error:
        return f"{tracker.__name__} did not take the numbers of {run.name}: {type(error).__name__}: {error}"
    return ""


def _config(manifest: Mapping[str, Any]) -> dict[str, Any]:
    names = ("recipe", "key", "seed", "anchor", "evaluated", "device")
    return {name: manifest.get(name) for name in names} | {"model": manifest["model"]["name"]}


def _numbers(run: RunFolder, manifest: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """`measure/arm/language`, and how many claims have each verdict.

    Before the language stand whose neurons an arm per language applies, and the step of a learning curve.
    """
    if (run.path / "summary.parquet").is_file():
        from ssn_probe.study.summary import applied_language

        for row in run.table("summary").with_columns(of=applied_language()).rows(named=True):
            if row["role"] in ("baseline", "tested") and row["value"] is not None:
                steps = [str(row[name]) for name in ("of", "step") if row[name] is not None]
                yield "/".join([row["measure"], row["arm"], *steps, row["language"]]), row["value"]
    verdicts = [claim["verdict"] for claim in manifest.get("claims") or ()]
    for verdict in dict.fromkeys(verdicts):
        yield f"claims/{verdict}", verdicts.count(verdict)
