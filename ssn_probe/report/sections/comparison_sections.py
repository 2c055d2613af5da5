"""What the change of an arm is compared with: the sets that would have been found if its claim were false."""

from collections.abc import Mapping

import polars as pl

from ssn_probe.report.comparisons_in_words import has_room, p_of, why_no_null
from ssn_probe.report.conditions import Row
from ssn_probe.report.markdown_tables import ABSENT, language_cell, p_value, section, table
from ssn_probe.report.measure_tables import DIGITS, digits_of
from ssn_probe.spec import Recipe
from ssn_probe.study.arms import ArmName
from ssn_probe.study.comparisons import COMPARISONS, LABELS
from ssn_probe.study.findings import Findings
from ssn_probe.study.summary import AVERAGE, KL, LANGUAGE_LOG_ODDS, LOG_ODDS
from ssn_probe.text import markdown

NAMES = {
    "asr": "ASR, %",
    LOG_ODDS: "refusal log-odds",
    LANGUAGE_LOG_ODDS: "language log-odds",
    KL: "KL on harmless text",
}
"""The measures that are told here; every other one is in comparisons.parquet."""
NOTE = (
    "*Neurons*: per language, of the set and of the compared sets on average. *Compared sets*: their mean, and where "
    "95 % of such sets fall. *Difference*: the observed figure less theirs. *Shown beyond*: the figure that the "
    "observed one would have had to pass for p ≤ .05; a dash: fewer than 19 sets. The p of the one primary test is its "
    "own, every other is Holm's over the other tests of the arm; rows without a p are descriptions. A large p is no "
    "sign that there is no difference.\n"
)


def comparisons_section(recipe: Recipe, findings: Findings, picture: str = "") -> str:
    """Every comparison of an arm and measure on the average over languages, then the primary arm's ASR per language.

    `picture`: the chart of the primary arm's, as markdown.
    """
    comparisons = findings.comparisons
    if comparisons is None or comparisons.is_empty():
        return ""
    header = ["arm", "measure", "compared with", "neurons", "observed", "compared sets (95 %)", "difference (95 %)"]
    header += ["shown beyond", "p"]
    shown = comparisons.filter(pl.col("measure").is_in(list(NAMES)), language=AVERAGE)
    body = [_line(row, findings) for row in shown.rows(named=True)]
    arms = list(dict.fromkeys(comparisons["arm"]))
    reasons = {arm: why_no_null(findings.robustness, arm) for arm in arms}
    none = [f"{markdown(arm)}: no valid null exists: {markdown(why)}.\n" for arm, why in reasons.items() if why]
    return section(
        "What the change is compared with", picture, table(header, body), NOTE, *none, _by_language(recipe, findings)
    )


def _line(row: Row, findings: Findings) -> list[str]:
    sets = COMPARISONS[row["comparison"]].counted(row["sets"])
    empty = f", {row['empty']:,} of them empty" if row["empty"] else ""
    sizes = ABSENT if row["neurons_mean"] is None else f"{row['neurons']:.1f}, {row['neurons_mean']:.1f}"
    invalid = row["comparison"] == LABELS and why_no_null(findings.robustness, row["arm"]) is not None
    p = p_value(p_of(row)) if has_room(row) else "not testable"
    return [
        markdown(ArmName(row["arm"], row["set_language"], row["step"]).title),
        NAMES[row["measure"]],
        f"{'**primary test**: ' if row['primary'] and not invalid else ''}{sets}{empty}",
        sizes,
        _figure(row, "observed"),
        _interval(row, "mean", ("low", "high")),
        _interval(row, "difference", ("difference_low", "difference_high"), "+"),
        ABSENT if invalid else _figure(row, "shown_from"),
        "no valid null" if invalid else p,
    ]


def _figure(row: Row, name: str, sign: str = "") -> str:
    scale = 1 if row["measure"] in DIGITS else 100
    return ABSENT if row[name] is None else f"{scale * row[name]:{sign}.{digits_of(row['measure'])}f}"


def _interval(row: Row, value: str, ends: tuple[str, str], sign: str = "") -> str:
    low, high = (_figure(row, end, sign) for end in ends)
    return f"{_figure(row, value, sign)}{'' if row[ends[0]] is None else f' [{low}, {high}]'}"


def _by_language(recipe: Recipe, findings: Findings) -> str:
    """The ASR of the primary arm and of the sets beside it, in every language: descriptions."""
    if recipe.primary is None or findings.comparisons is None:
        return ""
    rows = findings.comparisons.filter(pl.col("language") != AVERAGE, arm=recipe.primary, measure="asr")
    names = [name for name in COMPARISONS if name in set(rows["comparison"])]
    cells: dict[str, Mapping[str, Row]] = {}
    for (language,), own in rows.group_by("language", maintain_order=True):
        cells[str(language)] = {row["comparison"]: row for row in own.rows(named=True)}
    if not cells:
        return ""
    body = [
        [
            language_cell(language, findings.anchor),
            _figure(next(iter(own.values())), "observed"),
            *(_interval(own[name], "mean", ("low", "high")) if name in own else ABSENT for name in names),
        ]
        for language, own in cells.items()
    ]
    header = ["language", markdown(recipe.primary), *(COMPARISONS[name].short for name in names)]
    return f"ASR in % per language: descriptions, without a test.\n\n{table(header, body)}"
