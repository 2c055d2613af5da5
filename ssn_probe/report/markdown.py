"""`report.md`: the answer first, then one table per question, then how it was made. For a pull request or an issue."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ssn_probe.report.conclusions import NONE, Beside, conclusions
from ssn_probe.report.learning_curves import CHART, CHART_TITLE, curve_section, ends, trained_section
from ssn_probe.report.markdown_tables import language_cell, rate_cell, table
from ssn_probe.report.sections.arm_tests import counts_section, significance, transfer_section
from ssn_probe.report.sections.planted_truth_section import truth_section
from ssn_probe.report.sections.set_reliability import mix_section, null_section, overlap_section, stability_section
from ssn_probe.report.sections.sets_after_training import again_section
from ssn_probe.spec import ASR, Each, OverRefusal, Recipe, Utility
from ssn_probe.spec.anchors import shared_with_anchor
from ssn_probe.study.summary import AVERAGE
from ssn_probe.text import markdown, probability

TITLES = {
    "asr": "Attack success rate (complied / judged)",
    "asr_paper": "Not refused / all, the figure that papers print",
    "invalid": "Invalid responses",
    "over_refusal": "Over-refusal (refused harmless look-alikes)",
    "utility": "Utility (exact answers to harmless prompts)",
    "refusal_log_odds": "Refusal log-odds of harmful prompts",
}
COLUMNS_OF = {ASR: ("asr", "asr_paper", "invalid"), OverRefusal: ("over_refusal",), Utility: ("utility",)}


def report(
    recipe: Recipe,
    manifest: Mapping[str, Any],
    neurons: pl.DataFrame,
    overlap: pl.DataFrame | None,
    summary: pl.DataFrame | None,
    beside: Beside = NONE,
    *,
    curve: pl.DataFrame | None = None,
    again: pl.DataFrame | None = None,
) -> str:
    """The whole report as markdown. `beside`: what no arm shows; `curve`, `again`: the tables of those names."""
    parts = ["\n".join(f"{markdown(line)}\n" for line in manifest["answer"]), f"*{markdown(recipe.question)}*\n"]
    if curve is not None:
        parts.append(f"{curve_section(curve, manifest['anchor'])}\n![{CHART_TITLE}]({CHART}.svg)\n")
    parts += [trained_section(manifest), again_section(again)]
    if summary is not None:
        summary = ends(summary)
        shared = any(shared_with_anchor(arm.neurons) for arm in recipe.arms.values())
        parts += [_measure(summary, name, manifest, shared) for name in _titles(recipe, summary)]
        parts += [_reading(recipe, summary), significance(recipe, manifest, summary)]
        parts += [transfer_section(recipe, summary), counts_section(recipe, manifest, summary)]
    parts += [conclusions(recipe, manifest, summary, beside), truth_section(beside.truth)]
    parts += [null_section(beside.robustness), stability_section(beside.robustness)]
    parts += [_neurons(neurons, manifest), mix_section(neurons, manifest), overlap_section(overlap)]
    parts += [_warnings(manifest), _gates(manifest), _made(recipe, manifest)]
    return "\n".join(part for part in parts if part)


def _titles(recipe: Recipe, summary: pl.DataFrame) -> list[str]:
    """What the recipe asked to measure, and the log-odds where they were."""
    asked = {name for measure in recipe.measures for name in COLUMNS_OF[type(measure)]}
    return [name for name in TITLES if name in asked or name in set(summary["measure"])]


def _measure(summary: pl.DataFrame, name: str, manifest: Mapping[str, Any], shared: bool) -> str:
    """Languages down, arms across; each cell is the value with its interval, or says that there were no data."""
    rows, anchor = summary.filter(pl.col("measure") == name), manifest["anchor"]
    if rows.is_empty():
        return f"## {TITLES[name]}\n\nnot measured: no data\n"
    arms = list(rows.select("arm", "role").unique(maintain_order=True).iter_rows())
    controlled = set(rows.filter(pl.col("controls").is_not_null())["arm"])
    tested = [arm for arm, role in arms if role == "tested" and arm in controlled]
    header = [
        "language",
        *(_column(arm, role) for arm, role in arms),
        *(f"{markdown(arm)} random sets" for arm in tested),
    ]
    body, note = [], ": its SS is its MS" if shared else ""
    for language in [*manifest["evaluated"], AVERAGE]:
        cells = {(row["arm"], row["role"]): row for row in rows.filter(pl.col("language") == language).rows(named=True)}
        line = [language_cell(language, anchor, note), *(_cell(cells.get(arm), name) for arm in arms)]
        body.append(line + [_controls(cells.get((arm, "tested")), name) for arm in tested])
    return f"## {TITLES[name]}\n\n{table(header, body)}"


def _column(arm: str, role: str) -> str:
    return markdown(arm) if role in ("baseline", "tested") else f"{markdown(arm)}, {role}"


def _cell(row: Mapping[str, Any] | None, measure: str) -> str:
    if row is None:
        return "not measured: no data"
    if measure == "refusal_log_odds":
        return f"{row['value']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    return rate_cell(row)


def _controls(row: Mapping[str, Any] | None, measure: str) -> str:
    if row is None or not row["controls"]:
        return "–"
    rate = measure != "refusal_log_odds"
    shown = [_figure(row[name], rate) for name in ("control_mean", "control_low", "control_high")]
    text = shown[0] if row["control_low"] is None else f"{shown[0]} [{shown[1]}, {shown[2]}]"
    return text + (f", p = {probability(row['p'])}" if row["p"] is not None else "")


def _figure(value: float | None, rate: bool) -> str:
    """A share in per cent, within 0 and 100, or a log-odds."""
    if value is None:
        return ""
    return f"{100 * min(1.0, max(0.0, value)):.1f}" if rate else f"{value:.2f}"


def _reading(recipe: Recipe, summary: pl.DataFrame) -> str:
    lines = [
        "In brackets: 95 % intervals; Wilson where every cluster is a single prompt, else a bootstrap of clusters (a "
        "degenerate one is replaced by Wilson on the number of clusters)."
    ]
    if summary["controls"].drop_nulls().len():
        lines.append(
            "Random sets: their mean and the interval in which 95 % of such sets fall (mean ± t·s·√(1 + 1/m))."
        )
    if recipe.primary is not None:
        lines.append(
            f"The one primary test is the ASR of {markdown(recipe.primary)} on the average row, by rank among its "
            "random sets; Holm's p below is adjusted within its own family, every other p is not."
        )
    if any(isinstance(arm.neurons, Each) for arm in recipe.arms.values()):
        lines.append("The average of an arm that applies one language's neurons leaves that language out, too.")
    return " ".join(lines) + "\n"


def _neurons(neurons: pl.DataFrame, manifest: Mapping[str, Any]) -> str:
    sites = [site for site in manifest["neurons"]["per_layer"] if site in set(neurons["site"])]
    body = []
    for name, languages in manifest["sets"].items():
        for language, count in languages.items():
            rows = neurons.filter((pl.col("set") == name) & (pl.col("language") == language))
            counts = dict(rows.group_by("site").len().iter_rows())
            mix = [str(counts.get(site, 0)) for site in sites]
            body.append([markdown(name), "every language" if language == "*" else markdown(language), str(count), *mix])
    return f"## Neurons per language and site\n\n{table(['set', 'language', 'neurons', *sites], body)}"


def _warnings(manifest: Mapping[str, Any]) -> str:
    if not manifest["warnings"]:
        return ""
    return "## Notes\n\n" + "\n".join(f"- {markdown(warning)}" for warning in manifest["warnings"]) + "\n"


def _gates(manifest: Mapping[str, Any]) -> str:
    gates = manifest.get("gates")
    if not gates:
        return ""
    body = [
        [
            markdown(gate["data"]),
            markdown(gate["language"]),
            gate["origin"],
            _auroc(gate["auroc"]),
            f"{gate['refused']}, {gate['other']}",
        ]
        for gate in gates
    ]
    header = ["data", "language", "read by", "AUROC", "refused, other"]
    title = "## Does the refusal log-odds separate refusals (held-out identify prompts)?"
    return f"{title}\n\n{table(header, body)}"


def _auroc(value: float | None) -> str:
    return "not measured: one side is empty" if value is None else f"{value:.3f}"


def _made(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    model = manifest["model"]
    rows = [
        ["recipe", f"{markdown(recipe.name)}, key `{manifest['key'][:16]}`, seed {recipe.seed}"],
        [
            "model",
            f"{markdown(str(model['name']))}, {model['family']}, {model['dtype']}, attention {model['attention']}",
        ],
        ["weights", f"`{model.get('digest') or model.get('commit')}`"],
        *(["data", f"{markdown(data['name'])}, sha256 `{data['sha256']}`"] for data in manifest["data"]),
        ["software", markdown(", ".join(f"{name} {version}" for name, version in manifest["packages"].items()))],
        ["python", f"{manifest['python']} on {markdown(manifest['platform'])}, {markdown(manifest['device'])}"],
        ["seconds", markdown(", ".join(f"{stage} {value:.1f}" for stage, value in manifest["seconds"].items()))],
    ]
    return f"## How it was made\n\n{table(['', ''], rows)}"
