"""Effects of every neuron on every prompt: the array that every later statistic is computed from.

Per-prompt effects are kept, since means alone admit no honest statistic: in half precision, with one scale per
prompt, layer and site.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.neurons import Site
from ssn_probe.tracing.batching import Part, gather


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """Effects of every neuron on every prompt.

    effect = `values` × `scale`, with `scale` the largest effect of a prompt, layer and site: an effect of 1e-9
    survives half precision as long as its layer's largest is below 0.01. `log_odds` is r(x), for the refusal effect
    only.
    """

    values: Mapping[Site, Float[Tensor, "prompt layer neuron"]]
    scale: Mapping[Site, Float[Tensor, "prompt layer"]]
    log_odds: Float[Tensor, " prompt"] | None = None

    def __len__(self) -> int:
        return len(next(iter(self.values.values())))


def decode(scores: Scores, site: Site, rows: Sequence[int] | None = None) -> Float[Tensor, "prompt layer neuron"]:
    """The effects at one site in single precision, for all prompts or for some."""
    chosen = slice(None) if rows is None else torch.as_tensor(rows, dtype=torch.long)
    return scores.values[site][chosen].float() * scores.scale[site][chosen][..., None]


def mean(scores: Scores, site: Site, rows: Sequence[int] | None = None) -> Float[Tensor, "layer neuron"]:
    """The importance of every neuron of a site: its mean effect over prompts, in double precision."""
    count = len(scores) if rows is None else len(rows)
    if not count:
        raise ModelError("There is no mean over no prompts.", "Select at least one prompt.")
    return decode(scores, site, rows).sum(0, dtype=torch.float64) / count


def gathered(
    parts: Sequence[Part], sites: Iterable[Site], shape: tuple[int, int], widths: Mapping[Site, int]
) -> Scores:
    """The scores of several batches, prompts in their order; `shape` is (prompts, layers)."""
    values: dict[Site, Tensor] = {}
    scale: dict[Site, Tensor] = {}
    for site in sites:
        values[site] = gather(parts, f"values.{site}", torch.zeros(*shape, widths[site], dtype=torch.float16))
        scale[site] = gather(parts, f"scale.{site}", torch.zeros(shape))
    read = bool(parts) and all("log_odds" in part.names() for part in parts)
    odds = gather(parts, "log_odds", torch.zeros(shape[0])) if read else None
    return Scores(values=values, scale=scale, log_odds=odds)
