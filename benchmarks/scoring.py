"""Scoring and forward passes under suppression, as multiples of a plain forward pass over the same batches."""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from benchmarks import peers
from benchmarks.models import Case, neurons_of
from benchmarks.timing import Row, Spread, compare
from ssn_probe.model.chat import pad_left, whole_inputs
from ssn_probe.neurons import Site
from ssn_probe.tracing.bodies.ablation import trace_ablations
from ssn_probe.tracing.divergence import Text, read_texts
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.effects import refusal_log_odds, score_final, score_local, score_refusal

LOCAL = "score_local, ffn o v"
REFUSAL = "score_refusal, openings of one token"
UNSCALED = "score_refusal, nothing scaled (at=1)"
BRUTE = "brute force, one neuron on one prompt"
TARGETS = {"100m": {LOCAL: 1.15, REFUSAL: 8.0, UNSCALED: 4.0}}


def score(case: Case, *, batch_size: int, repeats: int) -> list[Row]:
    """Every effect and the log-odds, beside a forward pass with the logits of the last position only."""
    subject, tokens = case.subject, case.tokens
    inputs = peers.batches(case, batch_size)
    _check_agreement(case, batch_size)
    texts = [text_of(row) for row in tokens]
    before = read_texts(subject, texts).states

    def by_hooks() -> None:
        with peers.hooked(case):
            peers.forward(case, inputs, whole=False)

    variants: dict[str, Callable[[], object]] = {
        "plain forward, logits of every position": lambda: peers.forward(case, inputs, whole=True),
        LOCAL: lambda: score_local(subject, tokens, sites=("ffn", "o", "v"), batch_size=batch_size),
        "score_local, all five": lambda: score_local(subject, tokens, batch_size=batch_size),
        "score_local, all five, exact q and k": lambda: score_local(
            subject, tokens, exact_qk=1.0, batch_size=batch_size
        ),
        REFUSAL: lambda: score_refusal(subject, tokens, case.single, batch_size=batch_size),
        UNSCALED: lambda: score_refusal(subject, tokens, case.single, at=1.0, batch_size=batch_size),
        "score_refusal, openings of up to three": lambda: score_refusal(
            subject, tokens, case.several, batch_size=batch_size
        ),
        "score_final, 16 read-outs": lambda: score_final(subject, tokens, batch_size=batch_size),
        "score_final, 16 read-outs, ffn o v": lambda: score_final(
            subject, tokens, sites=("ffn", "o", "v"), batch_size=batch_size
        ),
        "refusal_log_odds": lambda: refusal_log_odds(subject, tokens, case.single, batch_size=batch_size),
        "refusal_log_odds, 0.5 % suppressed": lambda: refusal_log_odds(
            subject, tokens, case.single, edits=case.edits, batch_size=batch_size
        ),
        "torch hooks, 0.5 % suppressed": by_hooks,
        "KL along the last quarter, 0.5 % suppressed": lambda: read_texts(
            subject, texts, before=before, edits=case.edits, batch_size=batch_size
        ),
    }
    return compare(
        _group(case),
        lambda: peers.forward(case, inputs, whole=False),
        variants,
        repeats=repeats,
        targets=TARGETS.get(case.name, {}),
    )


def brute_force(case: Case, *, neurons: int, repeats: int) -> list[Row]:
    """`score_final_ablation` on a sample of neurons, all on one prompt, per neuron; and what all neurons would cost.

    The unit is one prompt's share of a plain forward pass over as many rows as there are neurons.
    """
    inputs = [pad_left([case.tokens[0]] * neurons, case.subject.pad_id, case.subject.device)]
    [row] = compare(
        _group(case),
        lambda: peers.forward(case, inputs, whole=False),
        {BRUTE: _ablations(case, neurons)},
        repeats=repeats,
        targets={},
    )
    total = neurons_of(case.subject)
    scaled = Spread(median=row.value.median * total, low=row.value.low * total, high=row.value.high * total)
    note = f"EXTRAPOLATED from {neurons} neurons"
    row = replace(row, seconds=(row.seconds or 0) / neurons)
    return [row, Row(group=_group(case), name=f"brute force, all {total:,} neurons", value=scaled, note=note)]


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
    return lambda: trace_ablations(subject.model, inputs, places, silenced, "last")


def _check_agreement(case: Case, batch_size: int) -> None:
    """The peer must do the same work: its log-odds under suppression equal the probe's."""
    mine = refusal_log_odds(case.subject, case.tokens, case.single, edits=case.edits, batch_size=len(case.tokens))
    with peers.hooked(case):
        logits = peers.forward(case, peers.batches(case, len(case.tokens)), whole=False).float().cpu()
    words = [[word for (word,) in side] for side in (case.single.refusal, case.single.compliant)]
    theirs = logits[:, words[0]].logsumexp(-1) - logits[:, words[1]].logsumexp(-1)
    if len(set(map(len, case.tokens))) > 1:  # batches come longest first
        theirs, mine = theirs.sort().values, mine.sort().values
    tolerance = 1e-3 if case.subject.identity["dtype"] == "float32" else 0.1  # a step of the logits in half precision
    torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


def text_of(row: Sequence[int]) -> Text:
    """A prompt whose last quarter is its answer, and all of which is its own words."""
    cut = len(row) - len(row) // 4
    return Text(prompt=tuple(row[:cut]), answer=(*row[cut:], row[-1]), own=(0, cut))


def _group(case: Case) -> str:
    count, length = len(case.tokens), max(map(len, case.tokens))
    return f"{case.name}: {count} prompts × {length} tokens ÷ plain forward, logits of the last position"
