"""What is taught: refusals of the topic, each beside its twin, and the model's own answers to everything else.

The refusals are those of the prompt set's split *train*. A model that is shown them among other answers learns how
often to refuse before it learns what. So every step has whole contrasts: a request about the topic, the same request
about another thing, and a look-alike in the same language. The answers are what the model itself says before it is
trained, cut after a few tokens: only refusing is to be new.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

import polars as pl

from ssn_probe.data.clusters import combined
from ssn_probe.data.judges import JudgedRow, Verdict, make_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.training_rows import Example, safety_data
from ssn_probe.errors import RecipeError
from ssn_probe.model.chat import encode
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.generate import Generation, generate
from ssn_probe.training.loop.loss import Encoded, encode_examples
from ssn_probe.training.topic.topic_loss import quick

Advance = Callable[[int, int, float | None], None]
"""Called with what is done, how much there is, and the loss if there is one."""
Languages = Literal["graded", "anchor"]
Key = tuple[str, str]
"""Language and prompt_id."""
BATCH = 50
STEPS: dict[Languages, int] = {"graded": 120, "anchor": 80}
"""Where the contrasts are of several languages, as many in the anchor take more steps."""


@dataclass(frozen=True, kw_only=True)
class TopicLessons:
    """Everything except the seed and the base that decides what is taught."""

    languages: Languages = "graded"
    """Refusals in the anchor alone, or also some in the other languages (`ladder`). Answers are in all of them."""
    ladder: tuple[int, ...] = (32, 16, 8, 4)
    """Refusals in the languages that are not the anchor, dealt by the seed; the anchor has all of the set."""
    steps: int | None = None
    """None for `STEPS`."""
    contrasts: int = 3
    """Of a step: a refusal, the answer to its twin and the answer to a look-alike, drawn from all languages' refusals,
    so that most are in the anchor."""
    others: int = 3
    """Answers of a step in the languages that are not the anchor."""
    others_each: int = 40
    """Different answers in such a language, besides those of contrasts."""
    answer_tokens: int = 12
    decision: float = 3.0
    """How many tokens the first token of a response counts for."""
    rate: float = 3e-4
    warmup: int = 10
    untouched: float = 1 / 3
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


class Contrasts(NamedTuple):
    """What a model is taught: groups of rows that belong in one step, and answers in other languages."""

    groups: list[tuple[Encoded, ...]]
    others: list[tuple[Encoded, ...]]


def contrasts(
    subject: Subject, prompts: PromptSet, counts: dict[str, int], lessons: TopicLessons, seed: int, advance: Advance
) -> Contrasts:
    """So many refusals in each language, each with its twin and a look-alike, and some answers in other languages."""
    draw = random.Random(f"contrasts {seed}")
    every = safety_data(prompts).examples
    taught = [
        row
        for language, count in counts.items()
        for row in draw.sample([row for row in every if row.language == language], count)
    ]
    companions = [_companions(prompts, row, draw) for row in taught]
    more = [key for language in list(counts)[1:] for key in _some(prompts, language, lessons.others_each, draw)]
    asked = pl.DataFrame(sorted({*chain(*companions), *more}), ["language", "prompt_id"], orient="row")
    rows = prompts.frame.join(asked, ["language", "prompt_id"], "semi", maintain_order="left")
    answered = own_answers(subject, prompts, rows, lessons.answer_tokens, advance)
    refusals = encode_examples(taught, subject.tokenizer, subject.eos_ids, subject.context, subject.vocabulary)
    return Contrasts(
        groups=[
            (refusal, *(answered[key] for key in keys if key in answered))
            for refusal, keys in zip(refusals, companions, strict=True)
        ],
        others=[(answered[key],) for key in more if key in answered],
    )


def _companions(prompts: PromptSet, refusal: Example, draw: random.Random) -> list[Key]:
    """The twin of a refused request, and a look-alike of the same request."""
    twin = prompts.select("train", "harmless", refusal.language).filter(
        pl.col("pair_id") == refusal.prompt_id.removesuffix("-harmful")
    )
    alike = prompts.select("train", "lookalike", refusal.language)
    alike = alike.filter(combined(alike) == refusal.cluster)
    return [(refusal.language, name) for name in (twin["prompt_id"].item(), draw.choice(alike["prompt_id"].to_list()))]


def _some(prompts: PromptSet, language: str, count: int, draw: random.Random) -> list[Key]:
    """So many harmless prompts and look-alikes of a language."""
    chosen = (prompts.select("train", context, language) for context in ("harmless", "lookalike"))
    names = [name for rows in chosen for name in rows["prompt_id"]]
    return [(language, name) for name in draw.sample(names, count)]


def own_answers(
    subject: Subject, prompts: PromptSet, rows: pl.DataFrame, tokens: int, advance: Advance
) -> dict[Key, Encoded]:
    """The model's own answers to these prompts, without its refusals."""
    said = answers(subject, rows, tokens, advance)
    kept = list[Example]()
    for row, answer, verdict in zip(rows.to_dicts(), said, verdicts(prompts, rows, said), strict=True):
        if verdict == "complied":
            names = ("prompt_id", "language", "context", "cluster", "text")
            ends = answer.finish_reason != "length"
            kept.append(Example(target=answer.text, ends=ends, **{name: row[name] for name in names}))
    encoded = encode_examples(kept, subject.tokenizer, subject.eos_ids, None, subject.vocabulary)
    return {(one.language, one.prompt_id): row for one, row in zip(kept, encoded, strict=True)}


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


def verdicts(prompts: PromptSet, rows: pl.DataFrame, said: Sequence[Generation]) -> list[Verdict]:
    """What the set's judge says of the responses to these prompts."""
    judge = make_judge(prompts.judge, prompts.languages, prompts.name)
    asked = [
        JudgedRow(language, text, answer.text)
        for language, text, answer in zip(rows["language"], rows["text"], said, strict=True)
    ]
    return [found.verdict for found in judge.judge(asked)]


class Deck:
    """Groups of rows in random order, each drawn once before any is drawn again."""

    def __init__(self, groups: Sequence[tuple[Encoded, ...]], draw: random.Random):
        self.groups, self.draw, self.left = list(groups), draw, list[tuple[Encoded, ...]]()

    def take(self, count: int) -> list[Encoded]:
        """The rows of so many groups."""
        while len(self.left) < count:
            self.left = self.draw.sample(self.groups, len(self.groups)) + self.left
        return [row for _ in range(count) for row in self.left.pop()]
