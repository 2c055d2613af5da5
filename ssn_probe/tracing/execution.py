"""Where a body runs: here, or on the host of the model. To whoever asks there is no difference."""

import warnings
from collections.abc import Callable
from typing import Any

from ssn_probe.model.subject import Subject
from ssn_probe.model.torch_settings import computing_plainly
from ssn_probe.tracing.kept_passes import Kept, value_of
from ssn_probe.tracing.measured_weights import Measured, measured

OPEN_LOOP = ".*was never reached: the loop asked for a step the run did not make.*"
"""nnsight's warning at the end of an open `tracer.iter[:]`, which always ends this way. A host warns on its own."""


def run_body(subject: Subject, body: Callable[..., Any], *arguments: Any) -> Any:
    """`body(model, *arguments)`, where the model is. Values come back on the CPU from a host.

    A host gets the source of the body's module, which may be a user's file.
    """
    if subject.calls is not None:
        import nnsight

        nnsight.register(body.__module__)
        return subject.calls.run(body, *arguments)
    if subject.shards is not None:
        return subject.shards.run(body, *arguments)
    if subject.workers is not None:
        return subject.workers.run(run_here, subject, body, arguments)
    return run_here(subject, body, arguments)


def runs_whole(subject: Subject) -> bool:
    """Do whole passes run, since modules cannot be skipped, or weights not be read, where the model is?"""
    return subject.calls is not None or subject.shards is not None or bool(subject.spread)


def run_here(subject: Subject, body: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """`body(model, *arguments)` in this process, where one thread at a time computes."""
    with warnings.catch_warnings(), computing_plainly():
        warnings.filterwarnings("ignore", message=OPEN_LOOP)
        arguments = tuple(_made_here(subject, one) for one in arguments)
        if not subject.spread:
            return body(subject.model, *arguments)
        from ssn_probe.model.offloading import weights_fetched_again

        with weights_fetched_again(subject.model._module):
            return body(subject.model, *arguments)


def _made_here(subject: Subject, argument: Any) -> Any:
    """An argument of a body, made in this process where what was given says no more than how."""
    match argument:
        case Kept():
            return value_of(subject, argument)
        case Measured():
            return measured(subject, argument.places)
        case _:
            return argument
