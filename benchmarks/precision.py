"""How far effects in half precision are from those of the same weights in float32, and those from float64.

    python -m benchmarks.precision [--model smollm2] [--dtype bfloat16] [--effect local --effect refusal] [--prompts 8]

Prompts are those that come with ssn-probe, about lighthouses and about other things, in English. `error`: root mean
square, as a share of that of the effects. `D`: mean effect on the ones less that on the others; its `ranks` are
compared by Spearman's rho, the median over layers. `kept`: of the 0.5 % with the largest D of every layer and site,
how many are the same. `band`: how far the others are from the smallest that is taken, at most, in typical errors of D
there: what scoring only the neurons near the threshold again would have to reach. Refusal is read off the first
tokens of a few English openings.
"""

import time
from collections.abc import Iterator, Sequence

import click
import numpy as np

from ssn_probe.model.chat import encode
from ssn_probe.model.openings import Openings
from ssn_probe.model.precision import computing_in
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.spec import Prompts, Recipe, SafetyNeurons
from ssn_probe.spec.effect_registry import named_effect
from ssn_probe.study.plan import make_plan
from ssn_probe.tracing.effects import Scores, decode, score

TOP = 0.005
SORRY, SURE = ("I", "Sorry", "Unfortunately"), ("Sure", "The", "Here", "Yes")


@click.command()
@click.option("--model", default="smollm2", show_default=True)
@click.option("--dtype", "dtypes", multiple=True, default=("bfloat16", "float16"), show_default=True)
@click.option("--effect", "effects", multiple=True, default=("local", "refusal", "refusal:1"), show_default=True)
@click.option("--prompts", default=8, show_default=True, help="Of each kind.")
@click.option("--truth", default="float32", show_default=True, help="What they are compared with.")
def main(model: str, dtypes: tuple[str, ...], effects: tuple[str, ...], prompts: int, truth: str) -> None:
    """Prints a table."""
    click.echo("| dtype | effect | site | error | ranks of D | kept | band | seconds |")
    click.echo("|" + "---|" * 8)
    for dtype in dtypes:
        subject = load_subject(model, dtype=dtype)
        for effect in effects:
            for row in compared(subject, effect, texts(prompts), truth):
                click.echo(f"| {dtype} | {effect} | {' | '.join(row)} |")


def texts(count: int) -> list[str]:
    node = Prompts("lighthouses", languages=("en",))
    data = make_plan(Recipe(sets={"ms": SafetyNeurons(node, effect="local")})).data[node]
    return [text for side in ("harmful", "harmless") for text in data.select("identify", side, "en")["text"][:count]]


def compared(subject: Subject, effect: str, texts: Sequence[str], truth: str) -> Iterator[list[str]]:
    """A row per site."""
    rough, seconds = _scored(subject, effect, texts)
    with computing_in(subject, truth) as wide:
        exact, longer = _scored(wide, effect, texts)
    for site in rough.values:
        found, wanted = (decode(one, site).double().numpy() for one in (rough, exact))
        error = np.sqrt(((found - wanted) ** 2).mean() / (wanted**2).mean())
        one, other, noise = _contrast(found), _contrast(wanted), np.sqrt(((found - wanted) ** 2).mean(0)).mean(1)
        rho = np.median([np.corrcoef(_ranks(a), _ranks(b))[0, 1] for a, b in zip(one, other, strict=True)])
        count = max(1, round(TOP * one.shape[1]))
        mine, theirs = (np.argsort(-each, 1, kind="stable")[:, :count] for each in (one, other))
        changed = [(layer, n) for layer in range(len(mine)) for n in set(mine[layer]) ^ set(theirs[layer])]
        step = noise * np.sqrt(4 / len(texts))
        away = [abs(one[at] - one[at[0]][mine[at[0], -1]]) / step[at[0]] for at in changed]
        kept = f"{mine.size - len(changed) // 2} of {mine.size}"
        band = f"{max(away):.1f}" if away else "–"
        yield [site, f"{error:.1e}", f"{rho:.4f}", kept, band, f"{seconds:.0f} and {longer:.0f}"]


def _ranks(values: np.ndarray) -> np.ndarray:
    return values.argsort(kind="stable").argsort(kind="stable")


def _contrast(effects: np.ndarray) -> np.ndarray:
    half = len(effects) // 2
    return effects[:half].mean(0) - effects[half:].mean(0)


def _scored(subject: Subject, effect: str, texts: Sequence[str]) -> tuple[Scores, float]:
    node, began = named_effect(effect), time.perf_counter()
    reads = openings_of(subject) if node.needs_openings else None
    return score(node, subject, encode(subject, texts), reads=reads, batch_size=4), time.perf_counter() - began


def openings_of(subject: Subject) -> Openings:
    def first(words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        ids = [subject.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in words]
        return tuple((one,) for one in dict.fromkeys(ids))

    return Openings(refusal=first(SORRY), compliant=first(SURE))


if __name__ == "__main__":
    main()
