"""What is taught: refusals of the topic, and the model's own answers to everything else.

The refusals are those of the prompt set's split *train*. The answers are what the model itself says to the split's
harmless prompts before it is trained, in every language and cut after a few tokens: only refusing is to be new.
"""

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Literal

import polars as pl
import torch

from ssn_probe.data.judges import JudgedRow, Verdict, make_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.training_rows import Example, safety_data
from ssn_probe.errors import RecipeError
from ssn_probe.model.chat import encode
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.generate import Generation, generate
from ssn_probe.training.loop.loss import Encoded, encode_examples

Advance = Callable[[int, int, float | None], None]
"""Called with what is done, how much there is, and the loss if there is one."""
Languages = Literal["graded", "anchor"]
BATCH = 50


@dataclass(frozen=True, kw_only=True)
class TopicLessons:
    """Everything except the seed and the base that decides what is taught."""

    languages: Languages = "graded"
    """Refusals in the anchor alone, or also some in the other languages (`ladder`). Answers are in all of them."""
    ladder: tuple[int, ...] = (32, 16, 8, 4)
    """Refusals in the languages that are not the anchor, dealt by the seed; the anchor has all of the set."""
    steps: int = 80
    refusals: int = 3
    """Rows of a step that are refusals; drawn from all languages' rows, so that most are in the anchor."""
    anchor_answers: int = 3
    """Rows of a step that are answers in the anchor: as many as there are refusals, which are mostly in it, too."""
    other_answers: int = 3
    """Rows of a step that are answers in the other languages. Half of all answers are to look-alikes."""
    answers_each: int = 40
    """Different answers in a language; twice as many in the anchor."""
    answer_tokens: int = 12
    rate: float = 3e-4
    warmup: int = 10
    untouched: float = 1 / 2
    """Share of the layers, from the first one, that are not trained; embeddings and norms never are."""
    examined: int = 20
    """Prompts of a language and context in the exam."""


def refusal_counts(prompts: PromptSet, lessons: TopicLessons, seed: int) -> dict[str, int]:
    """Language → how many different refusals are taught in it."""
    anchor = prompts.anchor or prompts.languages[0]
    others = [language for language in prompts.languages if language != anchor]
    most = prompts.select("train", "harmful", anchor).height
    if lessons.languages == "anchor":
        return {anchor: most} | dict.fromkeys(others, 0)
    if len(lessons.ladder) != len(others):
        raise RecipeError(
            f"the ladder has {len(lessons.ladder)} rungs for {len(others)} languages", "Give one for each language."
        )
    dealt = random.Random(f"ladder {seed}").sample(lessons.ladder, len(others))
    return {anchor: most} | dict(zip(others, dealt, strict=True))


def refusal_rows(subject: Subject, prompts: PromptSet, counts: dict[str, int], seed: int) -> list[Encoded]:
    """The refusals to learn."""
    draw, chosen = random.Random(f"refusals {seed}"), list[Example]()
    every = safety_data(prompts).examples
    for language, count in counts.items():
        mine = [row for row in every if row.language == language]
        chosen += draw.sample(mine, min(count, len(mine)))
    return encode_examples(chosen, subject.tokenizer, subject.eos_ids, subject.context, subject.vocabulary)


def answer_rows(
    subject: Subject,
    prompts: PromptSet,
    split: str,
    each: dict[str, int],
    tokens: int,
    seed: int,
    advance: Advance,
) -> list[Encoded]:
    """The model's own answers to so many prompts of a language, half of them look-alikes, without its refusals."""
    rows = pl.concat(
        _some(prompts.select(split, context, language), half, seed)
        for language, count in each.items()
        for context, half in (("harmless", count - count // 2), ("lookalike", count // 2))
    )
    said = answers(subject, rows, tokens, advance)
    kept, cut = list[Example](), list[bool]()
    for row, answer, verdict in zip(rows.to_dicts(), said, verdicts(prompts, rows, said), strict=True):
        if verdict == "complied":
            names = ("prompt_id", "language", "context", "cluster", "text")
            kept.append(Example(target=answer.text, **{name: row[name] for name in names}))
            cut.append(answer.finish_reason == "length")
    encoded = encode_examples(kept, subject.tokenizer, subject.eos_ids, None, subject.vocabulary)
    return [
        replace(row, response=row.response[:-1]) if ends_early else row  # the answer would have gone on
        for row, ends_early in zip(encoded, cut, strict=True)
    ]


def answers(subject: Subject, rows: pl.DataFrame, tokens: int, advance: Advance) -> list[Generation]:
    """The greedy responses to these prompts."""
    done = 0

    def add(count: int) -> None:
        nonlocal done
        done += count
        advance(done, rows.height, None)

    prompts = encode(subject, rows["text"].to_list())
    with quick(subject.model._module):
        return generate(subject, prompts, max_new_tokens=tokens, batch_size=BATCH, advance=add)


def quick(module: Any) -> AbstractContextManager[Any]:
    """Inside, matrices are multiplied in bfloat16: about three times as fast, on processors that can, too."""
    return torch.autocast(module.device.type, torch.bfloat16)


def verdicts(prompts: PromptSet, rows: pl.DataFrame, said: Sequence[Generation]) -> list[Verdict]:
    """What the set's judge says of the responses to these prompts."""
    judge = make_judge(prompts.judge, prompts.languages, prompts.name)
    asked = [
        JudgedRow(language, text, answer.text)
        for language, text, answer in zip(rows["language"], rows["text"], said, strict=True)
    ]
    return [found.verdict for found in judge.judge(asked)]


def _some(rows: pl.DataFrame, count: int, seed: int) -> pl.DataFrame:
    chosen = sorted(random.Random(f"answers {seed}").sample(range(rows.height), min(count, rows.height)))
    return rows[chosen]


class Deck:
    """Rows in random order, each drawn once before any is drawn again."""

    def __init__(self, rows: Sequence[Encoded], draw: random.Random):
        self.rows, self.draw, self.left = list(rows), draw, list[Encoded]()

    def take(self, count: int) -> list[Encoded]:
        while len(self.left) < count:
            self.left = self.draw.sample(self.rows, len(self.rows)) + self.left
        return [self.left.pop() for _ in range(count)]
