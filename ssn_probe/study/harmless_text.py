"""KL and perplexity on harmless text: each harmless evaluate prompt with the untouched model's own greedy answer.

Measured of every arm, whatever else a recipe measures: exact answers are at their ceiling, or there are none to compare
with, long before a reader would say that an arm left the model alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from ssn_probe.data.clusters import cluster_columns
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.model.asking import own_tokens
from ssn_probe.model.chat import encode
from ssn_probe.model.subject import Subject
from ssn_probe.model.turn_ends import up_to_end
from ssn_probe.spec.node import digest
from ssn_probe.study.measurements import Change, measured_once, tokens_of, untouched_tokens
from ssn_probe.study.progress import Advance
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.batching import Part, all_done, gather_array, no_progress
from ssn_probe.tracing.texts import Text

if TYPE_CHECKING:
    from ssn_probe.tracing.divergence import Reading

PROBES = ("0", "x")
"""Two messages that differ: what their tokens have in common is the template's."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Figures:
    """What `divergence.Reading` says of every text, in double precision: `kl`, `kl_first` and `nll`, each [text]."""

    kl: np.ndarray
    kl_first: np.ndarray
    nll: np.ndarray


def _figures(parts: Sequence[Part], count: int) -> Figures:
    """The figures of all texts, of a shelf that has every one of them; in single precision, as a reading has them."""
    found = {name: gather_array(parts, name, np.zeros(count, np.float32)) for name in ("kl", "kl_first", "nll")}
    return Figures(**{name: values.astype(np.float64) for name, values in found.items()})


def texts_of(bench: Workbench, prompts: PromptSet, rows: pl.DataFrame, advance: Advance = no_progress) -> list[Text]:
    """Some prompts with the greedy answers of the bench's model, which must be the untouched one."""

    def compute() -> list[Text]:
        tokens = tokens_of(bench, rows)
        new = untouched_tokens(bench, prompts, rows, advance)
        frames = bench.remember_prompts(("probes",), lambda: encode(bench.subject, PROBES))
        return [
            Text(prompt=tuple(prompt), answer=answer_tokens(answer, bench.subject), own=own_words(prompt, frames))
            for prompt, answer in zip(tokens, new, strict=True)
        ]

    key = ("texts", prompts.digest, prompts.max_new_tokens, tuple(rows["prompt_id"]), tuple(rows["text"]))
    return bench.remember(key, compute)


def answer_tokens(generated: Sequence[int], subject: Subject) -> tuple[int, ...]:
    """A response with its end token, where it has one."""
    answer, ended = up_to_end(generated, subject.eos_ids)
    own = own_tokens(answer, subject.tokenizer) if subject.is_plain else answer
    return tuple(generated[: len(own) + (ended and len(own) == len(answer))])


def own_words(prompt: Sequence[int], frames: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Where in a rendered prompt the tokens are that no other message in the same template has."""
    before = min(_in_common(prompt, frame) for frame in frames)
    after = min(_in_common(prompt[::-1], frame[::-1]) for frame in frames)
    return before, max(before, len(prompt) - after)


def _in_common(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def untouched(bench: Workbench, texts: Sequence[Text], advance: Advance = no_progress) -> Figures:
    """The figures of texts of the untouched model: no KL, and the perplexity of prompts."""
    inputs = bench.inputs("untouched text", texts=_identity(bench, texts))

    def compute() -> Figures:
        if bench.is_kept(inputs, len(texts)):
            with bench.shelf(inputs, len(texts)) as shelf:
                advance(len(texts))
                return _figures(shelf.parts(), len(texts))
        found = _untouched_reading(bench, texts, advance)
        kl, first, nll = (values.double().numpy() for values in (found.kl, found.kl_first, found.nll))
        return Figures(kl=kl, kl_first=first, nll=nll)

    return bench.remember(("untouched figures", digest(inputs)), compute)


def _untouched_reading(bench: Workbench, texts: Sequence[Text], advance: Advance = no_progress) -> "Reading":
    """The untouched model's reading of texts, with the states that others are compared with."""
    inputs = bench.inputs("untouched text", texts=_identity(bench, texts))

    def compute() -> "Reading":
        from ssn_probe.tracing.divergence import read_texts

        with bench.shelf(inputs, len(texts)) as shelf:
            size = bench.size("harmless text")
            return read_texts(bench.subject, texts, batch_size=size, shelf=shelf, advance=advance)

    return bench.remember(("untouched text", digest(inputs)), compute)


def reading_inputs(bench: Workbench, texts: Sequence[Text], change: Change) -> dict[str, Any]:
    """What decides the reading of texts under a change, or with the bench's weights."""
    if _changes_nothing(bench, change):
        return bench.inputs("untouched text", texts=_identity(bench, texts))
    return bench.inputs("changed text", texts=_identity(bench, texts), **change.inputs)


def reading(
    untouched_bench: Workbench, bench: Workbench, texts: Sequence[Text], change: Change, advance: Advance
) -> Figures:
    """How texts read under a change, or with the bench's weights, against the untouched model."""
    if _changes_nothing(bench, change):
        found = untouched(untouched_bench, texts)
        advance(len(texts))
        return found
    inputs = reading_inputs(bench, texts, change)
    key = ("changed text", digest(inputs))

    def compute() -> Figures:
        # before the bench's weights are put in
        before = None if bench.is_kept(inputs, len(texts)) else _untouched_reading(untouched_bench, texts).states
        with bench.shelf(inputs, len(texts)) as shelf:
            if not all_done(shelf, len(texts), advance):
                from ssn_probe.tracing.divergence import read_texts

                read_texts(
                    bench.subject,
                    texts,
                    before=before,
                    edits=change.edits,
                    carried=change.values(shelf, len(texts)),
                    batch_size=bench.size("harmless text"),
                    shelf=shelf,
                    advance=advance,
                )
            return _figures(shelf.parts(), len(texts))

    return measured_once(bench, key, compute, len(texts), advance)  # a random set may be one that has been read


def _changes_nothing(bench: Workbench, change: Change) -> bool:
    return bench.weights is None and not change.edits


def _identity(bench: Workbench, texts: Sequence[Text]) -> str:
    """The digest of texts, which every arm asks for again."""

    def compute() -> str:
        return digest([[list(text.prompt), list(text.answer), list(text.own)] for text in texts])

    return bench.remember_prompts(("identity of texts", tuple(texts)), compute)


def table(rows: pl.DataFrame, texts: Sequence[Text], found: Figures, vocabulary: int) -> pl.DataFrame:
    """One row per text: `kl`, `kl_first` and `log_perplexity` in nats (null without a predicted token), and tokens."""
    figures = {
        "kl": found.kl,
        "kl_first": found.kl_first,
        "log_perplexity": pl.Series(found.nll).fill_nan(None),
        "answer_tokens": [len(text.answer) for text in texts],
        "prompt_tokens": [len(text.predicted) for text in texts],
    }
    columns = [pl.Series(name, values) for name, values in figures.items()]
    named = rows[["prompt_id", *cluster_columns(rows)]]
    return named.hstack([*columns, pl.Series("vocabulary", [vocabulary], pl.Int32).new_from_index(0, rows.height)])
