"""Where are a set's neurons: in which languages and sites, beside where all of the model's neurons are?"""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.report.document import Section, Table, section
from ssn_probe.report.markdown_tables import set_language_cell
from ssn_probe.text import percent


def neurons_section(neurons: pl.DataFrame, manifest: Mapping[str, Any]) -> Section:
    """How many neurons every set has per language and site."""
    sites = [site for site in manifest["neurons"]["per_layer"] if site in set(neurons["site"])]
    body = []
    for name in neurons["set"].unique(maintain_order=True):
        for language, count in manifest["sets"][name].items():
            counts = _by_site(neurons.filter(set=name, language=language))
            by_site = [str(counts.get(site, 0)) for site in sites]
            body.append((name, set_language_cell(language, escape=str), str(count), *by_site))
    return section("Neurons per language and site", Table(("set", "language", "neurons", *sites), tuple(body)))


def mix_section(neurons: pl.DataFrame, manifest: Mapping[str, Any]) -> Section:
    """The share of each site in a set, beside its share of all neurons."""
    widths: Mapping[str, int] = manifest["neurons"]["per_layer"]
    total = sum(widths.values())
    body = [("all neurons", *(percent(width / total, 0) for width in widths.values()))]
    for name in neurons["set"].unique(maintain_order=True):
        rows = neurons.filter(set=name)
        counts = _by_site(rows)
        body.append((name, *(percent(counts.get(site, 0) / rows.height, 0) for site in widths)))
    note = (
        "A rule that takes the same share of every site cannot show where refusal is: its mix is that of the neurons "
        "it chooses from."
    )
    return section("Share of each site", Table(("set", *widths), tuple(body), note))


def _by_site(rows: pl.DataFrame) -> dict[str, int]:
    return dict(rows.group_by("site").len().iter_rows())
