"""What the local effect needs of the weights, measured where they are.

Column norms of down_proj and o_proj and the Gram matrices of o_proj (`bodies.closed_form.measure`):

- On this machine once in each process that computes, and kept there (`measured_weights`): with 8 billion parameters
  0.3 GB. Of a model that is spread or sharded, once for each measurement.
- Where a host lets a job read weights, in every batch, and nothing travels. That reads down_proj and o_proj once and
  multiplies o_proj by itself: for 8 and 70 billion parameters 0.6 and 11 teraflop, less than the forward pass of a
  prompt of 100 tokens.
- In a host's sandbox, where a column is what a unit vector is mapped to, once per model, in a job of its own: every
  column goes through a socket of the host, 5 GB of them with 8 billion parameters in bfloat16, 48 GB with 70. The
  norms and, for v, the products of equal channels go up with each job, 4 and 33 MB in all, where the effects of a
  single prompt that come back are 1.6 and 7.5 MB. The Gram matrices for q and k (0.3 and 2.7 GB) never travel: each
  batch maps the unit vectors of o_proj again, 1 and 11 GB through that socket.
"""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.batching import Shelf
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.execution import run_body
from ssn_probe.tracing.host_facts import host_facts
from ssn_probe.tracing.measured_weights import Known, Measured, weights_stamp

KNOWN: WeakKeyDictionary[Subject, Known] = WeakKeyDictionary()
"""What sandboxes were asked."""


def known_weights(subject: Subject, places: Mapping[str, Any]) -> Known | Measured:
    """By layer, what a batch is given; what it lacks is measured there."""
    if subject.calls is None:
        if weights_stamp(subject, places) is not None:
            return Measured(places)
        from ssn_probe.tracing.bodies.local import measure_weights

        return run_body(subject, measure_weights, places)
    if host_facts(subject).weights:
        return []
    if subject not in KNOWN:
        KNOWN[subject] = _asked(subject)
    return [{site: layer[site] for site in places["sites"] if site in layer} for layer in KNOWN[subject]]


def hides_weights(subject: Subject) -> bool:
    """Does the model run in the sandbox of a host?"""
    return subject.calls is not None and not host_facts(subject).weights


def recall_weights(subject: Subject, shelf: Shelf) -> None:
    """Takes what a sandbox was asked about weights from a shelf, where it is kept from now on."""
    if subject in KNOWN:
        return
    if not shelf.parts():
        measured = {
            f"{layer}.{site}": values.contiguous()
            for layer, known in enumerate(_asked(subject))
            for site, values in known.items()
        }
        shelf.put([0], measured)
    known: list[dict[str, Any]] = [{} for _ in range(subject.n_layers)]
    (part,) = shelf.parts()
    for name in part.names():
        layer, site = name.split(".")
        known[int(layer)][site] = part.get(name)
    KNOWN[subject] = known


def _asked(subject: Subject) -> Known:
    from ssn_probe.tracing.bodies.local import trace_weights

    return run_body(subject, trace_weights, whole_inputs(subject, [[0, 1]]), places_of(subject))
