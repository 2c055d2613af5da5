"""What is estimated of every neuron, against ablation of neurons one by one: `final` by read-outs, `refusal:1`.

    python -m benchmarks.screen [MODEL …] [--prompts 20] [--sample 8 --layers 10] [--keep FOLDER]

MODEL is `organism`, `smollm2`, a folder, or a tiny random model: `tiny-llama`, `tiny-qwen3`, `tiny-gemma2`. A model of
more than 5,000 neurons has `--sample` neurons of every site ablated, in `--layers` layers evenly apart. Ranks:
Spearman's rho over the sites of a layer together, the mean over layers; of the mean effects over all prompts, by which
sets are chosen, and of the effects on a prompt (mean over prompts). Recall: how many of a layer's largest 3 % and .5 %
by mean effect are among as many by the estimate, all layers together. In brackets what 95 % of a thousand draws of
the neurons give, as many of every layer and site. Cost: processor time over that of a plain forward pass of four
prompts, logits of the last position only. `--keep` keeps what ablation gave, for another run.
"""

import argparse
import hashlib
import math
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from benchmarks.models import neurons_of, untouched, write_random
from benchmarks.precision import openings_of, texts
from benchmarks.timing import compare
from ssn_probe.model.chat import encode, pad_left
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.spec import Effect, Final, Prompts, Recipe, Refusal, SafetyNeurons
from ssn_probe.study.plan import make_plan
from ssn_probe.tracing.ablations import Neuron
from ssn_probe.tracing.effects import decode, score
from ssn_probe.tracing.exact_effects import exact_effects

TINY = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 97,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
"""Random models, 64 wide, with weights as large as transformers draws them; prompts of 24 tokens."""
FAMILIES = {"tiny-llama": "LlamaConfig", "tiny-qwen3": "Qwen3Config", "tiny-gemma2": "Gemma2Config"}
MODELS = ("organism", *FAMILIES, "smollm2")
SMALL = 5_000
"""Neurons of a model that are all ablated."""
TOPS = (0.03, 0.005)
DRAWS = 1_000
FINAL: Mapping[str, Effect] = {f"final, k = {count}": Final(probes=count) for count in (4, 16, 64)}
REFUSAL: Mapping[str, Effect] = {
    "refusal:1, first order": Refusal(at=1, exact_qk=0),
    "refusal:1": Refusal(at=1),
    "refusal:1, all q and k exact": Refusal(at=1, exact_qk=1),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A model, its prompts, how its refusal is read, and the neurons that are ablated."""

    name: str
    subject: Subject
    tokens: Sequence[Sequence[int]]
    openings: Openings
    neurons: Sequence[Neuron]

    @property
    def layers(self) -> np.ndarray:
        """The layer of every neuron."""
        return np.array([layer for layer, _, _ in self.neurons])


def drawn(subject: Subject, sample: int, layers: int) -> list[Neuron]:
    """All neurons of a small model, in forward order; of a larger one a random sample."""
    whole = neurons_of(subject) <= SMALL
    chosen = range(subject.n_layers)
    if not whole:
        chosen = sorted({round(place) for place in np.linspace(0, subject.n_layers - 1, layers)})
    draw, found = random.Random(0), []
    for layer in chosen:
        for site in SITES:
            width = subject.widths[site]
            index = range(width) if whole else sorted(draw.sample(range(width), min(sample, width)))
            found += [(layer, site, one) for one in index]
    return found


@contextmanager
def opened(model: str, *, prompts: int, sample: int, layers: int) -> Iterator[Task]:
    """The task of a model: in the anchor language, half of the prompts harmful if there are such."""
    with tempfile.TemporaryDirectory() as folder:
        if model in FAMILIES:
            write_random(Path(folder), FAMILIES[model], TINY)
        subject = load_subject(folder if model in FAMILIES else model)
        if model in FAMILIES:
            draw = random.Random(0)
            tokens: Any = [draw.choices(range(3, subject.vocabulary), k=24) for _ in range(prompts)]
            openings = Openings(refusal=((11,), (12,)), compliant=((13,), (14,)))
        elif subject.openings is not None:
            node = Prompts("organism", languages=("qaa",))
            data = make_plan(Recipe(sets={"ms": SafetyNeurons(node, effect="local")})).data[node]
            sides = ((side, prompts // 2 + prompts % 2 * (side == "harmful")) for side in ("harmful", "harmless"))
            shown = [one for side, count in sides for one in data.select("identify", side, "qaa")["text"][:count]]
            tokens, openings = encode(subject, shown), subject.openings["qaa"]
        else:
            tokens, openings = encode(subject, texts(math.ceil(prompts / 2))[:prompts]), openings_of(subject)
        neurons = drawn(subject, sample, layers)
        yield Task(name=model, subject=subject, tokens=tokens, openings=openings, neurons=neurons)


def ablated(task: Task, reads: Openings | None, keep: Path | None) -> np.ndarray:
    """By brute force, [prompt, neuron]; from the folder where it was kept before."""
    text = repr((task.name, [list(map(int, row)) for row in task.tokens], task.neurons, reads))
    path = None if keep is None else keep / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    if path is not None and path.exists():
        return np.load(path)
    found = exact_effects(task.subject, task.tokens, task.neurons, reads, batch_size=64).double().numpy()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, found)
    return found


def estimated(task: Task, effect: Effect) -> np.ndarray:
    """The estimates of the same neurons, [prompt, neuron]."""
    reads = task.openings if effect.needs_openings else None
    scores = score(effect, task.subject, task.tokens, reads=reads, batch_size=4)
    whole = {site: decode(scores, site).double().numpy() for site in SITES}
    return np.stack([whole[site][:, layer, index] for layer, site, index in task.neurons], axis=1)


def rho(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's rho of the last axis."""
    ranks = [rankdata(values, axis=-1) for values in (one, other)]
    ranks = [values - values.mean(-1, keepdims=True) for values in ranks]
    return (ranks[0] * ranks[1]).sum(-1) / np.sqrt((ranks[0] ** 2).sum(-1) * (ranks[1] ** 2).sum(-1))


def by_layer(layers: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's rho within every layer, the mean over layers."""
    return np.mean([rho(one[..., layers == layer], other[..., layers == layer]) for layer in np.unique(layers)], axis=0)


def recall(layers: np.ndarray, found: np.ndarray, wanted: np.ndarray, share: float) -> float:
    """Of the largest `share` of every layer, how much is among as many by the estimate."""
    kept = total = 0
    for layer in np.unique(layers):
        sides = [values[layers == layer] for values in (found, wanted)]
        count = math.ceil(share * len(sides[0]))
        tops = [set(np.argsort(-values, kind="stable")[:count].tolist()) for values in sides]
        kept, total = kept + len(tops[0] & tops[1]), total + count
    return kept / total


def cells(task: Task, found: np.ndarray, wanted: np.ndarray) -> list[str]:
    """Ranks of means with their interval, ranks on a prompt, and recalls."""
    layers, means = task.layers, (found.mean(0), wanted.mean(0))
    places = np.unique([f"{layer} {site}" for layer, site, _ in task.neurons], return_inverse=True)[1]
    members = [np.flatnonzero(places == place) for place in np.unique(places)]
    draw = np.random.default_rng(0)
    rows = np.concatenate([draw.choice(one, (DRAWS, len(one))) for one in members], axis=1)
    again = by_layer(layers[rows[0]], means[0][rows], means[1][rows])
    low, high = np.quantile(again, (0.025, 0.975))
    ranks = f"{by_layer(layers, *means):.4f} [{low:.4f}, {high:.4f}]"
    prompt = f"{by_layer(layers, found, wanted).mean():.4f}"
    return [ranks, prompt, *(f"{recall(layers, *means, share):.3f}" for share in TOPS)]


def costs(task: Task, effects: Mapping[str, Effect], repeats: int) -> dict[str, float]:
    """Processor time as a multiple of a plain forward pass over the same four prompts, the median of the repeats."""
    plain, some = untouched(task.subject), task.tokens[:4]
    inputs = pad_left(some, task.subject.pad_id, task.subject.device)
    last = torch.tensor([inputs["input_ids"].shape[1] - 1])

    def forward() -> None:
        with torch.no_grad():
            plain(**inputs, use_cache=False, logits_to_keep=last)

    def run(effect: Effect) -> None:
        reads = task.openings if effect.needs_openings else None
        score(effect, task.subject, some, reads=reads, batch_size=4)

    runs = {name: lambda effect=effect: run(effect) for name, effect in effects.items()}
    return {row.name: row.value.median for row in compare(task.name, forward, runs, repeats=repeats, targets={})}


def table(task: Task, keep: Path | None, repeats: int) -> Iterable[str]:
    """A line for every estimate, as they are measured."""
    for effects, reads in ((FINAL, None), (REFUSAL, task.openings)):
        wanted = ablated(task, reads, keep)
        spent = costs(task, effects, repeats) if repeats else {}
        for name, effect in effects.items():
            row = [task.name, name, *cells(task, estimated(task, effect), wanted)]
            yield f"| {' | '.join([*row, f'{spent[name]:.1f}' if spent else '–'])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Estimates of every neuron against ablation of neurons one by one.")
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--sample", type=int, default=8, help="neurons of every layer and site, of a large model")
    parser.add_argument("--layers", type=int, default=10, help="layers that are sampled, of a large model")
    parser.add_argument("--repeats", type=int, default=5, help="of a cost; 0: not measured")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep what ablation gave")
    given = parser.parse_args()
    torch.set_num_threads(1)
    titles = ["model", "estimate", "ranks of means", "on a prompt", "recall 3 %", "recall .5 %", "cost"]
    sys.stdout.write(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n")
    for model in given.models:
        with opened(model, prompts=given.prompts, sample=given.sample, layers=given.layers) as task:
            for line in table(task, given.keep, given.repeats):
                sys.stdout.write(f"{line}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
