"""How was the run made: notes, the check of the refusal log-odds, model, data, software and time?"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ssn_probe.model.asking import ASKED
from ssn_probe.report.document import Bullets, Section, Table, folded_if_large, section
from ssn_probe.spec import Recipe, SafetyNeurons
from ssn_probe.spec.node import walk
from ssn_probe.text import counted, size


def notes_section(warnings: Sequence[str]) -> Section | None:
    """What the run warned of."""
    return section("Notes", Bullets(tuple(warnings))) if warnings else None


def gates_sections(manifest: Mapping[str, Any]) -> list[Section]:
    """Does each log-odds separate the responses that it is about from others, in each language?"""
    gates = manifest.get("gates") or ()
    parts = {one: [gate for gate in gates if gate.get("behaviour", "refusal") == one] for one in GATES}
    return [_gates(GATES[one], own) for one, own in parts.items() if own]


GATES = {
    "refusal": ("refused", "Does the refusal log-odds separate refusals from other responses?"),
    "language": (
        "in the language",
        "Does the language log-odds separate responses in a language from those in others?",
    ),
}
"""What the responses of one side do, and the question, by behaviour."""


def _gates(words: tuple[str, str], gates: Sequence[Mapping[str, Any]]) -> Section:
    body = tuple(
        (
            gate["data"],
            gate["language"],
            gate["origin"],
            "not measured: one side is empty" if gate["auroc"] is None else f"{gate['auroc']:.3f}",
            f"{gate['refused']}, {gate['other']}",
        )
        for gate in gates
    )
    head = ("data", "language", "read by", "AUROC", f"responses: {words[0]}, other")
    return section(
        f"{words[1]} (held-out identify prompts)", folded_if_large("Per data set and language", Table(head, body))
    )


LONGEST = 1_000
"""Characters of a system prompt that are shown."""


def made_section(recipe: Recipe, manifest: Mapping[str, Any]) -> Section:
    """What it takes to make the run again."""
    model = manifest["model"]
    rows = [
        ["recipe", f"{recipe.name}, key {manifest['key'][:16]}, seed {recipe.seed}"],
        [
            "model",
            f"{model['name']}, {model['family']}, {model['dtype']}, attention {model['attention']}",
        ],
        *_scoring_rows(recipe),
        *([name.replace("_", " "), f"{model[name]!r}"[:LONGEST]] for name in ASKED if name in model),
        *_source_rows(model.get("source")),
        ["weights", str(model.get("digest") or model.get("commit"))],
        *_generation_rows(manifest.get("generation") or {}),
        *_engine_rows(manifest.get("options", {}).get("engine")),
        *(["data", f"{data['name']}, SHA-256 {data['sha256']}"] for data in manifest["data"]),
        ["software", ", ".join(f"{name} {version}" for name, version in manifest["packages"].items())],
        ["python", ", ".join([f"{manifest['python']} on {manifest['platform']}", *_device(manifest)])],
        *_host_rows(manifest.get("remote")),
        ["seconds", ", ".join(f"{stage} {value:.1f}" for stage, value in manifest["seconds"].items())],
    ]
    return section("How it was made", Table(("", ""), tuple(map(tuple, rows))))


def _scoring_rows(recipe: Recipe) -> list[list[str]]:
    """The dtype in which neurons are scored, where the recipe asks for one."""
    asked = dict.fromkeys(node.scoring_dtype for node in walk(recipe) if isinstance(node, SafetyNeurons))
    return [["neurons scored in", ", ".join(found)]] if (found := list(filter(None, asked))) else []


def _device(manifest: Mapping[str, Any]) -> list[str]:
    """Of this machine; a model on a host has none here."""
    return [] if manifest.get("remote") else [manifest["device"]]


def _host_rows(remote: Mapping[str, Any] | None) -> list[list[str]]:
    """Of a model on a host: what travelled there and back."""
    if not remote:
        return []
    jobs = f"{counted(remote['jobs'], 'job')}, {size(remote['sent'])} sent, {size(remote['received'])} received"
    where = "with gradients" if remote["gradients"] else "in the sandbox, without gradients"
    return [["host", f"{remote['host']}, {remote['dtype']}, {where}; {jobs}"]]


def _source_rows(source: Mapping[str, Any] | None) -> list[list[str]]:
    """Of a model that `ssn-probe model fetch` made: what it was made from."""
    if not source:
        return []
    what = "{about}, dequantised from {quantisation}: {member} in {package} {version}, {license}".format_map(source)
    return [["fetched", what], ["GGUF file", f"SHA-256 {source['gguf_sha256']}"]]


def _engine_rows(engine: Mapping[str, Any] | None) -> list[list[str]]:
    """Where something else than transformers generated the responses: what it was."""
    if not engine:
        return []
    packages = [f"{name} {version}" for name, version in engine["packages"].items()]
    options = [f"{name} {value}" for name, value in engine["options"].items()]
    return [["responses generated by", ", ".join((*packages, *options))]]


def _generation_rows(generation: Mapping[str, Any]) -> list[list[str]]:
    """Which tokens end a response, and what the checkpoint asked for that greedy generation overrode."""
    ends = [f"{end['text']} ({end['id']}; {', '.join(end['sources'])})" for end in generation.get("ends", ())]
    asked = [f"{name} {json.dumps(value)}" for name, value in generation.get("overridden", {}).items()]
    rows = [["a response ends with", "; ".join(ends) or "no token"]] if generation else []
    return rows + ([["overridden by greedy generation", ", ".join(asked)]] if asked else [])
