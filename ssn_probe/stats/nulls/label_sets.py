"""A set under many labellings of the same prompts at once: its effects are read once, place by place.

Each function gives the neurons that `SafetyNeurons` takes, a row per labelling, language and neuron (`SCHEMA`), and
what its set operations need: `score`, by which the rule ranks neurons, and `mean`, the score of the effect averaged
over languages. A set may be empty.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import polars as pl

from ssn_probe.errors import DataError
from ssn_probe.neurons import EVERY, KEYS
from ssn_probe.neurons import SCHEMA as NEURONS
from ssn_probe.neurons.selection import contrast_score, in_top, selected
from ssn_probe.spec import SafetyNeurons
from ssn_probe.stats.nulls.array_selection import Asked, Samples, means, taken
from ssn_probe.stats.nulls.false_discoveries import BINS, binned, least_passing, p_of_bin
from ssn_probe.stats.nulls.half_samples import halves
from ssn_probe.stats.nulls.label_exchange import exchange
from ssn_probe.stats.nulls.labelling_sweep import blocks
from ssn_probe.stats.nulls.prompt_blocks import blocks_of
from ssn_probe.stats.nulls.prompt_effects import Group, PromptEffects, groups
from ssn_probe.stats.nulls.unit_contrasts import contrasts, weights

SCHEMA = {"labels": pl.Int32, **NEURONS, "mean": pl.Float64}

Labelled = Mapping[int, PromptEffects]
"""Number → the same effects of the same prompts under the labels of that number."""


def ranked_under(labelled: Labelled, node: SafetyNeurons) -> pl.DataFrame:
    """The neurons that a rule takes under each labelling, in every language and, as `"*"`, of the mean over languages.

    Raises what `means` raises.
    """
    assert node.top is not None
    effects, samples = _samples(labelled)
    in_tops = partial(in_top, top=node.top)
    found = [pl.DataFrame(schema=SCHEMA)]
    for group in groups(effects, node.pool):
        sides = means(group, samples)
        average = [side.mean(axis=1, keepdims=True) for side in sides]
        mean = contrast_score(node.rule, *average)
        for languages, (harmful, harmless) in ((effects.languages, sides), ((EVERY,), average)):
            chosen = selected(node.rule, harmful, harmless, in_tops)
            score = contrast_score(node.rule, harmful, harmless)
            found.append(_rows(list(labelled), languages, group, chosen, score, mean))
    return _sorted(found)


def discovered_under(labelled: Labelled, null: Mapping[str, np.ndarray], rate: float) -> pl.DataFrame:
    """The neurons of every language at a false discovery rate, under each labelling.

    `null`: language → how many permuted z are in each bin (`Discoveries.null`). Permuted labels are the same whichever
    of them is called the observed one, so that all labellings are compared with the same null.
    """
    effects, samples = _samples(labelled)
    plan = exchange(effects.prompts)
    factors, p = weights(plan, samples.harmful), {one: p_of_bin(null[one]) for one in effects.languages}
    counts = {one: np.zeros((len(samples), BINS), dtype=np.int32) for one in effects.languages}
    found = [pl.DataFrame(schema=SCHEMA | {"bin": pl.Int32})]
    tests = 0
    for group in groups(effects, "site"):
        tests += len(group.index)
        score = contrast_score("difference", *means(group, samples))
        mean = score.mean(axis=1, keepdims=True)
        for number, contrast in enumerate(contrasts(group, plan)):
            if contrast.language == EVERY:
                continue
            bins = np.where(contrast.sd > 0, binned(factors @ contrast.standardised), -1)  # [labelling, neuron]
            for row, here in enumerate(bins):
                counts[contrast.language][row] += np.bincount(here[here >= 0], minlength=BINS).astype(np.int32)
            passing = (bins >= 0) & (p[contrast.language][bins] <= rate)
            own = score[:, number : number + 1]
            rows = _rows(list(labelled), (contrast.language,), group, passing[:, None], own, mean)
            found.append(rows.with_columns(bin=pl.Series(bins[passing], dtype=pl.Int32)))
    least = [
        (number, one, least_passing(counts[one][row], p[one], tests, rate))
        for row, number in enumerate(labelled)
        for one in effects.languages
    ]
    table = pl.DataFrame(least, schema={"labels": pl.Int32, "language": pl.String, "least": pl.Int32}, orient="row")
    passed = pl.concat(found).join(table, on=["labels", "language"]).filter(pl.col("bin") >= pl.col("least"))
    return _sorted([passed.select(*SCHEMA)])


def stable_under(labelled: Labelled, node: SafetyNeurons, share: float) -> pl.DataFrame:
    """The neurons of every language that a `share` of the half-samples take, under each labelling.

    As many half-samples as `stability` takes, so that it costs a hundred times what `ranked_under` does.
    """
    effects, samples = _samples(labelled)
    divided = [_halves(one) for one in labelled.values()]
    found = [pl.DataFrame(schema=SCHEMA)]
    for group in groups(effects, node.pool):
        often = [_often(group, half, node, share) for half in divided]
        sides = means(group, samples)
        score = contrast_score(node.rule, *sides)
        mean = contrast_score(node.rule, *(side.mean(axis=1, keepdims=True) for side in sides))
        found.append(_rows(list(labelled), effects.languages, group, np.stack(often), score, mean))
    return _sorted(found)


def _halves(effects: PromptEffects) -> Samples:
    found = halves(effects.prompts)
    return Samples(harmful=found.harmful, harmless=found.harmless, blocks=blocks_of(effects.prompts))


def _often(group: Group, samples: Samples, node: SafetyNeurons, share: float) -> np.ndarray:
    """Which neurons a share of the samples takes, bool [language, neuron]."""
    count, asked = np.zeros((len(group.effects), len(group.index)), dtype=np.int64), {node: Asked(own=True, mean=False)}
    for rows in blocks(len(samples), group):
        count += taken(group, samples[rows], asked)[node].own.sum(axis=0)
    return count >= share * len(samples) - 1e-9


def _samples(labelled: Labelled) -> tuple[PromptEffects, Samples]:
    """The effects, and their prompts under every labelling."""
    first = next(iter(labelled.values()))
    for other in labelled.values():
        if not other.prompts["prompt_id"].equals(first.prompts["prompt_id"]):
            raise DataError("labellings of different prompts were given", "Give labellings of the same prompts.")
    harmful = np.stack([one.prompts["harmful"].to_numpy() for one in labelled.values()])
    return first, Samples(harmful=harmful, harmless=~harmful, blocks=blocks_of(first.prompts))


def _rows(
    numbers: list[int],
    languages: tuple[str, ...],
    group: Group,
    taken: np.ndarray,
    score: np.ndarray,
    mean: np.ndarray,
) -> pl.DataFrame:
    """The neurons `taken` [labelling, language, neuron], in the order of the array; `mean` has a single language."""
    labelling, language, neuron = np.nonzero(taken)
    columns = {
        "labels": np.array(numbers)[labelling],
        "language": np.array(languages)[language],
        "layer": group.layers[neuron],
        "site": group.sites[neuron],
        "index": group.index[neuron],
        "score": score[labelling, language, neuron],
        "mean": mean[labelling, 0, neuron],
    }
    return pl.DataFrame(columns).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def _sorted(found: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(found).sort("labels", *KEYS)
