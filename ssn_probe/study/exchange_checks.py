"""Whether exchanged labels make a null for the sets that a contrast gives, computed once and kept."""

from dataclasses import asdict, replace

import polars as pl

from ssn_probe.runs.cache import Frames
from ssn_probe.spec import LeaveOneOut, Of, SafetyNeurons, SetExpression, Shared, UnionOf
from ssn_probe.spec.node import walk
from ssn_probe.stats.nulls.exchangeability import Exchangeability, exchangeability
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.study.contrast_effects import prompt_effects
from ssn_probe.study.workbench import Workbench

SCHEMA = {
    **dict.fromkeys(("prompts", "taking_part", "pairs", "strata"), pl.Int64),
    **dict.fromkeys(("retention", "contrast", "contrast_error"), pl.Float64),
    **dict.fromkeys(("impossible", "not_parallel"), pl.String),
}


def exchangeability_of(bench: Workbench, effects: PromptEffects, seed: int = 0) -> Exchangeability:
    """See `Exchangeability`; `effects` as `prompt_effects` gives them."""

    def compute() -> Frames:
        found = asdict(exchangeability(effects, seed=seed))
        return {"exchange": pl.DataFrame([{name: found[name] for name in SCHEMA}], schema=SCHEMA)}

    def found() -> Exchangeability:
        inputs = bench.inputs("exchange", evidence=effects.key, seed=seed)
        return Exchangeability(**bench.frames(inputs, ["exchange"], compute)["exchange"].row(0, named=True))

    return bench.remember(("exchange", effects.key, seed), found)


def why_no_null(bench: Workbench, expression: SetExpression, seed: int) -> str | None:
    """Why a set cannot be ranked among those that exchanged labels give, in words; None where it can.

    Where ids are not parallel, the draws of different languages are independent, and translations are not: what
    combines languages, the average over them included, cannot be ranked. A set of one language, `set.of(…)`, can.
    """
    nodes = dict.fromkeys(node for node in walk(expression) if isinstance(node, SafetyNeurons))
    found = [exchangeability_of(bench, prompt_effects(bench, replace(node, labels=None)), seed) for node in nodes]
    reasons = [f"no valid null exists: {one.reason}" for one in found if one.reason is not None]
    several = any(isinstance(node, Shared | UnionOf | LeaveOneOut) for node in walk(expression))
    if several or not any(isinstance(node, Of) for node in walk(expression)):
        reasons += [one.not_parallel for one in found if one.not_parallel is not None]
    return next(iter(reasons), None)
