"""Effects against the planted ground truth of organisms: how well do they rank the neurons that carry refusal?

    python -m benchmarks.against_truth [organism:planted-ffn FOLDER …] [--effect refusal:1 --effect refusal …]

Average precision among all neurons of the planted places, over disjoint folds of the *identify* prompts: of each
language's own ranking (mean over languages), and of the ranking by the mean over languages. D, refusing harmful rather
than harmless requests, is ranked by h − b; H, refusing harmful ones, by h and by 2h − b, where h and b are the mean
effects on harmful and on harmless prompts. Intervals are 95 %, by Student's t: over the folds of an organism, and over
organisms. *against* is the difference from the first effect, paired.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import polars as pl
from scipy import stats

from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.model.chat import encode
from ssn_probe.model.loading import locate
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.organism.ground_truth import CARRIER, Truth, average_precision, load_truth
from ssn_probe.spec import Effect, Prompts
from ssn_probe.spec.effect_registry import named_effect
from ssn_probe.tracing.batching import BatchSize
from ssn_probe.tracing.effect_store import mean
from ssn_probe.tracing.effects import score

MODELS = ("organism:planted-ffn", "organism:planted-attention", "organism:planted-qwen3")
EFFECTS = ("refusal:1", "refusal", "local")
CONTEXTS = ("harmful", "harmless")
RANKED = {"D by h − b": ("difference", 1, 1), "H by h": ("harmful", 1, 0), "H by 2h − b": ("harmful", 2, 1)}
"""Column → question, and the weights of the harmful and, subtracted, of the harmless mean."""
COLUMNS = [f"{name}, {ranking}" for name in RANKED for ranking in ("own", "average")]
Means = dict[str, np.ndarray]


@click.command()
@click.argument("models", nargs=-1)
@click.option("--effect", "effects", multiple=True, default=EFFECTS, show_default=True, help="As in -T effect=….")
@click.option("--folds", type=click.IntRange(2), default=4, show_default=True)
@click.option("--prompts", type=click.IntRange(5), default=50, show_default=True, help="Per context and fold.")
@click.option("--data", default="organism", show_default=True)
@click.option("--csv", type=click.Path(path_type=Path), help="Also write a row per organism, effect and fold.")
def main(
    models: tuple[str, ...], effects: tuple[str, ...], folds: int, prompts: int, data: str, csv: Path | None
) -> None:
    """Prints the table of every organism, and that of all together."""
    rows = []
    for model in models or MODELS:
        rows += list(_rows(model, effects, folds, prompts, data))
        found = pl.DataFrame(rows)
        click.echo(f"\n{model}\n")
        click.echo(table(found.filter(model=model), effects, ["fold"]))
    found = pl.DataFrame(rows)
    if csv is not None:
        found.write_csv(csv)
    if len(models or MODELS) > 1:
        click.echo(f"\n{len(models or MODELS)} organisms\n")
        click.echo(table(found.group_by("model", "effect", maintain_order=True).mean(), effects, ["model"]))


def _rows(model: str, effects: tuple[str, ...], folds: int, prompts: int, data: str) -> Iterator[dict]:
    """A row per effect and fold."""
    subject, truth = load_subject(model), load_truth(locate(model))
    if truth is None or subject.openings is None:
        raise click.UsageError(f"{model} has no ground truth.")
    found = load_prompts(Prompts(data))
    for fold in range(folds):
        texts = {
            (language, context): found.select("identify", context, language)
            .sort("prompt_id")["text"]
            .to_list()[fold * prompts : (fold + 1) * prompts]
            for language in found.languages
            for context in CONTEXTS
        }
        if min(map(len, texts.values())) < prompts:
            raise click.UsageError(f"{data} has fewer than {folds} × {prompts} identify prompts.")
        for effect in effects:
            means = {
                language: _means(subject, named_effect(effect), language, [texts[language, one] for one in CONTEXTS])
                for language in found.languages
            }
            yield {"model": model, "effect": effect, "fold": fold} | _precisions(truth, means)


def _means(subject: Subject, effect: Effect, language: str, texts: list[list[str]]) -> list[Means]:
    """Mean effects on harmful, then on harmless prompts; candidates are chosen on both."""
    tokens = [encode(subject, side) for side in texts]
    assert subject.openings is not None
    reads = subject.openings[language] if effect.needs_openings else None
    sites = tuple(subject.widths)
    size = BatchSize(200, auto=True)
    scores = score(effect, subject, [*tokens[0], *tokens[1]], reads=reads, sites=sites, batch_size=size)
    count = len(tokens[0])
    halves = (range(count), range(count, len(scores)))
    return [{site: mean(scores, site, list(rows)).numpy() for site in sites} for rows in halves]


def _precisions(truth: Truth, means: dict[str, list[Means]]) -> dict[str, float]:
    places = truth.neurons.select("layer", "site").unique().sort("layer", "site").rows()
    found = {}
    for name, (question, plus, minus) in RANKED.items():
        carriers = set(truth.members(question, CARRIER).select("layer", "site", "index").iter_rows())
        relevant = [(*place, index) in carriers for place in places for index in range(truth.widths[place[1]])]
        scores = [
            np.concatenate([plus * harmful[site][layer] - minus * harmless[site][layer] for layer, site in places])
            for harmful, harmless in means.values()
        ]
        own = [average_precision(one.tolist(), relevant) for one in scores]
        found[f"{name}, own"] = float(np.mean(own))  # type: ignore[arg-type]
        found[f"{name}, average"] = average_precision(np.mean(scores, 0).tolist(), relevant)
    return found


def table(rows: pl.DataFrame, effects: tuple[str, ...], unit: list[str]) -> str:
    """A markdown table: every effect, and every one but the first against that; means with intervals over units."""
    lines = [f"| effect | {' | '.join(COLUMNS)} |", "|" + "---|" * (len(COLUMNS) + 1)]
    first = rows.filter(effect=effects[0]).sort(unit)
    for effect in effects:
        here = rows.filter(effect=effect).sort(unit)
        lines.append(f"| `{effect}` | {' | '.join(interval(here[one]) for one in COLUMNS)} |")
        if effect != effects[0]:
            gaps = [interval(here[one] - first[one], sign="+") for one in COLUMNS]
            lines.append(f"| … against `{effects[0]}` | {' | '.join(gaps)} |")
    return "\n".join(lines)


def interval(values: pl.Series, sign: str = "") -> str:
    """The mean, and its 95 % interval by Student's t."""
    numbers = values.to_numpy()
    half = stats.t.ppf(0.975, len(numbers) - 1) * stats.sem(numbers)
    return f"{numbers.mean():{sign}.2f} [{numbers.mean() - half:{sign}.2f}, {numbers.mean() + half:{sign}.2f}]"


if __name__ == "__main__":
    main()
