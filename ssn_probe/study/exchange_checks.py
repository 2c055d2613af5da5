"""Whether exchanged labels make a null for the sets that a contrast gives, computed once and kept."""

from dataclasses import asdict

import polars as pl

from ssn_probe.runs.cache import Frames
from ssn_probe.stats.nulls.exchangeability import Exchangeability, exchangeability
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.study.workbench import Workbench

SCHEMA = {
    **dict.fromkeys(("prompts", "taking_part", "pairs", "strata"), pl.Int64),
    **dict.fromkeys(("retention", "contrast", "contrast_error"), pl.Float64),
    **dict.fromkeys(("impossible", "not_parallel"), pl.String),
}


def exchangeability_of(bench: Workbench, effects: PromptEffects, seed: int) -> Exchangeability:
    """See `Exchangeability`; `effects` as `prompt_effects` gives them."""

    def compute() -> Frames:
        found = asdict(exchangeability(effects, seed=seed))
        return {"exchange": pl.DataFrame([{name: found[name] for name in SCHEMA}], schema=SCHEMA)}

    def found() -> Exchangeability:
        inputs = bench.inputs("exchange", evidence=effects.key, seed=seed)
        return Exchangeability(**bench.frames(inputs, ["exchange"], compute)["exchange"].row(0, named=True))

    return bench.remember(("exchange", effects.key, seed), found)
