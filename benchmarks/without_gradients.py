"""What the effects that need no gradients lose: their sets beside those of `refusal`, and the planted ground truth.

    python -m benchmarks.without_gradients [--model organism:planted-ffn …] [--limit 30] [--languages 3]

`MS`: every language's neurons, figures averaged over languages; `SS`: those shared with the first. Precision, recall
and average precision are against the planted neurons that make the model refuse harmful rather than harmless requests.
`kept`: the share of the neurons of `refusal` that the set has, too. Passes are forward passes of a prompt.
"""

import time
from dataclasses import fields

import click
import polars as pl

from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import NeuronSet
from ssn_probe.spec import Ablation, Effect, Local, Prompts, Recipe, Refusal, SafetyNeurons, Shared
from ssn_probe.study.identify_steps import identify_steps
from ssn_probe.study.plan import make_plan
from ssn_probe.study.planted_truth import truth_table
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

MODELS = ("organism:planted-ffn", "organism:planted-attention", "organism:planted-qwen3", "organism")
EFFECTS: tuple[Effect, ...] = (Refusal(), Refusal(at=1), Local(), Local("last"), Ablation(0.05), Ablation(0.1))


@click.command()
@click.option("--model", "models", multiple=True, default=MODELS, show_default=True)
@click.option("--limit", type=click.IntRange(20), default=30, show_default=True, help="Prompts per context.")
@click.option("--languages", type=click.IntRange(2), default=3, show_default=True, help="So many of the organism's.")
def main(models: tuple[str, ...], limit: int, languages: int) -> None:
    """Prints a table per model."""
    every = make_plan(Recipe(sets={"ms": SafetyNeurons(Prompts("organism"))})).data[Prompts("organism")].languages
    prompts = Prompts("organism", languages=every[:languages], limit=limit)
    click.echo("| model | effect | set | neurons | kept | precision | recall | average precision | passes | seconds |")
    click.echo("|" + "---|" * 10)
    for model in models:
        subject, wanted = load_subject(model), {}
        for effect in EFFECTS:
            for row in figures(subject, prompts, effect, wanted):
                click.echo(f"| {model.removeprefix('organism:')} | {' | '.join(row)} |")


def figures(subject: Subject, prompts: Prompts, effect: Effect, wanted: dict[str, NeuronSet]) -> list[list[str]]:
    """The rows of an effect; `wanted` holds the sets of the first that was measured."""
    ms = SafetyNeurons(prompts, effect=effect)
    nodes = {"MS": ms, "SS": Shared(ms)}
    recipe = Recipe(model=subject.name, sets=nodes)
    plan = make_plan(recipe)
    bench = Workbench(subject=subject, data=plan.data, anchor=plan.anchor)
    steps = [step for step in identify_steps(bench, recipe)]
    scoring = [step for step in steps if step.cost.work == "effect"]
    for step in steps:
        if step not in scoring:
            step.run()
    began = time.perf_counter()
    for step in scoring:
        step.run()
    seconds = time.perf_counter() - began
    sets = {name: evaluate(bench, node) for name, node in nodes.items()}
    truth = truth_table(bench, subject.name, nodes, sets)
    passes = sum({step.label: step.cost.passes for step in scoring}.values())
    rows = []
    for name, found in sets.items():
        first = wanted.setdefault(name, found).frame.drop("score")
        kept = first.join(found.frame, on=first.columns, how="semi").height / first.height
        ratios = ["–"] * 3 if truth is None else compared(truth, name)
        size = found.frame.height / len(found.languages)
        changed = [str(getattr(effect, one.name)) for one in fields(effect) if getattr(effect, one.name) != one.default]
        label = ":".join([effect.name, *changed])
        rows.append([label, name, f"{size:.0f}", f"{kept:.2f}", *ratios, f"{passes:.0f}", f"{seconds:.0f}"])
    return rows


def compared(truth: pl.DataFrame, name: str) -> list[str]:
    """Precision, recall and average precision of a set, averaged over its languages."""
    rows = truth.filter(set=name, question="difference").select("precision", "recall", "average_precision")
    return [f"{value:.2f}" for value in rows.mean().row(0)]


if __name__ == "__main__":
    main()
