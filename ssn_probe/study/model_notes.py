"""What a reader must know of how a model is asked and how its responses end: notes for run, report and plan."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.training_rows import SPLIT
from ssn_probe.model.coarse_products import PRODUCTS, SUMS
from ssn_probe.model.kept import NOTHING_KEPT, Kept
from ssn_probe.model.spelled_tokens import Read, Reader
from ssn_probe.model.subject import Subject
from ssn_probe.model.think_blocks import is_thought
from ssn_probe.model.turn_ends import Turns
from ssn_probe.spec import Prompts
from ssn_probe.text import listing

TOGETHER = 1_000
"""Texts that are tokenised at a time."""
SHOWN = 3
"""How many control tokens a note names."""


class Tokenized(Protocol):
    """What has a tokenizer, as a subject does."""

    @property
    def tokenizer(self) -> Any: ...


def notes_on_model(subject: Subject) -> Iterator[str]:
    """What can be known before a prompt is run."""
    if "folder" in subject.identity:
        yield (
            f"the weights of {subject.name} are on the host alone, where no digest is taken: results are kept under "
            "the folder and the host, and other weights in the same place would go unnoticed"
        )
    if PRODUCTS in subject.identity:
        yield (
            f"torch is set to round products of float32 to {subject.identity[PRODUCTS]} (see "
            "torch.set_float32_matmul_precision): numbers are coarser, and kept apart from those of whole float32"
        )
    if SUMS in subject.identity:
        yield (
            "torch is set to add up products of float16 in float16 (see torch.backends.cuda.matmul."
            "allow_fp16_accumulation): numbers are coarser, and kept apart from others"
        )
    yield from subject.template_notes
    if not subject.is_plain:  # of the plain form, the notes above say it
        yield from _ends(subject.turns)
    if subject.turns.think is not None:
        opening, closing = subject.turns.think
        yield (
            f"the chat template ends a prompt inside a think block ({opening!r}), though it is asked for none: a "
            f"response without {closing!r} in its max_new_tokens is judged by its thoughts"
        )


def notes_on_texts(model: Tokenized, data: Mapping[Prompts, PromptSet], kept: Kept = NOTHING_KEPT) -> Iterator[str]:
    """Prompts, and responses to learn, that spell control tokens or signs of a turn, or that the template changes."""
    for prompts in dict.fromkeys(data.values()):
        learned = prompts.frame.filter(pl.col("split") == SPLIT, pl.col("reference").is_not_null())
        told = [prompts.name, *(list(prompts.frame[name]) for name in ("language", "text"))]
        told += [list(learned[name]) for name in ("language", "reference")]
        yield from kept.value("notes", told, lambda: list(_notes(model.tokenizer, prompts, learned)))  # noqa: B023


def _notes(tokenizer: Any, prompts: PromptSet, learned: pl.DataFrame) -> Iterator[str]:
    reader = Reader(tokenizer)
    yield from _spelled(prompts, "prompts", prompts.frame, "text", reader.messages)
    yield from _spelled(prompts, "responses to learn", learned, "reference", reader.answers)


def _spelled(
    prompts: PromptSet, what: str, rows: pl.DataFrame, column: str, read: Callable[[Sequence[str]], list[Read]]
) -> Iterator[str]:
    found = [one for part in rows.iter_slices(TOGETHER) for one in read(list(part[column]))]
    languages = list(rows["language"])
    ways = {
        "are control tokens of the model, and reach it as plain text": [one.as_text for one in found],
        "the model reads as control tokens or as the signs of a turn, and not as text": [one.tokens for one in found],
    }
    for way, names in ways.items():
        spelled = Counter(language for language, some in zip(languages, names, strict=True) if some)
        if spelled:
            known = list(dict.fromkeys(name for some in names for name in some))
            some = listing([repr(name) for name in known[:SHOWN]]) + (", …" if len(known) > SHOWN else "")
            yield f"{prompts.name}: {what} spell {some}, which {way}: {_by_language(spelled, languages)}"
    changed = Counter(language for language, one in zip(languages, found, strict=True) if not one.stands)
    if changed:
        yield (
            f"{prompts.name}: the chat template changes the text of {what} (it trims, escapes or leaves out): "
            f"{_by_language(changed, languages)}"
        )


def notes_on_thoughts(subject: Subject, samples: pl.DataFrame | None) -> Iterator[str]:
    """Responses that end inside a think block, by language."""
    if samples is None:
        return
    closing = None if subject.turns.think is None else subject.turns.think[1]
    alike = samples.drop_nulls("response").group_by("eval_language", "response").len()  # many arms say the same
    thought: Counter[str] = Counter()
    for language, text, count in alike.iter_rows():
        thought[language] += count * is_thought(text, closing)
    thought = +thought
    if thought:
        yield (
            "responses end inside a think block, so that their verdicts are on thoughts and not on an answer "
            f"(a larger max_new_tokens may close it): {_by_language(thought, list(samples['eval_language']))}"
        )


def _by_language(some: Mapping[str, int], languages: Sequence[str]) -> str:
    of = Counter(languages)
    return ", ".join(f"{language} {some[language]:,} of {of[language]:,}" for language in sorted(some))


def _ends(turns: Turns) -> Iterator[str]:
    """How a response ends, where that is not by the token that ends a turn of the chat template."""
    ends = f"a response ends with {'; '.join(map(str, turns.ends))} or" if turns.ends else "a response ends only"
    if turns.outside:
        outside = ", ".join(f"{one} ({source})" for one, source in turns.outside)
        yield f"end tokens that are outside the model's vocabulary end no response: {outside}"
    if turns.written is None:
        why = turns.unshown.rstrip(".")
        yield f"what ends an answer in the chat template is not known ({why}): {ends} after max_new_tokens"
    elif turns.template_end is None:
        written = f"{turns.written[:60]!r}" if turns.written else "nothing"
        yield (
            f"the chat template ends an answer by no token of its own, but writes {written} after it: {ends} after "
            "max_new_tokens, and a turn that the model goes on with is judged as part of its answer"
        )
    elif not turns.ends:
        yield "no token ends a response: every response has max_new_tokens tokens"
