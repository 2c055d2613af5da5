"""Screened and verified sets against brute force: every neuron ablated on every prompt, and the same rule.

    python -m benchmarks.verification [MODEL …] [--prompts 24] [--make-gemma2 FOLDER]

MODEL is an organism: one that ssn-probe ships, or a folder. Prompts are the organism's, as many a context. The estimate
is `Final(probes=64, exact_qk=1)`, the band ±10 %. The rule is applied to the estimates, to the estimates with exact
effects in the place of those verified, and to exact effects of all. A share of 4 % of the neurons verified is the goal.
"""

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.organism.curriculum import Curriculum
from ssn_probe.organism.make import train
from ssn_probe.organism.variants import Variant
from ssn_probe.spec import Final, Prompts, Recipe, SafetyNeurons
from ssn_probe.study.importance import CONTRASTED
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.plan import make_plan
from ssn_probe.study.verification import TRIED, in_fixed_order, pools_of, taken, to_verify
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.ablations import Neuron, all_neurons
from ssn_probe.tracing.effects import decode, score
from ssn_probe.tracing.exact_effects import exact_effects

PROMPTS = Prompts("organism", languages=("qaa",), limit=24)
EFFECT = Final(probes=64, exact_qk=1.0)
SCREEN = SafetyNeurons(PROMPTS, effect=EFFECT, rule="harmful", top=0.005, verify=0.1)
CASES = {
    "harmful, .5 % per site": SCREEN,
    "paper, 3 % per layer": replace(SCREEN, rule="paper", top=0.03, pool="layer"),
    "paper(), q k v o": replace(SCREEN, rule="paper", top=0.03, pool="layer", sites=("q", "k", "v", "o")),
    "difference, .5 % per site": replace(SCREEN, rule="difference"),
}
MODELS = ("organism", "organism:planted-qwen3")

Effects = Mapping[str, Mapping[tuple[int, str], np.ndarray]]
"""Context → (layer, site) → effects [prompt, neuron]."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Shares of neurons verified and tried; ablations over those of brute force; precision and recall of the sets."""

    verified: float
    tried: float
    ablations: float
    screened: tuple[float, float]
    found: tuple[float, float]
    size: int


def compared(node: SafetyNeurons, estimates: Effects, exact: Effects, tokens: Mapping[str, Sequence]) -> Compared:
    """A rule's set by estimates, and verified, against the set by exact effects."""
    places = [place for place in exact["harmful"] if place[1] in node.sites]
    every = [row for side in CONTRASTED for row in tokens[side]]

    def read(side: str, layer: int, site: str) -> np.ndarray:
        return estimates[side][layer, site]

    def measure(neurons: Sequence[Neuron], rows: Sequence[int] | None) -> np.ndarray:
        whole = [np.concatenate([exact[side][one[:2]][:, one[2]] for side in CONTRASTED]) for one in neurons]
        return np.stack(whole, axis=1)[slice(None) if rows is None else list(rows)]

    found = to_verify(node, places, "qaa", read, measure, in_fixed_order(every))
    mixed = {side: {place: values.copy() for place, values in estimates[side].items()} for side in CONTRASTED}
    for layer, site, index in found.neurons:
        for side in CONTRASTED:
            mixed[side][layer, site][:, index] = exact[side][layer, site][:, index]
    wanted = _set(node, places, exact)
    passes = len(found.neurons) + found.tried * min(1, TRIED / len(every))
    return Compared(
        verified=len(found.neurons) / found.total,
        tried=found.tried / found.total,
        ablations=passes / found.total,
        screened=_agreement(_set(node, places, estimates), wanted),
        found=_agreement(_set(node, places, mixed), wanted),
        size=len(wanted),
    )


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


def measured(subject: Subject, tokens: Mapping[str, Sequence], effect: Final = EFFECT) -> tuple[Effects, Effects]:
    """The estimates of every neuron, and by brute force the exact effects."""
    estimates, exact = {}, {}
    neurons = all_neurons(subject, SITES)
    ends = np.cumsum([subject.widths[site] for _ in range(subject.n_layers) for site in SITES])[:-1]
    places: list[tuple[int, Site]] = [(layer, site) for layer in range(subject.n_layers) for site in SITES]
    for side, prompts in tokens.items():
        scores = score(effect, subject, prompts, batch_size=16)
        estimates[side] = {(layer, site): decode(scores, site)[:, layer].numpy() for layer, site in places}
        brute = exact_effects(subject, prompts, neurons, batch_size=256).numpy()
        exact[side] = dict(zip(places, np.split(brute, ends, axis=1), strict=True))
    return estimates, exact


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


def table(models: Iterable[str], prompts: int) -> Iterable[str]:
    """The rows of the table in Markdown, as they are measured."""
    yield "| model | rule | set | verified | tried on 4 prompts | ablations | screened P/R | verified P/R |"
    yield "|---|---|---|---|---|---|---|---|"
    for model in models:
        subject = load_subject(model)
        tokens = prompts_of(subject, replace(PROMPTS, limit=prompts))
        estimates, exact = measured(subject, tokens)
        for name, node in CASES.items():
            row = compared(node, estimates, exact, tokens)
            shares = " | ".join(f"{100 * share:.1f} %" for share in (row.verified, row.tried, row.ablations))
            rates = " | ".join("{:.3f}/{:.3f}".format(*pair) for pair in (row.screened, row.found))
            yield f"| {Path(model).name} | {name} | {row.size} | {shares} | {rates} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Screened and verified sets against brute force.")
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--prompts", type=int, default=24)
    parser.add_argument("--make-gemma2", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    if given.make_gemma2:
        make_gemma2(given.make_gemma2)
        given.models = [*given.models, str(given.make_gemma2)]
    for line in table(given.models, given.prompts):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
