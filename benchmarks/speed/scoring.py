"""Scoring and forward passes under suppression, as multiples of a plain forward pass over the same batches."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from benchmarks.models import Case, neurons_of, twin
from benchmarks.speed import peers, plain
from benchmarks.speed.lines import OURS, Line
from benchmarks.speed.peers import Place, Work, Works
from benchmarks.timing import Run
from ssn_probe.model.chat import pad_left, whole_inputs
from ssn_probe.model.products import use_faster_products
from ssn_probe.neurons import Site
from ssn_probe.tracing.batching import by_length
from ssn_probe.tracing.bodies.ablation import trace_ablations
from ssn_probe.tracing.divergence import read_texts
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.effect_store import Scores, decode
from ssn_probe.tracing.effects import refusal_log_odds, score_final, score_local, score_refusal
from ssn_probe.tracing.texts import Text

FORWARD = "forward"
LINEAR: tuple[Site, ...] = ("ffn", "o", "v")


def lines(case: Case, *, batch_size: int) -> list[Line]:
    """Every effect and the log-odds, beside a forward pass with the logits of the last position only.

    What peers do too is compared before it is timed.
    """
    subject, tokens, inputs = case.subject, case.tokens, plain.batches(case, batch_size)
    others = peers.works_of(case, inputs)
    size: dict[str, Any] = {"batch_size": batch_size}
    texts = [text_of(row) for row in tokens]
    before = read_texts(subject, texts).states
    own = twin(case.plain)
    use_faster_products(own)

    def line(name: str, run: Run, goal: float | None = None, work: Work | None = None) -> Line:
        return _line(case, inputs, others, name, run, goal, work)

    def refusal(several: bool, at: float, **exact: float) -> Run:
        openings = case.several if several else case.single
        return lambda: score_refusal(subject, tokens, openings, at=at, **exact, **size)

    def odds(**edits: Any) -> Run:
        return lambda: refusal_log_odds(subject, tokens, case.single, **edits, **size)

    return [
        line("forward, products as ssn-probe makes them", lambda: plain.forward(replace(case, plain=own), inputs)),
        line("local, ffn", lambda: score_local(subject, tokens, sites=("ffn",), **size), work="ffn"),
        line("local, ffn o v", lambda: score_local(subject, tokens, sites=LINEAR, **size), 1.10),
        *local_lines(case, goal=3, batch_size=batch_size),
        line("refusal:1, first order, openings of one token", refusal(False, 1, exact_qk=0), 2.2, "attribution"),
        line("refusal:1, first order, openings of up to three", refusal(True, 1, exact_qk=0), 3),
        line("refusal:1, openings of one token", refusal(False, 1), 2.2),
        line("refusal:1, openings of up to three", refusal(True, 1), 3),
        line("refusal, openings of one token", refusal(False, 0.5)),
        line("refusal, openings of up to three", refusal(True, 0.5)),
        line("final, 16 read-outs", lambda: score_final(subject, tokens, **size), 20),
        line("final, 16 read-outs, ffn o v", lambda: score_final(subject, tokens, sites=LINEAR, **size)),
        line("log-odds", odds()),
        line("log-odds, 0.5 % silenced", odds(edits=case.edits), work="log_odds"),
        line(
            "KL along the last quarter, 0.5 % silenced",
            lambda: read_texts(subject, texts, before=before, edits=case.edits, **size),
        ),
        brute_force(case, neurons=len(tokens)),
    ]


def local_lines(case: Case, *, goal: float, batch_size: int) -> list[Line]:
    """All five sites of the local effect, as shipped, which has a goal, and with all of q and k exact, on request."""
    inputs = plain.batches(case, batch_size)
    length = max(map(len, case.tokens))

    def run(exact_qk: float) -> Run:
        return lambda: score_local(case.subject, case.tokens, exact_qk=exact_qk, batch_size=batch_size)

    return [
        _line(case, inputs, {}, f"local, all five, 9 % of q and k exact, {length} tokens", run(0.09), goal, None),
        _line(case, inputs, {}, f"local, all five exact, {length} tokens", run(1.0), None, None),
    ]


def _line(
    case: Case,
    inputs: plain.Inputs,
    others: Mapping[str, Works | str],
    name: str,
    run: Run,
    goal: float | None,
    work: Work | None,
) -> Line:
    """The line of one run, with the peers that do the same work."""
    doing = {peer: works for peer, works in others.items() if work and (isinstance(works, str) or work in works)}
    theirs = {peer: works[work] for peer, works in doing.items() if work and not isinstance(works, str)}
    return Line(
        name=name,
        beside=FORWARD,
        reference=lambda: plain.forward(case, inputs),
        tools={OURS: run, **theirs},
        goal=None if case.name == "organism" else goal,
        check=lambda: _differs(case, run(), theirs) if theirs else "",
        missing={peer: works for peer, works in doing.items() if isinstance(works, str)},
    )


def _differs(case: Case, mine: Any, tools: Mapping[str, Run]) -> str:
    """What the others compute must be what the probe computes; in half precision the gap is said instead."""
    order, gaps = by_length(case.tokens), {}
    for tool, run in tools.items():
        theirs: Any = run()
        pairs = {"r": (mine, theirs)} if isinstance(mine, Tensor) else {p: (_ours(mine, p), theirs[p]) for p in theirs}
        gaps[tool] = max(_gap(one[order], other.cpu()) for one, other in pairs.values())
    if case.subject.identity["dtype"] != "float32":
        return "gaps, as shares of the largest value: " + ", ".join(f"{tool} {gap:.1g}" for tool, gap in gaps.items())
    if max(gaps.values()) > 2e-3:  # values are stored in half precision
        raise SystemExit(f"Not all compute the same ({gaps}): the ratio would compare different work.")
    return ""


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def _ours(scores: Scores, place: Place) -> Tensor:
    layer, site = place
    return decode(scores, site)[:, layer]


def brute_force(case: Case, *, neurons: int) -> Line:
    """`score_final_ablation` on a sample of neurons, all on one prompt.

    The unit is one prompt's share of a plain forward pass over as many rows as there are neurons.
    """
    inputs = [pad_left([case.tokens[0]] * neurons, case.subject.pad_id, case.subject.device)]
    return Line(
        name="brute force, one neuron on one prompt",
        beside=FORWARD,
        reference=lambda: plain.forward(case, inputs),
        tools={OURS: _ablations(case, neurons)},
        check=lambda: f"{neurons} neurons of {neurons_of(case.subject):,}",
    )


def _ablations(case: Case, count: int) -> Callable[[], object]:
    """One batch of `score_final_ablation`: row 0 untouched, row i without its neuron."""
    subject, draw = case.subject, random.Random(0)
    places = places_of(subject)
    silenced: dict[tuple[int, Site], tuple[list[int], list[int]]] = {}
    chosen = sorted(
        (draw.randrange(subject.n_layers), number, draw.randrange(min(subject.widths.values())))
        for number in (draw.randrange(len(subject.widths)) for _ in range(count))
    )
    sites = list(places["sites"])
    for row, (layer, number, index) in enumerate(chosen, start=1):
        rows, indices = silenced.setdefault((layer, sites[number]), ([], []))
        rows.append(row)
        indices.append(index)
    inputs = whole_inputs(subject, [case.tokens[0]] * (count + 1))
    return lambda: trace_ablations(subject.model, inputs, places, silenced)


def text_of(row: Sequence[int]) -> Text:
    """A prompt whose last quarter is its answer, and all of which is its own words."""
    cut = len(row) - len(row) // 4
    return Text(prompt=tuple(row[:cut]), answer=(*row[cut:], row[-1]), own=(0, cut))
