"""Where are a set's neurons: in which languages and sites, beside where all of the model's neurons are?"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.report.cells import set_language_cell
from ssn_probe.report.document import Picture, Section, Table, folded_if_large, section
from ssn_probe.text import percent


def neurons_section(neurons: pl.DataFrame, manifest: Mapping[str, Any]) -> Section:
    """The share of each site in every set, and how many neurons it has per language and site."""
    counts = folded_if_large("Neurons per language and site", _counts(neurons, manifest))
    return section("Where the neurons are", Picture("neurons"), _mix(neurons, manifest), counts)


def _counts(neurons: pl.DataFrame, manifest: Mapping[str, Any]) -> Table:
    sites = [site for site in manifest["neurons"]["per_layer"] if site in set(neurons["site"])]
    body = []
    for name in neurons["set"].unique(maintain_order=True):
        for language, count in manifest["sets"][name].items():
            counts = _by_site(neurons.filter(set=name, language=language))
            by_site = [str(counts.get(site, 0)) for site in sites]
            body.append((name, set_language_cell(language), str(count), *by_site))
    return Table(("set", "language", "neurons", *sites), tuple(body))


def _mix(neurons: pl.DataFrame, manifest: Mapping[str, Any]) -> Table:
    """The share of each site in a set, beside its share of all neurons."""
    widths: Mapping[str, int] = manifest["neurons"]["per_layer"]
    total = sum(widths.values())
    body = [("all neurons", *(percent(width / total, 0) for width in widths.values()))]
    for name in neurons["set"].unique(maintain_order=True):
        rows = neurons.filter(set=name)
        counts = _by_site(rows)
        body.append((name, *(percent(counts.get(site, 0) / rows.height, 0) for site in widths)))
    note = (
        "Of each site. A rule that takes the same share of every site cannot show where refusal is: its mix is that of "
        "the neurons it chooses from."
    )
    return Table(("set", *widths), tuple(body), note)


def _by_site(rows: pl.DataFrame) -> dict[str, int]:
    return dict(rows.group_by("site").len().iter_rows())
