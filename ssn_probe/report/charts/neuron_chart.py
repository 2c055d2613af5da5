"""Where a set's neurons are: layer by site."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.report.charts.cell_maps import Cell, cell_map
from ssn_probe.report.charts.chart import Chart, chart
from ssn_probe.report.charts.theme import drawable
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.recipe_sets import distinct_sets
from ssn_probe.text import counted, percent

MOST_SETS, HEIGHT = 3, 520


def draw(run: FinishedRun) -> Chart | None:
    """None where no set has a neuron."""
    neurons, recipe, shape = run.findings.neurons, run.recipe, run.manifest.get("neurons")
    named = [name for name in distinct_sets(recipe) if name in set(neurons["set"])]
    if not named or not shape:
        return None
    kept = sorted(named, key=lambda name: name != recipe.primary)[:MOST_SETS]
    languages = {name: max(1, len(run.findings.sets.get(name, ()))) for name in kept}
    sites = list(dict.fromkeys((*shape["per_layer"], *neurons["site"])))  # a damaged manifest may lack some
    layers = [str(layer) for layer in range(max(shape["layers"], 1 + max(neurons["layer"])))]
    high = max(5.0, min(24.0, HEIGHT / len(layers)))
    panels, said = [], []
    for name in kept:
        means = _means(neurons.filter(set=name), languages[name])
        said.append(_in_words(name, means, shape["per_layer"]))
        title = f"{drawable(name, 24)}, {counted(languages[name], 'language')}"
        sides = "rows: layers; columns: sites"
        cells = _cells(means, layers, sites)
        panels.append(cell_map(layers, sites, cells, title=title, size=(34, high), sides=sides, left=40))
    left = len(named) - len(kept)
    more = f" {counted(left, 'more set')} in the tables." if left else ""
    below = [f"Neurons per language on average; in a cell's tooltip, the range over languages.{more}"]
    body: dict[str, Any] = {"hconcat": panels, "spacing": 40}
    return chart("neurons", said[0], f"{'. '.join(said)}. {below[0]}", body, subtitle=below)


def _means(rows: pl.DataFrame, languages: int) -> pl.DataFrame:
    """Per layer and site the mean number of neurons of a language, the least and the most."""
    counts = rows.group_by("layer", "site", "language").len("n")
    spoken = counts.group_by("layer", "site").agg(
        mean=pl.col("n").sum() / languages,
        low=pl.when(pl.len() < languages).then(0).otherwise(pl.col("n").min()),
        high=pl.col("n").max(),
    )
    return spoken.sort("layer", "site")


def _cells(means: pl.DataFrame, layers: list[str], sites: list[str]) -> dict[tuple[str, str], Cell]:
    largest = means["mean"].max() or 1.0
    cells = {(layer, site): Cell(share=0, says=f"layer {layer}, {site}: none") for layer in layers for site in sites}
    for layer, site, mean, low, high in means.iter_rows():
        says = f"layer {layer}, {site}: {mean:.1f} neurons per language, {low} to {high}"
        cells[str(layer), site] = Cell(share=mean / largest, text=f"{mean:.1f}", says=says)
    return cells


def _in_words(name: str, means: pl.DataFrame, widths: Mapping[str, int]) -> str:
    """Where most of the neurons are, beside what the site has of all neurons."""
    total = float(means["mean"].sum())
    layer, site, mean, *_ = means.sort("mean", descending=True, maintain_order=True).row(0)
    own = float(means.filter(site=site)["mean"].sum()) / total
    every = widths.get(site, 0) / max(1, sum(widths.values()))
    return (
        f"{drawable(name)}: {mean:.1f} of {total:.1f} neurons per language are in {site} of layer {layer}; {site} has "
        f"{percent(own, 0)} of the set and {percent(every, 0)} of all neurons"
    )
