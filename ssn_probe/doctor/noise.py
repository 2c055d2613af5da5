"""Is one neuron's effect larger than rounding? In a coarse dtype the whole forward pass rounds more than it matters.

The same logits computed with another batch size, or on other hardware, differ by rounding. How much is measured by
moving every number of the embeddings by one step of the dtype, at random up or down: all later roundings then fall
otherwise. A neuron's effect is measured in the same unit, the root mean square change of the words' log-probabilities.
"""

from collections.abc import Sequence
from typing import Any

from ssn_probe.doctor.checks import Check, passed, warned
from ssn_probe.doctor.module_weights import as_integers
from ssn_probe.doctor.probing import chosen_layers, plain_logits, prompts, spread, traced_logits
from ssn_probe.model.subject import Subject

CLEAR = 10.0
"""A typical neuron's effect should be so many times the noise; what is measured of it contains the noise."""
DRAWS = 3
PER_PLACE = 2


def check_noise(subject: Subject) -> Check:
    """How large is a typical single neuron's effect, beside the rounding noise of the dtype?"""
    tokens, dtype = prompts(subject), subject.identity["dtype"]
    noise, effect = rounding_noise(subject, tokens), typical_effect(subject, tokens)
    ratio = effect / noise if noise else float("inf")
    times = "over 100 ×" if ratio > 100 else f"{ratio:.2g} ×"
    found = f"{dtype}: a typical neuron moves log-probabilities by {effect:.2g}, rounding by {noise:.2g} ({times})"
    if ratio >= CLEAR:
        return passed("rounding", found)
    meaning = "Silencing one neuron cannot be distinguished from rounding: `final` effects would rank neurons by noise."
    finer = "float64" if dtype == "float32" else "float32"
    remedy = (
        f"Give -T scoring_dtype={finer}, which scores neurons in {finer} with the same weights, or --dtype {finer}. "
        "Effects that compare no two passes, such as effect=local, are rounded less."
    )
    return warned("rounding", found, meaning, remedy)


def rounding_noise(subject: Subject, tokens: Sequence[Sequence[int]]) -> float:
    """The change of log-probabilities when every number of the embeddings moves by one step of the dtype."""
    before = plain_logits(subject, tokens)
    changes = []
    for seed in range(DRAWS):
        hook = subject.model._module.get_input_embeddings().register_forward_hook(_step(seed))
        try:
            changes.append(change(before, plain_logits(subject, tokens)))
        finally:
            hook.remove()
    return sum(changes) / len(changes)


def _step(seed: int) -> Any:
    """A forward hook: every number but zero becomes a neighbouring one."""
    import torch

    def hook(_module: Any, _inputs: Any, output: Any) -> Any:
        generator = torch.Generator().manual_seed(seed)
        sign = (2 * torch.randint(0, 2, output.shape, generator=generator) - 1).to(output.device)
        bits = as_integers(output)
        return torch.where(output == 0, bits, bits + sign.to(bits.dtype)).view(output.dtype)

    return hook


def typical_effect(subject: Subject, tokens: Sequence[Sequence[int]]) -> float:
    """The median change of log-probabilities when one neuron is silenced, over all sites of three layers."""
    from statistics import median

    before = plain_logits(subject, tokens)
    neurons = [
        (layer, site, index)
        for layer in chosen_layers(subject)
        for site in subject.family.modules
        for index in spread(subject.widths[site], PER_PLACE)
    ]
    return median(change(before, traced_logits(subject, tokens, [neuron])) for neuron in neurons)


def change(before: Any, after: Any) -> float:
    """The root mean square difference of log-probabilities, over prompts and words."""
    return float((after.log_softmax(-1) - before.log_softmax(-1)).square().mean().sqrt())
