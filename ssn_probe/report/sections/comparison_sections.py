"""What the change of an arm is compared with: the sets that would have been found if its claim were false."""

from collections.abc import Mapping, Sequence

import polars as pl

from ssn_probe.report.cells import ABSENT, language_cell, p_value
from ssn_probe.report.comparisons_in_words import has_room, p_of, why_no_null
from ssn_probe.report.conditions import Row, summary_row
from ssn_probe.report.document import Folded, Picture, Section, Table, section
from ssn_probe.report.measure_tables import DIGITS, digits_of
from ssn_probe.spec import Recipe
from ssn_probe.study.arms import ArmName
from ssn_probe.study.comparisons import COMPARISONS, LABELS
from ssn_probe.study.findings import Findings
from ssn_probe.study.summary import AVERAGE, KL, LANGUAGE_LOG_ODDS, LOG_ODDS
from ssn_probe.text import signed

NAMES = {
    "asr": "ASR, %",
    LOG_ODDS: "refusal log-odds",
    LANGUAGE_LOG_ODDS: "language log-odds",
    KL: "KL on harmless text",
}
"""The measures that are told here; every other one is in comparisons.parquet."""
SAME = 1e-9
"""Figures that differ by less are equal but for rounding."""
NOTE = (
    "Neurons: per language, of the set and of the compared sets on average. Compared sets: their mean, and where "
    "95 % of such sets fall. Difference: the observed figure less theirs. Shown beyond: the figure that the "
    "observed one would have had to pass for p ≤ .05; a dash: fewer than 19 sets. The p of the one primary test is its "
    "own, every other is Holm's over the other tests of the arm; rows without a p are descriptions. p is one-sided, as "
    "the claim is, and the interval two-sided: it can include 0 where p is below .05. A large p is no sign that there "
    "is no difference."
)


def comparisons_section(recipe: Recipe, findings: Findings) -> Section | None:
    """The comparisons of the primary arm's ASR on the average over languages; folded, every other, and per language."""
    comparisons = findings.comparisons
    if comparisons is None or comparisons.is_empty():
        return None
    shown = comparisons.filter(pl.col("measure").is_in(list(NAMES)), language=AVERAGE).rows(named=True)
    main = [row for row in shown if (row["arm"], row["measure"]) == (recipe.primary, "asr")]
    others = [row for row in shown if row not in main]
    reasons = {arm: why_no_null(findings.robustness, arm) for arm in dict.fromkeys(comparisons["arm"])}
    none = [f"{arm}: no valid null exists: {why}." for arm, why in reasons.items() if why]
    return section(
        "What the change is compared with",
        Picture("comparisons"),
        _primary(main, findings) if main else None,
        NOTE,
        *none,
        _others(others, findings) if others else None,
        _by_language(recipe, findings),
    )


def _primary(rows: Sequence[Row], findings: Findings) -> Table:
    """Of one arm and measure: what it gives stands in the head."""
    arm = rows[0]["arm"]
    observed = f"ASR, %, in place of {_figure(_of_the_arm(rows[0], findings), 'observed')} by {arm}"
    head = ("compared with", "neurons", observed, "difference (95 %)", "shown beyond", "p")
    return Table(head, tuple(_with_the_ranked_set(row, findings) for row in rows))


def _of_the_arm(row: Row, findings: Findings) -> Row:
    """A row of ASR with the figure of the arm itself, which is not the one that is ranked where `row` ranks a part."""
    found = (
        None if findings.summary is None else summary_row(findings.summary, row["arm"], "asr", language=row["language"])
    )
    return row if found is None else {**row, "observed": found["value"]}


def _with_the_ranked_set(row: Row, findings: Findings) -> tuple[str, ...]:
    """Prompts whose labels cannot be exchanged take no part: then another set than the arm's is ranked, and named."""
    compared, *cells = _cells(row, findings)
    if abs(row["observed"] - _of_the_arm(row, findings)["observed"]) > SAME:
        compared += f"; ranked among them: the set of the prompts whose labels exchange, {_figure(row, 'observed')}"
    return compared, *cells


def _others(rows: Sequence[Row], findings: Findings) -> Folded:
    head = ("arm", "measure", "observed", "compared with", "neurons", "compared sets (95 %)", "difference (95 %)")
    body = tuple(
        (
            ArmName(row["arm"], row["set_language"], row["step"]).title,
            NAMES[row["measure"]],
            _figure(row, "observed"),
            *_cells(row, findings),
        )
        for row in rows
    )
    return Folded("Other measures and arms compared", (Table((*head, "shown beyond", "p"), body),))


def _cells(row: Row, findings: Findings) -> tuple[str, ...]:
    sets = COMPARISONS[row["comparison"]].counted(row["sets"])
    empty = f", {row['empty']:,} of them empty" if row["empty"] else ""
    sizes = ABSENT if row["neurons_mean"] is None else f"{row['neurons']:.1f}, {row['neurons_mean']:.1f}"
    invalid = row["comparison"] == LABELS and why_no_null(findings.robustness, row["arm"]) is not None
    p = p_value(p_of(row)) if has_room(row) else "not testable"
    return (
        f"{'primary test: ' if row['primary'] and not invalid else ''}{sets}{empty}",
        sizes,
        _interval(_possible(row)),
        _difference(row),
        ABSENT if invalid else _figure(row, "shown_from"),
        "no valid null" if invalid else p,
    )


def _possible(row: Row) -> Row:
    """The row with the band cut where no figure can be: a share is 0 to 1, a KL is not negative, as in all tables."""
    if row["low"] is None or row["measure"] not in ("asr", KL):
        return row
    return {
        **row,
        "low": max(0.0, row["low"]),
        "high": min(1.0, row["high"]) if row["measure"] == "asr" else row["high"],
    }


def _figure(row: Row, name: str) -> str:
    scale = 1 if row["measure"] in DIGITS else 100
    return ABSENT if row[name] is None else f"{scale * row[name]:z.{digits_of(row['measure'])}f}"


def _interval(row: Row) -> str:
    low, high = (_figure(row, end) for end in ("low", "high"))
    return f"{_figure(row, 'mean')}{'' if row['low'] is None else f' [{low}, {high}]'}"


def _difference(row: Row) -> str:
    names = [name for name in ("difference", "difference_low", "difference_high") if row[name] is not None]
    scale, digits = 1 if row["measure"] in DIGITS else 100, digits_of(row["measure"])
    found, *ends = (signed(scale * row[name], digits) for name in names) if names else (ABSENT,)
    return f"{found} [{', '.join(ends)}]" if ends else found


def _by_language(recipe: Recipe, findings: Findings) -> Folded | None:
    """The ASR of the primary arm and of the sets beside it, in every language: descriptions."""
    if recipe.primary is None or findings.comparisons is None:
        return None
    rows = findings.comparisons.filter(pl.col("language") != AVERAGE, arm=recipe.primary, measure="asr")
    names = [name for name in COMPARISONS if name in set(rows["comparison"])]
    cells: dict[str, Mapping[str, Row]] = {}
    for (language,), own in rows.group_by("language", maintain_order=True):
        cells[str(language)] = {row["comparison"]: row for row in own.rows(named=True)}
    if not cells:
        return None
    body = tuple(
        (
            language_cell(language, findings.anchor),
            _figure(_of_the_arm(next(iter(own.values())), findings), "observed"),
            *(_interval(_possible(own[name])) if name in own else ABSENT for name in names),
        )
        for language, own in cells.items()
    )
    head = ("language", recipe.primary, *(COMPARISONS[name].short for name in names))
    return Folded("ASR in % per language: descriptions, without a test", (Table(head, body),))
