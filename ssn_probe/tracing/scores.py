"""Effects of every neuron on every prompt: the array that every later statistic is computed from.

Per-prompt effects are kept, since means alone admit no honest statistic: in half precision, with one scale per
prompt, layer and site.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.neurons import SITES, Site


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


def concatenate(parts: Sequence[Scores]) -> Scores:
    """The scores of several prompt lists of the same model and effect as one, in the order given."""
    odds = [part.log_odds for part in parts if part.log_odds is not None]
    sites: list[Site] = list(parts[0].values)
    return Scores(
        values={site: torch.cat([part.values[site] for part in parts]) for site in sites},
        scale={site: torch.cat([part.scale[site] for part in parts]) for site in sites},
        log_odds=torch.cat(odds) if len(odds) == len(parts) else None,
    )


def save(scores: Scores, file: Path) -> None:
    """Write scores as one safetensors file."""
    from safetensors.torch import save_file

    tensors = {f"values.{site}": values for site, values in scores.values.items()}
    tensors |= {f"scale.{site}": scale for site, scale in scores.scale.items()}
    if scores.log_odds is not None:
        tensors["log_odds"] = scores.log_odds
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def load(file: Path) -> Scores:
    """Read what `save` wrote.

    Raises:
        ResultError: the file is missing, damaged or not a score file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise ResultError(f"The scores in {file} cannot be read: {error}", "Run the scoring again.") from error
    present: list[Site] = [site for site in SITES if f"values.{site}" in tensors]
    if not present:
        raise ResultError(f"{file} holds no scores.", "Run the scoring again.")
    return Scores(
        values={site: tensors[f"values.{site}"] for site in present},
        scale={site: tensors[f"scale.{site}"] for site in present},
        log_odds=tensors.get("log_odds"),
    )


def encoded(
    effect: Float[Tensor, "prompt layer neuron"],
) -> tuple[Float[Tensor, "prompt layer neuron"], Float[Tensor, "prompt layer"]]:
    """Half-precision shares of the largest effect, and that effect."""
    scale = effect.abs().amax(-1)
    shares = effect / torch.where(scale > 0, scale, 1)[..., None]
    return shares.half().cpu(), scale.float().cpu()
