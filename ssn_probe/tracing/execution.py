"""Where a body runs: here, or on the host of the model. To whoever asks there is no difference."""

from collections.abc import Callable
from typing import Any

from ssn_probe.model.subject import Subject


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
    if subject.spread:
        from ssn_probe.model.offloading import weights_fetched_again

        with weights_fetched_again(subject.model._module):
            return body(subject.model, *arguments)
    return body(subject.model, *arguments)
