"""What a host lets a job do, and what the model is there: asked once, with one smallest job."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from ssn_probe.errors import RemoteError
from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.row_independence import refuse_dependent, tiny_rows
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.execution import run_body

HALF = ("float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class HostFacts:
    """Where a model runs. In the sandbox of a host there are neither gradients nor weights.

    `attention` and `generation`, the checkpoint's own settings as the host read them, are None where a job sees
    nothing of the model but its activations. `versions`: of python, torch, transformers and nnsight there.
    """

    gradients: bool
    weights: bool
    dtype: str
    device: str
    attention: str | None
    generation: Mapping[str, Any] | None
    versions: Mapping[str, str]

    @property
    def autocast(self) -> bool:
        """Does the forward pass run under autocast? A host does that on a GPU, and only a sandbox cannot undo it."""
        return not self.weights and self.device == "cuda" and self.dtype in HALF


KNOWN: WeakKeyDictionary[Subject, HostFacts] = WeakKeyDictionary()


def host_facts(subject: Subject) -> HostFacts:
    """Where the model runs, this machine or a host: one forward pass of two tokens, the first time it is asked."""
    from ssn_probe.tracing.bodies.surroundings import trace_host

    if subject not in KNOWN:
        found = run_body(subject, trace_host, whole_inputs(subject, [[0, 1]]), places_of(subject))
        KNOWN[subject] = HostFacts(**found)
    return KNOWN[subject]


def check_host(subject: Subject) -> None:
    """Is the host's model the one that results would be stored under, and does no row of a batch depend on others?

    Raises:
        RemoteError: it runs in another precision, or computes attention otherwise.
        ModelError: rows depend on each other, see `row_independence`.
    """
    from ssn_probe.tracing.bodies.surroundings import trace_dependence

    facts = host_facts(subject)
    for what, found in (("dtype", facts.dtype), ("attention", facts.attention)):
        if found is not None and found != subject.identity[what]:
            raise RemoteError(
                f"The host runs {subject.name} with the {what} {found}, and its results would be stored as those of "
                f"{subject.identity[what]}.",
                "Ask for a deployment with it, or run the model on this machine.",
            )
    short, long = tiny_rows(subject)
    batches = (whole_inputs(subject, rows) for rows in ([short], [short, long]))
    refuse_dependent(subject, **run_body(subject, trace_dependence, *batches))
