"""The state of a training, and its checkpoint: a training that resumes gives, bit for bit, what it would have given.

One safetensors file holds deltas, both moments of Adam, the best deltas so far and the history. It is written to a
temporary name and renamed, so that a whole checkpoint is there even after `kill -9`. It has the digest of the training
that it belongs to; the checkpoint of any other training is refused.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ssn_probe.errors import ResultError
from ssn_probe.training.tensor_files import read_tensors, write_tensors
from ssn_probe.training.weights.trainable import Change, Trainable, load_parameters

FILE = "checkpoint.safetensors"
FORMAT = "ssn-probe training 2"


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


def save_state(folder: Path, state: State, identity: str) -> None:
    """Writes the checkpoint, whole or not at all. Raises ResultError for a disk that cannot be written."""
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
    write_tensors(folder / FILE, tensors, metadata)


def load_state(folder: Path, state: State, identity: str) -> bool:
    """Puts the checkpoint of the folder into `state`; False where there is none.

    Raises:
        ResultError: a damaged file, a file of another release, or the checkpoint of another training.
    """
    file = folder / FILE
    if not file.exists():
        return False
    metadata, tensors = read_tensors(file, "Remove it to start the training anew.")
    if metadata.get("format") != FORMAT:
        raise ResultError(f"{file} is not a checkpoint of this release.", "Remove it, or choose another folder.")
    if metadata.get("identity") != identity:
        raise ResultError(
            f"{file} belongs to another training: model, neurons, data or settings differ.",
            "Choose another folder, or remove it to start anew.",
        )
    progress = json.loads(metadata["state"])
    load_parameters(state.trainable, _group(tensors, "change/"))
    for path, delta in state.trainable.parameters.items():
        state.optimizer.state[delta] = {
            "step": torch.tensor(float(progress["step"])),
            "exp_avg": tensors[f"mean/{path}"].to(delta.device),
            "exp_avg_sq": tensors[f"square/{path}"].to(delta.device),
        }
    state.history = [Step(**step) for step in progress.pop("history")]
    state.best = _group(tensors, "best/")
    state.kept = {step: _group(tensors, f"kept/{step}/") for step in progress.pop("kept")}
    for name, value in progress.items():
        setattr(state, name, value)
    return True


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
