"""Scores batch by batch: what every effect has in common."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import Site
from ssn_probe.tracing.batching import Advance, BatchSize, Memory, Shelf, run_batches
from ssn_probe.tracing.bodies.encoding import encoded
from ssn_probe.tracing.diagnose import raise_non_finite
from ssn_probe.tracing.effect_store import Scores, gathered

Position = Literal["mean", "last"]


def run_scores(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    sites: Iterable[Site],
    effects_of: Callable[[Sequence[Sequence[int]]], Mapping[str, Any]],
    *,
    batch_size: int | BatchSize,
    shelf: Shelf | None,
    advance: Advance,
    sequences: int = 1,
) -> Scores:
    """Scores batch by batch, each on the shelf as it is done; memory grows with the score array only.

    Args:
        effects_of: some prompts → {site: effects [prompt, layer, neuron]}, or what `encoding.encoded` makes of them
            where the model is; and their "log_odds" where r(x) is read.
        sequences: how many sequences a prompt takes in a batch.
    """

    def run(rows: list[int]) -> Mapping[str, Any]:
        return effects_of([tokens[row] for row in rows])

    settings = {"batch_size": batch_size, "shelf": shelf, "advance": advance, "sequences": sequences}
    return run_rows(subject, tokens, sites, run, **settings)


def run_rows(
    subject: Subject,
    tokens: Sequence[Sequence[int]],
    sites: Iterable[Site],
    effects_of: Callable[[list[int]], Mapping[str, Any]],
    *,
    batch_size: int | BatchSize,
    shelf: Shelf | None,
    advance: Advance,
    sequences: int = 1,
) -> Scores:
    """As `run_scores`, where `effects_of` is given the numbers of the prompts."""
    shelf = shelf or Memory()

    def run(rows: list[int]) -> dict[str, Tensor]:
        batch = [tokens[row] for row in rows]
        effects = dict(effects_of(rows))
        found = {"log_odds": effects.pop("log_odds").float().cpu()} if "log_odds" in effects else {}
        for site in sites:
            effect, shape = effects[site], (len(rows), subject.n_layers, subject.widths[site])
            values, scale = effect if isinstance(effect, tuple) else encoded(effect)
            if tuple(values.shape) != shape:
                hint = "Return [prompt, layer, neuron] for every site that is asked for."
                raise ModelError(f"Effects at site {site} are {tuple(values.shape)} and not {shape}.", hint)
            found[f"values.{site}"], found[f"scale.{site}"] = values.cpu(), scale.cpu()
            if not found[f"scale.{site}"].isfinite().all():
                raise_non_finite(subject, batch)
        return found

    run_batches(tokens, batch_size, run, shelf, advance, sequences=sequences)
    return gathered(shelf.parts(), sites, (len(tokens), subject.n_layers), subject.widths)


def checked_position(position: str) -> Position:
    if position == "mean" or position == "last":
        return position
    raise ModelError(f"Unknown position {position!r}.", "Positions: mean, last.")
