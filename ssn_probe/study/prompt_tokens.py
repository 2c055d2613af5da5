"""The prompts of a study as the model gets them: are all their tokens known to it, and do they fit into its context?

Long scripts and languages that a tokenizer cuts into many pieces reach a limit first, so it is counted by language.
"""

from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.training_rows import training_rows
from ssn_probe.errors import DataError, ModelError
from ssn_probe.model.context_length import Limit
from ssn_probe.model.loading import is_embedded
from ssn_probe.model.plain_text import encode_messages
from ssn_probe.model.subject import Subject
from ssn_probe.model.token_ids import OUTSIDE_HINT, all_inside, first_outside, outside_reason, token_text
from ssn_probe.model.trial import try_chats
from ssn_probe.spec import Measure, Prompts, Recipe, Trains
from ssn_probe.spec.node import walk
from ssn_probe.study.learned_responses import asked_for, made_contexts
from ssn_probe.study.resolve import harmless_text, measured, reads_language, reads_log_odds, study_anchor
from ssn_probe.text import counted

TOGETHER = 1_000
"""Prompts that are tokenised at a time."""
IDENTIFY = ("harmful", "harmless")
LENGTHS = {"language": pl.String, "new": pl.Int64, "tokens": pl.Int64}


def prompt_lengths(recipe: Recipe, data: Mapping[Prompts, PromptSet], subject: Subject) -> pl.DataFrame:
    """The prompts that a recipe shows to the model: `language`, `tokens` of each, `new` tokens that may follow.

    Raises:
        DataError: a prompt with a token that the model has no embedding for, or a row to train on that is too long.
        ModelError: the chat template writes such a token.
    """
    if not is_embedded(subject.path):
        for prompts in dict.fromkeys(data.values()):
            _try(subject, list(prompts.frame["text"]), list(prompts.frame["reference"].drop_nulls()))
    frames = []
    for prompts, rows in _rows_read(recipe, data):
        tokens = [length for part in rows.iter_slices(TOGETHER) for length in _lengths(prompts, part, subject)]
        frames.append(rows.select("language", "new").with_columns(tokens=pl.Series(tokens, dtype=pl.Int64)))
    _check_training_rows(recipe, data, subject)
    return pl.concat(frames) if frames else pl.DataFrame(schema=LENGTHS)


def _try(subject: Subject, texts: list[str], answers: list[str]) -> None:
    """Texts that were tried once, by the same template and tokenizer, are not tried again."""
    subject.kept.value("trial", [texts, answers], lambda: [try_chats(subject.tokenizer, texts, answers=answers)])


def length_notes(lengths: pl.DataFrame, subject: Subject) -> Iterator[str]:
    """A sentence for each limit of the model that prompts exceed, with how many they are in every language."""
    for limit in subject.limits:
        yield from _note(lengths, limit)


def _note(lengths: pl.DataFrame, limit: Limit) -> Iterator[str]:
    alone = lengths.filter(pl.col("tokens") > limit.tokens)
    whole = lengths.filter(pl.col("tokens") + pl.col("new") > limit.tokens)
    if whole.is_empty():
        return
    most = whole["new"].max()
    response = f"with a response of up to {most:,} tokens"
    if alone.is_empty():
        found = f"{_of(whole, lengths)} longer than {limit.of} {response}: {_by_language(whole, lengths)}."
    else:
        found = f"{_of(alone, lengths)} longer than {limit.of}: {_by_language(alone, lengths)}."
        if whole.height > alone.height:
            found += f" {response.capitalize()} it is {whole.height:,}: {_by_language(whole, lengths)}."
    yield f"{found} {limit.beyond}."


def _of(some: pl.DataFrame, lengths: pl.DataFrame) -> str:
    return f"{some.height:,} of {counted(lengths.height, 'prompt')} {'is' if some.height == 1 else 'are'}"


def _by_language(some: pl.DataFrame, lengths: pl.DataFrame) -> str:
    counts, all_of = (dict(frame.group_by("language").len().iter_rows()) for frame in (some, lengths))
    return ", ".join(f"{language} {counts[language]:,} of {all_of[language]:,}" for language in sorted(counts))


def _rows_read(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> Iterator[tuple[PromptSet, pl.DataFrame]]:
    """The rows of every prompt set that are shown to the model, with how many tokens may follow each as `new`."""
    answered = (*reads_log_odds(recipe, data), *reads_language(recipe, data))
    nodes = (getattr(node, "prompts", None) for node in walk(recipe) if not isinstance(node, Measure))
    chosen = [data[node] for node in nodes if isinstance(node, Prompts)]
    for prompts in dict.fromkeys([*chosen, *answered]):
        rows = prompts.frame.filter(pl.col("split") == "identify", pl.col("context").is_in(IDENTIFY))
        new = prompts.max_new_tokens if prompts in answered else 0
        yield prompts, rows.with_columns(new=pl.lit(new, pl.Int64))
    trained = (node for node in walk(recipe) if isinstance(node, Trains))
    for asked in asked_for(trained, data, study_anchor(recipe, data)):
        yield asked.prompts, asked.rows.with_columns(new=pl.lit(asked.prompts.max_new_tokens, pl.Int64))
    text = harmless_text(recipe, data)
    shown = [*measured(recipe, data).items(), *([] if text is None else [("harmless", text)])]
    for context, prompts in dict.fromkeys(shown):
        rows = prompts.frame.filter(split="evaluate", context=context)
        yield prompts, rows.with_columns(new=pl.lit(prompts.max_new_tokens, pl.Int64))


def _lengths(prompts: PromptSet, rows: pl.DataFrame, subject: Subject) -> list[int]:
    texts = list(rows["text"])

    def compute() -> list[int]:
        encoded = encode_messages(subject.tokenizer, texts)
        for number, row in enumerate(encoded):
            if not all_inside(row, subject.vocabulary):
                _refuse(prompts, rows.row(number, named=True), row, encoded, subject)
        return [len(row) for row in encoded]

    return subject.kept.value("lengths", texts, compute)


def _refuse(
    prompts: PromptSet, prompt: Mapping[str, str], row: Sequence[int], others: Sequence[Sequence[int]], subject: Subject
) -> None:
    token = first_outside(row, subject.vocabulary)
    reason = outside_reason(token, subject.tokenizer, subject.vocabulary)
    text = token_text(token, subject.tokenizer)
    if text not in prompt["text"] and all(token in other for other in others):
        raise ModelError(f"The chat template of {subject.name} writes {reason}.", OUTSIDE_HINT)
    raise DataError(f"{prompts.name}: {prompt['prompt_id']} ({prompt['language']}) has {reason}", OUTSIDE_HINT)


def _check_training_rows(recipe: Recipe, data: Mapping[Prompts, PromptSet], subject: Subject) -> None:
    """Training stops at a row that is too long or has an unknown token: better before hours of measurements."""
    for node in walk(recipe):
        if isinstance(node, Trains):
            from ssn_probe.training.loop.loss import encode_examples

            made = made_contexts(node, data[node.data], study_anchor(recipe, data))
            rows = training_rows(data[node.data], languages=node.languages, contexts=node.contexts, made=made)
            written = [row for row in rows if row.context not in made]
            encode_examples(written, subject.tokenizer, subject.eos_ids, subject.context, subject.vocabulary)
