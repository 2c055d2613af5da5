"""The scores of lm-eval's tasks: a row per task and metric, a column per arm."""

import polars as pl

from ssn_probe.report.cells import ABSENT
from ssn_probe.report.document import Section, Table, folded_if_large, section
from ssn_probe.study.arms import BASELINE, ArmName

TITLE = "Scores of lm-eval's tasks"
NOTE = (
    "Examples: answered ones in front of each document. Each score ± its standard error over documents, as lm-eval "
    "computes it where the score is a mean. Of an arm that has neurons per language, those of the task's language "
    "apply. No random sets were run on these tasks: a change within two standard errors is no evidence of one, and "
    "says nothing about tasks that are not here."
)


def top_scores(scores: pl.DataFrame) -> pl.DataFrame:
    """The scores of the tasks that were asked for, without those of their parts."""
    return scores.filter(pl.col("part_of").is_null())


def task_grid(scores: pl.DataFrame) -> tuple[list[str], list[list[str]]]:
    """Header and rows of plain text: task, metric, language, documents and examples, then every arm's score."""
    keys = ["task", "metric", "filter"]
    arms: dict[str, dict[tuple, str]] = {}
    rows: dict[tuple, list[str]] = {}
    for row in top_scores(scores).iter_rows(named=True):
        key = tuple(row[name] for name in keys)
        chosen = "" if row["filter"] == "none" else f" ({row['filter']})"
        counts = [ABSENT if row[name] is None else f"{row[name]:,}" for name in ("n", "num_fewshot")]
        rows.setdefault(key, [row["task"], f"{row['metric']}{chosen}", row["eval_language"], *counts])
        error = "" if row["stderr"] is None else f" ± {row['stderr']:.4f}"
        arms.setdefault(_title(row, scores), {})[key] = f"{row['value']:.4f}{error}"
    body = [[*cells, *(found.get(key, ABSENT) for found in arms.values())] for key, cells in rows.items()]
    return ["task", "metric", "language", "documents", "examples", *arms], body


def _title(row: dict, scores: pl.DataFrame) -> str:
    """An arm in words; one that applies each language's neurons in turn is told apart by the language."""
    if row["arm"] == BASELINE:
        return BASELINE
    same = (pl.col("arm") == row["arm"]) & (pl.col("task") == row["task"])
    several = scores.filter(same)["set_language"].n_unique() > 1
    return ArmName(row["arm"], row["set_language"] if several else None, row["step"]).title


def tasks_section(scores: pl.DataFrame | None) -> Section | None:
    """The table of the report; nothing where no task was run."""
    if scores is None:
        return None
    head, rows = task_grid(scores)
    return section(TITLE, folded_if_large("Per task and metric", Table(tuple(head), tuple(map(tuple, rows)))), NOTE)


def task_changes(scores: pl.DataFrame | None, arm: str) -> list[str]:
    """The first score of every task that was asked for, before and under an arm: `mmlu acc 0.450 → 0.448`."""
    if scores is None:
        return []
    first = top_scores(scores).unique(["task", "arm", "set_language"], keep="first", maintain_order=True)
    before = {row["task"]: row for row in first.filter(arm=BASELINE).iter_rows(named=True)}
    rows = first.filter(arm=arm).iter_rows(named=True)
    return [
        f"{row['task']} {row['metric']} {before[row['task']]['value']:.3f} → {row['value']:.3f}"
        for row in rows
        if row["task"] in before
    ]
