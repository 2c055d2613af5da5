"""Does a prompt's computation depend on its neighbours in a batch, or on what ran before? Then no result could be kept.

A measurement is stored under a key that holds neither the batch size nor the order of prompts, since they change no
number. That is true only of a model whose forward pass leaves nothing behind and treats every row as if it were alone.
What is known to break it is refused by the config (`rotation`); the rest
is measured on a few tokens whenever weights are loaded to be run, and on longer prompts by the doctor.
"""

from collections.abc import Sequence
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.coarse_products import PRODUCTS
from ssn_probe.model.subject import Subject
from ssn_probe.model.torch_settings import computing_plainly

TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""How far two computations of the same logits may differ, as a share of the largest logit: rounding, summed up."""
SHORT, LONG = 5, 17
"""Tokens of the two rows that are compared when a model is loaded."""


def tiny_rows(subject: Subject, lengths: Sequence[int] = (SHORT, LONG)) -> list[list[int]]:
    """Rows of so many tokens each, spread over the vocabulary, always the same ones."""
    return [[(7 + 31 * place + 13 * length) % subject.vocabulary for place in range(length)] for length in lengths]


def last_logits(subject: Subject, rows: Sequence[Sequence[int]]) -> Any:
    """Logits of the last token of every row of one padded batch, [prompt, word], in double precision; NaN is kept."""
    inputs = whole_inputs(subject, rows)
    return _logits(subject.model, inputs) if subject.shards is None else subject.shards.run(_logits, inputs)


def _logits(model: Any, inputs: dict[str, Any]) -> Any:
    import torch

    with torch.no_grad(), computing_plainly():
        return model._module(**inputs).logits[:, -1].double()


def check_rows_independent(subject: Subject) -> None:
    """Compare a short row alone, beside a longer one, and after it: three passes of a few tokens.

    A model that computes NaN is not judged here; every measurement looks for that.

    Raises:
        ModelError: a module in training mode, or logits that differ by more than rounding.
    """
    check_evaluating(subject.model._module)
    short, long = tiny_rows(subject)
    alone, beside, after = (last_logits(subject, rows)[0] for rows in ([short], [short, long], [short]))
    gaps = [float((one - alone).abs().max()) for one in (beside, after)]
    refuse_dependent(subject, beside=gaps[0], after=gaps[1], largest=float(alone.abs().max()))


def refuse_dependent(subject: Subject, *, beside: float, after: float, largest: float) -> None:
    """Raises ModelError where a short row's logits beside a longer one, or after it, are too far from those alone.

    `largest` is the largest logit of the short row alone.
    """
    allowed = TOLERANCE[rounded_to(subject)] * largest
    for how, gap in (("beside a longer one", beside), ("after a longer one", after)):
        if gap > allowed:
            raise ModelError(
                f"{subject.name} computes other logits for a prompt {how} than for the same prompt alone: they differ "
                f"by {gap:.2g}, of which at most {allowed:.2g} can be rounding.",
                "Results would depend on the batch size. `ssn-probe doctor --model …` shows more; report its lines.",
            )


def check_evaluating(module: Any) -> None:
    """Refuse a model that is, in part, in training mode, where dropout and batch norms make results depend on chance.

    Raises:
        ModelError: the first module that is in training mode.
    """
    for name, part in module.named_modules():
        if part.training:
            raise ModelError(
                f"The module {name or 'of the whole model'!r} is in training mode.",
                "Call `.eval()` on the model: dropout and batch norms would make results depend on chance.",
            )


def tolerance(subject: Subject, logits: Any) -> float:
    """How far two computations of these logits may differ."""
    return TOLERANCE[rounded_to(subject)] * float(logits.abs().max())


def rounded_to(subject: Subject) -> str:
    """The dtype whose digits the model's products have."""
    products = {"tf32": "float16", "bf16": "bfloat16"}  # as many digits
    own: str = subject.identity["dtype"]
    return products.get(subject.identity.get(PRODUCTS, ""), own)
