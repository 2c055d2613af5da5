"""Naming the place where a forward pass first went wrong. Run only once a reduction has shown that it did."""

from collections.abc import Sequence
from typing import Any, NoReturn

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import pad_left
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.execution import run_body


def raise_non_finite(subject: Subject, tokens: Sequence[Sequence[int]], *, ready: Any = ()) -> NoReturn:
    """Raise the ModelError that names the first layer and site, in forward order, with NaN or Inf."""
    from ssn_probe.tracing.bodies.first_failure import trace_first_non_finite

    inputs = pad_left(tokens, subject.pad_id, subject.device) | {"use_cache": False}
    found = run_body(subject, trace_first_non_finite, inputs, places_of(subject), ready)
    where = "in the logits or a gradient" if found is None else f"at site {found[1]} of layer {found[0]}"
    raise ModelError(
        f"{subject.name} computes NaN or Inf {where} (dtype {subject.identity['dtype']}).", _remedy(subject)
    )


def _remedy(subject: Subject) -> str:
    dtype = subject.identity["dtype"]
    if dtype == "float16":
        return "float16 holds no number above 65,504: use --dtype bfloat16 or float32."
    if dtype == "float64" and subject.family.implementation == "eager":
        return (
            "Use --dtype float32 or --batch-size 1: the attention of this family takes its softmax in single "
            "precision, in which the mask of padding that double precision has overflows."
        )
    return "Try --dtype float32; if it stays, the weights are damaged."
