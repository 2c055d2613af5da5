"""What a step says of how a training goes, for its row of progress."""

import math

from ssn_probe.text import percent
from ssn_probe.training.loop.resuming import Step

FIGURES = ("loss", "held out", "probe")


def figures(step: Step) -> dict[str, str]:
    """What a step says of how training goes, by name: the losses, and what the probe found."""
    told = {"loss": step.loss, "held out": step.held_out}
    shown = {name: f"{name} {value:.3f}" for name, value in told.items() if value is not None}
    return shown if step.probe is None else shown | {"probe": f"ASR probe {share(step.probe, 0)}"}


def share(value: float, digits: int = 1) -> str:
    return "–" if math.isnan(value) else percent(value, digits)  # no response could be judged
