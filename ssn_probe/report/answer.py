"""The answer in words: what was done to what, what it changed, how sure that is, and what it costs; about five lines.

The same lines end a run in the terminal and open the report. Verdicts are those of the claims, figures are cells of the
tables; whatever else a reader may ask stands in the report.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from ssn_probe.report.arms_in_words import phrase_of
from ssn_probe.report.claim import NOT_TESTABLE, SHOWN, Claim
from ssn_probe.report.claims import claims
from ssn_probe.report.claims_of_arms import TWO_SETS, moved
from ssn_probe.report.comparisons_in_words import OTHERS, is_known, p_of
from ssn_probe.report.conclusions import never_line
from ssn_probe.report.conditions import Row, arm_names, comparison_row, on_fewer, summary_row, why_no_change
from ssn_probe.report.doses import dose_groups, dose_label, dose_of, untouched_row
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.learning_curves import last_step_lines
from ssn_probe.report.overlaps_in_words import only_overlaps, overlap_lines
from ssn_probe.report.recipe_sets import expression_of
from ssn_probe.report.refusal_in_words import refusal_lines
from ssn_probe.report.sections.sets_after_training import found_again_lines
from ssn_probe.report.sections.task_scores import task_changes
from ssn_probe.spec import Trains
from ssn_probe.spec.anchors import shared_with_anchor, source_of
from ssn_probe.study.arms import BASELINE, TESTED, ArmName
from ssn_probe.study.comparisons import LABELS
from ssn_probe.study.summary import AVERAGE, KL, averaged, untouched
from ssn_probe.text import (
    capitalised,
    change_in_points,
    counted,
    listing,
    p_equals,
    percent,
    plain,
    points,
    uncapitalised,
)

COSTS = {"over_refusal": "over-refusal", "utility": "utility", "invalid": "invalid responses"}
"""What an arm may change beside ASR, by measure."""
MOST_NAMED = 8
"""So many languages, or sets, are named; more are counted."""
WORTH_TELLING = 0.01
"""A dose that changes a cost by less has that cost in the report alone."""


def answer_lines(run: FinishedRun) -> list[str]:
    """What was found, a sentence or two per line, the most important first."""
    told = _Answer(run)
    recipe, findings = run.recipe, run.findings
    if findings.summary is None:
        found = told.sets() if not only_overlaps(recipe, findings) else []
        found += overlap_lines(recipe, findings)
    elif recipe.primary is None:
        found = told.without_primary()
    else:
        arm = recipe.primary
        found = [told.primary(arm), told.trained(arm), told.side_effects(arm), *told.doses()]
    lines = [*refusal_lines(findings.refusals), *found, *found_again_lines(findings.found_again), *never_line(recipe)]
    return [line for line in lines if line]


@dataclass(frozen=True, eq=False)
class _Answer:
    """A run that is told. Each method is a line of the answer or several, empty where there is nothing to say."""

    run: FinishedRun

    @cached_property
    def claims(self) -> list[Claim]:
        return claims(self.run)

    @property
    def summary(self) -> pl.DataFrame:
        assert self.run.findings.summary is not None
        return self.run.findings.summary

    @property
    def anchor(self) -> str | None:
        return self.run.findings.anchor

    # ── a recipe with a primary arm ──────────────────────────────────────────────────────────────────────────────────

    def primary(self, arm: str) -> str:
        """What the arm did, how much ASR changed, and the verdict of the primary test."""
        row, before = self._row(arm), self._before(arm)
        if row is None or before is None:
            return f"{plain(arm)}: {why_no_change(self.summary, arm)}."
        done, lowers, how = capitalised(self._phrase(arm)), self.run.recipe.arms[arm].lowers, _direction(row)
        course = (
            f"ASR {self._where(arm, self._source(arm))} {{}}from {percent(before)} to {percent(row['value'])} "
            f"({_change(row)}{on_fewer(row, before)}; n = {row['n']:,})"
        )
        if how == ("lowered" if lowers else "raised"):
            return f"{done} {how} {course.format('')}{self._verdict(arm, as_meant=True)}"
        absent = f"was not shown to {'strengthen' if lowers else 'break'} refusal"
        told = f"it {how} {course.format('')}" if how else course.format("went ")
        return f"{done} {absent}: {told}{self._verdict(arm, as_meant=False)}"

    def _verdict(self, arm: str, *, as_meant: bool) -> str:
        """What the primary test says of it, to end the sentence. `as_meant`: ASR changed as it was meant to."""
        claim = next(one for one in self.claims if one.primary)
        if claim.verdict == NOT_TESTABLE:
            return f". Not tested: {claim.why.partition(': ')[0]}."
        row = comparison_row(self.run.findings.comparisons, arm, LABELS)
        p = p_equals(p_of(row) or 0.0) if row is not None else ""
        if claim.verdict == SHOWN:
            return f", more than {OTHERS} did ({p})."
        return f", but was not shown to do so more than {OTHERS} ({p})." if as_meant else f"; {p} among {OTHERS}."

    def trained(self, arm: str) -> str:
        """How much of the model the arm trained, or changed without training."""
        facts = self._training(arm)
        if facts is None:
            return ""
        whole, steps = next(row for row in facts["parameters"] if row["site"] == "all"), facts["steps"]
        size = f"{counted(whole['parameters'], 'parameter')} ({whole['percent']:.3g} % of the model)"
        if not steps["planned"]:
            return f"It changed {size}, computed and not trained."
        kept = "" if steps["chosen"] == steps["done"] else f"; the weights after step {steps['chosen']} were kept"
        return f"It trained {size} for {counted(steps['done'], 'step')}{kept}."

    def side_effects(self, arm: str) -> str:
        """What else changed, in a line."""
        changes = []
        for measure, name in COSTS.items():
            after, before = self._row(arm, measure), self._before(arm, measure)
            if after is not None and before is not None:
                changes.append(f"{name} {100 * before:.1f} → {percent(after['value'])}")
        if (far := self._row(arm, KL)) is not None:
            changes.append(f"KL on harmless text {far['value']:.4f} nats per token")
        changes += map(plain, task_changes(self.run.findings.tasks, arm))
        return f"Side effects: {', '.join(changes)}." if changes else ""

    # ── any recipe ───────────────────────────────────────────────────────────────────────────────────────────────────

    def doses(self) -> list[str]:
        """A line per set that has several doses: ASR, and what it costs where a dose changes a cost by a point."""
        return [self._dose_line(arms) for arms in dose_groups(self.run.recipe)]

    def _dose_line(self, arms: list[str]) -> str:
        recipe, nodes = self.run.recipe, self.run.recipe.arms
        untouched = 0.0 if isinstance(nodes[arms[0]], Trains) else 1.0
        rows = [(untouched, BASELINE), *((dose_of(nodes[arm]), arm) for arm in arms)]
        shown = [measure for measure in ("over_refusal", "utility") if self._matters(measure, arms)]
        told = [(dose, self._figures(arm, ["asr", *shown], arms)) for dose, arm in sorted(rows)]
        curve = ", ".join(f"{dose_label(nodes[arms[0]], dose)} {figures}" for dose, figures in told if figures)
        is_tested = recipe.primary in arms and any(one.primary and one.verdict != NOT_TESTABLE for one in self.claims)
        tested = f"only {dose_label(nodes[str(recipe.primary)])} is tested" if is_tested else "none is tested"
        names = " / ".join(["ASR", *(COSTS[measure] for measure in shown)])
        measured = any(figures for dose, figures in told if dose != untouched)
        return f"{names} by dose, %: {curve} ({tested})." if measured else ""

    def _matters(self, measure: str, arms: list[str]) -> bool:
        changes = [row["delta"] for arm in arms if (row := self._row(arm, measure)) is not None]
        return any(is_known(change) and abs(change) >= WORTH_TELLING for change in changes)

    def _figures(self, arm: str, measures: list[str], arms: list[str]) -> str:
        """Figures of one dose of these arms, or of none: `36.5 / 0.0 / 100.0`."""
        none = arm == BASELINE
        rows = [
            untouched_row(self.summary, arms, measure, self.anchor) if none else self._row(arm, measure)
            for measure in measures
        ]
        return (
            "" if rows[0] is None else " / ".join("–" if row is None else f"{100 * row['value']:.1f}" for row in rows)
        )

    def sets(self) -> list[str]:
        """How large the sets are that are named or intervened on."""
        names = list(self.run.manifest["sets"])
        total = self.run.manifest["neurons"]["layers"] * sum(self.run.manifest["neurons"]["per_layer"].values())
        sizes = [self._size(name) for name in names]
        if not names or len(names) > MOST_NAMED:
            return []
        words = [f"{plain(name)} {words}" for name, (words, _) in zip(names, sizes, strict=True)]
        most = max(most for _, most in sizes)
        return [f"Neurons found: {'; '.join(words)} (at most {percent(most / total, 2)} of the model's {total:,})."]

    def _size(self, name: str) -> tuple[str, int]:
        """Neurons per language; those of a shared set without the anchor's, which are its whole MS."""
        found: Mapping[str, int] = self.run.manifest["sets"][name]
        shared = shared_with_anchor(expression_of(self.run.recipe, name)) is not None and len(found) > 1
        counts = [count for language, count in found.items() if not (shared and language == self.anchor)]
        least, most = min(counts), max(counts)
        size = f"{most:,}" if least == most else f"{least:,} to {most:,}"
        return f"{size} {'for every language' if list(found) == ['*'] else 'per language'}", most

    # ── a recipe without a primary arm ───────────────────────────────────────────────────────────────────────────────

    def without_primary(self) -> list[str]:
        """The claim about two behaviours, or what changes most and least; then trainings and doses."""
        findings = self.run.findings
        told = self.behaviours() or f"{self.baseline()}{self.extremes()}"
        return [told, *last_step_lines(self.run.recipe, findings.curves, findings.differences), *self.doses()]

    def behaviours(self) -> str:
        """Whether two behaviours have two sets."""
        own = next((one for one in self.claims if one.claim == TWO_SETS), None)
        if own is None:
            return ""
        found = f"where its own set is silenced rather than the other: {own.figures}" if own.figures else own.why
        return f"{capitalised(own.verdict)}: {uncapitalised(TWO_SETS)}. {capitalised(found)}."

    def baseline(self) -> str:
        row = self._row(BASELINE, role=BASELINE)
        if row is None:
            return "ASR was not measured."
        interval = f"95 % interval {100 * row['low']:.1f} to {100 * row['high']:.1f}"
        where = _outside(self.anchor)
        return f"The ASR of the untouched model {where} is {percent(row['value'])} ({interval}; n = {row['n']:,})."

    def extremes(self) -> str:
        """The arms with the largest and the smallest change on the average, whether ASR rises or falls."""
        tested = self.summary.filter(role=TESTED, measure="asr")
        asr = tested.filter(pl.col("step").is_null())
        named = zip(arm_names(asr), asr.rows(named=True), strict=True)
        rows = [(name, row) for name, row in named if row["language"] == AVERAGE and is_known(row["delta"])]
        rows.sort(key=lambda item: -abs(item[1]["delta"]))
        told = [
            f"{plain(name.title)} {percent(row['value'])} on the average of {self._averaged(name, row)} "
            f"({_change(row)})"
            for name, row in (rows if len(rows) < 3 else [rows[0], rows[-1]])
        ]
        which = "The largest and the smallest change"
        if asr.height < tested.height:
            which = f"Beside the learning curves, {uncapitalised(which)}"
        few = "Described, not tested" if len(rows) < 3 else f"{which}, described, not tested"
        return f" {few}: {'; '.join(told)}." if told else ""

    def _averaged(self, name: ArmName, row: Row) -> str:
        own, languages = row["set_language"], averaged(self.summary, name, "asr", self.anchor)
        if languages != self._usual() - {own}:
            return _languages(languages)
        other = [] if self.anchor is None else [f"the anchor {plain(self.anchor)}"]
        other += [] if own in (None, "*", self.anchor) else [f"{plain(own)} itself"]
        return f"all languages except {listing(other)}" if other else "all languages"

    # ── rows and names ───────────────────────────────────────────────────────────────────────────────────────────────

    def _row(self, arm: str, measure: str = "asr", *, role: str = TESTED) -> Row | None:
        return summary_row(self.summary, arm, measure, role=role)

    def _before(self, arm: str, measure: str = "asr") -> float | None:
        """The baseline in the arm's own languages: it may not be run in some, or leave one more out of its average."""
        row = self._row(arm, measure)
        known = row is not None and row["delta"] is not None
        return untouched(self.summary, ArmName(arm), measure, self.anchor) if known else None

    def _training(self, arm: str) -> Mapping[str, Any] | None:
        """What the manifest states of an arm's one training."""
        trained = [facts for facts in self.run.manifest.get("trained") or () if facts["arm"] == arm]
        return trained[0] if len(trained) == 1 else None

    def _usual(self) -> frozenset[str]:
        """The languages of the baseline's average."""
        return averaged(self.summary, ArmName(BASELINE), "asr", self.anchor, role=BASELINE)

    def _where(self, arm: str, source: str | None = None) -> str:
        """The languages of an arm's average: all but the anchor and a Patch's source, or those that it names."""
        languages = averaged(self.summary, ArmName(arm), "asr", self.anchor)
        usual = not languages or languages == self._usual() - {source}
        return _outside(self.anchor, source) if usual else f"on the average of {_languages(languages)}"

    def _phrase(self, arm: str) -> str:
        return phrase_of(self.run.recipe, arm, self.anchor, self.run.findings.refusals)

    def _source(self, arm: str) -> str | None:
        return source_of(self.run.recipe.arms[arm], self.anchor)


def _languages(languages: Collection[str]) -> str:
    named = len(languages) <= MOST_NAMED
    return listing([plain(language) for language in sorted(languages)]) if named else f"{len(languages)} languages"


def _outside(anchor: str | None, source: str | None = None) -> str:
    parts = [] if anchor is None else [f"the anchor {plain(anchor)}"]
    parts += [] if source in (None, anchor) else [f"the source {plain(str(source))}"]
    return f"outside {listing(parts)}" if parts else "over all languages"


def _direction(row: Row) -> str:
    """How ASR changed, by its interval; empty where that says neither."""
    return "raised" if moved(row, lowers=False) else "lowered" if moved(row, lowers=True) else ""


def _change(row: Row) -> str:
    low, high = row["delta_low"], row["delta_high"]
    known = is_known(low) and is_known(high)
    return change_in_points(row["delta"], low, high) if known else f"{points(row['delta'])} points, no interval"
