"""The checks in order. They come one by one, since some take seconds; a check that breaks off stops no other.

What needs torch or polars is imported where it is used, so that the machine is examined where they are broken.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from ssn_probe.doctor import machine, storage, versions
from ssn_probe.doctor.checks import Check, failed, guarded
from ssn_probe.model.asking import NO_WISH, Asking

if TYPE_CHECKING:
    from ssn_probe.model.subject import Subject

_Examine = Callable[[], Check | list[Check]]


def examine_machine(out: Path, *, device: str = "auto") -> Iterator[Check]:
    """Versions against the pins, processor, memory, device, hub cache, results folder."""
    ahead: dict[str, _Examine] = {
        "ssn-probe": versions.check_ours,
        "python": versions.check_python,
        "packages": versions.check_packages,
        "imports": versions.check_imports,
        "processor": partial(machine.check_processor, device),
        "memory": machine.check_memory,
        "device": partial(machine.check_device, device),
        "hub": storage.check_hub,
        "results": partial(storage.check_results, out),
    }
    for name, examine in ahead.items():
        yield from guarded(name, examine)


def examine_model(name: str, *, device: str = "auto", dtype: str = "auto", asking: Asking = NO_WISH) -> Iterator[Check]:
    """Load a model as `subject.load_subject` does, and examine it; one that cannot be loaded is a failed check."""
    loaded: list[Subject] = []

    def load() -> Check:
        from ssn_probe.doctor.loaded_model import describe_subject
        from ssn_probe.model.ranks import check_whole
        from ssn_probe.model.subject import load_subject

        subject = load_subject(name, device=device, dtype=dtype, asking=asking)
        check_whole(subject, "The doctor")
        loaded.append(subject)
        return describe_subject(loaded[0])

    yield from guarded("model", load)
    for subject in loaded:
        yield from examine_subject(subject)


def examine_subject(subject: "Subject") -> Iterator[Check]:
    """Everything that is asked of a loaded model. Where it computes NaN there is nothing to compare: the rest waits."""
    from ssn_probe.doctor.half_precision import check_half_precision
    from ssn_probe.doctor.noise import check_noise
    from ssn_probe.doctor.own_scores import check_score, own_effects
    from ssn_probe.doctor.template import check_bos, check_control_tokens, check_ends, check_template
    from ssn_probe.model.precision import HALF

    yield from guarded("chat template", partial(check_template, subject))
    yield from guarded("control tokens", partial(check_control_tokens, subject))
    yield from guarded("BOS", partial(check_bos, subject))
    yield from guarded("end of turn", partial(check_ends, subject))
    broken = False
    for check in examine_family(subject):
        broken |= check.name == UNFIT.name
        yield check
    if not broken:
        yield from guarded("rounding", partial(check_noise, subject))
        if subject.identity["dtype"] in HALF:
            yield from guarded("half precision", partial(check_half_precision, subject))
        for kind in own_effects():
            yield from guarded(f"score {kind.__name__.lower()}", partial(check_score, subject, kind))


UNFIT = failed(
    "other checks",
    "not run: tracing, sites, local effects, padding, neighbours, rounding",
    "They compare numbers, and this model computes none that can be compared.",
    "Fix what the line above names, then run the doctor again.",
)


def examine_family(subject: "Subject") -> Iterator[Check]:
    """What every result rests on: the model computes numbers, and its family's row places its neurons correctly."""
    from ssn_probe.doctor.loaded_model import check_numbers, check_tracing
    from ssn_probe.doctor.local_effects import check_local_effects
    from ssn_probe.doctor.neighbours import check_neighbours
    from ssn_probe.doctor.padding import check_padding
    from ssn_probe.doctor.row_in_words import check_row
    from ssn_probe.doctor.sites import check_site
    from ssn_probe.doctor.trained_rows import check_trained_rows

    numbers = guarded("numbers", partial(check_numbers, subject))
    yield from numbers
    if any(check.status == "failed" for check in numbers):
        yield UNFIT
        return
    examined: dict[str, _Examine] = {
        "tracing": partial(check_tracing, subject),
        **{f"site {site}": partial(check_site, subject, site) for site in subject.family.modules},
        "local effects": partial(check_local_effects, subject),
        "rows of ffn": partial(check_trained_rows, subject),
        "padding": partial(check_padding, subject),
        "neighbours": partial(check_neighbours, subject),
    }
    well = True
    for name, examine in examined.items():
        for check in guarded(name, examine):
            well &= check.status != "failed"
            yield check
    if well:
        yield from guarded("row", partial(check_row, subject))
