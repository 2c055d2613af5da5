"""Finished runs made by hand, which can be compared: their samples, recipe and manifest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from arm_samples import RECIPE, samples, spelled

from ssn_probe.files import write_json, write_table
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec import ASR, Prompts, Recipe
from ssn_probe.spec.node import rewrite, to_json

WORLD = {"name": "world", "sha256": "a" * 64, "contexts": ["harmful"]}
Spelled = dict[str, str]


def outcomes(arms: dict[str, Spelled]) -> pl.DataFrame:
    """Samples of `baseline` and of tested arms: `{"ss": {"aa": "rcc"}}`."""
    frames = [
        samples(name, "baseline" if name == "baseline" else "tested", {one: spelled(text) for one, text in own.items()})
        for name, own in arms.items()
    ]
    return pl.concat(frames).with_columns(judge=pl.lit("world"), response=pl.lit("A response."))


def finished(
    folder: Path,
    arms: dict[str, Spelled],
    recipe: Recipe = RECIPE,
    prompts: Prompts | None = None,
    digest: str = "d" * 64,
    **changes: Any,
) -> RunFolder:
    """A run that is done; `prompts`: what its recipe reads in place of the organism's; `changes`: of its manifest."""
    if prompts is not None:
        changed = rewrite(recipe, lambda node: prompts if isinstance(node, Prompts) else node)
        recipe = replace(changed, measures=(ASR(prompts),))
    manifest = {
        "schema_version": 2,
        "status": "done",
        "recipe": recipe.name,
        "key": "0" * 64,
        "started": "2026-11-27T01:46:54+00:00",
        "model": {"name": "organism", "digest": "e" * 64},
        "anchor": "aa",
        "evaluated": sorted({language for own in arms.values() for language in own}),
        "data": [{"name": "organism", "sha256": digest}],
        "judges": [WORLD],
        "seconds": {"generate": 1.0},
        "answer": ["The answer."],
        "warnings": [],
    }
    write_json(folder / "manifest.json", manifest | changes)
    write_json(folder / "recipe.json", to_json(recipe))
    write_table(folder / "samples.parquet", outcomes(arms))
    return RunFolder(folder)


def judge_afterwards(run: RunFolder, arms: dict[str, Spelled], name: str = "another", sha256: str = "b" * 64) -> None:
    """Keeps what another judge said of a run's responses, as `ssn-probe judge` does."""
    entry = {"name": name, "sha256": sha256, "judge": name, "folder": f"judged/{name}", "asr": [], "agreement": []}
    write_json(run.path / "manifest.json", {**run.manifest(), "judged": [entry]})
    write_table(run.path / entry["folder"] / "samples.parquet", outcomes(arms))
