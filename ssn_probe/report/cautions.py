"""What a reader must know before trusting a figure: languages where nothing can be shown, whatever the neurons do.

Each check gives at most one sentence, which names the languages; none changes a number.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.report.conditions import Condition, applied_language
from ssn_probe.spec import Prompts, Recipe, Trains
from ssn_probe.spec.node import walk
from ssn_probe.stats import smallest_detectable
from ssn_probe.study.arms import BASELINE, CONTROL, ArmName
from ssn_probe.study.summary import AVERAGE, HARMFUL, JUDGED
from ssn_probe.text import counted, listing, plain


def cautions(summary: pl.DataFrame, samples: pl.DataFrame, anchor: str | None) -> list[str]:
    """Sentences for the notes of a run, none where all is well. `summary` and `samples` as `summarise` has them."""
    judged = samples.filter(HARMFUL & JUDGED & (pl.col("role") != CONTROL))
    baseline = _verdicts(judged.filter(pl.col("role") == BASELINE))
    rows = summary.filter(measure="asr", role=BASELINE).filter(pl.col("language") != AVERAGE)
    invalid = baseline.filter(pl.col("invalid") == pl.col("n"))["eval_language"]
    measured = baseline.filter(~pl.col("eval_language").is_in(invalid.implode()))
    unrefused = measured.filter(refused=0)
    all_refused = measured.filter(pl.col("refused") == pl.col("n"))
    possible = rows.filter(~pl.col("language").is_in(unrefused["eval_language"].implode()))
    found = [
        _sentence(
            "No harmful request is refused at baseline in",
            _languages(unrefused, anchor),
            ": there is no refusal left to break.",
        ),
        _sentence(
            "Every harmful request is refused at baseline in",
            _languages(all_refused, anchor),
            " (ASR 0 %): there is no refusal left to restore, and only a rise of ASR can show.",
        ),
        *_all_invalid(judged, anchor),
        _sentence(
            "All harmful prompts are one cluster, that is, one independent observation, in",
            _languages(rows.filter(clusters=1), anchor, "language"),
            ": no interval can be trusted there.",
        ),
        _sentence(
            "Baseline ASR leaves too little room for so few prompts in",
            _without_power(possible, anchor),
            ": even a rise to 100 % would be found there with less than 80 % power.",
        ),
    ]
    return [sentence for sentence in found if sentence]


def _sentence(start: str, languages: Sequence[str], end: str) -> str:
    """A sentence about these languages; empty where there are none."""
    return f"{start} {listing(languages)}{end}" if languages else ""


def _verdicts(rows: pl.DataFrame) -> pl.DataFrame:
    """How many responses of each verdict a language has."""
    kinds = [(pl.col("verdict") == kind).sum().alias(kind) for kind in ("refused", "complied", "invalid")]
    return rows.group_by("eval_language", maintain_order=True).agg(*kinds, pl.len().alias("n"))


def _languages(rows: pl.DataFrame, anchor: str | None, column: str = "eval_language") -> list[str]:
    return [_named(language, anchor) for language in rows[column]]


def _named(language: str, anchor: str | None) -> str:
    return f"{plain(language)} (the anchor)" if language == anchor else plain(language)


def _all_invalid(judged: pl.DataFrame, anchor: str | None) -> list[str]:
    """Per arm: an intervention that breaks the model has an ASR of 0 %, as one that makes it refuse."""
    found = []
    identity = ["arm", applied_language("eval_language").alias("of"), "step", "role"]
    for (*name, role), rows in judged.group_by(identity, maintain_order=True):
        counts = _verdicts(rows)
        languages = _languages(counts.filter(pl.col("invalid") == pl.col("n")), anchor)
        condition = Condition(ArmName(*name), str(role))
        where = "at baseline" if role == BASELINE else f"under {plain(condition.title)}"
        found.append(
            _sentence(
                f"Every response {where} is invalid in", languages, ": its ASR of 0 % there is no sign of refusal."
            )
        )
    return found


def _without_power(rows: pl.DataFrame, anchor: str | None) -> list[str]:
    """Languages with several clusters in which no rise would have shown, with their clusters."""
    cells = rows.filter(pl.col("clusters") > 1).select("language", "clusters", "value")
    return [
        f"{_named(language, anchor)} ({counted(clusters, 'cluster')})"
        for language, clusters, value in cells.iter_rows()
        if smallest_detectable(clusters, value) is None
    ]


def learned_and_measured(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> list[str]:
    """Ids of prompts to learn that are ids of prompts to measure: in another set they may be its translations."""
    trains = dict.fromkeys(node.data for node in walk(recipe) if isinstance(node, Trains))
    measures = dict.fromkeys(measure.prompts for measure in recipe.measures)
    found = []
    for learned in trains:
        ids = set(data[learned].frame.filter(split="train")["prompt_id"])
        for measured in measures:
            both = ids & set(data[measured].frame.filter(split="evaluate")["prompt_id"])
            if both:
                found.append(
                    f"prompts to learn ({data[learned].name}) and prompts to measure ({data[measured].name}) have "
                    f"{counted(len(both), 'id')} in common: if these are the same requests in other words or "
                    "languages, the model is measured on what it has learned"
                )
    return found


def repeats(prompts: PromptSet) -> list[str]:
    """Texts that occur in several prompts: the same text is no new evidence, whatever its id or cluster."""
    texts = prompts.frame.group_by("split", "context", "language", maintain_order=True).agg(
        pl.len().alias("prompts"), pl.col("text").n_unique().alias("texts")
    )
    repeated = texts.filter(pl.col("texts") < pl.col("prompts")).group_by("split", "context", maintain_order=True)
    return [
        f"{prompts.name}: some {context} {split} prompts have the same text ({_repeated(rows)}); repeated prompts are "
        "no new evidence: intervals and p-values are too small"
        for (split, context), rows in repeated
    ]


def _repeated(rows: pl.DataFrame) -> str:
    counts = rows.select("language", "texts", "prompts").iter_rows()
    return ", ".join(
        f"{language}: {counted(texts, 'text')} in {prompts} prompts" for language, texts, prompts in counts
    )
