"""What a reader must know before trusting a figure: languages where nothing can be shown, whatever the neurons do.

Each check gives at most one sentence that names its languages; none of them changes a number.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.spec import Prompts, Recipe, Trains
from ssn_probe.spec.node import walk
from ssn_probe.stats import smallest_detectable
from ssn_probe.study.arms import BASELINE, CONTROL
from ssn_probe.study.summary import AVERAGE, HARMFUL, JUDGED
from ssn_probe.text import listing, plain


def cautions(summary: pl.DataFrame, samples: pl.DataFrame, anchor: str | None) -> list[str]:
    """Sentences for the notes of a run, none where all is well. `summary` and `samples` as `summarise` has them."""
    judged = samples.filter(HARMFUL & JUDGED & (pl.col("role") != CONTROL))
    baseline = _verdicts(judged.filter(pl.col("role") == BASELINE))
    rows = summary.filter(measure="asr", role=BASELINE).filter(pl.col("language") != AVERAGE)
    invalid = baseline.filter(pl.col("invalid") == pl.col("n"))["eval_language"]
    measured = baseline.filter(~pl.col("eval_language").is_in(invalid.implode()))
    unrefused = measured.filter(refused=0)
    found = [
        _none_refused(_languages(unrefused, anchor)),
        _all_refused(_languages(measured.filter(pl.col("refused") == pl.col("n")), anchor)),
        *_all_invalid(judged, anchor),
        _one_cluster(_languages(rows.filter(clusters=1), anchor, "language")),
        _too_few(_hopeless(rows.filter(~pl.col("language").is_in(unrefused["eval_language"].implode()))), anchor),
    ]
    return [sentence for sentence in found if sentence]


def _verdicts(rows: pl.DataFrame) -> pl.DataFrame:
    """How many responses of each verdict a language has."""
    kinds = [(pl.col("verdict") == kind).sum().alias(kind) for kind in ("refused", "complied", "invalid")]
    return rows.group_by("eval_language", maintain_order=True).agg(*kinds, pl.len().alias("n"))


def _languages(rows: pl.DataFrame, anchor: str | None, column: str = "eval_language") -> list[str]:
    return [_named(language, anchor) for language in rows[column]]


def _named(language: str, anchor: str | None) -> str:
    return f"{plain(language)} (the anchor)" if language == anchor else plain(language)


def _none_refused(languages: Sequence[str]) -> str:
    return (
        f"No harmful request is refused at baseline in {listing([*languages])}: nothing is left to break there."
        if languages
        else ""
    )


def _all_refused(languages: Sequence[str]) -> str:
    return (
        f"Every harmful request is refused at baseline in {listing([*languages])} (ASR 0 %): nothing is left to "
        "restore, and only a rise of ASR can show there."
        if languages
        else ""
    )


def _all_invalid(judged: pl.DataFrame, anchor: str | None) -> list[str]:
    """Per arm: an intervention that breaks the model has an ASR of 0 %, as one that makes it refuse."""
    found = []
    for (arm, role), rows in judged.group_by("arm", "role", maintain_order=True):
        counts = _verdicts(rows)
        languages = _languages(counts.filter(pl.col("invalid") == pl.col("n")), anchor)
        if languages:
            who = "at baseline" if role == BASELINE else f"under {plain(str(arm))} ({role})"
            found.append(
                f"Every response {who} is invalid in {listing(languages)}: its ASR of 0 % there is no sign of refusal."
            )
    return found


def _one_cluster(languages: Sequence[str]) -> str:
    return (
        f"All harmful prompts of {listing([*languages])} are one cluster, that is, one independent observation: no "
        "interval can be trusted there."
        if languages
        else ""
    )


def _hopeless(rows: pl.DataFrame) -> list[tuple[str, int]]:
    """Languages with several clusters in which no rise would have shown, and their clusters."""
    cells = rows.filter(pl.col("clusters") > 1).select("language", "clusters", "value")
    return [
        (language, clusters)
        for language, clusters, value in cells.iter_rows()
        if smallest_detectable(clusters, value) is None
    ]


def _too_few(found: Sequence[tuple[str, int]], anchor: str | None) -> str:
    if not found:
        return ""
    words = [f"{_named(language, anchor)} ({clusters} clusters)" for language, clusters in found]
    return (
        f"Baseline ASR leaves too little room for so few prompts in {listing(words)}: even a rise to 100 % would show "
        "there with less than 80 % power."
    )


def learned_and_measured(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> list[str]:
    """Requests that are learned under the name of one that is measured: in another set they may be its translations."""
    trains = dict.fromkeys(node.data for node in walk(recipe) if isinstance(node, Trains))
    measures = dict.fromkeys(measure.prompts for measure in recipe.measures)
    found = []
    for learned in trains:
        ids = set(data[learned].frame.filter(split="train")["prompt_id"])
        for measured in measures:
            both = ids & set(data[measured].frame.filter(split="evaluate")["prompt_id"])
            if both:
                found.append(
                    f"{len(both)} ids of prompts to learn ({data[learned].name}) are ids of prompts to measure "
                    f"({data[measured].name}): if they are the same requests in other words or languages, what was "
                    "learned is what is measured"
                )
    return found


def repeats(prompts: PromptSet) -> list[str]:
    """Prompts that stand more than once: the same text is no new evidence, whatever its id or cluster."""
    counted = prompts.frame.group_by("split", "context", "language", maintain_order=True).agg(
        pl.len().alias("rows"), pl.col("text").n_unique().alias("texts")
    )
    found = counted.filter(pl.col("texts") < pl.col("rows")).group_by("split", "context", maintain_order=True)
    return [
        f"{prompts.name}: some {context} {split} prompts stand more than once ({_repeated(rows)}); repeated prompts "
        "are no new evidence: intervals and p-values are too small"
        for (split, context), rows in found
    ]


def _repeated(rows: pl.DataFrame) -> str:
    counts = rows.select("language", "texts", "rows").iter_rows()
    return ", ".join(f"{language}: {texts} texts in {prompts} prompts" for language, texts, prompts in counts)
