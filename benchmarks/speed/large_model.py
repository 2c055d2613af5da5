"""A large model on a GPU: the lines of the table at two lengths, peak memory, and the identification of a whole study.

Run by `python -m benchmarks.on_gpu --part speed`, in at most eight minutes on an H100. Batches are as large as the
estimates of `ssn_probe.model.memory` say that the weights and `BUDGET` hold, the same for the plain pass.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl
import torch

from benchmarks.models import Case, of_length
from benchmarks.speed import generation, scoring, training
from benchmarks.speed.lines import Line, measure
from benchmarks.timing import Row
from ssn_probe.model.footprint import CONTEXT
from ssn_probe.model.memory import footprint
from ssn_probe.model.out_of_memory import release_memory
from ssn_probe.model.shape import shape_of
from ssn_probe.neurons.overlap import overlap_table
from ssn_probe.neurons.selection import averaged, select_neurons, shared_with_anchor
from ssn_probe.spec import Local
from ssn_probe.tracing.effects import mean, score_refusal

Found = dict[str, Any]
BUDGET = 6 * 2**30
"""Bytes beside the weights."""
LANGUAGES = tuple(f"l{number}" for number in range(7))


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured: prompts of `short` and of `long` tokens, new tokens, and prompts of a study per context."""

    short: tuple[int, int] = (200, 64)
    long: tuple[int, int] = (32, 1024)
    new_tokens: int = 64
    trained: int = 4
    study: int = 50


TINY = Size(short=(3, 16), long=(2, 32), new_tokens=3, trained=2, study=2)
"""To see that all runs through."""


def ratios(case: Case, size: Size, *, repeats: int) -> Iterator[Found]:
    """Every line with its ratio, what a run takes, tokens a second, and the peak of memory beside the weights."""
    for prompts, length in (size.short, size.long):
        one = replace(of_length(case, prompts=prompts, length=length), new_tokens=size.new_tokens)
        for lines, tokens in _works(one, length == size.long[1], size):
            for line in lines:
                before = _reset()
                rows = measure([line], where=f"{case.name}, {prompts} × {length} tokens", repeats=repeats)
                peak = _peak() - before
                yield from (_found(row, tokens, peak) for row in rows)


def _works(case: Case, is_long: bool, size: Size) -> Iterator[tuple[Sequence[Line], int]]:
    """Lines with how many tokens one run of them has. Long prompts are scored alone, by what is used of each kind."""
    count, length = len(case.tokens), max(map(len, case.tokens))
    lines = scoring.lines(case, batch_size=batch_of(case, length))
    if is_long:
        wanted = ("local, ffn o v", "local, all five, 9 %", "refusal:1", "final, 16 read-outs")
        yield [line for line in lines if line.name.startswith(wanted)], count * length
        return
    yield lines, count * length
    yield generation.lines(case, batch_size=count), count * case.new_tokens
    yield training.lines(replace(case, tokens=case.tokens[: size.trained])), size.trained * length


def batch_of(case: Case, length: int) -> int:
    """How many prompts run together, so that the largest of all works stays within the budget."""
    shape = shape_of(case.subject.model._module, case.subject.family)
    works: dict[Any, int] = {"refusal": 1, "local": 1, "final": 16}
    settings: Any = {"tokens": length, "exact_qk": Local.exact_qk}
    estimates = [footprint(shape, work, probes=probes, **settings) for work, probes in works.items()]
    room = CONTEXT + BUDGET
    return max(1, min(len(case.tokens), *(one.largest_batch(one.weights + room) for one in estimates)))


def identification(case: Case, size: Size) -> Found:
    """A study's MS and SS in seven languages by the default effect: all scores, means, selection, shares, overlaps."""
    subject, began = case.subject, time.monotonic()
    _, length = size.short
    batch, before, frames = batch_of(case, length), _reset(), []
    draw = random.Random(1)
    for language in LANGUAGES:
        tokens = [draw.choices(range(100, subject.vocabulary), k=length) for _ in range(2 * size.study)]
        scores = score_refusal(subject, tokens, case.single, batch_size=batch)
        rows = {"harmful": range(size.study), "harmless": range(size.study, 2 * size.study)}
        for site, width in subject.widths.items():
            means = {context: mean(scores, site, list(which)).flatten().numpy() for context, which in rows.items()}
            frames.append(_frame(language, site, width, subject.n_layers, means))
    scored = time.monotonic()
    frame = pl.concat(frames)
    chosen = select_neurons(frame, rule="difference", top=0.005, pool="site")
    importance = averaged(frame).with_columns(score=pl.col("harmful") - pl.col("harmless"))
    shared_with_anchor(chosen, LANGUAGES[0], importance.drop("language", "harmful", "harmless"))
    widths = {(layer, site): n for layer in range(subject.n_layers) for site, n in subject.widths.items()}
    overlap_table(chosen, widths, "ms")
    return {
        "part": "identification",
        "what": f"{len(LANGUAGES)} languages × 2 × {size.study} prompts of {length} tokens, {len(frame):,} importances",
        "seconds": time.monotonic() - began,
        "of which scoring": scored - began,
        "peak beside the weights": _peak() - before,
        "goal": "180 s",
    }


def _frame(language: str, site: str, width: int, layers: int, means: dict[str, Any]) -> pl.DataFrame:
    """Importances of a site as `ssn_probe.study.importance` makes them."""
    places = pl.DataFrame({"layer": range(layers)}, schema={"layer": pl.Int32}).join(
        pl.DataFrame({"index": range(width)}, schema={"index": pl.Int32}), how="cross"
    )
    named = places.select(pl.lit(language).alias("language"), "layer", pl.lit(site).alias("site"), "index")
    return named.with_columns(**{context: pl.Series(values) for context, values in means.items()})


def _found(row: Row, tokens: int, peak: int) -> Found:
    spread = [float(f"{one:.3g}") for one in (row.value.median, row.value.low, row.value.high)]
    found: Found = {"part": "ratios", "what": row.name, "tool": row.tool, "ratio": spread, "goal": row.target}
    seconds = row.seconds or 0.0
    found |= {"seconds": seconds, "tokens a second": round(tokens / seconds) if seconds else None}
    return found | {"peak of the line beside the weights": peak, "note": row.note, "beside": row.group}


def _reset() -> int:
    """Bytes that are held, from where the peak counts anew; 0 without a GPU."""
    release_memory()
    if not torch.cuda.is_initialized():
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0
