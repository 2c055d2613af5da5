"""Responses of a changed model, where most are the untouched model's: checked in one pass, and not generated.

Greedy decoding is a function of the prompt and of what was said before. Where the changed model, given a prompt and a
draft of the response, predicts every token of the draft, it would have generated the draft. That is speculative
decoding (Leviathan et al. 2023, arXiv:2211.17192) with a response of the untouched model as its only draft: a pass over
some tokens at once in place of a pass per token. Other prompts are generated as they are without a draft. What is given
is the same but for rounding, as with other batch sizes.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ssn_probe.model.chat import pad_left
from ssn_probe.model.families import BUILT_IN
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.divergence import form_of_logits
from ssn_probe.tracing.edits import places_reading_last
from ssn_probe.tracing.execution import run_body
from ssn_probe.tracing.shared_start import SharedStart, shared_start

FEW = 32
"""Drafts that are checked together, before those of another length get a pass of their own."""


def can_check(subject: Subject) -> bool:
    """Is it known, and here, how the model makes logits of its final states?"""
    here = subject.calls is None and subject.shards is None and not subject.spread
    return here and subject.family in BUILT_IN


def checked(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    drafts: Sequence[Sequence[int]],
    rows: Sequence[int],
    edits: Any,
    scorings: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[bool], list[Tensor]]:
    """Of some rows of all prompts: is the draft what the changed model says? And r(x) [row] for each of `scorings`."""
    longest = max(map(len, drafts))
    start = shared_start(subject, tokens, added=longest - 1)
    places = places_reading_last(subject) | {"logits": form_of_logits(subject)}
    same = torch.zeros(len(rows), dtype=torch.bool)
    odds = [torch.zeros(len(rows), dtype=torch.float64) for _ in scorings]
    for group in _groups([len(drafts[row]) for row in rows], max(len(tokens[row]) for row in rows)):
        mine = [rows[place] for place in group]
        found = _check(
            subject, start, [tokens[row] for row in mine], [drafts[row] for row in mine], places, edits, scorings
        )
        same[group] = found["same"].cpu()
        for whole, part in zip(odds, found["odds"], strict=True):
            whole[group] = part.double().cpu()
    return same.tolist(), odds


def _check(
    subject: Subject, start: SharedStart, prompts: Any, drafts: Any, places: Any, edits: Any, scorings: Any
) -> dict[str, Any]:
    from ssn_probe.tracing.bodies.drafts import trace_drafts

    read = [[*start.rest(prompt), *draft[:-1]] for prompt, draft in zip(prompts, drafts, strict=True)]
    inputs = pad_left(read, subject.pad_id, subject.device)
    last = torch.tensor([inputs["input_ids"].shape[1] - 1], device=subject.device)
    inputs = start.before(inputs | {"logits_to_keep": last, "use_cache": False})
    steps = max(map(len, drafts))
    wanted = torch.tensor([[*[-1] * (steps - len(draft)), *draft] for draft in drafts], device=subject.device)
    return run_body(subject, trace_drafts, inputs, places, edits, wanted, scorings)


def _groups(lengths: Sequence[int], prompt: int) -> Iterator[list[int]]:
    """Which rows are checked together: drafts of like length, so that little is padding.

    A pass has at most twice the tokens of the pass over all prompts, so that memory suffices where that one's did.
    """
    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        longer = group and lengths[row] > lengths[group[-1]] and len(group) >= FEW
        full = (len(group) + 1) * (prompt + lengths[row] - 1) > 2 * len(lengths) * prompt
        if group and (longer or full):
            yield group
            group = []
        group.append(row)
    if group:
        yield group
