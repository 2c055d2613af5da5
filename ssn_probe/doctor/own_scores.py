"""Does a score that a user added give every neuron one finite number per prompt, whichever prompts share its batch?"""

from ssn_probe.doctor.checks import Check, failed, passed
from ssn_probe.doctor.probing import prompts
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject
from ssn_probe.spec import EFFECTS, Effect, is_shipped

READS = Openings(refusal=((0,),), compliant=((1,),))
"""Stands for the openings that a run would find."""
ROUNDING = {"float64": 2e-3, "float32": 2e-3, "float16": 5e-2, "bfloat16": 1e-1}
"""How far a prompt's effects may differ between batches, as a share of the largest effect at the site."""


def own_effects() -> list[type[Effect]]:
    """The effects that do not come with ssn-probe."""
    return [kind for kind in EFFECTS.values() if not is_shipped(kind)]


def check_score(subject: Subject, kind: type[Effect]) -> Check:
    """Is an effect with default parameters the same for a prompt alone as in a batch, and finite?"""
    from ssn_probe.tracing.effects import Scores, decode, score

    effect, tokens = kind(), prompts(subject)
    reads = READS if effect.needs_openings else None

    def scored(rows: list[list[int]]) -> Scores:
        return score(effect, subject, rows, reads=reads, responses=[row[-2:] for row in rows])

    together, *alone = (scored(rows) for rows in (tokens, *([row] for row in tokens)))
    name, gap = f"score {effect.name}", 0.0
    for site in subject.widths:
        whole = decode(together, site)
        for row, single in enumerate(alone):
            largest = float(whole[row].abs().max()) or 1.0
            gap = max(gap, float((whole[row] - decode(single, site)[0]).abs().max()) / largest)
    allowed = ROUNDING[subject.identity["dtype"]]
    found = f"in a batch and alone its effects differ by {gap:.2g} of the largest (allowed {allowed:.2g})"
    if gap <= allowed:
        return passed(name, found)
    meaning = "Padding reaches the score: it would depend on which prompts share a batch."
    return failed(name, found, meaning, "Leave padded positions out, with `token_mask`; see docs/extend/score.md.")
