"""The model card of a merged folder: neurons, data, training, controls and effects."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssn_probe.model.asking import asked_in_words
from ssn_probe.text import markdown, plain
from ssn_probe.training.delta_file.file import DeltaFile
from ssn_probe.training.delta_file.record import EDIT, settings_of
from ssn_probe.training.weights.delta import Rounding

DELTA = "expand/delta.safetensors"
"""Where a merged folder keeps the change, with the weights before it."""
NO_CONTROLS = (
    "None were measured. Changing as many random neurons may lower ASR just as much, so an effect of this change says "
    "nothing about these neurons."
)
MEASURES = {"asr": "ASR", "invalid": "invalid", "over_refusal": "over-refusal", "utility": "utility"}


def model_card(file: DeltaFile, cost: Rounding) -> str:
    """The card, in markdown: base, neurons, data and their check, settings, parameters, controls, effects."""
    about = file.about
    base, data, edited = about["base"], about["data"], about["method"] == EDIT
    name = markdown(str(base.get("name")))
    revision = f", revision {markdown(str(base['revision']))}" if base.get("revision") else ""
    total = about["parameters"][-1]
    return f"""---
base_model: {_yaml(base.get("name"))}
tags: [safety, multilingual, ssn-probe]
---

# {name}, {"edited" if edited else "expanded"}

{name}{revision} (weights SHA-256 `{base["sha256"]}`), of which {total["neurons"]:,} neurons were
{"edited, without training," if edited else "trained"} to refuse harmful requests, and nothing else was changed.
Made with [ssn-probe](https://arxiv.org/abs/2602.01283); loads as any model of its family.
`{DELTA}` holds the change and the weights before it.

## Neurons

{markdown(str(about.get("neurons")))}: {total["parameters"]:,} parameters, {total["percent"]:.3f} % of the model's.

{_table(("site", "neurons", "parameters", "% of the model", "% of the site"), _parameter_rows(about["parameters"]))}
## Data

{markdown(str(data["name"]))}, split {markdown(str(data["split"]))} (prompts SHA-256 `{data["prompts_sha256"]}`). Every
response was checked by the judge {markdown(str(data["judge"]))} beforehand: {markdown(str(data["checked"]))}.

{_table(("language", "context", "rows"), _data_rows(data["rows"]))}
{_edit() if edited else _training(about["steps"])} Settings: {_settings(about)}. The model was asked
{markdown(asked_in_words(about.get("asked")))}.

Rounding to the precision of these weights left {100 * cost.unmoved:.1f} % of the changed weights as they were, and
added an error of {100 * cost.error:.1f} % of the change's norm.

## Controls

{_controls(about.get("measured"))}

## Effects

{_effects(about.get("measured"))}
"""


def _training(steps: Mapping[str, Any]) -> str:
    return f"""## Training

{steps["done"]} of {steps["planned"]} steps, the delta of step {steps["chosen"]}. AdamW without weight decay on float32
deltas, base frozen, loss on the response."""


def _edit() -> str:
    return """## Edit

Sparse Weight Editing (arXiv 2602.22554) in closed form, from the requests alone: no response was learned."""


def _effects(measured: Mapping[str, Any] | None) -> str:
    if not measured or not measured["effects"]:
        return "None were measured."
    where = f"Measured by the run {markdown(measured['run'])}, arm {markdown(measured['arm'])}"
    note = f"{where}: before → after in %, with 95 % intervals over n prompts."
    return f"{note}\n\n{_by_measure(measured['effects'], 'language', _before_after)}"


def _before_after(row: Mapping[str, Any]) -> str:
    before = "?" if row["before"] is None else f"{100 * row['before']:.1f}"
    return f"{before} → {100 * row['after']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}], n = {row['n']:,}"


def _controls(measured: Mapping[str, Any] | None) -> str:
    """The other trainings of the same run, on the average over languages."""
    if not measured or not measured["controls"]:
        return NO_CONTROLS
    note = (
        "From the same run, averaged over languages, in %: other sets, trained alike (their mean, and the interval "
        "in which 95 % of such sets fall), and every other arm (with its 95 % interval)."
    )
    return f"{note}\n\n{_by_measure(measured['controls'], 'arm', _with_interval)}"


def _with_interval(row: Mapping[str, Any]) -> str:
    """Where 95 % of sets fall is told as far as a share can go."""
    known = row["low"] is not None
    interval = f" [{100 * max(0.0, row['low']):.1f}, {100 * min(1.0, row['high']):.1f}]" if known else ""
    return f"{100 * row['value']:.1f}{interval}"


def _by_measure(rows: Sequence[Mapping[str, Any]], key: str, cell: Callable[[Mapping[str, Any]], str]) -> str:
    """A table with one line per value of `key` and one column per measure."""
    found = {(row[key], row["measure"]): row for row in rows}
    measures = [name for name in MEASURES if any(measure == name for _, measure in found)]
    body = [
        [markdown(name), *(cell(found[name, each]) if (name, each) in found else "not measured" for each in measures)]
        for name in dict.fromkeys(name for name, _ in found)
    ]
    return _table((key, *(MEASURES[name] for name in measures)), body)


def _yaml(name: Any) -> str:
    return '"' + plain(str(name)).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)) + "\n"


def _parameter_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            str(row["site"]),
            f"{row['neurons']:,}",
            f"{row['parameters']:,}",
            f"{row['percent']:.4f}",
            f"{row['percent_of_site']:.3f}",
        ]
        for row in rows
    ]


def _data_rows(rows: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    return [
        [markdown(language), markdown(context), f"{count:,}"]
        for language, contexts in rows.items()
        for context, count in contexts.items()
    ]


def _settings(about: Mapping[str, Any]) -> str:
    return ", ".join(markdown(f"{name} {value}") for name, value in settings_of(about).items())
