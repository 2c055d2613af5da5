"""What a family's row says of a model, and what of it the doctor has compared with the weights, in a line each."""

from collections.abc import Iterator

from ssn_probe.doctor.checks import Check, passed
from ssn_probe.doctor.local_effects import PER_SITE
from ssn_probe.doctor.probing import chosen_layers, prompts
from ssn_probe.doctor.sites import NEURONS
from ssn_probe.model.context_length import sliding_window
from ssn_probe.model.family_in_words import PAIRED, modules_in_words, norms_in_words
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.edits import places_of


def check_row(subject: Subject) -> list[Check]:
    """Two lines for a row that no check has refused: its properties in this model, and what was compared."""
    tokens, layers, sites = prompts(subject), chosen_layers(subject), subject.family.modules
    longest = max(map(len, tokens))
    compared = (
        f"in {subject.identity['dtype']}, in layers {', '.join(map(str, layers))} (all kinds of layers): on "
        f"{len(tokens)} prompts of up to {longest} tokens, silencing {NEURONS} neurons of each of {', '.join(sites)} "
        f"is zeroing their weights; on one, {PER_SITE * len(layers) * len(sites)} neurons have the local effects that "
        "zeroed weights have; the rows that are trained with a neuron of ffn are its own"
    )
    return [passed("row", "; ".join(properties(subject, longest))), passed("proved", compared)]


def properties(subject: Subject, longest: int) -> Iterator[str]:
    """What is particular to the model, as its row and its modules say; `longest` prompt that was compared."""
    family, scores = subject.family, places_of(subject)["scores"]
    yield family.name
    if scores[0]["eps"] is not None:
        yield norms_in_words(family)
    still = [str(number) for number, one in enumerate(scores) if not one["turned"]]
    yield f"{PAIRED[family.rotation]} rotated together" + (f", but in layers {', '.join(still)}" if still else "")
    if window := sliding_window(subject.model._module.config):
        width, sliding, depth = window
        reached = "" if longest > width else ", which these prompts do not fill"
        yield f"a window of {width:,} tokens in {sliding} of {depth} layers{reached}"
    if growth := scores[0]["growth"]:
        reached = "" if longest > growth[1] else ", which these prompts do not reach"
        yield f"queries that grow from token {growth[1]:,} on{reached}"
    if cap := scores[0]["cap"]:
        yield f"scores capped at {cap:g}"
    yield from modules_in_words(family)
