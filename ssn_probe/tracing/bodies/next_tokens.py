"""How far a changed model's next-token distributions are from the untouched model's, and how probable texts are to it.

All logits of a batch do not fit into memory, so they are made of the final states, a block of positions at a time.
"""

import nnsight
import torch

from .below import write_above
from .site_access import reach, write
from .start import started

BLOCK, POSITIONS = 2**22, 128
"""Logits and positions of a block at most: of a small vocabulary, what a processor's cache holds."""


def trace_texts(model, inputs, places, edits, own, answer, before, stages=None):
    """What a batch of texts is to the changed model: a dict of tensors.

    own, answer: {"row", "position", "token": [n]}: which positions, the starts' included (see `start.started`), predict
    which tokens of the prompts' own words, and of the answers, by row and in order. before: the untouched model's final
    states at the answers' positions [n, hidden]; None reads the untouched model itself. stages: of `below.trace_below`.

    - "nll": −log p of each of the prompts' own tokens [n].
    - "kl": KL(untouched ‖ changed) at each position of an answer [n], zero where the model is untouched.
    - "states": final states at the answers' positions [n, hidden], where the model is untouched.
    - "off": how far logits that are made here are from the model's own, relative to these.
    """
    inputs, first = started(model, inputs, places, edits, stages)
    with torch.no_grad(), model.trace(**inputs):
        write_above(model, places, edits, stages[0] if stages else None)
        rest = reach(model, places["norm"]).output
        states = rest if first is None else torch.cat([first.to(rest.device), rest], 1)
        head, form = reach(model, places["head"]), places["logits"]
        last = model.output.logits[:, -1]
        made = logits_of(states[:, -1], head, form).to(last.device)
        own, answer = ({name: part.to(states.device) for name, part in each.items()} for each in (own, answer))
        answers = states[answer["row"], answer["position"]]
        figures = {
            "nll": surprisal(states[own["row"], own["position"]], own["token"], head, form),
            "off": (made - last).abs().max() / (1 + last.abs().max()),
            "kl": torch.zeros(len(answers), dtype=exact(last).dtype, device=last.device),
        }
        if before is None:
            figures["states"] = answers
        else:
            figures["kl"] = divergence(before.to(answers.device, answers.dtype), answers, head, form)
        found = nnsight.save(figures)
    return found  # noqa: RET504 (the name is bound when the trace has run)


def trace_texts_alone(model, inputs, places, edits, own, answer):
    """`trace_texts` without states, which are too large to travel: the untouched model is read here, in a first pass.

    Without edits that pass is the only one.
    """
    found = trace_texts(model, inputs, places, [], own, answer, None)
    before = found.pop("states")
    return trace_texts(model, inputs, places, edits, own, answer, before) if edits else found


def logits_of(states, head, form):
    """The logits of final states, scaled and soft-capped as the model does it: [n, vocabulary]."""
    scale, cap, _words = form
    logits = head(states) * scale
    return logits if cap is None else torch.tanh(logits / cap) * cap


def exact(tensor):
    """At least single precision."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def positions(form):
    """How many positions a block has."""
    return min(POSITIONS, max(1, BLOCK // form[-1]))


def log_probabilities(states, head, form):
    """log p of every next token: [n, vocabulary]."""
    return exact(logits_of(states, head, form)).log_softmax(-1)


def surprisal(states, tokens, head, form):
    """−log p of the tokens that follow: [n]."""
    size, parts = positions(form), []
    for some, these in zip(states.split(size), tokens.split(size), strict=True):
        found = log_probabilities(some, head, form)
        parts.append(-found.gather(-1, these.to(found.device)[:, None])[:, 0])
    return torch.cat(parts)


def divergence(before, after, head, form):
    """Σ p (log p − log q), p of the untouched model's states and q of the changed model's: [n]."""
    size, parts = positions(form), []
    for untouched, changed in zip(before.split(size), after.split(size), strict=True):
        p, q = log_probabilities(untouched, head, form), log_probabilities(changed, head, form)
        weights = p.exp()
        parts.append(p.sub_(q).mul_(weights).sum(-1))
    return torch.cat(parts)


def trace_logits(model, inputs, places, edits):
    """All logits of a batch under a change: [row, token, vocabulary]."""
    with torch.no_grad(), model.trace(**inputs):
        write(model, places, edits)
        logits = nnsight.save(model.output.logits)
    return logits  # noqa: RET504 (the name is bound when the trace has run)
