"""What a reader must know before trusting a figure: languages where nothing can be shown, whatever the neurons do.

Each check gives at most one sentence, which names the languages; none changes a number.
"""

from collections.abc import Sequence

import polars as pl

from ssn_probe.report.conditions import Condition, applied_language, clusters_of
from ssn_probe.stats import smallest_detectable
from ssn_probe.study.arms import ALONE, BASELINE, ArmName
from ssn_probe.study.summary import AVERAGE, HARMFUL, JUDGED
from ssn_probe.text import listing, plain


def cautions(summary: pl.DataFrame, samples: pl.DataFrame, anchor: str | None, *, falls: bool = False) -> list[str]:
    """Sentences for the notes of a run, none where all is well. `summary` and `samples` as `summarise` has them.

    `falls`: is the primary arm to lower ASR, and not to raise it?
    """
    judged = samples.filter(HARMFUL & JUDGED & pl.col("role").is_in(ALONE))
    baseline = _verdicts(judged.filter(pl.col("role") == BASELINE))
    rows = summary.filter(measure="asr", role=BASELINE).filter(pl.col("language") != AVERAGE)
    invalid = baseline.filter(pl.col("invalid") == pl.col("n"))["eval_language"]
    measured = baseline.filter(~pl.col("eval_language").is_in(invalid.implode()))
    unrefused = measured.filter(refused=0)
    all_refused = measured.filter(pl.col("refused") == pl.col("n"))
    no_room = all_refused if falls else unrefused
    possible = rows.filter(~pl.col("language").is_in(no_room["eval_language"].implode()))
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
            _without_power(possible, anchor, falls),
            f": even a {'fall to 0' if falls else 'rise to 100'} % would be found there with less than 80 % power, if "
            "prompts of a cluster count once and arms are independent.",
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


def _without_power(rows: pl.DataFrame, anchor: str | None, falls: bool) -> list[str]:
    """Languages with several clusters in which no change would have shown, with their clusters.

    A fall from 30 % is, to the test, a rise from 70 %.
    """
    cells = rows.filter(pl.col("clusters") > 1)
    return [
        f"{_named(row['language'], anchor)} ({clusters_of(row)})"
        for row in cells.iter_rows(named=True)
        if smallest_detectable(row["clusters"], 1 - row["value"] if falls else row["value"]) is None
    ]
