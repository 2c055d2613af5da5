"""The deltas as parameters, added to a frozen model by forward hooks that come off again.

For a linear layer y = x Wᵀ a change of rows r adds x Δᵀ to the outputs r, a change of columns c adds x[c] Δ to all
outputs. Gradients, clipping and Adam's moments then exist for the selected weights alone: nothing can leak into the
rest, and memory is 16 bytes per trained weight. Under AdamW without weight decay this is the same as training whole
matrices under a gradient mask.

Deltas are float32 whatever the base. They are used in the precision of the base, as in mixed-precision training: the
product accumulates in float32 and is rounded like the layer's own output. What must not be rounded, the sum of many
small steps, is in float32.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssn_probe.errors import ModelError
from ssn_probe.training.weights.adapter import Adapter
from ssn_probe.training.weights.delta import Delta, Part
from ssn_probe.training.weights.neuron_weights import Place, numbers_of, read_rows

Hook = Callable[[Any, tuple[Tensor, ...], Tensor], Tensor]
Change = Delta | Adapter
"""The change that training made, as a value."""


@runtime_checkable
class Trainable(Protocol):
    """What is trained beside a frozen model: `Deltas`, `tied.TiedDeltas` or `lora.LowRank`.

    `parameters` are float32, by name.
    """

    parameters: dict[str, nn.Parameter]

    def attached(self) -> AbstractContextManager[None]:
        """Inside, the model computes with the change."""
        ...

    def snapshot(self, values: Mapping[str, Tensor] | None = None) -> Change:
        """The change as it is now, or with these parameters."""
        ...


def load_parameters(trainable: Trainable, values: Mapping[str, Tensor]) -> None:
    """Sets all parameters. Raises ModelError for other names or shapes than those of `trainable`."""
    shapes = {name: tuple(value.shape) for name, value in values.items()}
    if shapes != {name: tuple(parameter.shape) for name, parameter in trainable.parameters.items()}:
        raise ModelError("The parameters belong to other neurons.", "Train the same set, or start in a new folder.")
    with torch.no_grad():
        for name, parameter in trainable.parameters.items():
            parameter.copy_(values[name])


class Deltas:
    """A change of the weights at some places of a model, zero to begin with.

    `parameters`: name of the place → float32 parameter [neuron, width] on that layer's device. The model itself
    is not touched: it has no new parameter, and its own are read once.
    """

    def __init__(self, module: Any, places: Sequence[Place]):
        self.module, self.places = module, tuple(places)
        self.base: dict[str, Tensor] = {}
        self.parameters: dict[str, nn.Parameter] = {}
        for place in self.places:
            rows = read_rows(module, place)
            self.base[place.name] = rows.cpu()
            shape = (self.changes_at(place), rows.shape[1])
            zero = torch.zeros(shape, dtype=torch.float32, device=rows.device)
            self.parameters[place.name] = nn.Parameter(zero)

    def changes_at(self, place: Place) -> int:
        """How many changes there are at a place: one per neuron."""
        return len(place.indices)

    def hook(self, place: Place) -> Hook:
        """What adds the change of a place to the outputs of its module."""
        delta = self.parameters[place.name]
        numbers = numbers_of(self.module, place, delta.device)
        return row_hook(delta, numbers) if place.axis == "row" else column_hook(delta, numbers)

    def part(self, place: Place, values: Tensor) -> Part:
        """The change of a place as a value."""
        return Part(place=place, base=self.base[place.name], change=values)

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, the model computes with the change. Covers the backward pass too, which may recompute layers."""
        handles = []
        try:
            for place in self.places:
                handles.append(self.module.get_submodule(place.module).register_forward_hook(self.hook(place)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def snapshot(self, values: Mapping[str, Tensor] | None = None) -> Delta:
        """The change as it is now, or with these values, on the CPU, as a value that later steps do not alter."""
        known = self.parameters if values is None else values
        return Delta(parts=tuple(self.part(place, known[place.name].detach().cpu().clone()) for place in self.places))


def row_hook(delta: Float[Tensor, "neuron input"], rows: Int[Tensor, " neuron"]) -> Hook:
    """y[…, rows] += x Δᵀ."""

    def add(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        return output.index_add(-1, rows, (x @ delta.to(x.dtype).T).to(output.dtype))

    return add


def column_hook(delta: Float[Tensor, "neuron output"], columns: Int[Tensor, " neuron"]) -> Hook:
    """y += x[…, columns] Δ."""

    def add(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0].index_select(-1, columns)
        return output + (x @ delta.to(x.dtype)).to(output.dtype)

    return add
