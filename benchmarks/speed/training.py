"""A step of expand beside a step of LoRA of as many parameters, and beside a plain backward pass; time and memory.

All three run forward and backward through the same frozen weights on the same rows, and must begin with the same loss.
LoRA is peft's, in a loop of its own that does no more than it must; the plain pass stops at the gradient of the
embeddings: what any training pays that reaches the first layer. Peak memory runs in fresh processes,
`python -m benchmarks.speed.training KIND MODEL`.
"""

import json
import random
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from benchmarks.apart import MIB, forget_peak, peak, run_apart
from benchmarks.models import Case, opened, twin
from benchmarks.speed.lines import Line
from benchmarks.timing import Row, spread
from ssn_probe.spec.training_settings import Schedule, Training
from ssn_probe.training.loop.loss import Encoded, batch_of, response_loss, response_tokens
from ssn_probe.training.loop.processes import Team
from ssn_probe.training.loop.resuming import State
from ssn_probe.training.loop.training_steps import Course, Store, run_steps
from ssn_probe.training.weights.neuron_weights import Place, places_of
from ssn_probe.training.weights.trainable import Deltas

Kind = Literal["expand", "lora"]
SHARE = 0.003
EXPAND, LORA = "expand, 0.3 % of the neurons", "LoRA of as many parameters, by peft"


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """One training step: `run` gives the loss before its update; `weights` are trained by `optimizer`."""

    run: Callable[[], float]
    weights: Sequence[Tensor]
    optimizer: torch.optim.AdamW

    @property
    def parameters(self) -> int:
        return sum(weight.numel() for weight in self.weights)

    @property
    def held(self) -> int:
        """Bytes of what is trained, its gradients and its moments, as the tensors have them."""
        moments = [tensor for state in self.optimizer.state.values() for tensor in state.values() if tensor.dim()]
        gradients = [weight.grad for weight in self.weights if weight.grad is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in [*self.weights, *gradients, *moments])


def lines(case: Case) -> list[Line]:
    """The time of a step, as a multiple of LoRA's and of a plain backward pass."""
    expand, lora = expand_step(case, case.plain), lora_step(case, twin(case.plain))
    backward = plain_backward(case, case.plain)

    def check() -> str:
        _check_agreement([expand.run(), lora.run(), backward()])
        return f"{expand.parameters:,} parameters, LoRA {lora.parameters:,}"

    return [
        Line(
            name="masked training, a step",
            beside="LoRA by peft",
            reference=lora.run,
            tools={"ssn-probe": expand.run},
            goal=1.0,
            check=check,
        ),
        Line(
            name="a training step",
            beside="plain backward",
            reference=backward,
            tools={"ssn-probe": expand.run, "peft": lora.run},
        ),
    ]


def training_memory(name: str, *, threads: int) -> list[Row]:
    """The peak of a step beyond the frozen model, and bytes per trained parameter."""
    kinds = {kind: run_apart("benchmarks.speed.training", [kind, name], threads=threads) for kind in ("lora", "expand")}
    peaks = {kind: found["held"] + found["growth"] for kind, found in kinds.items()}

    def row(what: str, value: float, unit: str, target: float | None = None, note: str = "") -> Row:
        group = f"{name}: peak memory of a training step beyond the model"
        return Row(group=group, name=what, value=spread([value]), unit=unit, target=target, note=note)

    expand, judged = kinds["expand"], name == "100m"
    return [
        row(LORA, peaks["lora"] / MIB, "MiB"),
        row(EXPAND, peaks["expand"] / MIB, "MiB"),
        row("expand ÷ LoRA", peaks["expand"] / peaks["lora"], "×", 1.0 if judged else None),
        row(
            "expand, per trained parameter",
            expand["held"] / expand["parameters"],
            "B",
            target=16,
            note="delta, gradient and two moments, counted from the tensors",
        ),
    ]


def expand_step(case: Case, module: Any) -> Step:
    """The loop that `train` runs, one step long, on 0.3 % of the neurons of every layer and site, at least one."""
    deltas, rows = Deltas(module, _places(case)), _rows(case)
    settings = Training(batch=len(rows), steps=1, held_out=0.0)
    optimizer = _optimizer(deltas.parameters.values())
    state = State(trainable=deltas, optimizer=optimizer)
    course = Course(
        module=module,
        trainable=deltas,
        team=Team(),
        schedule=Schedule(settings=settings, rows=len(rows)),
        learned=rows,
        held_out=(),
        pad_id=case.subject.pad_id,
    )

    def run() -> float:
        state.step = 0
        state.history.clear()
        run_steps(course, state, Store(None, "", 1, 0), lambda *_: None)
        loss = state.history[0].loss
        assert loss is not None
        return loss

    return Step(run=run, weights=list(deltas.parameters.values()), optimizer=optimizer)


def lora_step(case: Case, module: Any) -> Step:
    """peft's adapters of as many parameters, in `module` for good, and the least that trains them."""
    from peft import inject_adapter_in_model

    from ssn_probe.training.weights.lora import lora_config, ranks_of

    rows = _rows(case)
    inject_adapter_in_model(lora_config(ranks_of(case.plain, _places(case))), module)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = _optimizer(weights)

    def run() -> float:
        optimizer.zero_grad()
        loss = response_loss(module, batch_of(rows, case.subject.pad_id, case.subject.device)) / response_tokens(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        return loss.item()

    return Step(run=run, weights=weights, optimizer=optimizer)


def plain_backward(case: Case, module: Any) -> Callable[[], float]:
    """Forward and backward to the gradient of the embeddings."""
    rows = _rows(case)

    def run() -> float:
        batch = batch_of(rows, case.subject.pad_id, case.subject.device)
        embedded = module.get_input_embeddings()(batch.inputs["input_ids"]).requires_grad_()
        inputs = {name: value for name, value in batch.inputs.items() if name != "input_ids"}
        loss = response_loss(module, replace(batch, inputs=inputs | {"inputs_embeds": embedded}))
        (loss / response_tokens(rows)).backward()
        return loss.item() / response_tokens(rows)

    return run


def _optimizer(weights: Iterable[Tensor]) -> torch.optim.AdamW:
    return torch.optim.AdamW(weights, lr=5e-5, weight_decay=0.0)


def _rows(case: Case) -> list[Encoded]:
    """The last quarter of each prompt is its response."""
    cut = [len(tokens) - max(1, len(tokens) // 4) for tokens in case.tokens]
    return [
        Encoded(prompt=tuple(tokens[:at]), response=tuple(tokens[at:]))
        for tokens, at in zip(case.tokens, cut, strict=True)
    ]


def _places(case: Case) -> tuple[Place, ...]:
    draw, subject = random.Random(0), case.subject
    return places_of(
        case.plain,
        [
            (layer, site, index)
            for layer in range(subject.n_layers)
            for site, width in subject.widths.items()
            for index in draw.sample(range(width), max(1, round(width * SHARE)))
        ],
    )


def _check_agreement(losses: Sequence[float]) -> None:
    if max(losses) - min(losses) > 1e-4 * max(1.0, *losses):
        raise SystemExit(f"The first losses differ ({losses}): the ratio would compare different work.")


def _measure(kind: Kind, name: Any) -> dict[str, int]:
    """After steps that make every buffer that stays: what is held, and the growth up to the peak of one more step."""
    with opened(name, prompts=8 if name == "100m" else 200) as case:
        step = expand_step(case, case.plain) if kind == "expand" else lora_step(case, case.plain)
        for _ in range(3):
            step.run()
        before = forget_peak()
        step.run()
        growth = peak() - before
    return {"growth": growth, "held": step.held, "parameters": step.parameters}


if __name__ == "__main__":
    print(json.dumps(_measure("lora" if sys.argv[1] == "lora" else "expand", sys.argv[2])))  # noqa: T201
