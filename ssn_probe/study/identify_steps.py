"""The steps that find neurons: responses that test the refusal log-odds, and the effects of every neuron."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.model.precision import widens
from ssn_probe.neurons.model_neurons import check_trained
from ssn_probe.spec import Ablation, FinalAblation, Recipe, SafetyNeurons, Trains
from ssn_probe.study.importance import (
    CONTRASTED,
    distinct_sites,
    score_inputs,
    scored,
    scored_as,
    screening,
    sized,
    unverified,
    verified_in,
)
from ssn_probe.study.learned_responses import answer_steps
from ssn_probe.study.measurements import UNCHANGED, response_inputs, responses, untouched_tokens
from ssn_probe.study.refusal_readout import gate_rows, given_up
from ssn_probe.study.refusal_trial import check_gate, gated_sets
from ssn_probe.study.resolve import choosers, found_again, reads_language, reads_log_odds, rows_to_train
from ssn_probe.study.rounding import rounding_notes, rounding_steps
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.steps import TRAINING, Cost, Step, generating, run_unless_done
from ssn_probe.study.trained_weights import AFTER, complete_row, is_trained, train, trained_bench, training_inputs
from ssn_probe.study.verification import expected_passes
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.execution import runs_whole

TRAINING_LABEL = f"{AFTER}training"


def identify_steps(bench: Workbench, recipe: Recipe) -> Iterator[Step]:
    """Everything that a recipe's sets need, and the responses that must show that the log-odds can be trusted."""
    here = partial(_same, bench)
    gated = gated_sets(recipe, bench.data)
    scored_nodes = dict.fromkeys(choosers(recipe))
    tested = dict.fromkeys((*gated, *reads_log_odds(recipe, bench.data)))
    for prompts in tested:
        yield from _gate_steps(bench, here, gate_label(prompts), prompts, needed=prompts in gated)
    for prompts in reads_language(recipe, bench.data):
        if prompts not in tested:
            yield from _gate_steps(bench, here, language_label(prompts), prompts)
    yield from _score_steps(bench, here, scored_nodes)
    yield from rounding_steps(bench, here, scored_nodes)
    for training, nodes in found_again(recipe).items():
        yield from _after_training(bench, training, nodes)


def notes_on_rounding(bench: Workbench, recipe: Recipe) -> Iterator[str]:
    """Where float32 would choose other neurons, in the recipe's own model and in those that are trained."""
    yield from rounding_notes(bench, choosers(recipe))
    for training, nodes in found_again(recipe).items():
        yield from rounding_notes(_trained(bench, training), nodes, AFTER)


def _same(bench: Workbench) -> Workbench:
    return bench


def _trained(bench: Workbench, training: Trains) -> Workbench:
    return trained_bench(bench, training, evaluate(bench, training.neurons), TRAINING_LABEL)


def gate_label(prompts: PromptSet) -> str:
    return f"responses that test the refusal log-odds ({prompts.name})"


def language_label(prompts: PromptSet) -> str:
    return f"responses that show how each language begins ({prompts.name})"


def _gate_steps(
    bench: Workbench, inside: Callable[[], Workbench], label: str, prompts: PromptSet, *, needed: bool = False
) -> Iterator[Step]:
    """The responses of every language, the anchor's first; `inside` gives the bench that they are measured on.

    `needed`: the run cannot go on without the log-odds, so it ends with the first language that has too few refusals.
    """

    def run(rows: pl.DataFrame, language: str) -> None:
        here, advance = inside(), bench.tracker.advance(label)
        if given_up(here, prompts) is not None:
            advance(rows.height)
            return
        made = responses(here, prompts, rows, language, UNCHANGED, advance)
        if needed:
            check_gate(bench, prompts, language, rows["context"], made["verdict"])

    for language in sorted(prompts.languages, key=lambda language: language != bench.anchor):
        rows = gate_rows(prompts, language)
        yield Step(
            label=label,
            prompts=rows.height,
            cost=generating(prompts.max_new_tokens),
            key=lambda rows=rows: response_inputs(inside(), prompts, rows, UNCHANGED),
            is_kept=partial(bench.is_kept, prompts=rows.height),
            run=partial(run, rows, language),
        )


def _score_steps(
    bench: Workbench, inside: Callable[[], Workbench], nodes: Iterable[SafetyNeurons], before: str = ""
) -> Iterator[Step]:
    """The effects of every neuron; nodes that differ in their rule alone share them."""
    neurons = bench.subject.n_layers * sum(bench.subject.widths.values())
    needed = [(screening(node), sized(node), unverified(node), node) for node in nodes]
    screened = [one for group in needed for one in group if one is not None]
    different = {(node.prompts, distinct_sites(bench, node), *scored_as(node)): node for node in screened}
    along = [node for node in different.values() if node.scored_by.reads_responses]
    yield from _response_steps(bench, inside, along, before)
    for node in different.values():
        prompts, effect = bench.data[node.prompts], node.scored_by
        wider = node.scoring_dtype if widens(bench.subject, node.scoring_dtype) else None
        label = before + effect.label(", ".join(filter(None, [prompts.name, wider])))
        read = prompts.max_new_tokens if effect.reads_responses else 0
        settings = {"effect": effect, "sites": node.sites, "dtype": wider, "generated": read}
        cost = Cost(work="effect", passes=effect.passes(neurons), **settings)
        if node.verify is not None:
            label += f", verified within {node.verify:g} of the threshold"
            cost = _cost_of_verifying(bench, node)
        for language in prompts.languages:
            for context in CONTRASTED:
                count = prompts.select("identify", context, language).height
                place = (language, context)
                yield Step(
                    label=label,
                    prompts=count,
                    cost=cost,
                    key=lambda node=node, place=place: score_inputs(inside(), node, *place),
                    is_kept=partial(bench.is_kept, prompts=count),
                    run=lambda node=node, place=place, label=label: scored(
                        inside(), node, *place, bench.tracker.advance(label), partial(bench.tracker.note, label)
                    ),
                )


def _response_steps(
    bench: Workbench, inside: Callable[[], Workbench], nodes: Iterable[SafetyNeurons], before: str
) -> Iterator[Step]:
    """The untouched model's responses that effects are read along."""
    for prompts in dict.fromkeys(bench.data[node.prompts] for node in nodes):
        label = f"{before}responses that the effect is read along ({prompts.name})"
        for language in prompts.languages:
            for context in CONTRASTED:
                rows = prompts.select("identify", context, language)
                yield Step(
                    label=label,
                    prompts=rows.height,
                    cost=generating(prompts.max_new_tokens),
                    key=lambda prompts=prompts, rows=rows: response_inputs(inside(), prompts, rows, UNCHANGED),
                    is_kept=partial(bench.is_kept, prompts=rows.height),
                    run=lambda prompts=prompts, rows=rows, label=label: untouched_tokens(
                        inside(), prompts, rows, bench.tracker.advance(label)
                    ),
                )


def _cost_of_verifying(bench: Workbench, node: SafetyNeurons) -> Cost:
    """Of the ablations that follow the estimates, as many as are expected before these are there."""
    subject, dtype = bench.subject, verified_in(bench, node)
    sites = distinct_sites(bench, node)
    neurons = subject.n_layers * sum(width for site, width in subject.widths.items() if site in sites)
    layers = 1 if runs_whole(subject) else subject.n_layers
    effect = FinalAblation() if node.scored_by.ablated == "final state" else Ablation()
    return Cost(
        work="effect",
        passes=expected_passes(node, neurons, layers),
        effect=effect,
        sites=node.sites,
        dtype=dtype if widens(subject, dtype) else None,
        behind_starts=not runs_whole(subject),
    )


def _after_training(bench: Workbench, training: Trains, nodes: list[SafetyNeurons]) -> Iterator[Step]:
    """The training that sets are identified after, and what they need in the model that it makes."""
    label, inside = TRAINING_LABEL, partial(_trained, bench, training)
    gated = dict.fromkeys(bench.data[node.prompts] for node in nodes if node.scored_by.needs_openings)
    users = [step for prompts in gated for step in _gate_steps(bench, inside, AFTER + gate_label(prompts), prompts)]
    users += _score_steps(bench, inside, nodes, AFTER)
    users += rounding_steps(bench, inside, nodes, AFTER)

    def key() -> Mapping:
        return training_inputs(bench, training, evaluate(bench, training.neurons))

    def run() -> None:
        neurons = evaluate(bench, training.neurons)
        check_trained(neurons, bench.widths())
        work = partial(train, bench, training, neurons, label)
        run_unless_done(users, work, partial(complete_row, bench, training, neurons, label))

    yield from answer_steps(bench, [training])
    count = rows_to_train(training, bench.data[training.data])
    kept = partial(is_trained, bench, training)
    yield Step(label=label, prompts=count, cost=TRAINING, key=key, is_kept=kept, run=run)
    yield from users
