"""Does the rounding of half precision decide which neurons are chosen? A few prompts are scored in float32, too.

What a rule takes from the effects of these prompts is compared with what it takes from their effects in float32, with
the same weights. A pass is the same work for one neuron as for all, so that scoring only those near the threshold again
would save nothing: what is offered is to score all of them in float32.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.model.out_of_memory import OutOfMemory
from ssn_probe.model.precision import HALF, CannotWidenError, computing_in, widens
from ssn_probe.neurons import KEYS
from ssn_probe.neurons.selection import select_neurons
from ssn_probe.runs.cache import Frames
from ssn_probe.spec import SafetyNeurons
from ssn_probe.spec.neuron_sets import RULES
from ssn_probe.spec.node import digest
from ssn_probe.study.importance import (
    CONTRASTED,
    candidates,
    distinct_sites,
    effects_at,
    importance_frame,
    reads_of,
    responses_read,
    score_inputs,
    unverified,
)
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.steps import Cost, Step
from ssn_probe.study.trained_weights import bench_weights
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import counted

FEW = 4
"""Prompts of each context that are scored in float32, too."""
SAME = 0.99
"""The share of a set that stays the same where nothing is said."""


def rounding_steps(
    bench: Workbench, inside: Callable[[], Workbench], nodes: Iterable[SafetyNeurons], before: str = ""
) -> Iterator[Step]:
    """A few prompts of the anchor, scored in float32 for every effect and rule of a model in half precision.

    `inside` gives the bench that they are scored on, `before` begins the label.
    """
    neurons = bench.subject.n_layers * sum(bench.subject.widths.values())
    for node in _asked(bench, inside, nodes):
        prompts, effect = bench.data[node.prompts], node.scored_by
        count = sum(prompts.select("identify", context, _language(bench, node)).height for context in CONTRASTED)
        yield Step(
            label=before + effect.label(f"{prompts.name}, {counted(min(count, 2 * FEW), 'prompt')} in float32"),
            prompts=min(count, 2 * FEW),
            cost=Cost(work="effect", passes=effect.passes(neurons), effect=effect, sites=node.sites, dtype="float32"),
            key=lambda node=node: _inputs(inside(), node),
            is_kept=lambda inputs: _is_kept(bench, inputs),
            run=lambda node=node: rounding(inside(), node),
        )


def rounding_notes(bench: Workbench, nodes: Iterable[SafetyNeurons], before: str = "") -> Iterator[str]:
    """In words, where float32 would choose other neurons, or where that could not be measured."""
    for node in _asked(bench, lambda: bench, nodes):
        taken, same = rounding(bench, node).row(0)
        own, name = bench.subject.identity["dtype"], node.scored_by.spelled
        if same is None:
            yield (
                f"{before}whether {own} rounds so much that other neurons are chosen by effect={name} was not "
                "measured: the weights in float32 do not fit into the memory, or are not all on a device"
            )
        elif same < SAME * taken:
            yield (
                f"{before}{own} rounds so much that other neurons are chosen by effect={name}: of the {taken:,} that "
                f"the rule takes from a few prompts in {_language(bench, node)}, {taken - same:,} are others in "
                "float32. -T scoring_dtype=float32 scores all neurons in float32, with the same weights, and does all "
                f"else in {own}"
            )


def rounding(bench: Workbench, node: SafetyNeurons) -> pl.DataFrame:
    """One row: how many neurons the rule has `taken` from a few prompts, and how many are the `same` in float32."""

    def compute() -> Frames:
        return {"rounding": _compared(bench, node)}

    inputs = _inputs(bench, node)
    return bench.remember(("rounding", digest(inputs)), lambda: bench.frames(inputs, ["rounding"], compute)["rounding"])


def _asked(bench: Workbench, inside: Callable[[], Workbench], nodes: Iterable[SafetyNeurons]) -> list[SafetyNeurons]:
    """One node for every effect and rule, where the model is in half precision and is scored in it.

    Of a node that verifies its estimates are asked: what ablation changes of a set is no rounding.
    """
    if bench.subject.identity["dtype"] not in HALF or bench.subject.calls is not None:
        return []
    own = [
        unverified(node) or node
        for node in nodes
        if not widens(bench.subject, node.scoring_dtype) and node.labels is None
    ]
    if bench.cache is not None and bench.cache.derive:  # verifying what a host or an earlier release ran without asking
        own = [node for node in own if _is_kept(bench, _inputs(inside(), node))]
    return list(
        {(node.prompts, node.effect, node.sites, node.rule, node.top, node.pool): node for node in own}.values()
    )


def _language(bench: Workbench, node: SafetyNeurons) -> str:
    languages = bench.data[node.prompts].languages
    return bench.anchor if bench.anchor in languages else languages[0]  # type: ignore[return-value]


def _inputs(bench: Workbench, node: SafetyNeurons) -> dict[str, Any]:
    scores = [digest(score_inputs(bench, node, _language(bench, node), context)) for context in CONTRASTED]
    return bench.inputs("rounding", scores=scores, rule=node.rule, top=_top(node), pool=node.pool, prompts=FEW)


def _is_kept(bench: Workbench, inputs: Mapping[str, Any]) -> bool:
    if bench.cache is None:
        return False
    with bench.cache.entry(inputs) as entry:
        return bool(entry.frames())


def _top(node: SafetyNeurons) -> float:
    """The share that is compared; of a set that is chosen by stability or false discoveries, the rule's usual one."""
    return RULES[node.rule] if node.top is None else node.top


def _compared(bench: Workbench, node: SafetyNeurons) -> pl.DataFrame:
    own = _chosen(bench, node, _own_means(bench, node))
    try:
        with bench_weights(bench):
            wide = _wide_means(bench, node)
        same = own.join(_chosen(bench, node, wide), on=KEYS, how="semi").height
    except (OutOfMemory, CannotWidenError):
        same = None
    return pl.DataFrame({"taken": own.height, "same": same}, schema={"taken": pl.Int64, "same": pl.Int64})


def _chosen(bench: Workbench, node: SafetyNeurons, means: Mapping[str, Any]) -> pl.DataFrame:
    frames = [importance_frame(means, site, _language(bench, node)) for site in distinct_sites(bench, node)]
    try:
        return select_neurons(pl.concat(frames), rule=node.rule, top=_top(node), pool=node.pool).frame
    except DataError:  # none has a positive score on so few prompts
        return pl.DataFrame(schema=dict.fromkeys(KEYS, pl.String) | {"layer": pl.Int32, "index": pl.Int32})


def _own_means(bench: Workbench, node: SafetyNeurons) -> dict[str, Any]:
    import numpy as np

    def of(context: str, layer: int, site: str) -> Any:
        return effects_at(bench, node, _language(bench, node), context, layer, site)[:FEW].mean(0)

    layers, sites = range(bench.subject.n_layers), distinct_sites(bench, node)
    return {
        context: {site: np.stack([of(context, layer, site) for layer in layers]) for site in sites}
        for context in CONTRASTED
    }


def _wide_means(bench: Workbench, node: SafetyNeurons) -> dict[str, Any]:
    from ssn_probe.tracing.effects import mean, score

    language, sites, found = _language(bench, node), distinct_sites(bench, node), {}
    known = {"reads": reads_of(bench, node, language), "candidates": candidates(bench, node, language)}
    rows = {context: bench.data[node.prompts].select("identify", context, language) for context in CONTRASTED}
    read = {context: responses_read(bench, node, some, language) for context, some in rows.items()}
    with computing_in(bench.subject, "float32") as subject:
        for context in CONTRASTED:
            tokens, responses = tokens_of(bench, rows[context][:FEW]), read[context]
            known["responses"] = None if responses is None else responses[:FEW]
            scores = score(node.scored_by, subject, tokens, **known, sites=sites, batch_size=bench.size("rounding"))
            found[context] = {site: mean(scores, site).numpy() for site in sites}  # type: ignore[arg-type]
    return found
