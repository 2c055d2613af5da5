"""Does a device give the numbers that the CPU gives? All that is measured of a model, on both, with the organism.

A gap is the largest difference as a share of the largest value on the CPU. The tensors that are compared are those of
one kind of work; texts are compared one by one.
"""

import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.models import Case, opened
from benchmarks.speed.scoring import text_of
from ssn_probe.model.openings import Direction
from ssn_probe.model.out_of_memory import release_memory
from ssn_probe.neurons import SITES
from ssn_probe.tracing.ablations import Neuron
from ssn_probe.tracing.batching import BatchSize
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.divergence import read_texts
from ssn_probe.tracing.edits import Edits, amplification, carried_neurons, carrying, suppression
from ssn_probe.tracing.effects import (
    Scores,
    decode,
    final_states,
    refusal_log_odds,
    score_ablation,
    score_final,
    score_final_ablation,
    score_local,
    score_refusal,
)
from ssn_probe.tracing.generate import generate
from ssn_probe.tracing.means import mean_activations

Found = dict[str, Any]
"""A line of the report."""
PROMPTS = 48
NEW = 8
TABLES = {
    "neurons": ["set", "language", "layer", "site", "index"],
    "samples": ["prompt_id", "context", "eval_language", "set_language", "arm", "role", "seed", "response", "verdict"],
    "summary": ["language", "set_language", "arm", "role", "measure", "value", "low", "high", "p_mcnemar", "p"],
}
"""Columns of a run's tables that should be the same."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """The same on every device: neurons to be changed, the ways to change them, and a direction to read along."""

    neurons: tuple[Neuron, ...]
    edits: Mapping[str, Edits]
    direction: Direction


def compare_devices(device: str, dtype: str) -> Iterator[Found]:
    """One line per kind of work: how far the device is from the CPU in `dtype`, and the seconds of both.

    `rounding`: how far the CPU in `dtype` is from the CPU in float32, for half precision.
    """
    with (
        opened("organism", prompts=PROMPTS) as exact,
        opened("organism", prompts=PROMPTS, dtype=dtype) as here,
        opened("organism", prompts=PROMPTS, device=device, dtype=dtype) as there,
    ):
        setting = _setting(exact)
        for what, work in WORK.items():
            line: Found = {"part": "agreement", "dtype": dtype, "what": what}
            try:
                wanted, before = _timed(work, here, setting)
                found, after = _timed(work, there, setting)
                yield line | {"seconds": [before, after]} | gap(found, wanted)
                if dtype != "float32":
                    yield line | {"rounding": gap(wanted, work(exact, setting))["gap"]}
            except Exception:  # the other kinds of work are compared all the same
                yield line | {"failed": traceback.format_exc()[-1500:]}


def gap(found: Any, wanted: Any) -> Found:
    """How far apart tensors are, or how many texts of how many differ."""
    if isinstance(wanted, Tensor):
        error, largest = (found.double() - wanted.double()).abs().max(), wanted.double().abs().max()
        return {"gap": _short(error / largest), "largest": _short(largest)}
    if isinstance(wanted, Mapping):
        gaps = {name: gap(found[name], wanted[name])["gap"] for name in wanted}
        return {"gap": max(gaps.values(), default=0.0), "gaps": gaps}
    different = sum(one != other for one, other in zip(found, wanted, strict=True))
    return {"gap": different / len(wanted), "different": different, "of": len(wanted)}


def _short(number: Any) -> float:
    return float(f"{float(number):.2g}")


def _timed(work: Callable[[Case, Setting], Any], case: Case, setting: Setting) -> tuple[Any, float]:
    began = time.perf_counter()
    found = work(case, setting)
    return found, round(time.perf_counter() - began, 2)


def _setting(case: Case) -> Setting:
    subject = case.subject
    neurons: list[Neuron] = [
        (layer, site, index)
        for layer in range(subject.n_layers)
        for site in SITES
        for index in range(3, subject.widths[site], max(1, subject.widths[site] // 4))
    ]
    means = mean_activations(subject, case.tokens)
    width = subject.model._module.config.hidden_size
    edits = {
        "to zero": suppression(neurons),
        "to the mean": suppression(neurons, means),
        "amplified": amplification(neurons, 3.0),
        "carried over": carrying(neurons, "another run"),
    }
    direction = Direction(tuple(float(one) for one in torch.linspace(-1, 1, width)))
    return Setting(neurons=tuple(neurons), edits=edits, direction=direction)


def _effects(scores: Scores) -> Found:
    odds = {} if scores.log_odds is None else {"log-odds": scores.log_odds}
    return {site: decode(scores, site) for site in scores.values} | odds


def _carried(case: Case, setting: Setting) -> Any:
    """What the neurons did on the prompts in reverse."""
    wanted = carried_neurons(setting.edits["carried over"])
    return capture(case.subject, case.tokens[::-1], wanted, max_new_tokens=NEW)


def _carried_values(case: Case, setting: Setting) -> Tensor:
    return _carried(case, setting).values


def _log_odds(case: Case, setting: Setting) -> Found:
    values = {"carried": _carried(case, setting)}
    return {
        name: refusal_log_odds(case.subject, case.tokens, case.several, edits=edits, **_given(name, values))
        for name, edits in (("untouched", ()), *setting.edits.items())
    }


def _given(name: str, values: dict[str, Any]) -> dict[str, Any]:
    return values if name == "carried over" else {}


def _responses(case: Case, setting: Setting) -> list[str]:
    values = {"carried": _carried(case, setting)}
    texts = []
    for name, edits in (("untouched", ()), *setting.edits.items()):
        made = generate(case.subject, case.tokens, edits=edits, max_new_tokens=NEW, **_given(name, values))
        texts += [f"{name}: {one.text} ({one.tokens} {one.finish_reason})" for one in made]
    return texts


def _texts(case: Case, setting: Setting) -> Found:
    texts = [text_of(row) for row in case.tokens]
    values, before, found = {"carried": _carried(case, setting)}, read_texts(case.subject, texts), {}
    for name, edits in setting.edits.items():
        after = read_texts(case.subject, texts, before=before.states, edits=edits, **_given(name, values))
        found |= {f"KL, {name}": after.kl, f"perplexity, {name}": after.nll}
    return found


def _training(case: Case, setting: Setting) -> Found:
    """A few steps of `Expand`: losses, the change, and the log-odds with the change in the weights."""
    from ssn_probe.data.prompt_set import load_prompts
    from ssn_probe.data.training_rows import safety_data
    from ssn_probe.model.digests import module_digest
    from ssn_probe.spec import Prompts
    from ssn_probe.spec.training_settings import Training
    from ssn_probe.training.export.merging import written
    from ssn_probe.training.loop.train import train

    subject, module = case.subject, case.subject.model._module
    data, settings = safety_data(load_prompts(Prompts("organism"))), Training(lr=1e-3, steps=6, evaluate_every=3)
    with tempfile.TemporaryDirectory() as folder:  # where the checkpoint goes
        options: dict[str, Any] = {"eos_ids": subject.eos_ids, "folder": Path(folder), "checkpoint_every": 2}
        made = train(module, subject.tokenizer, setting.neurons, data, settings, **options)
    again = train(module, subject.tokenizer, setting.neurons, data, settings, gradient_checkpointing=True)
    before = module_digest(module)
    with written(module, made.last):
        odds = refusal_log_odds(subject, case.tokens, case.single)
    assert module_digest(module) == before == made.record["base"]["sha256"], "the base is not what it was"
    parts: Any = made.last.parts
    return {
        "loss": _numbers(made.history, "loss"),
        "loss, activations computed twice": _numbers(again.history, "loss"),
        "held out": _numbers(made.history, "held_out"),
        "change": torch.cat([part.change.flatten() for part in parts]),
        "merged, log-odds": odds,
    }


def _numbers(history: Any, name: str) -> Tensor:
    return torch.tensor([getattr(step, name) for step in history if getattr(step, name) is not None])


WORK: Mapping[str, Callable[[Case, Setting], Any]] = {
    "local effects, mean": lambda case, _: _effects(score_local(case.subject, case.tokens)),
    "local effects, last": lambda case, _: _effects(score_local(case.subject, case.tokens, position="last")),
    "final effects": lambda case, _: _effects(score_final(case.subject, case.tokens)),
    "final effects by ablation": lambda case, _: _effects(
        score_final_ablation(case.subject, case.tokens[:1], batch_size=512)
    ),
    "refusal effects": lambda case, _: _effects(score_refusal(case.subject, case.tokens, case.several)),
    "refusal effects along a direction": lambda case, setting: _effects(
        score_refusal(case.subject, case.tokens, setting.direction)
    ),
    "effects by ablation": lambda case, setting: _effects(
        score_ablation(case.subject, case.tokens, case.several, candidates=setting.neurons[:40])
    ),
    "means": lambda case, _: mean_activations(case.subject, case.tokens),
    "final states": lambda case, _: final_states(case.subject, case.tokens),
    "carried activations": _carried_values,
    "log-odds under edits": _log_odds,
    "responses under edits": _responses,
    "KL and perplexity under edits": _texts,
    "training and merging": _training,
}


def compare_runs(device: str, *, limit: int, controls: int) -> Iterator[Found]:
    """`suppress_ss` on the CPU and on the device: which rows of its tables are not the same."""
    from ssn_probe import run

    with tempfile.TemporaryDirectory() as folder:
        runs, seconds = [], []
        for place in ("cpu", device):
            began = time.perf_counter()
            options: dict[str, Any] = {
                "controls": controls,
                "label_sets": controls,
                "log_odds_label_sets": 3 * controls,
                "limit": limit,
            }
            runs.append(run("suppress_ss", out=f"{folder}/{place}", device=place, progress=False, **options))
            seconds.append(round(time.perf_counter() - began, 1))
        for name, columns in TABLES.items():
            one, other = (_rounded(found.table(name).select(columns)) for found in runs)
            alike = one.join(other, on=columns, how="semi", nulls_equal=True).height
            yield {"part": "run", "what": name, "rows": [one.height, other.height], "the same": alike}
        first, second = (found.table("log_odds")["log_odds"] for found in runs)
        yield {"part": "run", "what": "log_odds", "rows": len(first), "absolute": (first - second).abs().max()}
        yield {"part": "run", "what": "seconds", "seconds": seconds}


def _rounded(table: Any) -> Any:
    """Numbers to four digits: log-odds and KL differ in the last ones."""
    import polars.selectors as cs

    return table.with_columns(cs.float().round_sig_figs(4))


def run_out_of_memory(device: str) -> Iterator[Found]:
    """Batches that do not fit are halved until they do, and give what small batches give. A GPU's memory is limited."""
    if not device.startswith("cuda"):
        yield {"part": "memory", "what": "not tried: no GPU"}
        return
    with opened("organism", prompts=8192, device=device) as case:
        subject, tokens = case.subject, case.tokens
        works: dict[str, Callable[[Any], Tensor]] = {
            "local": lambda size: decode(score_local(subject, tokens, batch_size=size), "ffn"),
            "refusal": lambda size: decode(score_refusal(subject, tokens, case.several, batch_size=size), "ffn"),
            "log-odds": lambda size: refusal_log_odds(subject, tokens, case.several, batch_size=size),
        }
        for what, work in works.items():
            wanted, size = work(256), BatchSize(8192, auto=True)
            with _little_memory(96 * 2**20):
                found = work(size)
            yield {"part": "memory", "what": what, "batch": [8192, size.size]} | gap(found, wanted)


@contextmanager
def _little_memory(more: int) -> Iterator[None]:
    """Inside, this process may take so many bytes more of the GPU than it holds."""
    release_memory()
    most = torch.cuda.memory_reserved() + more
    torch.cuda.set_per_process_memory_fraction(most / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
