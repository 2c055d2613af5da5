"""Is a prompt computed the same whatever stands beside it in a batch, and whatever ran before it?

Batch size and order are in no key, because they change no number: here that is measured, beyond the few tokens of
`row_independence`. Lengths cross what a config names as a threshold (a sliding window, the context before it was
stretched), where the machine can afford it.
"""

from collections.abc import Callable, Iterator
from typing import Any

from ssn_probe.doctor.checks import Check, failed, passed, warned
from ssn_probe.doctor.noise import rounding_noise
from ssn_probe.doctor.probing import plain_logits, prompts
from ssn_probe.model.context_length import context_length, sliding_window
from ssn_probe.model.rotation import rotations
from ssn_probe.model.row_independence import check_evaluating, tiny_rows, tolerance
from ssn_probe.model.subject import Subject

AFFORDABLE = {"cpu": 2e11, "cuda": 2e13}
"""Parameters × tokens of a pass: some seconds on a laptop, and on a GPU."""
ROUNDINGS = 100.0
"""Two computations may differ by so many times the rounding noise; what a neighbour changes is larger by far."""
STEPS = 4


def check_neighbours(subject: Subject) -> Check:
    """Are logits of a prompt alone the same beside a longer one, beside several, after a longer one, after a
    generation, and twice in a row; and does a pass leave the module's buffers as they were?

    Raises:
        ModelError: a module in training mode.
    """
    check_evaluating(subject.model._module)
    before = _state(subject)
    lengths, left_out = _lengths(subject)
    all_found = [
        (gap, allowed, f"{how} ({short} and {long} tokens)")
        for short, long in lengths
        for how, gap, allowed in _compared(subject, *tiny_rows(subject, (short, long)))
    ]
    gap, allowed, how = max(all_found, key=lambda one: one[0] / one[1])
    found = f"logits of a prompt alone and {how} differ by {gap:.2g} (allowed {allowed:.2g}){left_out}"
    if gap > allowed:
        meaning = "Results depend on which prompts share a batch, or on what ran before: no key could say so."
        return failed("neighbours", found, meaning, "Use no results of this model; report its family and this line.")
    if moved := [name for name, state in _state(subject).items() if not _same(state, before.get(name))]:
        meaning = "It changed no logit here, and may for prompts of other lengths."
        found = f"{found}; but a forward pass changes the buffer {moved[0]}"
        return warned("neighbours", found, meaning, "Report the model's family and this line.")
    return passed("neighbours", found)


def _compared(subject: Subject, short: list[int], long: list[int]) -> Iterator[tuple[str, float, float]]:
    """How a row is computed, how far from alone it is, and how far it may be."""
    from ssn_probe.tracing.generate import generate

    alone = plain_logits(subject, [short])
    allowed = min(tolerance(subject, alone), ROUNDINGS * _noise(subject, short, alone))

    def after_generation() -> Any:
        generate(subject, [short], max_new_tokens=STEPS)
        return plain_logits(subject, [short])

    ways: dict[str, Callable[[], Any]] = {
        "twice in a row": lambda: plain_logits(subject, [short]),
        "beside a longer one": lambda: plain_logits(subject, [short, long])[:1],
        "after a longer one": lambda: plain_logits(subject, [short]),
        "beside several": lambda: plain_logits(subject, [*prompts(subject), short, short[:2]])[-2:-1],
        "after a generation": after_generation,
    }
    for how, compute in ways.items():
        yield how, float((compute() - alone).abs().max()), allowed


def _noise(subject: Subject, row: list[int], alone: Any) -> float:
    """Rounding noise of a row's logits; never taken for less than a step of the dtype at the largest of them."""
    import torch

    step = torch.finfo(getattr(torch, subject.identity["dtype"])).eps * float(alone.abs().max())
    return max(rounding_noise(subject, [row]), step)


def _lengths(subject: Subject) -> tuple[list[tuple[int, int]], str]:
    """Pairs of lengths, the second beyond a threshold where there is one, and in words which were left out."""
    module, context = subject.model._module, subject.context
    window = sliding_window(module.config)
    named = {rope.get("original_max_position_embeddings") for _, rope in rotations(module.config)}
    named.add(None if window is None else window[0])
    thresholds = sorted(one for one in named if isinstance(one, int) and one < (context or one))
    size = sum(parameter.numel() for parameter in module.parameters())
    most = AFFORDABLE["cuda" if subject.device.startswith("cuda") else "cpu"] / size
    longest = context_length(module.config) or 64
    pairs, left = [(min(9, longest), min(33, longest))], []
    for threshold in thresholds:
        long = min(threshold + threshold // 8 + 2, longest)
        if 2 * long > most:
            left.append(f"{threshold:,}")
        else:
            pairs += [(max(2, threshold // 2), long), (threshold + 1, long)] if long > threshold + 1 else []
    words = f"; not tried beyond {', '.join(left)} tokens, which takes long here" if left else ""
    return pairs, words


def _state(subject: Subject) -> dict[str, Any]:
    """Copies of all buffers of the module, by name."""
    return {name: buffer.detach().clone() for name, buffer in subject.model._module.named_buffers()}


def _same(one: Any, other: Any) -> bool:
    return other is not None and one.shape == other.shape and bool((one == other).all())
