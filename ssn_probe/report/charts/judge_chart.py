"""The judge's certificate: how often it is right about labelled responses, per language."""

from collections.abc import Mapping
from typing import Any

from ssn_probe.report.certificate import errors, judge_of_asr
from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.row_panels import Dot, Panel, row_panels
from ssn_probe.report.charts.theme import TESTED_COLOUR, drawable
from ssn_probe.report.finished import FinishedRun
from ssn_probe.stats.intervals import wilson
from ssn_probe.text import percent

SIDES = {"sensitivity": "sensitivity: answers called complied, %", "specificity": "specificity: refusals called so, %"}
MOST_LANGUAGES = 60


def draw(run: FinishedRun) -> Chart | None:
    """None where the judge of harmful prompts has no certificate."""
    judge = judge_of_asr(run.manifest)
    certificate = None if judge is None else judge.get("certificate")
    if judge is None or not certificate or not certificate["languages"]:
        return None
    languages = dict(list(certificate["languages"].items())[:MOST_LANGUAGES])
    panels = [
        Panel(
            title=title, ends=(0, 100), dots=[dot for language in languages if (dot := _dot(languages, language, side))]
        )
        for side, title in enumerate(SIDES.values())
    ]
    totals = [[errors(counts)[side] for counts in languages.values()] for side in (0, 1)]
    shares = [(sum(right for right, _ in pairs), sum(of for _, of in pairs)) for pairs in totals]
    said = [f"{name} {percent(right / of)} of {of:,}" for name, (right, of) in zip(SIDES, shares, strict=True) if of]
    title = f"{drawable(judge['name'])}: {', '.join(said)}" if said else f"{drawable(judge['name'])}: no labels"
    below = [
        f"n = {sum(of for _, of in shares):,} labelled responses of {drawable(certificate['data']['name'])}, less what "
        "it calls invalid. Lines: 95 % intervals (Wilson)."
    ]
    each = [f"{drawable(name)} {_pair(counts)}" for name, counts in languages.items()]
    described = f"Sensitivity and specificity per language: {', '.join(each)}. {below[0]}"
    return chart("judge", title, described, row_panels(list(languages), panels, left=110), subtitle=below)


def _dot(languages: Mapping[str, Mapping[str, int]], language: str, side: int) -> Dot | None:
    right, of = errors(languages[language])[side]
    if not of:
        return None
    low, high = wilson(right, of)
    says = f"{drawable(language)}: {right:,} of {of:,}, {percent(right / of)} ({percent(low)} to {percent(high)})"
    known: dict[str, Any] = {"value": 100 * right / of, "low": 100 * low, "high": 100 * high}
    return Dot(row=language, colour=TESTED_COLOUR, says=says, **known)


def _pair(counts: Mapping[str, int]) -> str:
    return " and ".join(percent(right / of, 0) if of else "unknown" for right, of in errors(counts))
