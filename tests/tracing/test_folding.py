"""While a batch is generated the weights lack the silenced neurons: the tokens of edits in a trace, and no trace."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ssn_probe.model.subject import Subject
from ssn_probe.tracing import generate as generating
from ssn_probe.tracing.bodies import folding, stepwise
from ssn_probe.tracing.bodies.folding import folded, restore, slots_of
from ssn_probe.tracing.edits import (
    Edits,
    amplification,
    carrying,
    places_of,
    places_reading_last,
    prepared,
    setting,
    suppression,
)
from ssn_probe.tracing.generate import run_generation
from ssn_probe.tracing.measured_weights import weights_stamp
from ssn_probe.tracing.readout import forced

from .test_effects import PROMPTS, module_of
from .test_generate import NEURONS, SHORT

Places = Callable[[Subject], dict[str, Any]]
SILENT = suppression(NEURONS)
FFN_FIRST = suppression([(0, "ffn", 3), (0, "ffn", 6), (1, "q", 1)])
ONE = torch.tensor([1])


def made(
    subject: Subject, edits: Edits = SILENT, places: Places = places_of, keeps: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """New token ids, and the log-odds at the prompt's end."""
    scoring = forced(SHORT, subject.vocabulary).scoring
    settings: dict[str, Any] = {"edits": prepared(subject, edits), "scorings": [scoring], "keeps": keeps}
    ids, _, (odds,) = run_generation(subject, PROMPTS, places(subject), 5, **settings)
    return ids, odds


def weights_of(subject: Subject) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in module_of(subject).state_dict().items()}


def is_folded(subject: Subject, edits: Edits) -> bool:
    with folded(subject.model, places_of(subject), prepared(subject, edits)) as done:
        return done


@contextmanager
def nothing_folded(*_: object) -> Iterator[bool]:
    yield False


def fold_nothing(patched: pytest.MonkeyPatch) -> None:
    for module in (folding, stepwise):
        patched.setattr(module, "folded", nothing_folded)


@pytest.mark.parametrize(
    ("edits", "places", "keeps"),
    [
        (SILENT, places_of, False),
        (SILENT, places_reading_last, False),
        (FFN_FIRST, places_reading_last, True),
        (amplification(NEURONS, 0.25), places_reading_last, True),
        (amplification(NEURONS, 2.0), places_of, False),
    ],
    ids=["transformers generates", "steps of our own", "closed form in the pass over the prompts", "quarter", "double"],
)
def test_the_tokens_and_bits_of_edits_in_a_trace(
    subject: Subject, edits: Edits, places: Places, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, stamp = weights_of(subject), weights_stamp(subject, places_of(subject))
    assert is_folded(subject, edits)
    ids, odds = made(subject, edits, places, keeps)
    assert all(weight.equal(before[name]) for name, weight in module_of(subject).state_dict().items())
    assert weights_stamp(subject, places_of(subject)) == stamp
    fold_nothing(monkeypatch)
    wanted, traced = made(subject, edits, places, keeps)
    assert ids.equal(wanted)
    assert odds.equal(traced)


@pytest.mark.parametrize("edits", [SILENT, FFN_FIRST], ids=["silent", "closed form first"])
def test_no_step_is_traced_where_all_is_folded(llama: Subject, edits: Edits, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the pass over the prompts; with one neuron at three quarters, all steps are."""
    steps: list[str] = []
    for name in ("plain_step", "changed_step"):
        run = getattr(stepwise, name)
        monkeypatch.setattr(stepwise, name, lambda *given, name=name, run=run: (steps.append(name), run(*given))[1])
    made(llama, edits, places_reading_last, keeps=True)
    assert set(steps) == {"plain_step"}
    steps.clear()
    made(llama, (*edits, *amplification([(1, "ffn", 0)], 0.75)), places_reading_last, keeps=True)
    assert set(steps) == {"changed_step"}


def test_inside_the_weights_of_silenced_neurons_are_zero(llama: Subject) -> None:
    layer = module_of(llama).model.layers[1]
    with folded(llama.model, places_of(llama), prepared(llama, SILENT)):
        assert not layer.mlp.down_proj.weight[:, [1, 6]].any()
        assert not layer.self_attn.q_proj.weight[[1, 6]].any()
        assert layer.self_attn.q_proj.weight[[0, 2, 5]].all()
    assert layer.mlp.down_proj.weight[:, [1, 6]].all()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_weights_come_back_whatever_happens(llama: Subject, error: type[BaseException]) -> None:
    before = weights_of(llama)
    with pytest.raises(error), folded(llama.model, places_of(llama), prepared(llama, SILENT)):
        raise error
    assert all(weight.equal(before[name]) for name, weight in module_of(llama).state_dict().items())


def test_an_interruption_waits_until_all_is_back() -> None:
    weight, index = torch.zeros(3, 4), torch.tensor([1])

    class Interrupting(torch.Tensor):
        asked = 0

        def to(self, *_: Any, **__: Any) -> torch.Tensor:
            Interrupting.asked += 1
            if Interrupting.asked == 1:
                raise KeyboardInterrupt
            return self.as_subclass(torch.Tensor)

    kept = [
        ((weight, 0, index), torch.ones(1, 4)),
        ((weight, 0, index + 1), torch.ones(1, 4).as_subclass(Interrupting)),
    ]
    with pytest.raises(KeyboardInterrupt):
        restore(kept)
    assert not kept
    assert weight.sum(1).tolist() == [0, 4, 4]


def test_only_silence_and_powers_of_two_are_folded(llama: Subject) -> None:
    for edits in (setting(NEURONS, 0.5), amplification(NEURONS, 0.0), (*SILENT, *amplification([(0, "ffn", 2)], 3.0))):
        assert not is_folded(llama, edits)
    assert not is_folded(llama, carrying(NEURONS, "a run"))
    assert not is_folded(llama, ())


def test_weights_that_others_use_are_left_alone(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    places, ready = places_of(llama), prepared(llama, SILENT)
    for change in (share, wrap, to_meta):
        module = copy.deepcopy(module_of(llama))
        other = SimpleNamespace(_module=module)
        assert slots_of(other, places, ready)
        change(*(layer.mlp for layer in module.model.layers))
        assert not slots_of(other, places, ready)
    halved = prepared(llama, amplification(NEURONS, 0.5))
    assert slots_of(llama.model, places, halved)
    monkeypatch.setattr(folding, "NARROW", (torch.float64,))
    assert slots_of(llama.model, places, ready)
    assert not slots_of(llama.model, places, halved)
    monkeypatch.setattr(folding, "DTYPES", (torch.float16,))  # quantized weights are of integers
    assert not slots_of(llama.model, places, ready)


@pytest.mark.parametrize("places", [places_of, places_reading_last], ids=["transformers generates", "steps"])
def test_every_process_folds_for_itself_and_a_model_in_parts_does_not(
    llama: Subject, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def run(_subject: Subject, body: Any, *given: Any) -> Any:
        asked.append(body is folding.trace_folded or given[-1] is True)
        return torch.zeros(1, 1), True, torch.zeros(0), []

    monkeypatch.setattr(generating, "run_body", run)
    for subject in (llama, replace(llama, workers=object()), replace(llama, spread="two devices")):
        run_generation(subject, PROMPTS, places(llama), 1, edits=prepared(llama, SILENT))
    assert asked == [True, True, False]


def share(first: Any, last: Any) -> None:
    last.down_proj.weight = first.down_proj.weight


def wrap(_first: Any, last: Any) -> None:
    """As adapters and quantizers do."""

    class Wrapped(torch.nn.Linear):
        pass

    last.down_proj.__class__ = Wrapped


def to_meta(_first: Any, last: Any) -> None:
    last.down_proj.to("meta")


@pytest.mark.parametrize("places", [places_of, places_reading_last], ids=["transformers generates", "steps"])
def test_an_infinite_activation_of_a_silenced_neuron_is_silent(
    llama: Subject, places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inf times a weight of zero is NaN: then the edits are made in the trace."""
    up = module_of(llama).model.layers[0].mlp.up_proj
    with monkeypatch.context() as patched:
        patched.setattr(
            up, "forward", lambda x: torch.nn.functional.linear(x, up.weight).index_fill(-1, ONE, torch.inf)
        )
        ids, odds = made(llama, places=places)
        fold_nothing(patched)
        wanted, traced = made(llama, places=places)
    assert ids.equal(wanted)
    assert odds.equal(traced)
    assert odds.isfinite().all()
