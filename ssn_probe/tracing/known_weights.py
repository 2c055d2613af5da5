"""What the local effect needs of the weights, measured where they are.

Column norms of down_proj and o_proj and the Gram matrices of o_proj (`bodies.closed_form.measure`):

- On this machine once, for all batches, and kept for as long as the weights are the same ones (`weights_stamp`): with 8
  billion parameters 0.3 GB. Of a model that is spread, sharded or in several processes, once for each call.
- Where a host lets a job read weights, in every batch, and nothing travels. That reads down_proj and o_proj once and
  multiplies o_proj by itself: for 8 and 70 billion parameters 0.6 and 11 teraflop, less than the forward pass of a
  prompt of 100 tokens.
- In a host's sandbox, where a column is what a unit vector is mapped to, once per model, in a job of its own: every
  column goes through a socket of the host, 5 GB of them with 8 billion parameters in bfloat16, 48 GB with 70. The
  norms and, for v, the products of equal channels go up with each job, 4 and 33 MB in all, where the effects of a
  single prompt that come back are 1.6 and 7.5 MB. The Gram matrices for q and k (0.3 and 2.7 GB) never travel: each
  batch maps the unit vectors of o_proj again, 1 and 11 GB through that socket.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.batching import Shelf
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.execution import run_body
from ssn_probe.tracing.host_facts import host_facts

Known = Sequence[Mapping[str, Any]]
KNOWN: WeakKeyDictionary[Subject, Known] = WeakKeyDictionary()
"""What sandboxes were asked."""
MEASURED: WeakKeyDictionary[Subject, tuple[Any, Known]] = WeakKeyDictionary()
"""What was measured here, with the stamp of the weights it was measured of."""


def known_weights(subject: Subject, places: Mapping[str, Any]) -> Known:
    """By layer, what a batch is given; what it lacks is measured there."""
    from ssn_probe.tracing.bodies.local import measure_weights

    if subject.calls is None:
        stamp = weights_stamp(subject, places)
        if stamp is None:
            return run_body(subject, measure_weights, places)
        before, known = MEASURED.get(subject, (None, ()))
        found = run_body(subject, measure_weights, places, known if before == stamp else ())
        MEASURED[subject] = (stamp, found)
        return found
    if host_facts(subject).weights:
        return []
    if subject not in KNOWN:
        KNOWN[subject] = _asked(subject)
    return [{site: layer[site] for site in places["sites"] if site in layer} for layer in KNOWN[subject]]


def weights_stamp(subject: Subject, places: Mapping[str, Any]) -> Any:
    """Equal to an earlier stamp if down_proj and o_proj of every layer have not changed since; None: cannot be told.

    By storage, shape and torch's count of changes in place. A storage is known by a weak reference, so that one which
    takes the address of another, such as after `weight.data = …`, is not taken for it. What is written through
    `weight.data` in place, torch does not count; this package writes so only what it takes back (`folding`).
    """
    if subject.shards is not None or subject.workers is not None or subject.spread:
        return None
    from torch.multiprocessing.reductions import StorageWeakRef

    from ssn_probe.tracing.bodies.closed_form import stored_weight
    from ssn_probe.tracing.bodies.site_access import layer_of, reach

    stamp = []
    for layer in range(subject.n_layers):
        for site in ("ffn", "o"):
            module = reach(layer_of(subject.model, places, layer), places["modules"][site][0])
            weight = stored_weight(module)
            if weight is None or weight.is_inference():
                return None
            form = (weight.dtype, tuple(weight.shape), weight.stride(), weight.storage_offset())
            stamp.append((StorageWeakRef(weight.untyped_storage()), form, weight._version))
    return stamp


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
