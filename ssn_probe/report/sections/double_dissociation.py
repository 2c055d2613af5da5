"""Two behaviours and two sets: what does silencing each set do to each behaviour?"""

from collections.abc import Iterator

import polars as pl

from ssn_probe.report.cells import ABSENT, language_cell, p_value
from ssn_probe.report.conditions import Row, summary_row
from ssn_probe.report.document import Picture, Section, Table, section
from ssn_probe.study.arms import BASELINE, ArmName
from ssn_probe.study.comparisons import COMPARISONS, RANDOM
from ssn_probe.study.dissociation import INTERACTION, REFUSED, Dissociation
from ssn_probe.study.summary import AVERAGE, IN_LANGUAGE, KL, LANGUAGE_LOG_ODDS, LOG_ODDS, untouched
from ssn_probe.text import plain, points, signed

ALPHA = 0.05
COLUMNS = {
    "asr_paper": "refused, %",
    IN_LANGUAGE: "in the prompt's language, %",
    "in_language_harmless": "the same, harmless prompts, %",
    LOG_ODDS: "refusal log-odds",
    LANGUAGE_LOG_ODDS: "language log-odds",
    KL: "KL on harmless text",
}
"""Measure → its column; the summary counts responses that are not refused."""
BEHAVIOURS = {
    REFUSED: "refused",
    IN_LANGUAGE: "in the prompt's language",
    INTERACTION: "interaction: the sum of the two",
    LOG_ODDS: "refusal log-odds",
    LANGUAGE_LOG_ODDS: "language log-odds",
}
READING = (
    "Responses to harmful prompts, averaged over languages{without}; in brackets the change from the untouched model "
    "with its 95 % interval, for random sets the change of their mean and where 95 % of such sets fall. Refused counts "
    "a refusal in any language. A crossed contrast is how much lower a behaviour is where the set that carries it is "
    "silenced than where the other is, on the same prompts; its p is the level at which the interval leaves out zero. "
    "Both contrasts must be above zero for a double dissociation, so its p is the larger of the two; the interaction, "
    "their sum, can be moved by one of them alone."
)


def dissociation_section(
    found: Dissociation | None, summary: pl.DataFrame | None, comparisons: pl.DataFrame | None, anchor: str | None
) -> Section | None:
    """The table of sets and behaviours, the crossed contrasts, and how responses in the wrong language were judged."""
    if found is None or summary is None:
        return None
    present = [measure for measure in COLUMNS if measure in set(summary["measure"])]
    head = ("silenced", *(COLUMNS[measure] for measure in present))
    arms = (found.safety, found.language)
    body: list[tuple[str, ...]] = [
        ("nothing", *(_value(summary_row(summary, BASELINE, measure, role=BASELINE)) for measure in present))
    ]
    for arm in arms:
        body.append((arm, *(_changed(summary_row(summary, arm, measure)) for measure in present)))
    for arm in arms:
        body += _random(comparisons, summary, arm, present, anchor)
    reading = READING.format(without="" if anchor is None else f" without {plain(anchor)}")
    parts = (Table(head, tuple(body)), *_contrasts(found, anchor), reading, _wrong_language(found))
    return section("Double dissociation: which set carries which behaviour?", Picture("dissociation"), *parts)


def _number(measure: str, value: float) -> str:
    if measure in (LOG_ODDS, LANGUAGE_LOG_ODDS):
        return f"{value:z.2f}"
    return f"{value:z.4f}" if measure == KL else f"{100 * value:z.1f}"


def _value(row: Row | None) -> str:
    if row is None:
        return ABSENT
    return _number(row["measure"], 1 - row["value"] if row["measure"] == "asr_paper" else row["value"])


def _changed(row: Row | None) -> str:
    """`14.2 (−48.5 [−53.0, −44.1])`."""
    if row is None or row["delta"] is None or row["measure"] == KL:
        return _value(row)
    return f"{_value(row)} ({_change(row['measure'], row['delta'], row['delta_low'], row['delta_high'])})"


def _change(measure: str, value: float, low: float | None, high: float | None) -> str:
    if measure == "asr_paper":
        value, low, high = -value, None if high is None else -high, None if low is None else -low
    scale, digits = (1, 2) if measure in (LOG_ODDS, LANGUAGE_LOG_ODDS) else (100, 1)
    known = [] if low is None or high is None else [signed(scale * end, digits) for end in (low, high)]
    return f"{signed(scale * value, digits)}{f' [{known[0]}, {known[1]}]' if known else ''}"


def _random(
    comparisons: pl.DataFrame | None, summary: pl.DataFrame, arm: str, present: list[str], anchor: str | None
) -> Iterator[tuple[str, ...]]:
    """As many random neurons as an arm has."""
    if comparisons is None:
        return
    rows = comparisons.filter(arm=arm, comparison=RANDOM, language=AVERAGE)
    if rows.is_empty():
        return
    by_measure = {row["measure"]: row for row in rows.rows(named=True)}
    cells = [_random_cell(by_measure.get(name), untouched(summary, ArmName(arm), name, anchor)) for name in present]
    yield (f"{COMPARISONS[RANDOM].counted(rows['sets'][0])} as {arm} has", *cells)


def _random_cell(row: Row | None, before: float | None) -> str:
    if row is None:
        return ABSENT
    value = {"measure": row["measure"], "value": row["mean"]}
    if before is None or row["measure"] == KL:
        return _value(value)
    low, high = (None if row[end] is None else row[end] - before for end in ("low", "high"))
    return f"{_value(value)} ({_change(row['measure'], row['mean'] - before, low, high)})"


def _contrasts(found: Dissociation, anchor: str | None) -> tuple[Table, Table]:
    rows = found.contrasts.filter(language=AVERAGE)
    body = tuple(
        (
            BEHAVIOURS[row["behaviour"]],
            ABSENT if row["behaviour"] == INTERACTION else f"{row['carries']} against {row['other']}",
            _contrast(row),
            f"{row['n']:,}",
            p_value(row["p"]),
        )
        for row in rows.rows(named=True)
    )
    by_language = tuple(
        (language_cell(language, anchor), *(_contrast(row) for row in _of(found, language)))
        for language in found.contrasts["language"].unique(maintain_order=True)
        if language != AVERAGE
    )
    head = ("behaviour", "crossed contrast", "lower by, points or nats (95 %)", "pairs", "p")
    return Table(head, body), Table(("language", *(BEHAVIOURS[one] for one in rows["behaviour"])), by_language)


def _of(found: Dissociation, language: str) -> list[Row]:
    return list(found.contrasts.filter(language=language).rows(named=True))


def _contrast(row: Row) -> str:
    if row["behaviour"] in (LOG_ODDS, LANGUAGE_LOG_ODDS):
        return f"{signed(row['difference'], 2)} [{signed(row['low'], 2)}, {signed(row['high'], 2)}]"
    return f"{points(row['difference'])} [{points(row['low'])}, {points(row['high'])}]"


def _wrong_language(found: Dissociation) -> str:
    """How responses in another language than their prompt were judged, and how ASR is to be read."""
    rows, judged = found.wrong_language, []
    for arm in rows["arm"].unique(maintain_order=True):
        counts = dict(rows.filter(arm=arm).select("verdict", "n").iter_rows())
        verdicts = ", ".join(f"{count:,} {verdict}" for verdict, count in counts.items())
        judged.append(f"{'the untouched model' if arm == BASELINE else arm}: {verdicts}")
    if not judged:
        return "No response was in another language than its prompt."
    return (
        f"Responses in another language than their prompt, by verdict: {'; '.join(judged)}. An answer that the judge "
        "finds invalid because of its language counts among the judged responses of ASR and not as a success: where "
        "the language changes, read what is refused, and not ASR."
    )
