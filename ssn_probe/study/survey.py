"""How much of a plan is in the cache: the same measurements that a run would ask for, looked up and not made."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.neurons import NeuronSet
from ssn_probe.runs.cache import NotCached
from ssn_probe.spec import Recipe, SafetyNeurons, Trains
from ssn_probe.spec.node import digest
from ssn_probe.study.arms import UNTOUCHED, Arm, arms_of
from ssn_probe.study.importance import CONTRASTED, scores_what
from ssn_probe.study.patch_source import Source
from ssn_probe.study.plan import Plan, settled
from ssn_probe.study.refusal_readout import UntrustedReadoutError, gate_rows, readouts
from ssn_probe.study.resolve import measured
from ssn_probe.study.run_arms import (
    Pass,
    bench_of,
    change_of,
    evaluated_in,
    odds_passes,
    row_totals,
    sample_passes,
    source_of_pass,
    trainings_of,
)
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.steps import (
    AFTER,
    choosers,
    found_again,
    gate_label,
    reads_log_odds,
    rows_to_train,
    score_label,
    training_label,
)
from ssn_probe.study.trained_weights import expansion_what, trained_bench
from ssn_probe.study.workbench import UNCHANGED, Workbench, log_odds_what, responses_what, rows_of

Found = Iterator[tuple[str, int]]
"""(row of the plan, prompts of it whose results are in the cache)."""


def survey(bench: Workbench, plan: Plan) -> tuple[Plan, Mapping[str, int]]:
    """The plan, settled as far as it can be, and row of it → prompts whose results are in the cache of the bench.

    Where the neurons of the arms do not follow from what is there, nothing of their rows is known: they count as 0.
    """
    recipe, found = plan.recipe, Counter()
    for prompts in reads_log_odds(recipe, bench.data):
        _add(found, _gate(bench, prompts))
    for node in dict.fromkeys(choosers(recipe)):
        _add(found, _scores(bench, node), once=score_label(node, bench.data[node.prompts]))
    for trained, nodes in found_again(recipe).items():
        _add(found, _found_again(bench, trained, nodes))
    arms = _arms(bench, recipe)
    if arms is not None and measured(recipe, bench.data):
        plan = settled(plan, row_totals(bench, recipe, arms))
    passes = list(sample_passes(bench, recipe, arms or [])) if measured(recipe, bench.data) else []
    for one in passes:
        _add(found, _samples(bench, one))
    _add(found, _trainings(bench, passes))
    for one in odds_passes(bench, recipe, arms or []):
        _add(found, _odds(bench, one))
    return plan, found


def _add(found: Counter[str], rows: Found, once: str | None = None) -> None:
    """Counts rows up to where something is not known. `once`: a row that several nodes share is counted once."""
    if once in found:
        return
    try:
        for label, prompts in rows:
            found[label] += prompts
    except (NotCached, UntrustedReadoutError):
        return


def _arms(bench: Workbench, recipe: Recipe) -> list[Arm] | None:
    try:
        return arms_of(bench, recipe)
    except NotCached:
        return None


def _has(bench: Workbench, what: Mapping[str, Any], prompts: int) -> int:
    """The prompts, if all of them have been measured; else none."""
    assert bench.cache is not None
    with bench.cache.entry(what) as entry:
        return prompts if entry.complete(prompts) else 0


def _gate(bench: Workbench, prompts: PromptSet) -> Found:
    for language in prompts.languages:
        rows = gate_rows(prompts, language)
        yield gate_label(prompts), _has(bench, responses_what(bench, prompts, rows, UNCHANGED), rows.height)


def _scores(bench: Workbench, node: SafetyNeurons) -> Found:
    prompts = bench.data[node.prompts]
    for language in prompts.languages:
        for context in CONTRASTED:
            count = prompts.select("identify", context, language).height
            yield score_label(node, prompts), _has(bench, scores_what(bench, node, language, context), count)


def _found_again(bench: Workbench, trained: Trains, nodes: list[SafetyNeurons]) -> Found:
    """The training that sets are identified after, and the scores in what it makes."""
    neurons, label = evaluate(bench, trained.neurons), AFTER + "training"
    yield label, _trained(bench, trained, neurons)
    inside = trained_bench(bench, trained, neurons, label)
    for node in nodes:
        prompts = bench.data[node.prompts]
        gated = node.scored_by.needs_openings
        for row, count in [*(_gate(inside, prompts) if gated else ()), *_scores(inside, node)]:
            yield AFTER + row, count


def _trainings(bench: Workbench, passes: Iterable[Pass]) -> Found:
    """What the passes need to have trained, each once."""
    seen = set()
    for one in passes:
        for node, neurons in trainings_of(bench, one):
            key = (one.arm.name, digest(expansion_what(bench, node, neurons)))
            if key not in seen:
                seen.add(key)
                yield training_label(one.arm.name), _trained(bench, node, neurons)


def _trained(bench: Workbench, node: Trains, neurons: NeuronSet) -> int:
    """The rows of a training, if it is done."""
    assert bench.cache is not None
    with bench.cache.entry(expansion_what(bench, node, neurons)) as entry:
        return rows_to_train(node, bench.data[node.data]) if "history" in entry.frames() else 0


def _samples(bench: Workbench, one: Pass) -> Found:
    for context, prompts in one.contexts.items():
        source, missing = source_of_pass(bench, one.arm, prompts, context), False
        for language in evaluated_in(one.arm, prompts):
            rows = rows_of(bench, prompts, context, language)
            here = bench_of(bench, one.arm, language)
            what = responses_what(here, prompts, rows, change_of(here, one.arm, language, rows, source))
            known = _has(bench, what, rows.height)
            missing |= known < rows.height
            yield one.row, known
        yield from _carried(bench, source, missing)


def _odds(bench: Workbench, one: Pass) -> Found:
    prompts, missing = one.contexts["harmful"], False
    found, source = readouts(bench, prompts), source_of_pass(bench, one.arm, prompts, "harmful", log_odds_only=True)
    if one.arm is UNTOUCHED:
        return
    for language in evaluated_in(one.arm, prompts):
        rows = rows_of(bench, prompts, "harmful", language)
        here = bench_of(bench, one.arm, language)
        change = change_of(here, one.arm, language, rows, source)
        known = _has(bench, log_odds_what(here, rows, change, found[language].reads), rows.height)
        missing |= known < rows.height
        yield one.row, known
    yield from _carried(bench, source, missing)


def _carried(bench: Workbench, source: Source | None, missing: bool) -> Found:
    """A source need not run where all that takes values from it is known."""
    if source is not None:
        yield source.label, _has(bench, source.what, source.rows.height) if missing else source.rows.height
