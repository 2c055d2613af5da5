"""What every training gives and costs after so many steps, for the answer and the report."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import polars as pl

from ssn_probe.report.cells import ABSENT, number, share_cell
from ssn_probe.report.document import Folded, Picture, Section, Table, folded_if_large, section
from ssn_probe.spec import Recipe
from ssn_probe.study.training_curves import CURVE_MEASURES, RANDOM, Difference, learning_curves
from ssn_probe.text import change_in_points, counted, plain

NAMES = {"asr": "ASR", "over_refusal": "over-refusal", "utility": "utility"}


def curve_section(curves: pl.DataFrame, anchor: str | None) -> Section:
    """Every curve as a table, step by step."""
    body = tuple(
        (
            row["curve"],
            f"{row['parameters']:,}",
            str(row["step"]),
            *(share_cell(row, measure) for measure in CURVE_MEASURES),
        )
        for row in curves.rows(named=True)
    )
    head = ("trained", "parameters", "steps", *(f"{name}, %" for name in NAMES.values()))
    over = "all languages" if anchor is None else f"the languages other than the anchor {anchor}"
    note = (
        f"Averages over {over}, with 95 % intervals over prompts, none adjusted. At the same step, trainings of one "
        "batch size have seen as many rows: that is the budget, whatever the number of parameters. A point is better "
        "only where ASR and over-refusal are lower and utility is not: refusing everything also gives a low ASR."
    )
    return section(
        "What each training gives and costs",
        Picture("curves"),
        folded_if_large("Step by step", Table(head, body)),
        note,
    )


def trained_section(manifest: Mapping[str, Any]) -> Section | None:
    """How much was trained and how each training went; folded, the same per site."""
    trainings: dict[str, list[Mapping[str, Any]]] = {}
    for point in manifest.get("trained") or ():
        name = point["arm"] if point["without"] is None else f"{point['arm']} without {point['without']}"
        trainings.setdefault(name, []).append(point)
    if not trainings:
        return None
    whole = tuple(_whole(name, points) for name, points in trainings.items())
    sites = tuple(row for name, points in trainings.items() for row in _sites(name, points))
    note = (
        "Steps: done of those planned, and the step or steps whose weights were kept. A LoRA adapter belongs to no "
        "single neuron. The held-out loss is per response token, in nats, on rows of the train split that were not "
        "learned: first before training, then at each step kept; a dash: not measured at that step."
    )
    if any(not point["steps"]["planned"] for points in trainings.values() for point in points):
        note += " An edit without steps is computed, and not trained."
    return section(
        "What was trained",
        Picture("training"),
        Table(("trained", *SIZES, "steps", "held-out loss"), whole, note),
        Folded("Parameters per site", (Table(("trained", "site", *SIZES, "% of the site"), sites),)),
    )


SIZES = ("neurons", "parameters", "% of the model")


def _whole(name: str, points: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """A training as a whole, and how it went."""
    sizes = next(_sizes(row) for row in points[0]["parameters"] if row["site"] == "all")
    return name, *sizes, _steps(points), _loss(points)


def _sites(name: str, points: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    rows = points[0]["parameters"]
    return [(name, row["site"], *_sizes(row), f"{row['percent_of_site']:.3f}") for row in rows]


def _sizes(row: Mapping[str, Any]) -> tuple[str, str, str]:
    neurons = f"{row['neurons']:,}" if row["neurons"] else ABSENT
    return neurons, f"{row['parameters']:,}", f"{row['percent']:.4f}"


def _steps(points: Sequence[Mapping[str, Any]]) -> str:
    steps = points[0]["steps"]
    if not steps["planned"]:
        return "none"
    early = ", stopped early" if steps["done"] < steps["planned"] else ""
    kept = ", ".join(str(point["steps"]["chosen"]) for point in points)
    return f"{steps['done']} of {steps['planned']}{early}; kept {kept}"


def _loss(points: Sequence[Mapping[str, Any]]) -> str:
    """Before, and at every step that was kept; a dash where it was not measured at that step."""
    losses = [point["held_out_loss"] for point in points]
    base = next((loss["base"] for loss in losses if loss), None)
    if base is None:
        return ABSENT
    return " → ".join(number(loss and loss["chosen"], 3) for loss in [{"chosen": base}, *losses])


def last_step_lines(recipe: Recipe, curves: pl.DataFrame | None, differences: Sequence[Difference]) -> Iterator[str]:
    """What learning curves reach, in a line, random sets on average; then each beside its random sets."""
    if curves is None:
        return
    rows = curves.filter(pl.col("curve").is_in(list(learning_curves(recipe))))
    last = rows.filter(pl.col("step") == pl.col("step").max())
    measures = [measure for measure in NAMES if last.height and not last[measure].null_count()]
    told = []
    for _, own in last.group_by(pl.coalesce(pl.when(group=RANDOM).then("group"), "curve"), maintain_order=True):
        figures = " / ".join(f"{100 * sum(own[measure]) / own.height:.1f}" for measure in measures)
        told.append(f"{plain(own['curve'][0]) if own.height == 1 else f'{own.height} random sets'} {figures}")
    if measures and told:
        names = " / ".join(NAMES[measure] for measure in measures)
        yield f"{names} after {counted(last['step'][0], 'step')}, %: {', '.join(told)}."
    for found in {found.curve: found for found in differences if found.measure == "asr"}.values():
        change = change_in_points(found.estimate.value, found.estimate.low, found.estimate.high)
        sets = counted(found.random_sets, "random set")
        yield f"{plain(found.curve)} less {sets} after {found.step} steps: ASR {change} (described, not tested)."
