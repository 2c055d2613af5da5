"""What a model is asked, and its answer as logits: by a plain forward pass, and by a trace with neurons silenced.

All logits here are those of the last token of each prompt, [prompt, word], in double precision.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import encode, whole_inputs
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.edits import Neuron

QUESTIONS = ("Hello.", "What is the capital of France?", "Write two sentences about ships and the sea they cross.")


def texts(subject: Subject) -> list[str]:
    """Three user messages of different lengths; words of the model's own vocabulary where it knows no English."""
    tokenizer = subject.tokenizer
    ids = [token for text in QUESTIONS for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    if tokenizer.unk_token_id is None or tokenizer.unk_token_id not in ids:
        return list(QUESTIONS)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    own = sorted(set(tokenizer.get_vocab().values()) - special)
    words = [tokenizer.decode([own[place]]) for place in spread(len(own), 16)]
    return [" ".join(words[first:last]) for first, last in ((0, 2), (2, 7), (7, 16))]


def prompts(subject: Subject) -> list[list[int]]:
    """The token ids of these messages, up to where the response begins."""
    return encode(subject, texts(subject))


def spread(width: int, count: int) -> list[int]:
    """At most `count` of the numbers below `width`, evenly spread: always the same ones."""
    return sorted({(2 * place + 1) * width // (2 * count) for place in range(count)})


def chosen_layers(subject: Subject) -> list[int]:
    """The first layer, one in the middle, the last; and the first of each further kind: with a window, without …"""
    kinds = _kinds(subject)
    chosen = {0, subject.n_layers // 2, subject.n_layers - 1}
    for layer, kind in enumerate(kinds):
        if kind not in [kinds[one] for one in chosen]:
            chosen.add(layer)
    return sorted(chosen)


def _kinds(subject: Subject) -> list[dict[str, Any]]:
    """What the attention module of every layer says of itself, but for the layer's number; no row has a say here."""
    decoder = subject.family.part(subject.model._module, subject.family.layers)
    attentions = [subject.family.part(layer, subject.family.attention) for layer in decoder]
    return [
        {
            name: value
            for name, value in vars(attention).items()
            if value is None or (isinstance(value, bool | int | float | str) and name != "layer_idx")
        }
        for attention in attentions
    ]


def plain_logits(subject: Subject, tokens: Sequence[Sequence[int]]) -> Any:
    """Logits of one padded batch, by calling the module: the same call as in a trace, so that both round equally.

    Raises:
        ModelError: NaN or Inf, naming the layer and site where it begins.
    """
    import torch

    from ssn_probe.tracing.diagnose import raise_non_finite

    with torch.no_grad():
        logits = subject.model._module(**whole_inputs(subject, tokens)).logits[:, -1].double()
    if not logits.isfinite().all():
        raise_non_finite(subject, tokens)
    return logits


def traced_logits(subject: Subject, tokens: Sequence[Sequence[int]], silent: Sequence[Neuron] = ()) -> Any:
    """The same logits through nnsight, as every run computes them, with neurons silenced."""
    import nnsight
    import torch

    from ssn_probe.tracing.bodies.site_access import write
    from ssn_probe.tracing.edits import places_of, prepared, suppression

    places, edits = places_of(subject), prepared(subject, suppression(silent))
    with torch.no_grad(), subject.model.trace(**whole_inputs(subject, tokens)):
        write(subject.model, places, edits)
        logits = nnsight.save(subject.model.output.logits[:, -1])
    return logits.double()


@contextmanager
def zeroed_weights(module: Any, layer: int, site: str, indices: Sequence[int]) -> Iterator[None]:
    """The weights of these neurons zero for as long, then as before, bit for bit.

    Raises:
        ModelError: the weights are not what they were.
    """
    import torch

    from ssn_probe.doctor.module_weights import own_weights, same_bits

    parts = own_weights(module, layer, site)
    kept = [part.detach().clone() for part, _ in parts]
    with torch.no_grad():
        for part, dimension in parts:
            part.index_fill_(dimension, torch.tensor(indices, device=part.device), 0)
    try:
        yield
    finally:
        with torch.no_grad():
            for (part, _), before in zip(parts, kept, strict=True):
                part.copy_(before)
    now = [part for part, _ in own_weights(module, layer, site)]
    if not all(same_bits(part, before) for part, before in zip(now, kept, strict=True)):
        raise ModelError(
            f"The weights of site {site} of layer {layer} were zeroed for a check and are not what they were.",
            "Load the model again before using it; its weights are not plain tensors (quantised or shared?).",
        )
