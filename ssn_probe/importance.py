"""From traces to importances: the per-prompt effect of every neuron, and its mean per language and context."""

from collections.abc import Mapping

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
    sites = _distinct_sites(lab, node)

    def compute() -> pl.DataFrame:
        frames = []
        for language in lab.data[node.prompts].languages:
            means = {context: _means(lab, node, sites, language, context) for context in CONTRASTED}
            frames.extend(_frame(means, site, language) for site in sites)
        return pl.concat(frames)

    return lab.remember(("importance", lab.data[node.prompts].digest, node.effect, sites), compute)


def _distinct_sites(lab: Lab, node: SafetyNeurons) -> tuple[str, ...]:
    widths = lab.subject.widths
    if widths["v"] == widths["o"] and {"v", "o"} <= set(node.sites):
        lab.warn("v is left out: with one query head per key-value head it silences exactly what o silences")
        return tuple(site for site in node.sites if site != "v")
    return node.sites


def _means(lab: Lab, node: SafetyNeurons, sites: tuple[str, ...], language: str, context: str) -> Means:
    """Mean effects in one language and context. The per-prompt effects are kept on disk, and only there."""
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
    if lab.cache is None:
        return
    folder = lab.cache / scores_key(lab, node)
    write_json(folder / f"{language}.{context}.json", {"prompt_id": list(rows["prompt_id"])})
    write_whole(folder / f"{language}.{context}.safetensors", lambda temporary: save(scores, temporary))


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
