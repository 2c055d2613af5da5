"""A delta file, the differences of two, and its effect on responses: for terminal and notebook.

Names, settings and everything else from a file are shown as literal text.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ssn_probe.model.asking import asked_in_words
from ssn_probe.spec.display import literal
from ssn_probe.text import percent
from ssn_probe.training.delta_file.comparison import diff, neuron_diff
from ssn_probe.training.delta_file.file import DeltaFile
from ssn_probe.training.delta_file.record import EDIT, settings_of
from ssn_probe.training.export.model_card import MEASURES
from ssn_probe.training.weights.parameter_counts import weights_by_site

MOST_INDICES = 6
"""Neurons that a cell lists before it counts the rest."""
MOST_DIFFERENCES = 30
"""Entries of two records that are compared before the rest is counted."""
REDACTED = 80
"""Characters of a response that are shown by default: a response to a harmful prompt may do harm."""
UNCOMPARED = ("made_with", "parameters", "measured")


def delta_card(file: DeltaFile) -> Group:
    """Base, neurons, method, data, settings and origin of a delta file, and its weights per site."""
    return Group(_grid(_facts(file.about)), Text(), _weights(file))


def _facts(about: Mapping[str, Any]) -> list[tuple[str, object]]:
    base, data, made_with = about["base"], about["data"], about.get("made_with") or {}
    steps, loss, edited = about["steps"], about.get("held_out_loss"), about["method"] == EDIT
    model = "a model without a name" if base.get("name") is None else str(base["name"])
    origin = model if base.get("revision") is None else f"{model} at {base['revision']}"
    known = [str(base[name]) for name in ("family", "dtype") if base.get(name) is not None]
    done = f"{steps['done']:,} of {steps['planned']:,}, the delta of step {steps['chosen']:,}"
    rows = ", ".join(f"{language} {sum(counts.values()):,}" for language, counts in data["rows"].items())
    return [
        ("base", ", ".join([origin, *known])),
        ("SHA-256", base["sha256"]),
        ("asked", asked_in_words(about.get("asked"))),
        ("neurons", about.get("neurons")),
        ("method", about["method"] if edited else f"{about['method']}, seed {about.get('seed')}"),
        ("settings", ", ".join(f"{key} {value}" for key, value in settings_of(about).items())),
        ("steps", "none: it is computed, and not trained" if edited else done),
        ("held out", f"loss {loss['base']:.4f} before, {loss['chosen']:.4f} after" if loss else "nothing"),
        *_measured(about.get("measured")),
        ("data", f"{data['name']}, split {data['split']}: {rows} rows"),
        ("SHA-256", data["prompts_sha256"]),
        ("checked", f"{data['checked']}, by the judge {data['judge']}"),
        ("made with", ", ".join(f"{name} {version}" for name, version in made_with.items())),
    ]


def _measured(measured: Mapping[str, Any] | None) -> list[tuple[str, object]]:
    """The averages over languages before and after, if a run has measured them."""
    rows = [row for row in (measured or {}).get("effects", ()) if row["language"] == "average"]
    return [
        (
            MEASURES[row["measure"]],
            f"{'?' if row['before'] is None else percent(row['before'])} → {percent(row['after'])} "
            f"({percent(row['low'])} to {percent(row['high'])}), average of languages, n = {row['n']:,}",
        )
        for row in rows
    ]


def _weights(file: DeltaFile) -> Table:
    table = _table(("site", "layers"), ("neurons", "parameters", "% of the model", "% of the site"))
    shares = {row["site"]: row for row in file.about["parameters"]}
    for site, (neurons, parameters) in weights_by_site(file.delta).items():
        layers = {part.layer for part in file.delta.parts if site in (part.site, "all")}
        share = shares[site]
        percents = (f"{share['percent']:.4f}", f"{share['percent_of_site']:.3f}")
        table.add_row(site, _layers(layers), f"{neurons:,}", f"{parameters:,}", *percents)
    return table


def _layers(layers: set[int]) -> str:
    """`4`, `0–7`, or `0–31, 12 of them`."""
    first, last = min(layers), max(layers)
    span = f"{first}–{last}" if last > first else str(first)
    return span if len(layers) == last - first + 1 else f"{span}, {len(layers)} of them"


def differences(first: DeltaFile, second: DeltaFile) -> Group:
    """The neurons that only one changes, by how much the weights change, and where the records differ.

    Raises:
        ModelError: deltas of different bases.
    """
    parts = [*_different_neurons(first, second), *_different_weights(first, second), *_different_records(first, second)]
    return Group(*parts)


def _different_neurons(first: DeltaFile, second: DeltaFile) -> list[RenderableType]:
    frame = neuron_diff(first, second)
    table, ours, theirs = _table(("layer", "site", "only in the first", "only in the second"), ("in both",)), 0, 0
    for row in frame.rows(named=True):
        mine, others = row["only_first"], row["only_second"]
        ours, theirs = ours + len(mine), theirs + len(others)
        if mine or others:
            table.add_row(str(row["layer"]), row["site"], _indices(mine), _indices(others), f"{row['shared']:,}")
    counts = f"{ours:,} only in the first, {theirs:,} only in the second."
    summary = Text(f"Neurons: {frame['shared'].sum():,} in both, {counts}", style="bold")
    return [summary, table] if table.row_count else [summary]


def _indices(indices: Sequence[int]) -> str:
    named = ", ".join(map(str, indices[:MOST_INDICES]))
    rest = len(indices) - MOST_INDICES
    return f"{named} and {rest:,} more" if rest > 0 else named or "–"


def _different_weights(first: DeltaFile, second: DeltaFile) -> list[RenderableType]:
    rows = diff(first, second).rows(named=True)
    if not any(row["largest_difference"] for row in rows):
        return [Text("Weights: both files change them by the same amounts, bit for bit.", style="bold")]
    numbers = ("rows in both", "norm, first", "norm, second", "cosine", "largest difference")
    table = _table(("matrix",), numbers)
    for row in rows:
        cosine = "–" if row["cosine"] is None else f"{row['cosine']:+.3f}"
        sizes = (f"{row[name]:.3g}" for name in ("norm_first", "norm_second"))
        table.add_row(literal(row["module"]), f"{row['shared']:,}", *sizes, cosine, f"{row['largest_difference']:.3g}")
    return [Text("Weights: by how much they change", style="bold"), table]


def _different_records(first: DeltaFile, second: DeltaFile) -> list[RenderableType]:
    ours, theirs = (_entries(file.about) for file in (first, second))
    names = [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
    if not names:
        return [Text("Both files state the same base, data and settings.", style="bold")]
    table = _table(("entry", "first", "second"), ())
    for name in names[:MOST_DIFFERENCES]:
        table.add_row(*(literal(cell) for cell in (name, ours.get(name, "–"), theirs.get(name, "–"))))
    if len(names) > MOST_DIFFERENCES:
        table.add_row(f"and {len(names) - MOST_DIFFERENCES:,} more")
    return [Text("The files state different values:", style="bold"), table]


def _entries(about: Mapping[str, Any]) -> dict[str, str]:
    """What a record states, by name; of what a run measured: which run, which arm, and the averages."""
    measured = about.get("measured") or {}
    compared = {name: value for name, value in about.items() if name not in UNCOMPARED}
    compared |= {"measured": {name: measured[name] for name in ("run", "arm") if name in measured}}
    return dict(_flat(compared)) | {name: str(value) for name, value in _measured(measured)}


def _flat(record: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in record.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def responses(prompts: Sequence[str], before: Sequence[str], after: Sequence[str], *, full: bool = False) -> Group:
    """Each prompt with the base's responses without and with the delta; cut unless `full`."""
    cut = [] if full else [text for text in (*before, *after) if len(text) > REDACTED]
    rows: list[tuple[str, object]] = []
    for texts in zip(prompts, before, after, strict=True):
        shown = [f"{text[:REDACTED]}…" if text in cut else text for text in texts[1:]]
        rows += [*zip(("prompt", "before", "after"), (texts[0], *shown), strict=True), ("", "")]
    changed = sum(a != b for a, b in zip(before, after, strict=True))
    lines = [f"{changed:,} of {len(prompts):,} responses changed."]
    if cut:
        lines.append(f"Responses are cut to {REDACTED} characters: --full shows all of them.")
    return Group(_grid(rows), *map(Text, lines))


def _grid(rows: Sequence[tuple[str, object]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(name, literal(value))
    return grid


def _table(words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in words:
        table.add_column(name, overflow="fold")
    for name in numbers:
        table.add_column(name, justify="right")
    return table
