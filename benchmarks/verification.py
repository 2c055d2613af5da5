"""Screened and verified sets against brute force: every neuron ablated on every prompt, and the same rule.

    python -m benchmarks.verification [MODEL …] [--prompts 24] [--probes 64] [--most 0.04]
        [--organisms FOLDER] [--make-gemma2 FOLDER]
    python -m benchmarks.verification --cost [MODEL …] [--prompts 24]

MODEL is an organism that ssn-probe ships, a folder of one, or a random tiny model, `tiny:llama`, `tiny:qwen3` or
`tiny:gemma2`; without any, the shipped two, the tiny ones and those in FOLDER (`python -m benchmarks.identification
make`). Prompts are the organism's, as many a context, or random tokens. The estimate is `Final(probes=64, exact_qk=1)`,
`verify=.2`. The rule is applied to the estimates, to the estimates with exact effects in the place of those verified,
and to exact effects of all. Of neurons × prompts `--most` are ablated at most; 4 % is the goal.

`--cost`: what exact effects take behind shared starts, as a multiple of what they take where every prompt runs by
itself, of four neurons of every site in four layers: processor time, interleaved, and tokens. MODEL is `organism`,
`smollm2` or what else `benchmarks.screen` knows; without any, these two.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.identification.organisms import FOLDER, made
from benchmarks.models import write_random
from benchmarks.screen import opened
from benchmarks.timing import compare
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.organism.curriculum import Curriculum
from ssn_probe.organism.make import train
from ssn_probe.organism.variants import Variant
from ssn_probe.spec import Final, Local, Prompts, Recipe, SafetyNeurons
from ssn_probe.study.importance import CONTRASTED
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.plan import make_plan
from ssn_probe.study.verification import Read, in_fixed_order, to_verify
from ssn_probe.study.verification_audit import pools_of, taken
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.ablations import Neuron, all_neurons
from ssn_probe.tracing.batching import BatchSize, Memory, by_length
from ssn_probe.tracing.effects import decode, score
from ssn_probe.tracing.exact_effects import TOGETHER, exact_effects, shared_by, tokens_run
from ssn_probe.tracing.kept_values import in_order

PROMPTS = Prompts("organism", languages=("qaa",), limit=24)
EFFECT = Final(probes=64, exact_qk=1.0)
SCREEN = SafetyNeurons(PROMPTS, effect=EFFECT, rule="harmful", top=0.005, verify=0.2)
CASES = {
    "harmful, .5 % per site": SCREEN,
    "paper, 3 % per layer": replace(SCREEN, rule="paper", top=0.03, pool="layer"),
    "paper(), q k v o": replace(SCREEN, rule="paper", top=0.03, pool="layer", sites=("q", "k", "v", "o")),
    "difference, .5 % per site": replace(SCREEN, rule="difference"),
    "both, .5 % per site": replace(SCREEN, rule="both"),
}
TINY = ("tiny:llama", "tiny:qwen3", "tiny:gemma2")
MODELS = ("organism", "organism:planted-qwen3", *TINY)
IN_VIEW = ("organism", "organism:planted-qwen3", "llama-101-ffn16", "gemma2-301")
"""Models that were looked at while the method's numbers were chosen; the others had no part in that."""
WIDTH, LAYERS, WORDS = 48, 3, 200
"""Channels, layers and tokens of a random tiny model."""

Effects = Mapping[str, Mapping[tuple[int, str], np.ndarray]]
"""Context → (layer, site) → effects [prompt, neuron]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sources:
    """Effects of all neurons: `estimates`, `exact` ones by brute force, and `local` ones."""

    estimates: Effects
    exact: Effects
    local: Effects


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Shares of neurons ablated on all prompts and on some; ablations over those of brute force, and the tokens that
    run for them over those of brute force on whole prompts; neurons left in doubt; precision and recall of the sets."""

    verified: float
    tried: float
    ablations: float
    tokens: float
    doubtful: int
    screened: tuple[float, float]
    found: tuple[float, float]
    size: int


def compared(
    node: SafetyNeurons, of: Sources, tokens: Mapping[str, Sequence], subject: Subject | None = None
) -> Compared:
    """A rule's set by estimates, and verified, against the set by exact effects. Without the subject it is not known
    how many tokens would run."""
    places = [place for place in of.exact["harmful"] if place[1] in node.sites]
    every = [row for side in CONTRASTED for row in tokens[side]]

    def reader(effects: Effects) -> Read:
        return lambda side, layer, site: effects[side][layer, site]

    ran: list[float] = []

    def measure(neurons: Sequence[Neuron], rows: Sequence[int]) -> np.ndarray:
        ran.append(math.nan if subject is None else _tokens_run(subject, every, neurons, rows))
        whole = [np.concatenate([of.exact[side][one[:2]][:, one[2]] for side in CONTRASTED]) for one in neurons]
        return np.stack(whole, axis=1)[list(rows)]

    order, local = in_fixed_order(every), reader(of.local)
    found = to_verify(node, places, "qaa", reader(of.estimates), measure, order, local)
    mixed = {side: {place: values.copy() for place, values in of.estimates[side].items()} for side in CONTRASTED}
    first = len(tokens["harmful"])
    for column, (layer, site, index) in enumerate(found.neurons):
        mixed["harmful"][layer, site][:, index] = found.effects[:first, column]
        mixed["harmless"][layer, site][:, index] = found.effects[first:, column]
    wanted = _set(node, places, of.exact)
    return Compared(
        verified=len(found.complete) / found.total,
        tried=(len(found.neurons) - len(found.complete)) / found.total,
        ablations=found.spent,
        tokens=sum(ran) / (found.total * sum(map(len, every))),
        doubtful=found.doubtful,
        screened=_agreement(_set(node, places, of.estimates), wanted),
        found=_agreement(_set(node, places, mixed), wanted),
        size=len(wanted),
    )


def _tokens_run(subject: Subject, every: Sequence, neurons: Sequence[Neuron], rows: Sequence[int]) -> float:
    """How many tokens `exact_effects` runs for some neurons on some of all prompts, final states being read."""
    some = [every[row] for row in rows]
    start, block = shared_by(subject, some, every, neurons, None, BatchSize(64))
    order = by_length(some)
    blocks = [order[first : first + block.size] for first in range(0, len(order), block.size)]
    return len(neurons) * sum(tokens_run([some[row] for row in rows], start, None) for rows in blocks)


def _set(node: SafetyNeurons, places: Sequence, effects: Effects) -> set[tuple[int, str, int]]:
    members = set()
    for layers, sites, index, sides in pools_of(node, places, lambda side, *place: effects[side][place]):
        harmful, harmless = (side.mean(axis=0, dtype=np.float64) for side in sides)
        rows = np.flatnonzero(taken(node, harmful, harmless))
        members |= {(int(layers[row]), str(sites[row]), int(index[row])) for row in rows}
    return members


def _agreement(found: set, wanted: set) -> tuple[float, float]:
    both = len(found & wanted)
    return both / max(1, len(found)), both / max(1, len(wanted))


def measured(subject: Subject, tokens: Mapping[str, Sequence], effect: Final = EFFECT) -> Sources:
    """The estimates and local effects of every neuron, and by brute force the exact effects."""
    neurons = all_neurons(subject, SITES)
    ends = np.cumsum([subject.widths[site] for _ in range(subject.n_layers) for site in SITES])[:-1]
    places: list[tuple[int, Site]] = [(layer, site) for layer in range(subject.n_layers) for site in SITES]

    def scored(of: Final | Local, prompts: Sequence) -> dict[tuple[int, str], np.ndarray]:
        scores = score(of, subject, prompts, batch_size=16)
        return {(layer, site): decode(scores, site)[:, layer].numpy() for layer, site in places}

    def brute(prompts: Sequence) -> dict[tuple[int, str], np.ndarray]:
        effects = exact_effects(subject, prompts, neurons, batch_size=256).numpy()
        return dict(zip(places, np.split(effects, ends, axis=1), strict=True))

    return Sources(
        estimates={side: scored(effect, prompts) for side, prompts in tokens.items()},
        exact={side: brute(prompts) for side, prompts in tokens.items()},
        local={side: scored(Local(), prompts) for side, prompts in tokens.items()},
    )


def prompts_of(subject: Subject, prompts: Prompts = PROMPTS) -> dict[str, Sequence]:
    """Context → tokens of the organism's *identify* prompts in the anchor language."""
    data = make_plan(Recipe(sets={"ms": replace(SCREEN, prompts=prompts)})).data
    bench = Workbench(subject=subject, data=data, anchor="qaa")
    return {side: tokens_of(bench, data[prompts].select("identify", side, "qaa")) for side in CONTRASTED}


def make_gemma2(folder: Path) -> None:
    """A natural organism of Gemma-2's architecture, taught for half as long: two minutes of one core."""
    full = Curriculum()
    short = replace(
        full,
        pretrain=replace(full.pretrain, steps=300, batch=64, warmup=40),
        safety=replace(full.safety, steps=200, batch=64),
    )
    train(301, folder, variant=Variant(architecture="gemma2", curriculum=short))


def random_model(family: str, folder: Path) -> Path:
    """A tiny model whose weights are random, and large enough that every part of it matters."""
    import transformers

    shape: dict[str, Any] = {
        "hidden_size": WIDTH,
        "intermediate_size": 3 * WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": WIDTH // 4,
        "vocab_size": WORDS,
        "tie_word_embeddings": False,
        "max_position_embeddings": 64,
    }
    kinds = {"llama": "LlamaConfig", "qwen3": "Qwen3Config", "gemma2": "Gemma2Config"}
    write_random(folder, kinds[family], shape)
    module = transformers.AutoModelForCausalLM.from_pretrained(folder)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = 0.2 * torch.randn(parameter.shape, generator=random)
            parameter.copy_(drawn if parameter.dim() > 1 else parameter + drawn)
    module.save_pretrained(folder)
    return folder


def random_tokens(prompts: int) -> dict[str, Sequence]:
    """Prompts of random tokens, as many in each context: contexts between which there is no difference."""
    random = np.random.default_rng(1)
    return {side: [random.integers(3, WORDS, 10).tolist() for _ in range(prompts)] for side in CONTRASTED}


def table(models: Iterable[str], prompts: int, effect: Final, most: float) -> Iterator[str]:
    """The rows of the table in Markdown, as they are measured."""
    head = (
        "model",
        "in view",
        "rule",
        "set",
        "verified",
        "on some prompts",
        "ablations",
        "tokens",
        "in doubt",
        "screened P/R",
    )
    yield f"| {' | '.join(head)} | verified P/R |"
    yield "|---" * (len(head) + 1) + "|"
    for model in models:
        with tempfile.TemporaryDirectory() as folder:
            kind, _, family = model.partition(":")
            subject = load_subject(str(random_model(family, Path(folder))) if kind == "tiny" else model)
            tokens = random_tokens(prompts) if kind == "tiny" else prompts_of(subject, replace(PROMPTS, limit=prompts))
            sources = measured(subject, tokens, effect)
        name = model if kind == "tiny" else Path(model).name
        seen = "yes" if name in IN_VIEW else "no"
        for rule, node in CASES.items():
            row = compared(replace(node, verify_most=most), sources, tokens, subject)
            measures = (row.verified, row.tried, row.ablations, row.tokens)
            shares = " | ".join(f"{100 * share:.1f} %" for share in measures)
            rates = " | ".join("{:.3f}/{:.3f}".format(*pair) for pair in (row.screened, row.found))
            yield f"| {name} | {seen} | {rule} | {row.size} | {shares} | {row.doubtful} | {rates} |"


def cost_table(models: Iterable[str], prompts: int, repeats: int = 3, each: int = 4) -> Iterator[str]:
    """The rows of the table of costs in Markdown, as they are measured. `off`: the largest difference between the
    effects of both ways, as a share of the prompt's largest effect."""
    yield "| model | prompts, their tokens | sites | alone, s | processor time | tokens | off |"
    yield "|---|---|---|---|---|---|---|"
    for model in models:
        with opened(model, prompts=prompts, sample=each, layers=4) as task:
            random, lengths = np.random.default_rng(1), sorted(map(len, task.tokens))
            for sites in reversed(TOGETHER):
                some = [task.neurons[row] for row in random.permutation(len(task.neurons))]
                some = [one for site in sites for one in _first(some, site, each)]
                shelves: dict[bool, Memory] = {}

                def run(shared: bool) -> None:
                    shelves[shared] = Memory()  # noqa: B023 (called at once)
                    exact_effects(task.subject, task.tokens, some, shared=shared, shelf=shelves[shared])  # noqa: B023

                [row] = compare("", lambda: run(False), {"": lambda: run(True)}, repeats=repeats, targets={})
                alone, behind = (in_order(shelves[shared].parts(), "exact") for shared in (False, True))
                off = float((np.abs(alone - behind).max(1) / np.abs(alone).max(1)).max())
                seconds = (row.seconds or 0.0) / row.value.median
                yield (
                    f"| {model} | {len(lengths)}, {lengths[0]}–{lengths[-1]} | {', '.join(sites)} | {seconds:.1f} | "
                    f"× {row.value.median:.2f} | × {in_order(shelves[True].parts(), 'ran').mean():.2f} | {off:.0e} |"
                )


def _first(neurons: Sequence[Neuron], site: str, each: int) -> Iterator[Neuron]:
    """So many neurons of a site in every layer, the first ones."""
    found: dict[int, int] = {}
    for neuron in neurons:
        if neuron[1] == site and found.setdefault(neuron[0], 0) < each:
            found[neuron[0]] += 1
            yield neuron


def main() -> None:
    parser = argparse.ArgumentParser(description="Screened and verified sets against brute force.")
    parser.add_argument("models", nargs="*")
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--probes", type=int, default=EFFECT.probes)
    parser.add_argument("--most", type=float, default=SCREEN.verify_most)
    parser.add_argument("--organisms", type=Path, default=FOLDER, metavar="FOLDER")
    parser.add_argument("--make-gemma2", type=Path, metavar="FOLDER")
    parser.add_argument("--cost", action="store_true")
    given = parser.parse_args()
    if given.make_gemma2:
        make_gemma2(given.make_gemma2)
        given.models = [*given.models, str(given.make_gemma2)]
    if given.cost:
        torch.set_num_threads(1)
        lines = cost_table(given.models or ("organism", "smollm2"), given.prompts)
    else:
        models = given.models or [*MODELS, *made(given.organisms).values()]
        lines = table(models, given.prompts, replace(EFFECT, probes=given.probes), given.most)
    for line in lines:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
