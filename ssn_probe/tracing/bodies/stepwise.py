"""Greedy generation with a pass for each step: behind what prompts begin with, and rows that have ended leave."""

import nnsight
import torch

from .below import fill, write_above
from .folding import folded
from .refusal import along, log_odds
from .site_access import reach, write
from .start import behind_start

ENDED = 1 / 8
"""Share of a batch that has ended from which on it leaves: the others' keys and values are copied then."""


def trace_steps(model, inputs, places, edits, settings, scorings=(), stages=None, may_fold=False):
    """What `generation.trace_generation` gives where no values are wanted: ids, whether logits were finite, and r(x).

    settings: of transformers' generation; how many tokens, the end tokens and the padding that follows them decide.

    What prompts begin with runs once, where `inputs` has it (see `start.behind_start`). In the pass over the prompts
    the last layer runs at the last position alone, see `site_access.write_narrowed`, and with `stages`, of
    `below.trace_below`, nothing below the first changed neuron. With `may_fold` neurons are silenced in the weights,
    see `folding`: those that change in closed form, by untouched weights, once the pass over the prompts is done.
    """
    closed = stages[0]["layer"] if stages and stages[0]["closed"] else None
    at_once, later = ([edit for edit in edits if may_fold and (edit[0] == closed) == is_closed] for is_closed in (0, 1))
    with folded(model, places, at_once) as some:
        left = later if some else edits
        begun, odds = begin(model, inputs, places, left, scorings, stages)
        with folded(model, places, later if some or not at_once else []) as rest:
            new, finite = go_on(model, begun, places, [] if rest else left, settings)
    if (some or rest) and not finite:
        # a silent neuron is zero where it would be Inf, and Inf times a weight of zero is not
        return trace_steps(model, inputs, places, edits, settings, scorings, stages)
    return new, finite, torch.zeros(0), odds


def begin(model, inputs, places, edits, scorings, stages):
    """The pass over the prompts: what `go_on` goes on with, and r(x) for each of `scorings`."""
    stage, width = stages[0] if stages else None, inputs["input_ids"].shape[1]
    passed = behind_start(model, inputs | {"use_cache": True}, places, edits, stages)
    mask = passed["attention_mask"]
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    kept = torch.tensor([width - 1], device=mask.device)
    with torch.no_grad(), model.trace(**passed, position_ids=positions[:, -width:], logits_to_keep=kept):
        write_above(model, places, edits, stage, kept)
        states = reach(model, places["norm"]).output[:, -1:] if scorings else None
        made = model.output
        name = nnsight.save("cache" if "cache" in made else "past_key_values")
        cache, logits = nnsight.save(made[name]), nnsight.save(made.logits[:, -1])
        found = [
            along(states, one["direction"]) if "direction" in one else log_odds(made.logits[:, -1:], one)
            for one in scorings
        ]
        odds = nnsight.save(found)
    fill(cache, stage)
    return (logits, name, cache, mask, positions[:, -1:]), odds


def go_on(model, begun, places, edits, settings):
    """New token ids [prompt, step], up to where the batch ended, and whether all logits were finite."""
    logits, name, cache, mask, place = begun
    longest, pad = settings["max_new_tokens"], settings["pad_token_id"]
    ends = torch.tensor(settings["eos_token_id"] or [], dtype=torch.int64)
    rows, goes_on = torch.arange(len(mask)), torch.ones(len(mask), dtype=torch.bool)
    new, finite = torch.full((len(mask), longest), pad, dtype=torch.int32), True
    for step in range(longest):
        finite = finite and bool(logits.sum(dtype=torch.float32).isfinite())
        tokens = likeliest(logits)
        here = tokens.cpu()
        new[rows[goes_on], step] = here[goes_on].int()
        goes_on = goes_on & ~torch.isin(here, ends)
        if not goes_on.any():
            return new[:, : step + 1], finite
        if step + 1 == longest:
            break
        if (~goes_on).sum() >= ENDED * len(goes_on):
            kept = goes_on.nonzero()[:, 0]  # in the processor's memory: a model may lie on several devices
            cache.batch_select_indices(kept)
            mask, place, tokens = mask[kept], place[kept], tokens[kept]
            rows, goes_on, edits = rows[kept], goes_on[kept], [of_rows(edit, kept) for edit in edits]
        mask, place = torch.nn.functional.pad(mask, (0, 1), value=1), place + 1
        passed = {"input_ids": tokens[:, None], "attention_mask": mask, "position_ids": place, name: cache}
        passed |= {"use_cache": True}
        # where nothing is changed, a trace would take a tenth of the step of a small model
        logits = changed_step(model, passed, places, edits, step + 1) if edits else plain_step(model, passed)
    return new, finite


def likeliest(logits):
    """The word with the largest logit, the first of equal ones: [row]. numpy finds it in a tenth of torch's time."""
    known = logits.float()
    return known.argmax(-1) if known.device.type != "cpu" else torch.from_numpy(known.numpy().argmax(-1))


def plain_step(model, inputs):
    """The last logits of a pass in which nothing is changed: [row, word]."""
    with torch.no_grad():
        return model._module(**inputs).logits[:, -1]


def changed_step(model, inputs, places, edits, step):
    """The last logits of a step after the first, with neurons changed: [row, word]."""
    with torch.no_grad(), model.trace(**inputs):
        write(model, places, edits, step)
        logits = nnsight.save(model.output.logits[:, -1])
    return logits  # noqa: RET504 (the name is bound when the trace has run)


def of_rows(edit, kept):
    """An edit for some rows of its batch: what is carried over differs between them."""
    layer, site, index, how, value = edit
    if how.startswith("carry"):
        value = {name: part[kept] for name, part in value.items()}
    return layer, site, index, how, value
