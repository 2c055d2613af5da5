"""Are the neurons with the largest effects the same in half precision as in float32, with the same weights?

The local effect rounds a forward pass. The refusal effect, unless it is `refusal:1`, is a gradient at a state in which
many neurons are scaled down, and which are depends on roundings: in some models it then differs altogether.
"""

from collections.abc import Sequence

from ssn_probe.doctor.checks import Check, passed, warned
from ssn_probe.doctor.probing import plain_logits, prompts
from ssn_probe.model.openings import Openings
from ssn_probe.model.out_of_memory import OutOfMemory
from ssn_probe.model.precision import CannotWidenError, computing_in
from ssn_probe.model.subject import Subject

TOP = 0.005
SAME = 0.95
"""The share of these neurons that should be the same; of a small model they are few."""


def check_half_precision(subject: Subject) -> Check:
    """How many of the neurons with the largest local and refusal effects are the same in float32?"""
    dtype, tokens = subject.identity["dtype"], prompts(subject)
    reads = _openings(subject, tokens)
    own = _largest(subject, tokens, reads)
    try:
        with computing_in(subject, "float32") as wide:
            exact = _largest(wide, tokens, reads)
    except (OutOfMemory, CannotWidenError) as error:
        meaning = f"Whether rounding in {dtype} changes which neurons are chosen is not known."
        return warned("half precision", error.message, meaning, "Run the doctor where float32 weights fit, too.")
    same = {effect: len(own[effect] & exact[effect]) / len(exact[effect]) for effect in own}
    shares = ", ".join(f"{share:.0%} by {effect} effects" for effect, share in same.items())
    found = f"of the neurons with the largest effects in {dtype}, these are the same in float32: {shares}"
    if min(same.values()) >= SAME:
        return passed("half precision", found)
    meaning = f"Sets that are chosen by effects in {dtype} hold neurons that rounding has chosen."
    remedy = "Give -T scoring_dtype=float32, which scores neurons in float32 with the same weights, or --dtype float32."
    return warned("half precision", found, meaning, remedy)


def _openings(subject: Subject, tokens: Sequence[Sequence[int]]) -> Openings:
    """Stand-ins: the two most likely first tokens of an answer."""
    first, second = plain_logits(subject, tokens[:1])[0].topk(2).indices.tolist()
    return Openings(refusal=((first,),), compliant=((second,),))


def _largest(
    subject: Subject, tokens: Sequence[Sequence[int]], reads: Openings
) -> dict[str, set[tuple[int, str, int]]]:
    """Effect → the neurons of every layer and site whose effects are largest in size, on average over the prompts."""
    from ssn_probe.tracing.effects import decode, score_local, score_refusal

    found = {}
    for effect, scores in (("local", score_local(subject, tokens)), ("refusal", score_refusal(subject, tokens, reads))):
        chosen = found[effect] = set()
        for site in scores.values:
            size = decode(scores, site).mean(0).abs()  # [layer, neuron]
            best = size.topk(max(1, round(TOP * size.shape[1]))).indices.tolist()
            chosen |= {(layer, site, index) for layer, row in enumerate(best) for index in row}
    return found
