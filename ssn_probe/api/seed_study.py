"""A study over organisms of several seeds: each is trained or taken up, and the same recipe runs on each.

Everything is kept as it comes: an organism is in its folder once it is whole, a run continues from the cache, one that
is done is read, and the tables are written after every organism.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.text import Text

from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.errors import RecipeError
from ssn_probe.files import disk_errors, write_table, write_text
from ssn_probe.model.asking import asking_of
from ssn_probe.model.subject import load_subject
from ssn_probe.organism.variants import find_variant
from ssn_probe.report.organism_study import show_study, study_page
from ssn_probe.report.terminal.command_output import training_stages
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.history import history
from ssn_probe.spec import Recipe
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.organism_rows import COLUMNS, organism_row
from ssn_probe.study.plan import make_plan
from ssn_probe.text import counted


@dataclass(frozen=True, kw_only=True)
class SeedStudy:
    """What is asked of every organism.

    `out` gets the tables, and below it `results` the runs. `organisms` has, or gets, a folder VARIANT-SEED of each.
    """

    seeds: Sequence[int]
    variant: str
    recipe: str
    arguments: Mapping[str, str]
    out: Path
    organisms: Path

    def folder(self, seed: int) -> Path:
        return self.organisms / f"{self.variant}-{seed}"

    def recipe_on(self, seed: int) -> Recipe:
        return find_recipe(self.recipe, {**self.arguments, "model": str(self.folder(seed))})


def run_seed_study(study: SeedStudy, console: Console) -> pl.DataFrame:
    """Runs the study, prints and returns its table. Raises an SSNProbeError for whatever the user can fix."""
    find_variant(study.variant)
    _check(study)
    with disk_errors(study.out):
        study.out.mkdir(parents=True, exist_ok=True)
    rows = {seed: row for seed in study.seeds if (row := _known(study, seed)) is not None}
    for seed in study.seeds:
        if seed not in rows:
            console.print(Text(f"Organism {study.variant}, seed {seed}: {len(rows) + 1} of {len(study.seeds)}"))
            card = _trained(study, seed, console)
            options = Options(out=study.out / "results", arguments=dict(study.arguments))
            rows[seed] = _row(card, run_recipe(study.recipe_on(seed), options, console))
        _write(study, rows)
    table = _write(study, rows)
    show_study(console, table)
    return table


def _check(study: SeedStudy) -> None:
    """Raises RecipeError for a recipe that gives no row."""
    if "model" in study.arguments:
        raise RecipeError("The models of this study are its organisms.", "Leave out -T model=….")
    if study.recipe_on(study.seeds[0]).primary is None:
        raise RecipeError(
            f"The recipe {study.recipe} names no primary arm, so there is no headline to repeat.",
            "Give a recipe with one, such as suppress_ss.",
        )


def _card(study: SeedStudy, seed: int) -> dict[str, Any] | None:
    """The card of an organism that is whole; None where there is none yet."""
    path = study.folder(seed) / "card.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else None


def _trained(study: SeedStudy, seed: int, console: Console) -> dict[str, Any]:
    """The card of the organism, which is trained where it is not there yet."""
    from ssn_probe.organism.make import train

    card = _card(study, seed)
    if card is None:
        unfinished = study.organisms / f".{study.variant}-{seed}"
        with training_stages(console) as advance:
            card = train(seed, unfinished, variant=study.variant, progress=advance)
        unfinished.rename(study.folder(seed))
    return card


def _known(study: SeedStudy, seed: int) -> dict[str, Any] | None:
    """The row of an organism whose run is done; None for others."""
    card, root = _card(study, seed), study.out / "results"
    if card is None or not root.is_dir():
        return None
    recipe = study.recipe_on(seed)
    identity = load_subject(recipe.model, weights=False, asking=asking_of(recipe)).identity
    key = resolved_key(recipe, identity, make_plan(recipe).data)
    done = [past.run for past in history(root, status="done") if past.run.manifest()["key"] == key]
    return _row(card, done[0]) if done else None


def _row(card: Mapping[str, Any], run: RunFolder) -> dict[str, Any]:
    return organism_row(card, run.name, run.table("summary"), run.table("comparisons"))


def _write(study: SeedStudy, rows: Mapping[int, Mapping[str, Any]]) -> pl.DataFrame:
    """Writes the rows so far as parquet, csv and a page of markdown."""
    table = pl.DataFrame([rows[seed] for seed in study.seeds if seed in rows], schema=COLUMNS)
    arguments = "".join(f" -T {name}={value}" for name, value in study.arguments.items())
    made = (
        f"Recipe {study.recipe}{arguments} on {study.variant} organisms, each trained from its own seed: "
        "every organism is one observation. Shares in per cent, on average over the languages but the anchor."
    )
    with disk_errors(study.out):
        write_table(study.out / "study.parquet", table)
        write_text(study.out / "study.csv", table.write_csv())
        write_text(study.out / "study.md", study_page(counted(table.height, "organism"), made, table))
    return table
