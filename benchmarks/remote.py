"""What a host costs: time beside the same work here, bytes and jobs. On loopback, so without a network's share of it.

    python -m benchmarks.remote             # time and bytes of a job, some two minutes
    python -m benchmarks.remote --recipes   # jobs and bytes of every shipped recipe that runs on a host, some ten

The host is the NDIF server of the tests (`make .venv/.servers`), on the same processor, with the organism. All prompts
of a language go in one job. `× here`: the time until its result is there ÷ the mean of the same work here before and
after. What is fixed in a job weighs most where the work itself is small, as the organism's is. Times depend on what
else the machine does; bytes of a job do not, and of a recipe jobs vary by one or two with the order of answers.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import click
from rich.console import Console

from benchmarks.models import Case, opened
from benchmarks.speed.scoring import text_of
from benchmarks.timing import Row, compare
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.remote.tally import Tally
from ssn_probe.spec.discovery import find_recipe, list_recipes
from ssn_probe.spec.node import walk
from ssn_probe.tracing.ablations import Neuron
from ssn_probe.tracing.divergence import read_texts
from ssn_probe.tracing.effects import refusal_log_odds, score_ablation, score_local, score_refusal
from ssn_probe.tracing.generate import generate
from tests.light_ndif import LightNDIF

EFFECTS = {"trusted": "refusal", "sandbox": "ablation:0.01"}
"""What whole recipes take."""
STUDY = {"controls": "2", "label_sets": "2", "log_odds_label_sets": "2", "languages": "qaa,qab"}
LIMIT = 24
"""Prompts per context and language, of whole recipes."""


@click.command()
@click.option("--prompts", type=click.IntRange(1), default=100, show_default=True, help="Of a job.")
@click.option("--repeats", type=click.IntRange(1), default=3, show_default=True, help="Repeats that count.")
@click.option("--recipes", is_flag=True, help="Whole recipes instead: their jobs and bytes.")
def main(prompts: int, repeats: int, recipes: bool) -> None:
    """Prints a table in Markdown."""
    os.environ["OMP_NUM_THREADS"] = "1"  # of the server
    import torch

    torch.set_num_threads(1)
    click.echo(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    with closing(LightNDIF()) as server:
        server.add("organism")
        for access in EFFECTS:
            with server.untrusted() if access == "sandbox" else nullcontext():
                for line in of_recipes(server, access) if recipes else of_jobs(server, access, prompts, repeats):
                    click.echo(line)


def of_jobs(server: LightNDIF, access: str, prompts: int, repeats: int) -> Iterator[str]:
    """Every kind of work, as one job."""
    yield f"\n| {prompts} prompts, {access} | × here | seconds | bytes sent a prompt | received |"
    yield "|---|---|---|---|---|"
    with opened("organism", prompts=prompts) as case:
        there = load_subject("organism", remote=server.host)
        assert there.calls is not None
        here, hosted = work_of(case, case.subject), work_of(case, there)
        for kind, work in hosted.items():
            if kind == "refusal" and access == "sandbox":
                continue  # it needs gradients
            last = LastJob(there.calls.tally, work)
            [row] = compare(access, here[kind], {kind: last}, repeats=repeats, targets={})
            yield line_of(row, last.sent / prompts, last.received / prompts)


@dataclass
class LastJob:
    """Work that is one job, and the bytes that it sent and received the last time that it was done."""

    tally: Tally
    work: Callable[[], object]
    sent: int = 0
    received: int = 0

    def __call__(self) -> None:
        sent, received = self.tally.sent, self.tally.received
        self.work()
        self.sent, self.received = self.tally.sent - sent, self.tally.received - received


def work_of(case: Case, subject: Subject) -> dict[str, Callable[[], object]]:
    """What a study asks of a model; each asks it of all prompts at once, without a cache."""
    tokens, texts, every = case.tokens, [text_of(row) for row in case.tokens], len(case.tokens)
    candidates: list[Neuron] = [(layer, site, 0) for layer in range(subject.n_layers) for site in SITES]
    # a host reads the untouched model again each time, and keeps its states to itself
    before = read_texts(subject, texts, batch_size=every).states if subject.calls is None else None
    return {
        "local": lambda: score_local(subject, tokens, batch_size=every),
        "refusal": lambda: score_refusal(subject, tokens, case.single, batch_size=every),
        f"ablation, {len(candidates)} candidates": lambda: score_ablation(
            subject, tokens, case.single, candidates=candidates, batch_size=every * (len(candidates) + 1)
        ),
        "log-odds, 0.5 % silenced": lambda: refusal_log_odds(
            subject, tokens, case.single, edits=case.edits, batch_size=every
        ),
        f"{case.new_tokens} new tokens, 0.5 % silenced": lambda: generate(
            subject, tokens, edits=case.edits, max_new_tokens=case.new_tokens, batch_size=every
        ),
        "KL and perplexity, 0.5 % silenced": lambda: read_texts(
            subject, texts, before=before, edits=case.edits, batch_size=every
        ),
    }


def line_of(row: Row, sent: float, received: float) -> str:
    assert row.wall is not None
    ratio = f"{row.wall.median:.1f} ({row.wall.low:.1f}–{row.wall.high:.1f})"
    return f"| {row.name} | {ratio} | {row.seconds:.2f} | {sent:,.0f} | {received:,.0f} |"


def of_recipes(server: LightNDIF, access: str) -> Iterator[str]:
    """Every shipped recipe that a host runs, each with a cache of its own, on two languages."""
    effect = EFFECTS[access]
    yield f"\n| {access}, `{effect}` | jobs | calls | sent, kB | received, kB | seconds |"
    yield "|---|---|---|---|---|---|"
    for one in list_recipes():
        taken = {parameter[0] for parameter in one.parameters} | {"languages"}
        recipe = find_recipe(one.name, {k: v for k, v in ({"effect": effect} | STUDY).items() if k in taken})
        if any("training" in node.needs for node in walk(recipe)):
            continue
        recipe = replace(recipe, permutations=0, half_samples=0)  # which are computed here
        with tempfile.TemporaryDirectory() as folder:
            options = Options(out=Path(folder), limit=LIMIT, remote=server.host)
            run = run_recipe(recipe, options, Console(quiet=True))
            made = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))
        remote, calls = made["remote"], sum(kind["calls"] for kind in made["remote"]["kinds"].values())
        seconds = sum(made["seconds"].values())
        bytes_of = [f"{remote[way] / 1000:,.0f}" for way in ("sent", "received")]
        yield f"| {one.name} | {remote['jobs']} | {calls} | {' | '.join(bytes_of)} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
