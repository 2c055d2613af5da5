"""Two behaviours and two sets: what is left of each behaviour where each set is silenced."""

from collections.abc import Mapping

import polars as pl

from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.row_panels import Dot, Panel, row_panels
from ssn_probe.report.charts.theme import BESIDE, INK, arm_colours, drawable
from ssn_probe.report.claims_of_arms import dissociation_claims
from ssn_probe.report.conditions import Row, summary_row
from ssn_probe.report.finished import FinishedRun
from ssn_probe.study.arms import BASELINE
from ssn_probe.study.comparisons import RANDOM
from ssn_probe.study.dissociation import Dissociation
from ssn_probe.study.summary import AVERAGE, IN_LANGUAGE
from ssn_probe.text import capitalised, percent, uncapitalised

MEASURES = {"asr_paper": "refused, %", IN_LANGUAGE: "in the prompt's language, %"}
"""The summary counts responses that are not refused."""
NOTHING = "nothing silenced"


def draw(run: FinishedRun) -> Chart | None:
    """None where no two sets carry two behaviours."""
    found, summary = run.findings.dissociation, run.findings.summary
    if found is None or summary is None:
        return None
    colours = arm_colours(run.recipe)
    rows = {BASELINE: NOTHING} | {arm: drawable(arm) for arm in (found.safety, found.language)}
    beside = _beside(found, run.findings.comparisons)
    panels = []
    for measure, title in MEASURES.items():
        known = {
            name: summary_row(summary, name, measure, **({"role": BASELINE} if name == BASELINE else {}))
            for name in rows
        }
        dots = [
            _dot(measure, rows[name], row, INK if name == BASELINE else colours[name], f"n = {row['n']:,}")
            for name, row in known.items()
            if row is not None
        ]
        dots += [
            _dot(measure, name, row, BESIDE[RANDOM], f"{row['sets']} sets") for name, row in beside[measure].items()
        ]
        panels.append(Panel(title=title, ends=(0, 100), dots=dots))
    if not any(panel.dots for panel in panels):
        return None
    names = [*rows.values(), *dict.fromkeys(name for own in beside.values() for name in own)]
    claim = next(dissociation_claims(run.recipe, run.findings), None)
    finding = "Two sets and two behaviours"
    if claim is not None:
        figures = f": {claim.figures}" if claim.figures else ""
        finding = f"{capitalised(claim.verdict)}: {uncapitalised(claim.claim)}{figures}"
    n = max((row["n"] for row in found.contrasts.rows(named=True)), default=0)
    below = [
        f"Averages over languages, n = {n:,} harmful prompts a row. Lines: 95 % intervals over prompts; of random "
        "sets, where 95 % of such sets fall."
    ]
    each = [f"{dot.says}" for panel in panels for dot in panel.dots]
    described = f"{'; '.join(each)}. {below[0]}"
    return chart("dissociation", finding, described, row_panels(names, panels, left=170), subtitle=below)


def _beside(found: Dissociation, comparisons: pl.DataFrame | None) -> dict[str, dict[str, Row]]:
    """Random sets of as many neurons, by measure and by what they are called."""
    known: dict[str, dict[str, Row]] = {measure: {} for measure in MEASURES}
    if comparisons is not None:
        rows = comparisons.filter(pl.col("measure").is_in(list(MEASURES)), comparison=RANDOM, language=AVERAGE)
        for row in rows.filter(pl.col("arm").is_in([found.safety, found.language])).rows(named=True):
            known[row["measure"]][f"random, as {row['arm']}"] = {**row, "value": row["mean"]}
    return known


def _dot(measure: str, name: str, row: Row | Mapping[str, float], colour: str, n: str) -> Dot:
    turned = measure == "asr_paper"
    ends = [row["low"], row["high"]] if row["low"] is not None else [None, None]
    low, high = (None if end is None else min(1.0, max(0.0, 1 - end if turned else end)) for end in ends)
    low, high = (high, low) if turned else (low, high)
    value = 1 - row["value"] if turned else row["value"]
    between = "" if low is None or high is None else f" ({percent(low)} to {percent(high)})"
    says = f"{drawable(name)}: {MEASURES[measure].removesuffix(', %')} {percent(value)}{between}, {n}"
    low, high = (None if end is None else 100 * end for end in (low, high))
    return Dot(row=name, value=100 * value, low=low, high=high, colour=colour, says=says)
