"""Greedy generation with a pass for each step: behind what prompts begin with, and rows that have ended leave."""

import nnsight
import torch

from .below import fill, write_above
from .refusal import along, log_odds
from .site_access import reach, write
from .start import behind_start

ENDED = 1 / 8
"""Share of a batch that has ended from which on it leaves: the others' keys and values are copied then."""


def trace_steps(model, inputs, places, edits, settings, scorings=(), stages=None):
    """What `generation.trace_generation` gives where no values are wanted: ids, whether logits were finite, and r(x).

    settings: of transformers' generation; how many tokens, the end tokens and the padding that follows them decide.

    What prompts begin with runs once, where `inputs` has it (see `start.behind_start`). In the pass over the prompts
    the last layer runs at the last position alone, see `site_access.write_narrowed`, and with `stages`, of
    `below.trace_below`, nothing below the first changed neuron; the edits may be a part of those that are made.
    """
    stage = stages[0] if stages else None
    device = inputs["input_ids"].device
    longest, pad = settings["max_new_tokens"], settings["pad_token_id"]
    ends = torch.tensor(settings["eos_token_id"] or [], dtype=torch.int64)
    passed = behind_start(model, inputs | {"use_cache": True}, places, edits, stages)
    mask, width = passed["attention_mask"], inputs["input_ids"].shape[1]
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    passed |= {"position_ids": positions[:, -width:], "logits_to_keep": torch.tensor([width - 1], device=device)}
    place, rows, goes_on = positions[:, -1:], torch.arange(len(mask)), torch.ones(len(mask), dtype=torch.bool)
    new, finite, odds = torch.full((len(mask), longest), pad, dtype=torch.int32), True, []
    for step in range(longest):
        logits, read, name, cache = one_step(model, passed, places, edits, step, () if step else scorings, stage)
        finite, odds = finite and bool(logits.sum(dtype=torch.float32).isfinite()), [*odds, *read]
        if step == 0:
            fill(cache, stage)
        tokens = logits.float().argmax(-1)
        here = tokens.cpu()
        new[rows[goes_on], step] = here[goes_on].int()
        goes_on = goes_on & ~torch.isin(here, ends)
        if not goes_on.any():
            return new[:, : step + 1], finite, torch.zeros(0), odds
        if (~goes_on).sum() >= ENDED * len(goes_on):
            kept = goes_on.nonzero()[:, 0]  # in the processor's memory: a model may lie on several devices
            cache.batch_select_indices(kept)
            mask, place, tokens = mask[kept], place[kept], tokens[kept]
            rows, goes_on, edits = rows[kept], goes_on[kept], [of_rows(edit, kept) for edit in edits]
        mask, place = torch.nn.functional.pad(mask, (0, 1), value=1), place + 1
        passed = {"input_ids": tokens[:, None], "attention_mask": mask, "position_ids": place, name: cache}
        passed |= {"logits_to_keep": torch.tensor([0], device=device), "use_cache": True}
    return new, finite, torch.zeros(0), odds


def one_step(model, inputs, places, edits, step, scorings, stage):
    """A pass: the last logits [row, word], r(x) for each of `scorings`, and the cache with what a model calls it."""
    with torch.no_grad(), model.trace(**inputs):
        if step == 0:
            write_above(model, places, edits, stage, inputs["logits_to_keep"])
        else:
            write(model, places, edits, step)
        states = reach(model, places["norm"]).output[:, -1:] if scorings else None
        made = model.output
        name = nnsight.save("cache" if "cache" in made else "past_key_values")
        cache, logits = nnsight.save(made[name]), nnsight.save(made.logits[:, -1])
        found = [
            along(states, one["direction"]) if "direction" in one else log_odds(made.logits[:, -1:], one)
            for one in scorings
        ]
        odds = nnsight.save(found)
    return logits, odds, name, cache


def of_rows(edit, kept):
    """An edit for some rows of its batch: what is carried over differs between them."""
    layer, site, index, how, value = edit
    if how.startswith("carry"):
        value = {name: part[kept] for name, part in value.items()}
    return layer, site, index, how, value
