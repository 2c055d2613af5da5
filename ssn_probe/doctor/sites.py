"""Is a site where the row of its family places it? Silencing neurons in a trace must equal zeroing their weights.

The weights are found by the modules' own names (`module_weights`), so that an error in the row shows: the trace would
silence other neurons than those whose weights are zeroed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ssn_probe.doctor.checks import Check, failed, passed
from ssn_probe.doctor.module_weights import width
from ssn_probe.doctor.probing import (
    chosen_layers,
    plain_logits,
    prompts,
    spread,
    traced_logits,
    zeroed_weights,
)
from ssn_probe.model.row_independence import tolerance
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import Site

NEURONS = 8
"""Neurons silenced together in a layer."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """How far logits move when some neurons of a layer are silenced in a trace, when their weights are zeroed, and how
    far the two are apart, of which `allowed` is rounding."""

    layer: int
    traced: float
    zeroed: float
    gap: float
    allowed: float


def check_site(subject: Subject, site: Site) -> Check:
    """Does silencing a few neurons of the first, middle and last layer change the output as zeroing their weights does?

    The two may differ by rounding (`probing.TOLERANCE`) and never by more than a tenth of what silencing does: where
    the dtype is coarse, another neuron's effect would pass as rounding otherwise.
    """
    name, layers = f"site {site}", chosen_layers(subject)
    wide = {width(subject.model._module, layer, site) for layer in layers}
    if wide != {subject.widths[site]}:
        return _misplaced(name, f"the family has {subject.widths[site]} neurons a layer, the weights {sorted(wide)}")
    done = [ablate(subject, site, layer, prompts(subject)) for layer in layers]
    still = [str(one.layer) for one in done if one.traced == 0]
    if still:
        moved = max(one.zeroed for one in done)
        found = (
            f"silencing {NEURONS} neurons changes no logit in layer {', '.join(still)}; zeroing weights: {moved:.2g}"
        )
        meaning = "Every effect at this site would be zero, whatever the neurons do: nothing follows from it."
        return failed(
            name, found, meaning, "Leave the site out (sites=…), and report the model's family and this line."
        )
    worst = max(done, key=lambda one: one.gap - one.allowed)
    if worst.gap > worst.allowed:
        apart = f"silencing differs from zeroed weights by {worst.gap:.2g} (allowed {worst.allowed:.2g})"
        return _misplaced(name, f"in layer {worst.layer} {apart}, where it moves the logits by {worst.traced:.2g}")
    gap, allowed = max(one.gap for one in done), min(one.allowed for one in done)
    return passed(
        name,
        f"{NEURONS} neurons of layers {', '.join(map(str, layers))} move the logits by "
        f"{min(one.traced for one in done):.2g} or more; "
        f"zeroing their weights differs by {gap:.2g} (allowed {allowed:.2g})",
    )


def ablate(subject: Subject, site: Site, layer: int, tokens: Sequence[Sequence[int]]) -> Ablation:
    """Silence a few neurons of a layer in both ways."""
    indices = spread(subject.widths[site], NEURONS)
    before = plain_logits(subject, tokens)
    traced = traced_logits(subject, tokens, [(layer, site, index) for index in indices])
    with zeroed_weights(subject.model._module, layer, site, indices):
        zeroed = plain_logits(subject, tokens)
    moved = float((zeroed - before).abs().max())
    return Ablation(
        layer=layer,
        traced=float((traced - before).abs().max()),
        zeroed=moved,
        gap=float((traced - zeroed).abs().max()),
        allowed=min(tolerance(subject, before), moved / 10),
    )


def _misplaced(name: str, found: str) -> Check:
    meaning = "What is silenced here are not the neurons whose weights this site names: results would be about others."
    return failed(name, found, meaning, "Use none of this site's results; report the model's family and this line.")
