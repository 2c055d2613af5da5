"""The answer in words: what was found, how large, how sure, and when an effect was not shown.

The same sentences end a run in the terminal and open `report.md`. Every figure in them is a cell of a table of the run.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ssn_probe.neurons import SITES
from ssn_probe.report.comparisons_in_words import (
    QUESTIONS,
    description,
    figures_of,
    is_shown,
    p_of,
    primary_sets,
    question_line,
    sets_of,
    test_of,
    verdict,
    why_no_null,
)
from ssn_probe.report.conditions import Row, arm_names, clusters_of, comparison_row, summary_row
from ssn_probe.report.doses import dose_groups, dose_label, dose_of
from ssn_probe.report.recipe_sets import expression_of
from ssn_probe.report.refusal_in_words import named
from ssn_probe.report.sections.task_scores import task_changes
from ssn_probe.spec import Recipe, Trains
from ssn_probe.spec.anchors import shared_with_anchor, source_of
from ssn_probe.spec.labels import set_label
from ssn_probe.study.arms import BASELINE, TESTED, WEAKENED, ArmName
from ssn_probe.study.comparisons import COMPARISONS, LABELS
from ssn_probe.study.refusal_trial import Refusals
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.summary import AVERAGE, KL, LOG_ODDS, PERPLEXITY, averaged
from ssn_probe.text import (
    capitalised,
    change_in_points,
    counted,
    listing,
    percent,
    plain,
)

SIDE_EFFECTS = {"utility": "utility", "over_refusal": "over-refusal", "invalid": "invalid responses"}
"""What an arm may change beside ASR, by measure."""
MOST_NAMED = 8
"""So many languages are named; more are counted."""


def answer(
    recipe: Recipe,
    manifest: Mapping[str, Any],
    neurons: pl.DataFrame,
    summary: pl.DataFrame | None,
    anchor: str | None,
    comparisons: pl.DataFrame | None = None,
    refusals: Sequence[Refusals] | None = None,
    tasks: pl.DataFrame | None = None,
    robustness: Robustness | None = None,
) -> list[str]:
    """What was found, a sentence or two per line, the most important first."""
    if summary is None:
        return _set_sizes(recipe, manifest, neurons)
    known = {"recipe": recipe, "manifest": manifest, "summary": summary, "anchor": anchor}
    study = _Study(**known, comparisons=comparisons, refusals=refusals, tasks=tasks, robustness=robustness)
    doses = dose_groups(recipe)
    if recipe.primary is None:
        lines = [study.baseline(), *study.extremes(), *map(study.dose_line, doses)]
        return [*lines, *_set_sizes(recipe, manifest, neurons)]
    lines = [
        study.primary(recipe.primary),
        study.label_sets(recipe.primary),
        study.trained(recipe.primary),
        study.log_odds(recipe.primary),
        *study.questions(recipe.primary),
        study.descriptions(recipe.primary),
        study.beside(recipe.primary, [arm for arm in recipe.arms if not any(arm in arms for arms in doses)]),
        study.side_effects(recipe.primary),
        *map(study.dose_line, doses),
    ]
    return [line for line in lines if line]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Study:
    """A recipe and what it measured. Each method is a line of the answer, empty where there is nothing to say."""

    recipe: Recipe
    manifest: Mapping[str, Any]
    summary: pl.DataFrame
    anchor: str | None
    comparisons: pl.DataFrame | None
    refusals: Sequence[Refusals] | None
    tasks: pl.DataFrame | None = None
    robustness: Robustness | None = None

    # ── a recipe with a primary arm ──────────────────────────────────────────────────────────────────────────────────

    def primary(self, arm: str) -> str:
        row, before, source = self._row(arm), self._before(arm, "asr"), self._source(arm)
        if row is None or before is None:
            return f"ASR was not measured for {plain(arm)}: there are no judged harmful prompts."
        intervention = f"{capitalised(self._phrase(arm))} ({_size(self.recipe, self.manifest, arm)})"
        change = (
            f"ASR {self._where(arm, source)} went from {percent(before)} to {percent(row['value'])} "
            f"({_change(row)}; n = {counted(row['n'], 'response')}, {clusters_of(row)})"
        )
        goal = ""
        if source and (own := summary_row(self.summary, BASELINE, "asr", role=BASELINE, language=source)):
            goal = f" The ASR of the untouched model in {plain(source)} is {percent(own['value'])}."
        shown = verdict(self.recipe.arms[arm], row, self._compared(arm, LABELS), why_no_null(self.robustness, arm))
        return f"{intervention} {shown}: {change}.{goal}"

    def label_sets(self, arm: str) -> str:
        """The primary test: what sets found under exchanged labels gave."""
        row = self._row(arm)
        if row is None:
            return ""
        options = {"falls": self._falls(arm), "no_null": why_no_null(self.robustness, arm)}
        return capitalised(primary_sets(self._compared(arm, LABELS), row["value"], **options))

    def trained(self, arm: str) -> str:
        """How much of the model the arm trained."""
        facts = self._training(arm)
        if facts is None:
            return ""
        whole = next(row for row in facts["parameters"] if row["site"] == "all")
        return (
            f"It trained {counted(whole['parameters'], 'parameter')}, {whole['percent']:.3f} % of the model, for "
            f"{counted(facts['steps']['done'], 'step')}; the weights after step {facts['steps']['chosen']} were kept."
        )

    def questions(self, arm: str) -> Iterator[str]:
        """The other tests of ASR: a line per question."""
        for name in QUESTIONS:
            row = self._compared(arm, name)
            if row is not None:
                yield question_line(row, falls=self._falls(arm))

    def descriptions(self, arm: str) -> str:
        """What sets gave that test nothing."""
        rows = [self._compared(arm, name) for name in COMPARISONS if name not in (LABELS, *QUESTIONS)]
        parts = [description(row) for row in rows if row is not None]
        return f"Described, not tested: {listing(parts)} (in brackets: 95 % of such sets)." if parts else ""

    def beside(self, arm: str, others: list[str]) -> str:
        """The set without its top neuron, and other arms."""
        parts = []
        if (row := self._row(arm, role=WEAKENED)) is not None:
            parts.append(f"without its top neuron in each language the set gives {_gives(row)}")
        for other in others:
            if other != arm and (row := self._row(other)) is not None:
                parts.append(f"{self._phrase(other)} gives {_gives(row)}")
        return f"{capitalised('; '.join(parts))} (described, not tested)." if parts else ""

    def _falls(self, arm: str) -> bool:
        return self.recipe.arms[arm].lowers

    def _compared(self, arm: str, name: str, measure: str = "asr") -> Row | None:
        return comparison_row(self.comparisons, arm, name, measure)

    def side_effects(self, arm: str) -> str:
        changes = []
        for measure, name in SIDE_EFFECTS.items():
            after, before = self._row(arm, measure), self._before(arm, measure)
            if after is not None and before is not None:
                changes.append(f"{name} {percent(before)} → {percent(after['value'])}")
        changes += [*self._on_text(arm), *map(plain, task_changes(self.tasks, arm))]
        return f"Side effects: {listing(changes)}." if changes else ""

    def _on_text(self, arm: str) -> list[str]:
        """How far the arm is from the untouched model on harmless text, and the perplexity of that text."""
        found, row = [], self._row(arm, KL)
        if row is not None:
            beside = self._compared(arm, LABELS, KL)
            sets = "" if beside is None else f" (sets of exchanged labels {beside['mean']:.4f})"
            found.append(f"a KL of {row['value']:.4f} nats per token from the untouched model on harmless text{sets}")
        row = self._row(arm, PERPLEXITY)
        if row is not None and row["delta"] is not None:
            before = row["value"] / (1 + row["delta"])
            found.append(f"perplexity of harmless prompts {before:.2f} → {row['value']:.2f}")
        return found

    def log_odds(self, arm: str) -> str:
        row, beside = self._row(arm, LOG_ODDS), self._compared(arm, LABELS, LOG_ODDS)
        if row is None or beside is None or p_of(beside) is None or why_no_null(self.robustness, arm):
            return ""
        shown = "Shown" if is_shown(beside) else "Not shown"
        return (
            f"The refusal log-odds, read without generating, changed by {row['delta']:+.2f} ({row['delta_low']:+.2f} "
            f"to {row['delta_high']:+.2f}) to {row['value']:.2f}. {shown} to be more than under exchanged labels: "
            f"{sets_of(beside)} gave {figures_of(beside)}; {test_of(beside, falls=not self._falls(arm))}."
        )

    # ── any recipe ───────────────────────────────────────────────────────────────────────────────────────────────────

    def dose_line(self, arms: list[str]) -> str:
        """What every dose gives, and what it costs."""
        nodes = self.recipe.arms
        untouched = 0.0 if isinstance(nodes[arms[0]], Trains) else 1.0
        doses = [(untouched, self._dose(BASELINE, role=BASELINE))]
        doses += [(dose_of(nodes[arm]), self._dose(arm) + self._kept_step(arm)) for arm in arms]
        curve = "; ".join(f"{dose_label(nodes[arms[0]], dose)} {figures}" for dose, figures in sorted(doses) if figures)
        tested = (
            f"only {dose_label(nodes[self.recipe.primary])} is tested" if self.recipe.primary in arms else "no test"
        )
        return f"Dose by dose, {self._set_name(arms[0])} {self._where(arms[0])}: {curve} (described; {tested})."

    def _dose(self, arm: str, *, role: str = TESTED) -> str:
        row = self._row(arm, role=role)
        if row is None:
            return ""
        parts = [f"ASR {percent(row['value'])}"]
        for measure in ("utility", "over_refusal"):
            cell = self._row(arm, measure, role=role)
            parts += [] if cell is None else [f"{SIDE_EFFECTS[measure]} {percent(cell['value'])}"]
        far = self._row(arm, KL, role=role)
        parts += [] if far is None else [f"KL {far['value']:.4f}"]
        return ", ".join(parts)

    def _kept_step(self, arm: str) -> str:
        """The step whose weights were measured, where the training chose an earlier one than its last."""
        facts = self._training(arm)
        if facts is None or facts["steps"]["chosen"] == facts["steps"]["planned"]:
            return ""
        return f" (step {facts['steps']['chosen']} of {facts['steps']['done']})"

    # ── a recipe without a primary arm ───────────────────────────────────────────────────────────────────────────────

    def baseline(self) -> str:
        row = self._row(BASELINE, role=BASELINE)
        if row is None:
            return "ASR was not measured."
        interval = f"95 % interval {100 * row['low']:.1f} to {100 * row['high']:.1f}"
        return (
            f"The ASR of the untouched model {_outside(self.anchor)} is {percent(row['value'])} ({interval}; "
            f"n = {counted(row['n'], 'response')})."
        )

    def extremes(self) -> list[str]:
        """The arms with the largest and the smallest change on the average."""
        asr = self.summary.filter(pl.col("step").is_null(), role=TESTED, measure="asr")
        named = zip(arm_names(asr), asr.rows(named=True), strict=True)
        rows = [(name, row) for name, row in named if row["language"] == AVERAGE]
        rows.sort(key=lambda item: -item[1]["delta"])
        return [
            f"{plain(name.title)}: ASR {percent(row['value'])} on the average of {self._averaged(name, row)} "
            f"({_change(row)}; n = {counted(row['n'], 'response')}; described, not tested)."
            for name, row in (rows if len(rows) < 3 else [rows[0], rows[-1]])
        ]

    def _averaged(self, name: ArmName, row: Row) -> str:
        own, languages = row["set_language"], averaged(self.summary, name, "asr", self.anchor)
        if languages != self._usual() - {own}:
            return _languages(languages)
        other = [] if self.anchor is None else [f"the anchor {plain(self.anchor)}"]
        other += [] if own in (None, "*", self.anchor) else [f"{plain(own)}, whose neurons they are"]
        return f"all languages except {listing(other)}" if other else "all languages"

    # ── rows and names ───────────────────────────────────────────────────────────────────────────────────────────────

    def _row(self, arm: str, measure: str = "asr", *, role: str = TESTED) -> Row | None:
        return summary_row(self.summary, arm, measure, role=role)

    def _before(self, arm: str, measure: str) -> float | None:
        """The baseline in the arm's own languages: it may not be run in some, or leave one more out of its average."""
        row = self._row(arm, measure)
        return None if row is None or row["delta"] is None else round(row["value"] - row["delta"], 12)

    def _training(self, arm: str) -> Mapping[str, Any] | None:
        """What the manifest states of an arm's one training."""
        trained = [facts for facts in self.manifest.get("trained") or () if facts["arm"] == arm]
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
        source = self._source(arm)
        return self.recipe.arms[arm].phrase(self._set_name(arm), None if source is None else plain(source))

    def _source(self, arm: str) -> str | None:
        return source_of(self.recipe.arms[arm], self.anchor)

    def _set_name(self, arm: str) -> str:
        return named(set_label(expression_of(self.recipe, arm)), self.refusals) or f"the set {plain(arm)}"


def _languages(languages: Collection[str]) -> str:
    named = len(languages) <= MOST_NAMED
    return listing([plain(language) for language in sorted(languages)]) if named else f"{len(languages)} languages"


def _outside(anchor: str | None, source: str | None = None) -> str:
    parts = [] if anchor is None else [f"the anchor {plain(anchor)}"]
    parts += [] if source in (None, anchor) else [f"the source {plain(str(source))}"]
    return f"outside {listing(parts)}" if parts else "over all languages"


def _change(row: Row) -> str:
    return change_in_points(row["delta"], row["delta_low"], row["delta_high"])


def _gives(row: Row) -> str:
    return f"{percent(row['value'])} ({_change(row)})"


def _set_sizes(recipe: Recipe, manifest: Mapping[str, Any], neurons: pl.DataFrame) -> list[str]:
    """The sets that are named or intervened on; the line of a learning curve says how much was trained."""
    lines = []
    curves = {name for name, node in recipe.arms.items() if isinstance(node, Trains) and node.at is not None}
    for name in neurons["set"].unique(maintain_order=True):
        if name in curves:
            continue
        rows = neurons.filter(set=name)
        counts = {site: rows.filter(site=site).height for site in SITES}
        largest = sorted((site for site in SITES if counts[site]), key=lambda site: -counts[site])
        mix = ", ".join(f"{site} {percent(counts[site] / rows.height, 0)}" for site in largest)
        lines.append(f"{plain(name)}: {_size(recipe, manifest, name)}; by site: {mix}.")
    return lines


def _size(recipe: Recipe, manifest: Mapping[str, Any], name: str) -> str:
    """Neurons per language; those of a shared set without the anchor's, which are its whole MS."""
    found: Mapping[str, int] = manifest["sets"][name]
    shared = shared_with_anchor(expression_of(recipe, name)) is not None and len(found) > 1
    counts = [count for language, count in found.items() if not (shared and language == manifest["anchor"])]
    total = manifest["neurons"]["layers"] * sum(manifest["neurons"]["per_layer"].values())
    least, most = min(counts), max(counts)
    size = counted(most, "neuron") if least == most else f"{least:,} to {counted(most, 'neuron')}"
    where = "for every language" if list(found) == ["*"] else "per language"
    return f"{size} {where}, at most {percent(most / total, 2)} of the model's {total:,}"
