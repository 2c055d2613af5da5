"""What came out of a run, as values that a terminal, a notebook and `print` show alike."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from ssn_probe.errors import ResultError, nearest
from ssn_probe.runs import integrity
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec import Recipe
from ssn_probe.spec.display import Displayed

if TYPE_CHECKING:
    import polars as pl

    from ssn_probe.neurons import NeuronSet
    from ssn_probe.neurons.overlap import Overlap
    from ssn_probe.report.charts.chart import Chart
    from ssn_probe.report.claim import Claim
    from ssn_probe.study.forecast import Forecast


class Printed(Displayed):
    """A value that `print` shows as a terminal does."""

    def __str__(self) -> str:
        from ssn_probe.spec.rendering import as_text

        return as_text(self.__rich__())


@dataclass(frozen=True)
class Preview(Printed):
    """What a recipe would do; shows the plan."""

    forecast: "Forecast"

    def __rich__(self) -> Any:
        from ssn_probe.report.terminal.plan_table import render_plan

        return render_plan(self.forecast)


class Charts(Printed, dict[str, "Chart"]):
    """A run's charts by name; shows their titles."""

    def __rich__(self) -> Any:
        from ssn_probe.report.terminal.result_card import charts_table

        return charts_table(self)


class NeuronSets(Printed, dict[str, "NeuronSet"]):
    """A run's sets by name, in the recipe's order."""

    def __missing__(self, name: str) -> "NeuronSet":
        raise ResultError(f"the run has no set {name!r}", nearest(str(name), list(self)))

    def __rich__(self) -> Any:
        from ssn_probe.report.terminal.result_card import sets_table

        return sets_table(self)


class Overlaps(Printed, dict[str, "Overlap"]):
    """How many neurons languages share, for each set that every language chooses for itself."""

    def __missing__(self, name: str) -> "Overlap":
        raise ResultError(f"the run has no overlap of {name!r}", nearest(str(name), list(self)))

    def __rich__(self) -> Any:
        from rich.console import Group

        return Group(*(overlap.__rich__() for overlap in self.values()))


class Claims(Printed, list["Claim"]):
    """A run's claims with their verdicts; shows them as a table."""

    def __rich__(self) -> Any:
        from ssn_probe.report.terminal.claims_table import claims_table

        return claims_table(self)


@dataclass(frozen=True)
class Result(Printed):
    """One run's folder, as tables and words. Shows its card: the table per language, the notes, the answer.

    A table that the recipe did not measure, or the run did not reach, is a ResultError.
    """

    folder: RunFolder

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @property
    def manifest(self) -> dict[str, Any]:
        """How the run was made and how it ended: model, data, versions, seeds, times, warnings."""
        return self.folder.manifest()

    @property
    def recipe(self) -> Recipe:
        """The recipe as it was run."""
        from ssn_probe.spec.discovery import find_recipe

        return find_recipe(str(self.path / "recipe.json"), {})

    @property
    def card(self) -> Any:
        """The rich renderable that terminal and notebook show."""
        from ssn_probe.report.terminal.result_card import card

        return card(self.folder)

    def __rich__(self) -> Any:
        return self.card

    @property
    def answer(self) -> str:
        """The answer in words, one finding per line."""
        from ssn_probe.report.terminal.result_card import answer_text

        return answer_text(self.manifest)

    @property
    def claims(self) -> Claims:
        """What the recipe asks, the primary question first, each with its verdict; none in runs of earlier releases."""
        from ssn_probe.report.claim import kept_claims

        return Claims(kept_claims(self.manifest))

    @property
    def samples(self) -> "pl.DataFrame":
        """One row per prompt × arm: prompt, languages, arm, role, seed, response, verdict."""
        return self.table("samples")

    @property
    def summary(self) -> "pl.DataFrame":
        """One row per language × arm × measure: value, interval, difference from the baseline."""
        return self.table("summary")

    @property
    def comparisons(self) -> "pl.DataFrame":
        """One row per arm × measure × comparison × language: what compared sets gave, the difference, p."""
        return self.table("comparisons")

    @property
    def overlap(self) -> "pl.DataFrame":
        """One row per pair of languages and set: neurons in common, beside what chance gives."""
        return self.table("overlap")

    @property
    def overlaps(self) -> Overlaps:
        """The overlaps as values that display a language × language table, by set."""
        from ssn_probe.neurons.overlap import Overlap

        frames = self.overlap.partition_by("set", as_dict=True, maintain_order=True)
        return Overlaps({str(name): Overlap(frame, str(name)) for (name,), frame in frames.items()})

    @property
    def neurons(self) -> NeuronSets:
        """Every set by the name that the recipe gives it, or its arm."""
        from ssn_probe.neurons import KEYS, SCHEMA, NeuronSet

        rows, languages = self.table("neurons"), self.manifest["sets"]
        with integrity.showing(self.folder):
            return NeuronSets(
                {
                    name: NeuronSet(rows.filter(set=name).select(*SCHEMA).sort(KEYS), tuple(languages[name]))
                    for name in languages
                }
            )

    def table(self, name: str) -> "pl.DataFrame":
        """One of the run's tables by name; beside the above `compared_sets`, `log_odds`, `nulls`, `stability`, …"""
        return self.folder.table(name)

    @overload
    def plot(self, name: None = None) -> Charts: ...
    @overload
    def plot(self, name: str) -> "Chart": ...
    def plot(self, name: str | None = None) -> "Chart | Charts":
        """The chart of that name as the page has it, which a notebook shows; its `altair` is an object to change.

        Without a name, all that the run has. Raises ResultError where it has no such chart.
        """
        from ssn_probe.report.charts.catalogue import chart_of, charts_of
        from ssn_probe.report.past_run import past_run

        with integrity.showing(self.folder):
            run = past_run(self.folder)
            return Charts(charts_of(run)) if name is None else chart_of(run, name)

    def export(self, path: str | os.PathLike[str], measure: str = "asr") -> Path:
        """Writes a measure per language with its intervals to a .csv, .tex or .md file; returns its path."""
        from ssn_probe.report.export import export

        return export(self.folder, Path(path), measure)

    def export_scores(
        self,
        path: str | os.PathLike[str],
        *,
        name: str | None = None,
        languages: Sequence[str] | None = None,
        contexts: Sequence[str] | None = None,
    ) -> Path:
        """Writes the effect of every neuron on every prompt to a .parquet file, batch by batch; returns its path.

        Of the set of that name, by default the only one whose effects were measured. One row per neuron and prompt:
        language, context, prompt_id, layer, site, index, effect.
        """
        from ssn_probe.api.score_export import export_scores

        return export_scores(self.folder, Path(path), name=name, languages=languages, contexts=contexts)
