"""Whether exchanged labels make a null for the sets that a contrast gives, computed once and kept."""

from dataclasses import asdict, dataclass

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


@dataclass(frozen=True, kw_only=True)
class LabelTest:
    """Can a set be ranked among those that exchanged labels give? `reason`: why not; `per_language`: only in each
    language by itself, because draws of different languages are independent, and translations are not."""

    reason: str | None = None
    per_language: bool = False


def label_test(bench: Workbench, expression: SetExpression, seed: int) -> LabelTest:
    """Whether sets under exchanged labels make a test of the set that an expression stands for."""
    nodes = [node for node in walk(expression) if isinstance(node, SafetyNeurons) and node.labels is None]
    found = [exchangeability_of(bench, prompt_effects(bench, node), seed) for node in dict.fromkeys(nodes)]
    reasons = [f"no valid null exists: {one.reason}" for one in found if one.reason is not None]
    apart = [one.not_parallel for one in found if one.not_parallel is not None]
    if apart and any(isinstance(node, Shared | UnionOf | LeaveOneOut) for node in walk(expression)):
        reasons += apart
    own = not any(isinstance(node, Of) for node in walk(expression))
    return LabelTest(reason=next(iter(reasons), None), per_language=bool(apart) and own)
