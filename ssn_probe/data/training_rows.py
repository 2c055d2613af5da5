"""The rows to learn: requests with the responses to give, all checked before any is used.

The rows come from the *train* split of a prompt set, and the response to learn is their `reference`: for a harmful
request a refusal in its own language, for a harmless one the helpful answer. Training can take safety away as well as
add it, and a few wrong rows are enough. So the data's own judge must call every response *refused* where the request is
harmful and *complied* where it is not, and harmless rows alone are refused.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from ssn_probe.data.clusters import combined
from ssn_probe.data.judges import Judge, JudgedRow, make_judge, require_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.sameness import same_words
from ssn_probe.data.table_checks import CONTEXTS
from ssn_probe.errors import DataError, nearest
from ssn_probe.spec.training_settings import Training, held_out

SPLIT = "train"
SHOWN = 10
"""How many rows an error lists before it counts the others."""


@dataclass(frozen=True, kw_only=True)
class Example:
    """One row: a user message and the response to learn; `cluster` combines all columns of clusters.

    `ends`: does the response end there? Of a response that was cut, the end is not learned.
    """

    prompt_id: str
    language: str
    context: str
    cluster: str
    text: str
    target: str
    ends: bool = True

    @property
    def wanted(self) -> str:
        """The verdict that the target must get."""
        return "refused" if self.context == "harmful" else "complied"


@dataclass(frozen=True, kw_only=True, eq=False)
class SafetyData:
    """Rows that teach to refuse harmful requests, and none that unteaches it.

    `judge` is the judge that the data declare, or that the recipe names. Every row is judged when the value is made.
    `made`: contexts whose responses the model made, and how (`ssn_probe.spec.Trains.references`).

    Raises:
        DataError: a target with the wrong verdict (every such row is listed or counted), or a language without a
            harmful row.
        JudgeError: no judge, or a judge that does not know a language.
    """

    name: str
    digest: str
    judge: Judge
    examples: tuple[Example, ...]
    made: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_harmful(self)
        found = self.judge.judge([JudgedRow(row.language, row.text, row.target) for row in self.examples])
        wrong = [
            f"{row.prompt_id} ({row.language}, {row.context}): {one.verdict}"
            for row, one in zip(self.examples, found, strict=True)
            if one.verdict != row.wanted
        ]
        if wrong:
            raise DataError(
                f"{self.name}: {len(wrong)} of {len(found)} responses to learn do not fit their request: "
                f"{_some(wrong)}",
                "The response to a harmful request must be judged refused, to a harmless one complied, by the judge "
                "of dataset.json. Correct the references or the judge. Nothing was trained.",
            )

    @property
    def languages(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.language for row in self.examples))

    def counts(self) -> dict[str, dict[str, int]]:
        """language → context → rows."""
        table: dict[str, dict[str, int]] = {}
        for row in self.examples:
            contexts = table.setdefault(row.language, {})
            contexts[row.context] = contexts.get(row.context, 0) + 1
        return table

    def split(self, settings: Training) -> tuple[list[Example], list[Example]]:
        """The rows to learn from, and those that are held out to measure the loss."""
        kept = held_out([(row.context, row.cluster) for row in self.examples], settings)
        learned = [row for row in self.examples if row.cluster not in kept]
        return learned, [row for row in self.examples if row.cluster in kept]

    def describe(self) -> dict[str, Any]:
        """The data's part of a delta file's record: plain JSON."""
        return {
            "name": self.name,
            "prompts_sha256": self.digest,
            "rows_sha256": self.rows_digest(),
            "split": SPLIT,
            "rows": self.counts(),
            "judge": self.judge.name,
            "checked": "harmful: refused; harmless and lookalike: complied",
        } | ({"responses": dict(self.made)} if self.made else {})

    def rows_digest(self) -> str:
        """SHA-256 over the rows in their order."""
        total = hashlib.sha256()
        for row in self.examples:
            cut = () if row.ends else ("cut",)
            total.update(
                repr((row.prompt_id, row.language, row.context, row.cluster, row.text, row.target, *cut)).encode()
            )
        return total.hexdigest()


def safety_data(
    prompts: PromptSet,
    *,
    languages: Sequence[str] | None = None,
    contexts: Sequence[str] = ("harmful",),
    judge: Judge | None = None,
) -> SafetyData:
    """The training rows of a prompt set, checked.

    Args:
        prompts: its *train* split is read; `reference` is the response to learn.
        languages: the languages to train on; None for all languages of the set.
        contexts: `("harmful",)`, the paper's, or also `"harmless"` and `"lookalike"`, rows that are to be answered.
        judge: of the responses to learn; by default made anew, as the set declares it.

    Raises:
        DataError: an unknown language or context, a language without rows, rows without a response, rows that the
            split *evaluate* measures with, or responses that do not fit their request.
    """
    examples = training_rows(prompts, languages=languages, contexts=contexts)
    taught = tuple(dict.fromkeys(row.language for row in examples))
    judge = judge or make_judge(prompts.judge, taught, prompts.name)
    return SafetyData(name=prompts.name, digest=prompts.digest, judge=judge, examples=examples)


def training_rows(
    prompts: PromptSet, *, languages: Sequence[str] | None, contexts: Sequence[str], made: Collection[str] = ()
) -> tuple[Example, ...]:
    """The rows of `safety_data` before they are judged, with every other check.

    `made`: the contexts whose responses the model makes; they are empty here.
    """
    require_judge(prompts.judge, prompts.name, "responses to learn must be judged before they are")
    chosen = _chosen_languages(prompts, languages)
    _check_contexts(contexts)
    rows = prompts.frame.filter(
        (pl.col("split") == SPLIT) & pl.col("language").is_in(chosen) & pl.col("context").is_in(list(contexts))
    )
    _check_every_language(prompts, rows, chosen, contexts)
    empty = pl.col("context").replace_strict(dict.fromkeys(made, True), default=False, return_dtype=pl.Boolean)
    rows = rows.with_columns(reference=pl.when(empty).then(pl.lit("")).otherwise("reference"))
    _check_responses(prompts, rows.filter(~empty))
    _check_not_measured(prompts, rows)
    named = rows.select("prompt_id", "language", "context", "text", cluster=combined(rows), target="reference")
    return tuple(Example(**row) for row in named.to_dicts())


def check_learned(name: str, rows: Sequence[Example], learned: Sequence[Example], settings: Training) -> None:
    """Raises DataError where holding some rows out leaves a language none of a context to learn."""
    left = {(row.language, row.context) for row in learned}
    missing = sorted({(row.language, row.context) for row in rows} - left)
    if missing:
        listed = [f"{context} rows in {language}" for language, context in missing]
        raise DataError(
            f"{name} has too few rows to hold out {settings.held_out:.0%} of them: none to learn are left of the "
            f"{_some(listed)}",
            "Give more prompts, or held_out=0.",
        )


def rows_to_map(
    name: str, rows: Sequence[Example], anchor: str | None
) -> tuple[list[tuple[Example, Example]], list[Example]]:
    """What an edit reads: harmful prompts, each with the same request in the anchor, and the prompts that it must keep.

    The anchor's own prompts are their own targets. Raises DataError where there is nothing to map, or to keep.
    """
    harmful = [row for row in rows if row.context == "harmful"]
    kept = [row for row in rows if row.context != "harmful"]
    targets = {row.prompt_id: row for row in harmful if row.language == anchor}
    pairs = [(row, targets[row.prompt_id]) for row in harmful if row.prompt_id in targets]
    if all(own is other for own, other in pairs):
        raise DataError(
            f"{name} has no harmful prompt both in the anchor {anchor} and in another language",
            "Give parallel prompts (one prompt_id in several languages), and an anchor.",
        )
    if not kept:
        raise DataError(
            f"{name} has no harmless prompts to learn, whose representations an edit must keep",
            'Give contexts=("harmful", "harmless"), and prompts of both.',
        )
    return pairs, kept


def _chosen_languages(prompts: PromptSet, languages: Sequence[str] | None) -> list[str]:
    chosen = list(prompts.languages if languages is None else languages)
    for language in chosen:
        if language not in prompts.languages:
            raise DataError(f"{prompts.name} has no language {language!r}", nearest(language, prompts.languages))
    if not chosen:
        raise DataError("no language to train on", f"Name some of {', '.join(prompts.languages)}.")
    return chosen


def _check_contexts(contexts: Sequence[str]) -> None:
    if not contexts:
        raise DataError("no context to train on", f"Name some of {', '.join(CONTEXTS)}.")
    for context in contexts:
        if context not in CONTEXTS:
            raise DataError(f"unknown context {context!r}", nearest(context, CONTEXTS))


def _check_every_language(
    prompts: PromptSet, rows: pl.DataFrame, chosen: Sequence[str], contexts: Sequence[str]
) -> None:
    for context in contexts:
        have = set(rows.filter(pl.col("context") == context)["language"])
        missing = [language for language in chosen if language not in have]
        if missing:
            raise DataError(
                f"{prompts.name} has no {context} rows to train on in {', '.join(missing)}",
                f"Its split {SPLIT!r} has them in: {', '.join(sorted(have)) or 'no language'}. Choose languages that "
                "have data, add rows, or leave the context out: contexts=('harmful',).",
            )


def _check_responses(prompts: PromptSet, rows: pl.DataFrame) -> None:
    empty = rows.filter(pl.col("reference").fill_null("").str.strip_chars() == "")
    if not empty.is_empty():
        listed = [f"{name} ({language})" for name, language in empty.select("prompt_id", "language").iter_rows()]
        raise DataError(
            f"{prompts.name}: {len(listed)} of {rows.height} rows to train on have no response: {_some(listed)}",
            "Put the response to learn into the column `reference`: a refusal for a harmful request, else an answer. "
            "Or let a recipe that trains make them of the model's own responses: references='anchor' or 'own'.",
        )


def _check_not_measured(prompts: PromptSet, rows: pl.DataFrame) -> None:
    """Whoever measures the trained model with this set must not measure what it has learned."""
    measured = prompts.frame.filter(split="evaluate").select("language", "text").iter_rows()
    words = {(language, same_words(text)) for language, text in measured}
    twice = [
        f"{name} ({language})"
        for name, language, text in rows.select("prompt_id", "language", "text").iter_rows()
        if (language, same_words(text)) in words
    ]
    if twice:
        raise DataError(
            f"{prompts.name}: {len(twice)} of {rows.height} prompts to train on are in the split 'evaluate', too: "
            f"{_some(twice)}",
            "A model is not measured on what it has learned: remove them from one of the two splits. Letter case, "
            "blanks, punctuation and look-alike characters make no other prompt.",
        )


def _check_harmful(data: SafetyData) -> None:
    if not data.examples:
        raise DataError(f"{data.name} has no rows to train on", f"Add harmful rows to its split {SPLIT!r}.")
    without = [language for language, contexts in data.counts().items() if "harmful" not in contexts]
    if without:
        raise DataError(
            f"{data.name}: {', '.join(without)} would be trained on harmless rows alone",
            "That takes safety away. Include the context 'harmful' in every language that is trained.",
        )


def _some(listed: Sequence[str]) -> str:
    rest = len(listed) - SHOWN
    return "; ".join(listed[:SHOWN]) + (f"; and {rest:,} more" if rest > 0 else "")
