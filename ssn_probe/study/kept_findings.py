"""What a past run found, read back from its folder: tables from parquet files, the rest from its manifest."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

import polars as pl

from ssn_probe.errors import ResultError
from ssn_probe.neurons import NEURON
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec import Recipe
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.study.deltas import TrainedArm
from ssn_probe.study.dissociation import dissociation
from ssn_probe.study.findings import Findings
from ssn_probe.study.refusal_readout import LanguageGate
from ssn_probe.study.refusal_trial import Refusals
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.training_curves import comparable_points, curve_differences

T = TypeVar("T")


def kept_findings(run: RunFolder, recipe: Recipe) -> Findings:
    """The findings of a run that is done. Raises ResultError where a file is damaged.

    A run of an earlier release did not keep how labels were exchanged and what the model refused: its findings are
    without.
    """
    manifest = run.manifest()
    samples, summary, neurons = _table(run, "samples"), _table(run, "summary"), run.table("neurons")
    anchor, trained = manifest["anchor"], _values(manifest, "trained", TrainedArm)
    crossed = None if samples is None else dissociation(recipe, samples, *_log_odds(run), anchor)
    curves, differences, left_out = _table(run, "curves"), (), ()
    if trained and samples is not None and summary is not None:
        left_out = tuple(comparable_points(recipe, trained, summary, anchor)[1])
        differences = () if curves is None else tuple(curve_differences(recipe, trained, samples, anchor))
    return Findings(
        anchor=anchor,
        evaluated=tuple(manifest["evaluated"]),
        sets=manifest["sets"],
        neurons=neurons,
        robustness=_robustness(run, manifest, neurons),
        overlap=_table(run, "overlap"),
        found_again=_table(run, "again"),
        truth=_table(run, "truth"),
        verification=_table(run, "verification"),
        gates=_values(manifest, "gates", LanguageGate),
        refusals=_values(manifest, "refusals", Refusals) if manifest.get("refusals") is not None else None,
        seconds=manifest["seconds"],
        samples=samples,
        summary=summary,
        tasks=_table(run, "lm_eval"),
        curves=curves,
        trained=trained,
        differences=differences,
        curves_left_out=left_out,
        comparisons=_table(run, "comparisons"),
        dissociation=crossed,
    )


def _log_odds(run: RunFolder) -> tuple[pl.DataFrame | None, pl.DataFrame | None]:
    return _table(run, "log_odds"), _table(run, "language_log_odds")


def _table(run: RunFolder, name: str) -> pl.DataFrame | None:
    return run.table(name) if (run.path / f"{name}.parquet").is_file() else None


def _robustness(run: RunFolder, manifest: Mapping[str, Any], neurons: pl.DataFrame) -> Robustness:
    frequencies = neurons.select("set", "language", *NEURON, "frequency").drop_nulls("frequency")
    return Robustness(
        nulls=_table(run, "nulls"),
        jaccard=_table(run, "stability"),
        frequencies=frequencies if frequencies.height else None,
        curve=_table(run, "stability_curve"),
        exchangeability=_values(manifest, "exchanged", Exchangeability),
        apart=tuple(manifest.get("apart") or ()),
    )


def _values(manifest: Mapping[str, Any], field: str, kind: Callable[..., T]) -> tuple[T, ...]:
    """The JSON objects of a field of the manifest as frozen values."""
    names = [one.name for one in fields(kind)]  # type: ignore[arg-type]
    try:
        return tuple(kind(**{name: _frozen(entry[name]) for name in names}) for entry in manifest.get(field) or ())
    except (KeyError, TypeError) as error:
        raise ResultError(f"the manifest is damaged at {field!r}", "Run the recipe again.") from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
