"""A p or an interval in a table of the tool, or in a value of `stats`, has a simulation; a new one needs its own."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from inspect import isclass
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest
from null_simulations import SIMULATIONS

import ssn_probe.stats
import ssn_probe.study

TESTS = Path(__file__).parents[1]
ROOMS: tuple[ModuleType, ...] = (ssn_probe.stats, ssn_probe.study)
PROBABLE = re.compile(r"p|q|p_\w+|(\w+_)?(low|high|bound\w*)|bound_\w+|shown_from|detectable")
"""Names of columns that hold a p, an end of an interval, or a figure that is as seldom passed as a p of .05."""

DRAWN = (
    "tests/neurons/test_random_controls.py::test_the_rank_among_sets_as_important_holds_its_level_where_random_sets_do_not",
)
DRAWN += (
    "tests/neurons/test_random_controls.py::test_the_rank_among_own_neurons_holds_its_level_where_a_draw_per_language_does_not",
)
NULLS = ("exchanged_labels", "tests/stats/nulls/test_null_levels.py::test_the_level_holds")
PROMPTS = ("prompts_alone", "clusters", "crossed_clusters")
CROSSED = "tests/stats/test_crossed_coverage.py::test_coverage_of_crossed_clusters"
STABLE = "tests/stats/nulls/test_stability.py::test_the_bound_on_false_neurons_holds_where_noise_is_alike"

CALIBRATED: dict[str, tuple[str, ...]] = {
    "stats.agreement.Agreement low high": ("two_judges",),
    "stats.controls.ControlTest low high p": ("compared_sets",),
    "stats.correlation.RankCorrelation low high p": ("correlation",),
    "stats.intervals.Estimate low high": (*PROMPTS, CROSSED),
    "stats.nulls.false_discoveries.NEURONS p q": ("single_neurons",),
    "stats.nulls.permutation_null.SCHEMA difference_high difference_low null_high null_low p shown_from": NULLS,
    "stats.nulls.stability.JACCARD p": ("half_samples",),
    "stats.nulls.stable_neurons.BOUND bound bound_by_place": (STABLE,),
    "stats.prevalence.Corrected low high": ("corrected_rate",),
    "study.comparison_table.SCHEMA difference_high difference_low high low p_holm shown_from": ("compared_sets",),
    "study.comparison_table.SCHEMA p": ("compared_sets", *DRAWN),
    "study.dissociation.SCHEMA high low p": ("two_behaviours",),
    "study.judged_again.AGREEMENT high low": ("two_judges",),
    "study.organism_rows.COLUMNS difference_high difference_low p p_log_odds": ("compared_sets", "models"),
    "study.organism_rows.COLUMNS sharing_high sharing_low": ("compared_sets", "models"),
    "study.run_comparison.SCHEMA high low p p_holm": ("two_runs",),
    "study.summary.COLUMNS delta_high delta_low high low": (*PROMPTS, CROSSED),
    "study.summary.COLUMNS p_holm p_mcnemar": ("prompts_alone",),
    "study.verification_audit.Audit bound": ("tests/study/test_verification.py::test_the_bound_covers",),
    "study.training_curves.SCHEMA asr_high asr_low over_refusal_high over_refusal_low": PROMPTS,
    "study.training_curves.SCHEMA utility_high utility_low": PROMPTS,
}
"""A table or a value, and some of its columns → the simulations of `null_simulations`, or other tests, of them."""
NO_ERROR_RATE = {
    "stats.nulls.stability.JACCARD low high": "the spread of half-samples, which is called so",
    "study.summary.COLUMNS detectable": "the power of a planned study; its tests are in tests/stats",
}


def listed(names: Iterator[str] | list[str]) -> set[str]:
    """`table column column` → {`table.column`}."""
    return {f"{table}.{column}" for name in names for table, *columns in [name.split()] for column in columns}


def in_code() -> Iterator[str]:
    """Columns of the tables that modules declare, and fields of their values."""
    for room in ROOMS:
        for found in pkgutil.walk_packages(room.__path__, f"{room.__name__}."):
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                owner = f"{found.name.removeprefix('ssn_probe.')}.{name}"
                yield from (f"{owner}.{column}" for column in _columns(value, found.name) if PROBABLE.fullmatch(column))


def _columns(value: object, module: str) -> list[str]:
    if isclass(value) and is_dataclass(value) and value.__module__ == module:
        return [field.name for field in fields(value)]
    is_table = isinstance(value, dict) and all(
        isinstance(kind, pl.DataType | type(pl.Int64)) for kind in value.values()
    )
    return [str(name) for name in value] if is_table else []  # type: ignore[union-attr]


@cache
def named_in(file: str) -> set[str]:
    tree = ast.parse((TESTS.parent / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_p_and_interval_has_a_simulation() -> None:
    known = listed(list(CALIBRATED)) | listed(list(NO_ERROR_RATE))
    found = set(in_code())
    assert found - known == set(), "simulate it in tests/null_simulations.py, and name the simulation here"
    assert known - found == set(), "it is no longer there"


@pytest.mark.parametrize("columns", CALIBRATED)
def test_the_simulations_exist(columns: str) -> None:
    assert CALIBRATED[columns]
    for name in CALIBRATED[columns]:
        file, _, test = name.partition("::")
        assert test in named_in(file) if test else name in SIMULATIONS, name


def test_every_simulation_is_of_a_figure() -> None:
    used = {name for names in CALIBRATED.values() for name in names}
    assert set(SIMULATIONS) - used == {"refusals"}, "`refusals` is of a sentence, and of no column"
