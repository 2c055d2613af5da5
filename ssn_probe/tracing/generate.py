"""Greedy responses of a model, with neurons changed on the prompt and on every generated token."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.batching import Advance, BatchSize, Memory, Shelf, covered, no_progress, run_batches
from ssn_probe.tracing.carried import Carried, check_carried, for_batch
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.edits import NO_EDITS, Edits, places_reading_last, prepared, suppression
from ssn_probe.tracing.execution import run_body, runs_whole
from ssn_probe.tracing.generation_settings import greedy_settings
from ssn_probe.tracing.kept_passes import below
from ssn_probe.tracing.readout import forced
from ssn_probe.tracing.responses import Engine, Generation, finish, new_tokens
from ssn_probe.tracing.shared_start import WHOLE, SharedStart, keeps_layers, shared_start

Readings = Sequence[tuple[Openings | Direction, Shelf]]
"""Ways to read r(x), and where its values are put."""

__all__ = ["NO_EDITS", "Edits", "Generation", "generate", "suppression"]


def generate(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    edits: Edits = NO_EDITS,
    carried: Carried | None = None,
    max_new_tokens: int,
    engine: Engine | None = None,
    readings: Readings = (),
    batch_size: int | BatchSize = 256,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> list[Generation]:
    """The greedy response to each prompt, in the order of the prompts, while the neurons in `edits` are changed.

    Args:
        tokens: prompts as token ids, see `chat.encode`.
        edits: see `suppression` and `amplification`, which act on every token of prompt and response, and `carrying`,
            which acts on one token per step: the prompt's last, and each of the response that is fed back.
        carried: the values of the neurons that are carried over, prompt by prompt in the order of `tokens`.
        engine: what generates, if not the subject itself; it has batches of its own size.
        readings: how r(x) is read off the pass over the prompts, where that alone decides it
            (`readout.read_at_prompt`), and where the values of `effects.refusal_log_odds` are put, batch by batch.
        batch_size: prompts that run together, padded on the left.
        shelf: where finished batches are kept and found again; here and in the other functions of this package.

    Raises:
        ModelError: an edit outside the model, or a forward pass that yields NaN or Inf.
    """
    options = {
        "edits": edits,
        "carried": carried,
        "readings": readings,
        "batch_size": batch_size,
        "shelf": shelf,
        "advance": advance,
    }
    return finish(subject, greedy_tokens(subject, tokens, max_new_tokens=max_new_tokens, engine=engine, **options))


def greedy_tokens(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    *,
    edits: Edits = NO_EDITS,
    carried: Carried | None = None,
    max_new_tokens: int,
    engine: Engine | None = None,
    readings: Readings = (),
    batch_size: int | BatchSize = 256,
    shelf: Shelf | None = None,
    advance: Advance = no_progress,
) -> list[list[int]]:
    """What `generate` decodes: the token ids of each response, and what a longer batch made of it after its end."""
    if max_new_tokens < 1:
        raise ModelError(f"max_new_tokens is {max_new_tokens}.", "Generate at least one token.")
    shelf = shelf or Memory()
    if not covered(shelf, len(tokens)):
        check_carried(edits, carried, len(tokens))
    places, ready = places_reading_last(subject), prepared(subject, edits)
    scorings = [forced(readout, subject.vocabulary).scoring for readout, _ in readings]
    start = cache(partial(shared_start, subject, tokens, batch_size, added=max_new_tokens))
    keeps = cache(partial(keeps_layers, subject, tokens, max_new_tokens))

    def run(rows: list[int]) -> dict[str, Tensor]:
        batch = [tokens[row] for row in rows]
        if engine is not None:
            made = engine.greedy(batch, edits, max_new_tokens)
            return {"ids": torch.tensor([[*row, *[-1] * (max_new_tokens - len(row))] for row in made])}
        mine = for_batch(subject, ready, carried, rows)
        settings = {"edits": mine, "scorings": scorings, "start": start(), "keeps": keeps()}
        ids, _, read = run_generation(subject, batch, places, max_new_tokens, **settings)
        for (_, kept), odds in zip(readings, read, strict=True):
            kept.put(rows, {"log_odds": odds.float().cpu()})
        return {"ids": torch.nn.functional.pad(ids, (0, max_new_tokens - ids.shape[1]), value=-1)}

    run_batches(tokens, batch_size if engine is None else engine.batch_size, run, shelf, advance)
    return new_tokens(shelf.parts(), len(tokens), max_new_tokens)


def run_generation(
    subject: Subject,
    batch: Sequence[Sequence[int]],
    places: Any,
    max_new_tokens: int,
    *,
    edits: Any = (),
    wanted: Any = (),
    scorings: Sequence[Mapping[str, Any]] = (),
    start: SharedStart = WHOLE,
    keeps: bool = False,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """New token ids [prompt, step], up to where the batch ended, the wanted values [prompt, step, neuron], and r(x).

    r(x) [prompt] is read off the pass over the prompts, for each of `scorings`. That pass runs behind `start`, and with
    `keeps` from the first changed neuron on (`kept_passes`).

    Raises:
        ModelError: logits or values that are NaN or Inf, naming the layer and site where it begins.
    """
    from ssn_probe.tracing.bodies.folding import trace_folded
    from ssn_probe.tracing.bodies.generation import trace_generation
    from ssn_probe.tracing.bodies.stepwise import trace_steps

    inputs = start.before(pad_left([start.rest(row) for row in batch], subject.pad_id, subject.device), batch)
    settings = greedy_settings(subject) | {"max_new_tokens": max_new_tokens}
    may_fold = not wanted and not runs_whole(subject)
    stepwise = places.get("narrow") and not wanted  # on this machine, and of a family that comes with ssn-probe
    kept = below(subject, inputs, places, edits, generating=True) if keeps and stepwise else None
    del inputs["position_ids"]  # transformers derives and extends them itself while generating
    if stepwise:
        made = run_body(subject, trace_steps, inputs, places, edits, settings, scorings, kept, may_fold)
    else:
        body = trace_folded if may_fold else trace_generation
        made = run_body(subject, body, inputs, places, edits, wanted, settings, scorings)
    ids, finite, values, odds = made
    if not finite or not values.isfinite().all():
        raise_non_finite(subject, batch, ready=edits)
    return ids.long().cpu(), values, odds
