"""The state of a training, and its checkpoint: a training that resumes gives, bit for bit, what it would have given.

One safetensors file holds deltas, both moments of Adam, the best deltas so far and the history. It is written to a
temporary name and renamed, so that a whole checkpoint is there even after `kill -9`. A checkpoint whose digest does not
match is not used: the training starts again. It also has the digest of the training that it belongs to; the checkpoint
of any other training is refused.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.files import ELSEWHERE, remove_half_written
from ssn_probe.training.tensor_files import DIGEST, DamagedError, read_tensors, write_tensors
from ssn_probe.training.weights.trainable import Change, Trainable, load_parameters

FILE = "checkpoint.safetensors"
FORMAT = "ssn-probe training 4"


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step's figures. Step 0 is the base, where there are held-out rows to measure it.

    `loss`: mean cross-entropy per response token of the step's rows, in nats, before its update. `lr`: its learning
    rate. `norm`: of the gradient of all deltas, before clipping. `held_out`: the loss on held-out rows after the step,
    None where it was not measured; `probe`: the probe's figure then. `seconds` since this process began; `total`:
    steps planned.
    """

    step: int
    total: int
    loss: float | None = None
    lr: float = 0.0
    norm: float | None = None
    held_out: float | None = None
    probe: float | None = None
    seconds: float = 0.0


@dataclass(kw_only=True, eq=False)
class State:
    """What changes from step to step: parameters, optimiser, measurements, and the steps to keep."""

    trainable: Trainable
    optimizer: torch.optim.AdamW
    step: int = 0
    history: list[Step] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_step: int = 0
    best_loss: float | None = None
    unimproved: int = 0
    kept: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def values(self) -> dict[str, Tensor]:
        """The parameters as they are now, by name."""
        return {name: value.detach().cpu().clone() for name, value in self.trainable.parameters.items()}

    def measured(self, loss: float) -> None:
        """Notes a held-out loss, and keeps the parameters of the lowest."""
        if self.best_loss is not None and loss >= self.best_loss:
            self.unimproved += 1
            return
        self.best_loss, self.best_step, self.unimproved = loss, self.step, 0
        self.best = self.values()

    def chosen(self) -> Change:
        """The change of the lowest held-out loss, or the present one where none was measured."""
        return self.trainable.snapshot(self.best or None)


def save_state(folder: Path, state: State, identity: str, elsewhere: str = ELSEWHERE) -> None:
    """Writes the checkpoint, whole or not at all. Raises ResultError for a disk that cannot be written.

    `elsewhere`: how to keep it somewhere else.
    """
    tensors = {f"best/{path}": value for path, value in state.best.items()}
    for step, values in state.kept.items():
        tensors |= {f"kept/{step}/{path}": value for path, value in values.items()}
    for path, delta in state.trainable.parameters.items():
        moments = state.optimizer.state[delta]
        tensors |= {f"change/{path}": delta.detach(), f"mean/{path}": moments["exp_avg"]}
        tensors[f"square/{path}"] = moments["exp_avg_sq"]
    progress = {
        "step": state.step,
        "best_step": state.best_step,
        "best_loss": state.best_loss,
        "unimproved": state.unimproved,
        "kept": sorted(state.kept),
        "history": [asdict(step) for step in state.history],
    }
    metadata = {"format": FORMAT, "identity": identity, "state": json.dumps(progress)}
    remove_half_written(folder / FILE)
    write_tensors(folder / FILE, tensors, metadata, elsewhere=elsewhere)


def load_state(folder: Path, state: State, identity: str, warn: Callable[[str], None]) -> bool:
    """Puts the checkpoint of the folder into `state`; False where there is none, or none that is intact.

    `warn` is told of a damaged one.

    Raises:
        ResultError: a file of another release, the checkpoint of another training, or a file that cannot be opened.
    """
    file = folder / FILE
    if not file.exists():
        return False
    try:
        metadata, tensors = read_tensors(file, "Remove it to start the training anew.")
        _check_origin(file, metadata, identity)
        _resume(state, json.loads(metadata["state"]), tensors)
    except (DamagedError, ModelError, KeyError, TypeError, ValueError):
        warn(f"{file} is damaged: the training starts again")
        return False
    return True


def _check_origin(file: Path, metadata: Mapping[str, str], identity: str) -> None:
    if metadata.get("format") != FORMAT:
        raise ResultError(f"{file} is not a checkpoint of this release.", "Remove it, or choose another folder.")
    if DIGEST not in metadata:
        raise DamagedError(f"{file} lacks its SHA-256.", "Remove it to start the training anew.")
    if metadata.get("identity") != identity:
        raise ResultError(
            f"{file} belongs to another training: model, its precision, neurons, data or settings differ.",
            "Choose another folder, or remove it to start anew.",
        )


def _resume(state: State, progress: dict[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Raises one of four exceptions, before anything is changed, for a checkpoint that lacks something."""
    parameters = state.trainable.parameters
    numbers = {name: progress[name] for name in ("step", "best_step", "best_loss", "unimproved")}
    step = float(numbers["step"])
    moments = {path: (tensors[f"mean/{path}"], tensors[f"square/{path}"]) for path in parameters}
    history = [Step(**each) for each in progress.pop("history")]
    kept = {each: _group(tensors, f"kept/{each}/") for each in progress.pop("kept")}
    load_parameters(state.trainable, _group(tensors, "change/"))
    for path, parameter in parameters.items():
        state.optimizer.state[parameter] = {
            "step": torch.tensor(step),
            "exp_avg": moments[path][0].to(parameter.device),
            "exp_avg_sq": moments[path][1].to(parameter.device),
        }
    state.history, state.best, state.kept = history, _group(tensors, "best/"), kept
    for name, value in numbers.items():
        setattr(state, name, value)


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
