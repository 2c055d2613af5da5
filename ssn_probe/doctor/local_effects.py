"""Are the closed forms of the local effect those of this model? They must give what zeroed weights do to the output.

A norm on the heads, a soft-cap or another rotation that the family's row overlooks leaves every site where it is, and
makes the local effect of q and k wrong: only the outputs themselves show it.
"""

from collections.abc import Iterator
from typing import Any

from ssn_probe.doctor.checks import Check, failed, passed
from ssn_probe.doctor.module_weights import projection
from ssn_probe.doctor.probing import chosen_layers, plain_logits, prompts, spread, zeroed_weights
from ssn_probe.model.row_independence import TOLERANCE
from ssn_probe.model.subject import Subject

PER_SITE = 2
ROUNDING = 2e-3
"""Scores are kept in half precision: so large a share of an effect, or of a hundredth of the layer's largest, may be
rounding."""


def check_local_effects(subject: Subject) -> Check:
    """Do neurons of every site, in the first, middle and last layer, have the local effect that is computed?"""
    gap, allowed, where = max(compare(subject), key=lambda one: one[0] - one[1])
    found = f"closed forms differ from zeroed weights by {gap:.2g} {where} (allowed {allowed:.2g})"
    if gap <= allowed:
        return passed("local effects", found)
    meaning = "Scores with effect=local would belong to another model: its attention computes something else."
    remedy = "State the head norms, the score cap and the rotation of this family in its row, or leave the family out."
    return failed("local effects", found, meaning, remedy)


def compare(subject: Subject) -> Iterator[tuple[float, float, str]]:
    """How far local effects at the last token of one prompt are from the same by brute force: (gap, allowed, where)."""
    from ssn_probe.tracing.effects import decode, score_local

    tokens = prompts(subject)[1:2]
    scores = score_local(subject, tokens, position="last", exact_qk=1.0)
    for layer in chosen_layers(subject):
        for site in subject.family.modules:
            effects = decode(scores, site)[0, layer]
            before = _output(subject, layer, site, tokens)
            for index in spread(subject.widths[site], PER_SITE):
                with zeroed_weights(subject.model._module, layer, site, [index]):
                    moved = float((_output(subject, layer, site, tokens) - before).norm())
                rounding = ROUNDING * max(moved, float(effects.max()) / 100)
                allowed = TOLERANCE[subject.identity["dtype"]] * float(before.norm()) + rounding
                where = f"at neuron {index} of site {site} of layer {layer}"
                yield abs(float(effects[index]) - moved), allowed, where


def _output(subject: Subject, layer: int, site: str, tokens: list[list[int]]) -> Any:
    """What the attention or the MLP of a layer writes at the last token: [hidden], in double precision."""
    seen: list[Any] = []
    writes = projection(subject.model._module, layer, "ffn" if site == "ffn" else "o")
    hook = writes.register_forward_hook(lambda _module, _inputs, output: seen.append(output[0, -1].double()))
    try:
        plain_logits(subject, tokens)
    finally:
        hook.remove()
    return seen[0]
