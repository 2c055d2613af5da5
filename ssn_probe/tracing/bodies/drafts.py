"""Whether responses that are known already are those of the changed model: one pass over prompt and response."""

import nnsight
import torch

from .next_tokens import BLOCK, logits_of
from .refusal import along, log_odds
from .site_access import reach, write_narrowed
from .start import behind_start


def trace_drafts(model, inputs, places, edits, drafts, scorings=()):
    """Which drafts the model would generate greedily, with neurons changed at every token, and r(x) of the prompts.

    drafts: [prompt, step], ids at the end of each row with -1 before them. The inputs are prompts with their draft, but
    for its last token, which is predicted and never fed. scorings: as in `generation.trace_generation`.
    Gives "same" [prompt], false where a logit is not finite, too, and "odds", r(x) [prompt] of each scoring.
    """
    inputs = behind_start(model, inputs, places, edits)
    width, steps = inputs["input_ids"].shape[1], drafts.shape[1]
    with torch.no_grad(), model.trace(**inputs):
        write_narrowed(model, places, edits, torch.arange(width - steps, width))
        states = reach(model, places["norm"]).output[:, -steps:]
        head, form, logits = reach(model, places["head"]), places["logits"], model.output.logits
        wanted = drafts.to(states.device)
        known = wanted >= 0
        same = torch.ones_like(known)
        same[known] = _predicts(states[known], wanted[known], head, form)
        row = torch.arange(len(states), device=states.device)
        first = states[row, steps - known.sum(1)][:, None]  # the prompt's last token
        said = logits_of(first, head, form) if any("direction" not in one for one in scorings) else logits
        odds = [along(first, one["direction"]) if "direction" in one else log_odds(said, one) for one in scorings]
        found = nnsight.save({"same": same.all(1), "odds": odds})
    return found  # noqa: RET504 (the name is bound when the trace has run)


def _predicts(states, tokens, head, form):
    """Is each token the most probable one after its state, with finite logits? Blocks of positions: [n], bool."""
    size, parts = max(1, BLOCK // form[-1]), []
    for some, these in zip(states.split(size), tokens.split(size), strict=True):
        logits = head(some)  # scaled and soft-capped they have the same order
        parts.append((logits.argmax(-1) == these) & logits.sum(-1, dtype=torch.float32).isfinite())
    return torch.cat(parts)
