"""How was the run made: notes, the check of the refusal log-odds, model, data, software and time?"""

import json
from collections.abc import Mapping
from typing import Any

from ssn_probe.report.markdown_tables import section, table
from ssn_probe.spec import Recipe
from ssn_probe.text import markdown


def notes_section(warnings: list[str]) -> str:
    """What the run warned of."""
    return section("Notes", "\n".join(f"- {markdown(warning)}" for warning in warnings)) if warnings else ""


def gates_section(manifest: Mapping[str, Any]) -> str:
    """Does the refusal log-odds separate refusals from other responses, in each language?"""
    gates = manifest.get("gates")
    if not gates:
        return ""
    body = [
        [
            markdown(gate["data"]),
            markdown(gate["language"]),
            gate["origin"],
            "not measured: one side is empty" if gate["auroc"] is None else f"{gate['auroc']:.3f}",
            f"{gate['refused']}, {gate['other']}",
        ]
        for gate in gates
    ]
    header = ["data", "language", "read by", "AUROC", "responses: refused, other"]
    title = "Does the refusal log-odds separate refusals from other responses? (held-out identify prompts)"
    return section(title, table(header, body))


def made_section(recipe: Recipe, manifest: Mapping[str, Any]) -> str:
    """What it takes to make the run again."""
    model = manifest["model"]
    rows = [
        ["recipe", f"{markdown(recipe.name)}, key `{manifest['key'][:16]}`, seed {recipe.seed}"],
        [
            "model",
            f"{markdown(str(model['name']))}, {model['family']}, {model['dtype']}, attention {model['attention']}",
        ],
        *_source_rows(model.get("source")),
        ["weights", f"`{model.get('digest') or model.get('commit')}`"],
        *_generation_rows(manifest.get("generation") or {}),
        *(["data", f"{markdown(data['name'])}, SHA-256 `{data['sha256']}`"] for data in manifest["data"]),
        ["software", markdown(", ".join(f"{name} {version}" for name, version in manifest["packages"].items()))],
        ["python", f"{manifest['python']} on {markdown(manifest['platform'])}, {markdown(manifest['device'])}"],
        ["seconds", markdown(", ".join(f"{stage} {value:.1f}" for stage, value in manifest["seconds"].items()))],
    ]
    return section("How it was made", table(["", ""], rows))


def _source_rows(source: Mapping[str, Any] | None) -> list[list[str]]:
    """Of a model that `ssn-probe model fetch` made: what it was made from."""
    if not source:
        return []
    what = "{about}, dequantised from {quantisation}: {member} in {package} {version}, {license}".format_map(source)
    return [["fetched", markdown(what)], ["GGUF file", f"SHA-256 `{source['gguf_sha256']}`"]]


def _generation_rows(generation: Mapping[str, Any]) -> list[list[str]]:
    """Which tokens end a response, and what the checkpoint asked for that greedy generation overrode."""
    ends = [f"{end['text']} ({end['id']}; {', '.join(end['sources'])})" for end in generation.get("ends", ())]
    asked = [f"{name} {json.dumps(value)}" for name, value in generation.get("overridden", {}).items()]
    rows = [["a response ends with", markdown("; ".join(ends) or "no token")]] if generation else []
    return rows + ([["overridden by greedy generation", markdown(", ".join(asked))]] if asked else [])
