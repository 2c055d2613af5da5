"""The responses of a run under another judge: its verdicts, its summary, and how far the two judges agree."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from ssn_probe.data.clusters import cluster_columns
from ssn_probe.data.judges import Judge, JudgedRow, Judgement
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.spec import Prompts, Recipe
from ssn_probe.stats.agreement import agreement
from ssn_probe.study.arms import BASELINE, TESTED, ArmName
from ssn_probe.study.pipeline import summary_of
from ssn_probe.study.resolve import measured
from ssn_probe.study.summary import applied_language, averaged

BY_VERDICT = ("asr", "asr_paper", "invalid", "over_refusal")
"""Measures that a judge decides."""
EVERY = "all"
AGREEMENT = {
    "language": pl.String,
    "n": pl.Int64,
    "clusters": pl.Int64,
    "observed": pl.Float64,
    "kappa": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "unjudged": pl.Int64,
}
VERDICTS = {"language": pl.String, "first": pl.String, "second": pl.String, "n": pl.Int64}


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedAgain:
    """`samples` and `summary` as a run has them; `agreement` with the run's judge per language, over distinct responses
    that both judged; `verdicts`: how often the first judge gave one verdict and the second another."""

    samples: pl.DataFrame
    summary: pl.DataFrame
    agreement: pl.DataFrame
    verdicts: pl.DataFrame

    @property
    def tables(self) -> Mapping[str, pl.DataFrame]:
        return {name: getattr(self, name) for name in ("samples", "summary", "agreement", "verdicts")}


def judged_rows(samples: pl.DataFrame, prompts: PromptSet, context: str) -> list[JudgedRow]:
    """The samples of one context as a judge gets them, with their requests."""
    texts = prompts.frame.filter(split="evaluate", context=context).select("prompt_id", "language", "text")
    texts = texts.rename({"language": "eval_language"})
    rows = samples.join(texts, on=["prompt_id", "eval_language"], how="left", maintain_order="left")
    return [JudgedRow(*row) for row in rows.select("eval_language", "text", "response").iter_rows()]


def judged_again(
    recipe: Recipe,
    data: Mapping[Prompts, PromptSet],
    samples: pl.DataFrame,
    anchor: str | None,
    judge_for: Callable[[PromptSet], Judge],
    ask: Callable[[Judge, Sequence[JudgedRow]], list[Judgement]],
) -> JudgedAgain:
    """All of it. `judge_for` makes the judge for a prompt set, and `ask` asks it."""
    parts, numbered = [], samples.with_row_index("row")
    for context, prompts in measured(recipe, data).items():
        own = numbered.filter(context=context)
        judge = judge_for(prompts)
        found = ask(judge, judged_rows(own, prompts, context))
        verdict = pl.Series("verdict", [one.verdict for one in found], pl.String)
        reason = pl.Series("reason", [one.reason for one in found], pl.String)
        parts.append(own.with_columns(verdict, reason, pl.lit(judge.name).alias("judge")))
    again = pl.concat(parts).sort("row").drop("row")
    summary = summary_of(recipe, again, None, None, anchor).filter(pl.col("measure").is_in(BY_VERDICT))
    compared, verdicts = _compared(samples, again)
    return JudgedAgain(samples=again, summary=summary, agreement=compared, verdicts=verdicts)


def _compared(first: pl.DataFrame, second: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    labels = cluster_columns(first)
    both = first.select("prompt_id", *labels, "response", language="eval_language", first="verdict")
    both = both.with_columns(second=second["verdict"])
    both = both.unique(["language", "prompt_id", "response"], keep="first", maintain_order=True)
    languages = list(both["language"].unique(maintain_order=True))
    rows = []
    for language in [*languages, *([EVERY] if len(languages) > 1 else [])]:
        own = both if language == EVERY else both.filter(language=language)
        judged = own.filter(pl.col("first") != "unjudged", pl.col("second") != "unjudged")
        fewest = min((judged[name] for name in labels), key=pl.Series.n_unique)  # it is conservative for all of them
        found = agreement(list(judged["first"]), list(judged["second"]), list(fewest))
        rows.append({"language": language, **asdict(found), "unjudged": own.height - judged.height})
    counts = both.group_by("language", "first", "second", maintain_order=True).len("n")
    verdicts = counts.with_columns(pl.col("n").cast(pl.Int64)).select(*VERDICTS)
    return pl.DataFrame(rows, schema=AGREEMENT), verdicts


IDENTITY = ("arm", "of", "step", "role", "language")
"""What tells the ASR of arms and languages apart."""


def asr_rows(summary: pl.DataFrame, anchor: str | None) -> list[dict[str, Any]]:
    """The ASR of every arm in every language, and the share of invalid responses, as a manifest records them.

    `in_average`: is the language one of those that the arm's average is over?
    """
    asr, invalid = (_rows_of(summary, measure) for measure in ("asr", "invalid"))
    averages = {
        key[:4]: averaged(summary, ArmName(row["arm"], row["of"], row["step"]), "asr", anchor, row["role"])
        for key, row in asr.items()
    }
    return [
        {name: row[name] for name in (*IDENTITY, "value", "low", "high", "n", "clusters")}
        | {"invalid": invalid[key]["value"], "in_average": row["language"] in averages[key[:4]]}
        for key, row in asr.items()
    ]


def _rows_of(summary: pl.DataFrame, measure: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = summary.filter(pl.col("measure") == measure, pl.col("role").is_in([BASELINE, TESTED]))
    named = rows.with_columns(of=applied_language()).iter_rows(named=True)
    return {tuple(row[name] for name in IDENTITY): row for row in named}
