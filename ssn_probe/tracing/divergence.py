"""What an arm does to ordinary text: KL from the untouched model along answers, and the perplexity of prompts.

A text is a prompt in the chat template and the untouched model's own greedy answer to it: the same tokens under every
arm, so that each distribution is compared with that of the untouched model after the same beginning.

- KL(untouched ‖ changed) of the next token, in nats, at each position that predicts a token of the answer. The
  untouched model's probabilities weigh the logs: it is what coding the untouched model's words with the changed model's
  probabilities costs beyond their entropy. At the first of these positions it is the check of Arditi et al. 2024
  (arXiv:2406.11717), who also measure the loss on the model's own completions.
- −log p of the prompt's own tokens, without those of the template; the exponential of its mean is the perplexity.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.model.chat import pad_left
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.batching import (
    Advance,
    BatchSize,
    Memory,
    Part,
    Shelf,
    covered,
    gather,
    no_progress,
    run_batches,
)
from ssn_probe.tracing.carried import Carried, along_answers, check_carried, for_batch
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import NO_EDITS, Edits, places_of, prepared
from ssn_probe.tracing.execution import run_body
from ssn_probe.tracing.kept_passes import below
from ssn_probe.tracing.shared_start import keeps_layers, shared_start
from ssn_probe.tracing.texts import Text, UnknownLogitsError

CLOSE = 0.02
"""How far logits made of the final states may be from the model's own: a wide margin for half precision."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Per text: mean KL along the answer, KL at its first token, and mean −log p of the prompt's own tokens.

    `nll` is NaN where no token of a prompt is predicted. `states`: the final states at the answers' positions, where
    the model was read untouched, and not on a host.
    """

    kl: Float[Tensor, " text"]
    kl_first: Float[Tensor, " text"]
    nll: Float[Tensor, " text"]
    states: Float[Tensor, "text step hidden"] | None = None


def read_texts(
    subject: Subject,
    texts: Sequence[Text],
    *,
    before: Float[Tensor, "text step hidden"] | None = None,
    edits: Edits = NO_EDITS,
    carried: Carried | None = None,
    batch_size: int | BatchSize = 64,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> Reading:
    """One forward pass per text, while the neurons in `edits` are changed at every token of it.

    Args:
        before: `states` of the untouched model; None reads that model itself, with KL 0, so nothing may be changed. A
            host sends no states and needs none: there the untouched model is read again with each batch.
        carried: values of another run, see `generate`: its step t is put in place where answer token t is predicted.

    Raises:
        UnknownLogitsError: logits that are not the final states times the head, scaled and soft-capped.
        ModelError: NaN or Inf.
    """
    shelf = shelf or Memory()
    if not covered(shelf, len(texts)):
        check_carried(edits, carried, len(texts))
    places, ready = places_of(subject) | {"logits": _form_of_logits(subject)}, prepared(subject, edits)
    longest = max((len(text.answer) for text in texts), default=0)
    # of the prompts, so that every token that something is carried over to is behind it
    shared = cache(partial(shared_start, subject, [text.prompt for text in texts], batch_size, added=longest))
    keeps = cache(lambda: keeps_layers(subject, [text.read for text in texts]))

    def run(rows: list[int]) -> dict[str, Tensor]:
        from ssn_probe.tracing.bodies.next_tokens import trace_texts, trace_texts_alone

        batch = [texts[row] for row in rows]
        tokens = [text.read for text in batch]
        start = shared()
        inputs = pad_left([start.rest(row) for row in tokens], subject.pad_id, subject.device)
        behind = inputs["input_ids"].shape[1]
        width = start.length + behind
        own, answer = _own_places(batch, width, start.length), _answer_places(batch, width)
        there = [
            {name: part.to(subject.device) for name, part in each.items() if name != "step"} for each in (own, answer)
        ]
        lengths = torch.tensor([len(text.answer) for text in batch])
        mine = along_answers(for_batch(subject, ready, carried, rows), lengths)
        states = None if before is None else before[rows][answer["row"], answer["step"]]
        inputs |= {"logits_to_keep": torch.tensor([behind - 1], device=subject.device), "use_cache": False}
        inputs = start.before(inputs, tokens)
        if subject.calls is None:
            kept = below(subject, inputs, places, mine) if keeps() else None
            found = run_body(subject, trace_texts, inputs, places, mine, *there, states, kept)
        else:
            found = run_body(subject, trace_texts_alone, inputs, places, mine, *there)
        _check(found, subject, tokens, mine)
        return _per_text({name: part.cpu() for name, part in found.items()}, own, answer, len(batch), longest)

    run_batches([text.read for text in texts], batch_size, run, shelf, advance)
    return _reading(shelf.parts(), len(texts))


def _reading(parts: Sequence[Part], count: int) -> Reading:
    """What all batches have, with states where the untouched model was read."""
    figures = {name: gather(parts, name, torch.zeros(count)) for name in ("kl", "kl_first", "nll")}
    if not parts or "states" not in parts[0].names():
        return Reading(**figures)
    first = parts[0].get("states")
    return Reading(**figures, states=gather(parts, "states", first.new_zeros(count, *first.shape[1:])))


def _check(found: Mapping[str, Tensor], subject: Subject, tokens: Sequence[Sequence[int]], ready: Any) -> None:
    """Raises ModelError for NaN or Inf, UnknownLogitsError for logits that are made otherwise than the model's own."""
    if not all(part.isfinite().all() for part in found.values()):
        raise_non_finite(subject, tokens, ready=ready)
    if found["off"] > CLOSE:
        hint = "Please report the family of the model."
        raise UnknownLogitsError(f"{subject.name} computes its logits from its final states in an unknown way", hint)


def _own_places(batch: Sequence[Text], width: int, start: int) -> dict[str, Tensor]:
    """Which positions of the padded batch predict which of the prompts' own tokens; padding follows the start."""
    found = [
        (row, at - 1 if at <= start else width - len(text.read) + at - 1, text.prompt[at])
        for row, text in enumerate(batch)
        for at in text.predicted
    ]
    columns = torch.tensor(found, dtype=torch.int64).reshape(-1, 3).unbind(-1)
    return dict(zip(("row", "position", "token"), columns, strict=True))


def _answer_places(batch: Sequence[Text], width: int) -> dict[str, Tensor]:
    """Which positions predict the tokens of the answers: they end together, at the end of the batch."""
    found = [
        (row, step, width - len(text.answer) + step)
        for row, text in enumerate(batch)
        for step in range(len(text.answer))
    ]
    row, step, position = torch.tensor(found).unbind(-1)
    return {"row": row, "position": position, "step": step}


def _per_text(found: dict[str, Tensor], own: Any, answer: Any, count: int, longest: int) -> dict[str, Tensor]:
    kl = found["kl"].double()
    figures = {
        "kl": _mean(kl, answer["row"], count).clamp_min(0),  # it is never negative, but for rounding
        "kl_first": kl[answer["step"] == 0].clamp_min(0),
        "nll": _mean(found["nll"].double(), own["row"], count),
    }
    if "states" in found:
        states = found["states"]
        figures["states"] = states.new_zeros(count, longest, states.shape[1])
        figures["states"][answer["row"], answer["step"]] = states
    return figures


def _mean(values: Tensor, row: Tensor, count: int) -> Tensor:
    """The mean of each row's values; NaN of none."""
    zeros = torch.zeros(count, dtype=torch.float64)
    return zeros.index_add(0, row, values) / zeros.index_add(0, row, torch.ones_like(values))


def _form_of_logits(subject: Subject) -> tuple[float, float | None, int]:
    """What the logits are multiplied by, and where they are capped; None where they are not. And how many there are."""

    def compute() -> list[Any]:
        if not subject.can_run:
            return [1.0, None]
        config = subject.model._module.config
        scale = getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)  # as in Cohere, Granite
        return [scale, getattr(config, "final_logit_softcapping", None)]

    scale, cap = subject.kept.value("form of logits", None, compute)
    return scale, cap, subject.vocabulary
