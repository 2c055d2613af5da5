"""`report.md`: the answer first, then one table per question, then how it was made. For a pull request or an issue."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from ssn_probe.recipe import Recipe
from ssn_probe.summary import AVERAGE
from ssn_probe.text import markdown, percent, probability

TITLES = {
    "asr": "Attack success rate (complied / judged)",
    "asr_paper": "Not refused / all, the figure that papers print",
    "invalid": "Invalid responses",
    "over_refusal": "Over-refusal (refused harmless look-alikes)",
    "utility": "Utility (exact answers to harmless prompts)",
    "refusal_log_odds": "Refusal log-odds of harmful prompts",
}


def report(
    recipe: Recipe,
    manifest: Mapping[str, Any],
    neurons: pl.DataFrame,
    overlap: pl.DataFrame | None,
    summary: pl.DataFrame | None,
    anchor: str,
) -> str:
    """The whole report as markdown."""
    parts = ["\n".join(f"{markdown(line)}\n" for line in manifest["answer"]), f"*{markdown(recipe.question)}*\n"]
    if summary is not None:
        parts += [_measure(summary, name, anchor) for name in TITLES if name in set(summary["measure"])]
        parts.append(_reading(recipe))
    parts += [_neurons(neurons, manifest), *([_overlap(overlap)] if overlap is not None else [])]
    parts += [_warnings(manifest), _gates(manifest), _made(recipe, manifest)]
    return "\n".join(part for part in parts if part)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; cells are taken as they are, so escape what is not ours."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _measure(summary: pl.DataFrame, name: str, anchor: str) -> str:
    """Languages down, arms across; each cell is the value with its interval."""
    rows = summary.filter(pl.col("measure") == name)
    arms = list(rows.select("arm", "role").unique(maintain_order=True).iter_rows())
    languages = [language for language in rows["language"].unique(maintain_order=True) if language != AVERAGE]
    header = ["language", *(_column(arm, role) for arm, role in arms)]
    if rows["controls"].drop_nulls().len():
        tested = [arm for arm, role in arms if role == "tested"]
        header += [f"{markdown(arm)} random sets" for arm in tested]
    else:
        tested = []
    body = []
    for language in [*languages, AVERAGE]:
        cells = {(row["arm"], row["role"]): row for row in rows.filter(pl.col("language") == language).rows(named=True)}
        line = [_language(language, anchor), *(_cell(cells.get(arm), name) for arm in arms)]
        line += [_controls(cells.get((arm, "tested")), name) for arm in tested]
        body.append(line)
    return f"## {TITLES[name]}\n\n{table(header, body)}"


def _column(arm: str, role: str) -> str:
    return markdown(arm) if role in ("baseline", "tested") else f"{markdown(arm)}, {role}"


def _language(language: str, anchor: str) -> str:
    if language == AVERAGE:
        return f"average without {markdown(anchor)}"
    return f"{markdown(language)} (anchor: its SS is its MS)" if language == anchor else markdown(language)


def _cell(row: Mapping[str, Any] | None, measure: str) -> str:
    if row is None:
        return "not measured: no data"
    low, high = row["low"], row["high"]
    if measure == "refusal_log_odds":
        return f"{row['value']:.2f} [{low:.2f}, {high:.2f}]"
    return f"{percent(row['value'])} [{100 * low:.1f}, {100 * high:.1f}]"


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


def _reading(recipe: Recipe) -> str:
    return (
        "In brackets: 95 % intervals; Wilson where every cluster is a single prompt, else a bootstrap of clusters (a "
        "degenerate one is replaced by Wilson on the number of clusters). Random sets: their mean and the interval in "
        "which 95 % of such sets fall (mean ± t·s·√(1 + 1/m)). The one primary test is the ASR of "
        f"{markdown(str(recipe.primary))} on the average row, by rank among its random sets; every other p is not "
        "adjusted.\n"
    )


def _neurons(neurons: pl.DataFrame, manifest: Mapping[str, Any]) -> str:
    sites = [site for site in manifest["neurons"]["per_layer"] if site in set(neurons["site"])]
    body = []
    for (name, language), rows in neurons.group_by("set", "language", maintain_order=True):
        counts = dict(rows.group_by("site").len().iter_rows())
        mix = [str(counts.get(site, 0)) for site in sites]
        body.append([markdown(str(name)), markdown(str(language)), str(rows.height), *mix])
    return f"## Neurons per language and site\n\n{table(['set', 'language', 'neurons', *sites], body)}"


def _overlap(overlap: pl.DataFrame) -> str:
    body = [
        [
            markdown(row["set"]),
            f"{markdown(row['language_a'])} – {markdown(row['language_b'])}",
            f"{row['size_a']}, {row['size_b']}",
            str(row["shared"]),
            f"{row['jaccard']:.2f}",
            f"{row['expected']:.2f}",
        ]
        for row in overlap.rows(named=True)
    ]
    header = ["set", "languages", "neurons", "shared", "Jaccard", "expected by chance*"]
    note = (
        "*Hypergeometric per layer and site. It does not know that some neurons matter whatever is asked, and so "
        "understates chance, up to tenfold.\n"
    )
    return f"## Overlap\n\n{table(header, body)}\n{note}"


def _warnings(manifest: Mapping[str, Any]) -> str:
    if not manifest["warnings"]:
        return ""
    return "## Notes\n\n" + "\n".join(f"- {markdown(warning)}" for warning in manifest["warnings"]) + "\n"


def _gates(manifest: Mapping[str, Any]) -> str:
    gates = manifest.get("gates")
    if not gates:
        return ""
    body = [
        [markdown(language), gate["origin"], _auroc(gate["auroc"]), f"{gate['refused']}, {gate['other']}"]
        for language, gate in gates.items()
    ]
    header = ["language", "openings", "AUROC", "refused, other"]
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
