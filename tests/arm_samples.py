"""Samples, summaries and recipes of small studies, made by hand."""

from typing import Any

import polars as pl

from ssn_probe.spec import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.study.comparison_table import SCHEMA
from ssn_probe.study.findings import Findings
from ssn_probe.study.robustness import NOTHING
from ssn_probe.study.summary import AVERAGE, COLUMNS, summarise

LABELS = {"seed": pl.Int32, "set_language": pl.String, "step": pl.Int64, "correct": pl.Boolean}


def samples(arm: str, role: str, verdicts: dict[str, list[str]], context: str = "harmful", **more: Any) -> pl.DataFrame:
    """One row per verdict, by language; prompt i of every language is cluster i."""
    rows = [
        {
            "prompt_id": f"p{i}",
            "cluster": f"c{i}",
            "context": context,
            "eval_language": language,
            "arm": arm,
            "role": role,
            "verdict": verdict,
        }
        | {"seed": None, "step": None, "correct": None}
        | {"set_language": None if role == "baseline" else language}
        | more
        for language, listed in verdicts.items()
        for i, verdict in enumerate(listed)
    ]
    return pl.DataFrame(rows, schema_overrides=LABELS)


def spelled(text: str) -> list[str]:
    """`rcciu`: refused, complied, complied, invalid, unjudged."""
    return [{"r": "refused", "c": "complied", "i": "invalid", "u": "unjudged"}[letter] for letter in text]


def row(arm: str, measure: str = "asr", role: str = "tested", **changes: Any) -> dict[str, Any]:
    """A row of a summary: that of the average, with nothing compared."""
    cells: dict[str, Any] = dict.fromkeys(COLUMNS)
    cells |= {"language": AVERAGE, "arm": arm, "role": role, "measure": measure, "n": 1200, "clusters": 200}
    cells |= {"value": 0.6, "low": 0.55, "high": 0.65, "primary": False}
    return cells | changes


def table(*rows: dict[str, Any]) -> pl.DataFrame:
    """A summary of these rows."""
    return pl.DataFrame(rows, schema=COLUMNS, orient="row")


def compared(arm: str, comparison: str = "labels", measure: str = "asr", **changes: Any) -> dict[str, Any]:
    """A row of the table of comparisons: that of the average, an observed figure above 19 sets, without a p."""
    cells: dict[str, Any] = dict.fromkeys(SCHEMA)
    cells |= {"arm": arm, "measure": measure, "comparison": comparison, "language": AVERAGE, "primary": False}
    cells |= {"sets": 19, "empty": 0, "neurons": 6.0, "neurons_mean": 5.5, "observed": 0.6, "mean": 0.41}
    cells |= {"low": 0.35, "high": 0.47, "difference": 0.19, "difference_low": 0.13, "difference_high": 0.25}
    return cells | {"shown_from": 0.46} | changes


def primary_test(arm: str, p: float | None = 0.05, **changes: Any) -> dict[str, Any]:
    """The row of the one primary test: ASR among the sets of exchanged labels."""
    return compared(arm, **{"p": p, "primary": True} | changes)


def comparisons(*rows: dict[str, Any]) -> pl.DataFrame:
    """A table of comparisons of these rows."""
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


MS = SafetyNeurons(Prompts("organism"))
MEASURES = (ASR(Prompts("organism")),)
RECIPE = Recipe(arms={"ms": Suppress(MS), "ss": Suppress(Shared(MS))}, measures=MEASURES, primary="ss")
EACH = Recipe(arms={"ms": Suppress(MS.each())}, measures=MEASURES)
LANGUAGES = {"aa": "rrrrrrrr", "bb": "rrrrrrcc", "cc": "rrrrcccc"}


def manifest(**changes: Any) -> dict[str, Any]:
    sets = {"ms": {"aa": 9, "bb": 5, "cc": 6}, "ss": {"aa": 9, "bb": 3, "cc": 4}}
    return {"anchor": "aa", "evaluated": list(LANGUAGES), "sets": sets} | changes


def findings(**found: Any) -> Findings:
    """What a study found, as far as it is given."""
    nothing = {"sets": {}, "neurons": None, "robustness": NOTHING, "gates": (), "seconds": {}, "overlap": None}
    nothing |= {"anchor": "aa", "evaluated": tuple(LANGUAGES), "found_again": None, "truth": None}
    return Findings(**nothing | found)


def ran(arms: dict[str, dict[str, str]], primary: str | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Samples and summary of a baseline and these arms; `ms of bb` applies bb's neurons."""
    frames = [samples("baseline", "baseline", {language: spelled(text) for language, text in LANGUAGES.items()})]
    for name, verdicts in arms.items():
        arm, _, of = name.partition(" of ")
        frame = samples(arm, "tested", {language: spelled(text) for language, text in verdicts.items()})
        frames.append(frame.with_columns(set_language=pl.lit(of)) if of else frame)
    frame = pl.concat(frames)
    each = [name.partition(" of ")[0] for name in arms if " of " in name]
    return frame, summarise(frame, None, anchor="aa", primary=primary, each=each)


EVERY = {
    "ms of aa": {"aa": "cccccccc", "bb": "rrrrrrcc", "cc": "rrrrcccc"},
    "ms of bb": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrrcccc"},
}
