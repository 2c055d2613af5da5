"""From traces to importances: the per-prompt effect of every neuron, and its mean per language and context."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ssn_probe.lab import Lab, tokens_of
from ssn_probe.node import digest, to_json
from ssn_probe.openings import readouts
from ssn_probe.plan import score_label
from ssn_probe.prompts import PromptSet
from ssn_probe.recipe import Final, Local, Refusal, SafetyNeurons
from ssn_probe.results import write_json, write_whole
from ssn_probe.tracing.score import Scores, mean, save, score_final, score_local, score_refusal

CONTRASTED = ("harmful", "harmless")

Means = Mapping[str, np.ndarray]
"""Site → mean effect of every neuron, [layer, neuron]."""


def importance(lab: Lab, node: SafetyNeurons) -> pl.DataFrame:
    """Mean effect per neuron: `language, layer, site, index, harmful, harmless`, over the *identify* prompts.

    Where a head has its own keys and values, `v` silences what `o` silences and is left out, so that no neuron counts
    twice.
    """
    sites = distinct_sites(lab, node)

    def compute() -> pl.DataFrame:
        frames = []
        for language in lab.data[node.prompts].languages:
            means = {context: _means(lab, node, sites, language, context) for context in CONTRASTED}
            frames.extend(_frame(means, site, language) for site in sites)
        return pl.concat(frames)

    return lab.remember(("importance", *_scored(lab, node)), compute)


def _scored(lab: Lab, node: SafetyNeurons) -> tuple[Any, ...]:
    """What per-prompt scores depend on, beside the model of the lab."""
    return lab.data[node.prompts].digest, node.effect, distinct_sites(lab, node)


def distinct_sites(lab: Lab, node: SafetyNeurons) -> tuple[str, ...]:
    """The node's sites, less `v` where it is `o` by another name."""
    widths = lab.subject.widths
    if widths["v"] == widths["o"] and {"v", "o"} <= set(node.sites):
        lab.warn("v is left out: with one query head per key-value head it silences exactly what o silences")
        return tuple(site for site in node.sites if site != "v")
    return node.sites


def _means(lab: Lab, node: SafetyNeurons, sites: tuple[str, ...], language: str, context: str) -> Means:
    """Mean effects in one language and context. The per-prompt effects are kept, on disk where there is a cache."""
    prompts = lab.data[node.prompts]
    rows = prompts.select("identify", context, language)
    options = {
        "sites": sites,
        "batch_size": lab.batch_size,
        "advance": lab.tracker.advance(score_label(node, prompts)),
    }
    scores = _trace(lab, node, prompts, language, tokens_of(lab, rows), options)
    _keep(lab, node, language, context, rows, scores)
    return {site: mean(scores, site).numpy() for site in sites}  # type: ignore[arg-type]


def _trace(lab: Lab, node: SafetyNeurons, prompts: PromptSet, language: str, tokens: list, options: Mapping) -> Scores:
    effect = node.effect
    if isinstance(effect, Refusal):
        readout = readouts(lab, prompts)[language]
        return score_refusal(lab.subject, tokens, readout.reads, **options)
    if isinstance(effect, Local):
        return score_local(lab.subject, tokens, position=effect.position, **options)  # type: ignore[arg-type]
    assert isinstance(effect, Final)
    return score_final(lab.subject, tokens, **options)


def _keep(lab: Lab, node: SafetyNeurons, language: str, context: str, rows: pl.DataFrame, scores: Scores) -> None:
    file = _score_file(lab, node, language, context)
    if file is None:
        lab.memory["scores", *_scored(lab, node), language, context] = scores
        return
    write_json(file.with_suffix(".json"), {"prompt_id": list(rows["prompt_id"])})
    write_whole(file, lambda temporary: save(scores, temporary))


def effects_at(lab: Lab, node: SafetyNeurons, language: str, context: str, layer: int, site: str) -> np.ndarray:
    """Every prompt's effects at one place, float32 [prompt, neuron], as `importance` kept them."""
    file = _score_file(lab, node, language, context)
    if file is not None:
        return read_place(file, layer, site)
    scores: Scores = lab.memory["scores", *_scored(lab, node), language, context]
    values, scale = scores.values[site][:, layer], scores.scale[site][:, layer]  # type: ignore[index]
    return (values.float() * scale[:, None]).numpy()


def read_place(file: Path, layer: int, site: str) -> np.ndarray:
    """One place of a score file, float32 [prompt, neuron], without reading the others."""
    from safetensors import safe_open

    with safe_open(file, framework="np") as scores:
        values, scale = (scores.get_slice(f"{part}.{site}")[:, layer] for part in ("values", "scale"))
    return values.astype(np.float32) * scale[:, None]


def _score_file(lab: Lab, node: SafetyNeurons, language: str, context: str) -> Path | None:
    return None if lab.cache is None else lab.cache / scores_key(lab, node) / f"{language}.{context}.safetensors"


def scores_key(lab: Lab, node: SafetyNeurons) -> str:
    """The key of a node's per-prompt scores: model, data, effect and sites; the selection rule does not change them."""
    return digest(
        {
            "effect": to_json(node.effect),
            "sites": list(node.sites),
            "data": lab.data[node.prompts].digest,
            "model": lab.subject.identity,
        }
    )


def _frame(means: Mapping[str, Means], site: str, language: str) -> pl.DataFrame:
    layers, width = means["harmful"][site].shape
    return pl.DataFrame(
        {
            "language": pl.repeat(language, layers * width, eager=True),
            "layer": np.repeat(np.arange(layers, dtype=np.int32), width),
            "site": pl.repeat(site, layers * width, eager=True),
            "index": np.tile(np.arange(width, dtype=np.int32), layers),
        }
        | {context: found[site].ravel() for context, found in means.items()}
    )
