"""Everything that a study finds, as tables and figures; sentences are made of it elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from ssn_probe.study.deltas import TrainedArm
from ssn_probe.study.dissociation import Dissociation
from ssn_probe.study.refusal_readout import LanguageGate
from ssn_probe.study.refusal_trial import Refusals
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.training_curves import Difference


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """What a recipe's sets and arms gave. A table is None where the recipe asks for nothing of the kind.

    `sets`: neurons per set and language. `comparisons`: what is beside the arms.
    `refusals`: how many prompts the untouched model refused, of those tried first and those evaluated, per language.
    `tasks`: scores of lm-eval. `differences`: every learning curve beside its random sets; `curves_left_out`: curves
    that average over other languages than the untouched model. `tokens`: generated, over all arms. `seconds`: per
    stage.
    """

    anchor: str | None
    evaluated: tuple[str, ...]
    sets: Mapping[str, Mapping[str, int]]
    neurons: pl.DataFrame
    robustness: Robustness
    overlap: pl.DataFrame | None
    found_again: pl.DataFrame | None
    truth: pl.DataFrame | None
    gates: tuple[LanguageGate, ...]
    refusals: tuple[Refusals, ...] | None = None
    seconds: Mapping[str, float]
    samples: pl.DataFrame | None = None
    summary: pl.DataFrame | None = None
    tasks: pl.DataFrame | None = None
    curves: pl.DataFrame | None = None
    trained: tuple[TrainedArm, ...] = ()
    differences: tuple[Difference, ...] = ()
    curves_left_out: tuple[str, ...] = ()
    comparisons: pl.DataFrame | None = None
    dissociation: Dissociation | None = None
    verification: pl.DataFrame | None = None

    @property
    def tokens(self) -> int | None:
        return None if self.samples is None else int(self.samples["tokens"].sum())
