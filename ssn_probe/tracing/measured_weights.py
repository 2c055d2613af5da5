"""What the local effect needs of the weights, in the process that computes with them: measured once for all calls.

It stays there, and never outlives the weights that it was measured of (`weights_stamp`).
"""

import atexit
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from ssn_probe.model.subject import Subject

Known = Sequence[Mapping[str, Any]]
"""By layer, what a batch is given."""
MEASURED: WeakKeyDictionary[Subject, tuple[Any, Known]] = WeakKeyDictionary()
"""What was measured here, with the stamp of the weights it was measured of."""
atexit.register(MEASURED.clear)  # a weak reference to a storage is freed by torch, which is gone before this module is


class Measured(NamedTuple):
    """An argument of a body: what of the weights is known in the process that runs it.

    It travels to other processes in place of the values, which each measures for itself.
    """

    places: Mapping[str, Any]


def measured(subject: Subject, places: Mapping[str, Any]) -> Known:
    """What this process knows of the weights, measured where it is not known yet, or no longer true."""
    from ssn_probe.tracing.bodies.local import measure_weights

    stamp = weights_stamp(subject, places)
    before, known = MEASURED.get(subject, (None, ()))
    found = measure_weights(subject.model, places, known if stamp is not None and before == stamp else ())
    MEASURED[subject] = (stamp, found)
    return found


def weights_stamp(subject: Subject, places: Mapping[str, Any]) -> Any:
    """Equal to an earlier stamp if down_proj and o_proj of every layer have not changed since; None: cannot be told.

    By storage, shape and torch's count of changes in place. A storage is known by a weak reference, so that one which
    takes the address of another, such as after `weight.data = …`, is not taken for it. What is written through
    `weight.data` in place, torch does not count; this package writes so only what it takes back (`folding`).
    """
    if subject.shards is not None or subject.spread:
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
