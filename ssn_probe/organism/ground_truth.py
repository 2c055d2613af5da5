"""The ground truth of a planted organism, and how a set of neurons compares with it.

The ground truth is stored with the weights that it belongs to: `truth.parquet`, one row per planted neuron with its
Shapley value and class for two questions, and `truth.json`, how they were measured (`truth_measurement` writes both).

- **harmful** (H): which neurons support the refusal of harmful requests?
- **difference** (D): which neurons support refusing harmful rather than harmless requests?

A neuron is a *carrier* (supports), a *brake* (works against) or *idle*. Neurons that are not planted count as wrong,
although some of them transmit what planted neurons write: precision is a lower bound. The ground truth is about `ffn`
and `o` channels; a row of `v_proj` has the effect of its `o` channels together and counts as outside.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.errors import ModelError, ResultError, first_line
from ssn_probe.files import sha256
from ssn_probe.model.digests import weights_digest
from ssn_probe.neurons import EVERY, NEURON, SCHEMA, NeuronSet
from ssn_probe.spec.node import digest

QUESTIONS = ("harmful", "difference")
CARRIER, BRAKE, IDLE = "carrier", "brake", "idle"
PLACE = ["layer", "site"]
TRUTH_SCHEMA = {
    **{name: SCHEMA[name] for name in NEURON},
    **dict.fromkeys(("harmful", "harmful_se", "difference", "difference_se"), pl.Float64),
    **dict.fromkeys(("harmful_class", "difference_class"), pl.String),
}
COMPARISON = {
    **dict.fromkeys(("set", "language", "question"), pl.String),
    **dict.fromkeys(("selected", "outside", "planted", "true", "hits"), pl.Int64),
    **dict.fromkeys(("precision", "recall", "mass"), pl.Float64),
    "brakes": pl.Int64,
    "average_precision": pl.Float64,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """The ground truth of an organism.

    `neurons` has one row per planted neuron, as in `TRUTH_SCHEMA`; values are in nats of refusal log-odds, `_se` are
    standard errors over permutation pairs. `totals` is question → (v of none, v of all), whose difference the values
    add up to. `widths` is site → neurons in a layer.
    """

    neurons: pl.DataFrame
    totals: Mapping[str, tuple[float, float]]
    widths: Mapping[str, int]
    pairs: int
    prompts: int
    seed: int

    def members(self, question: str, kind: str) -> pl.DataFrame:
        """The neurons of a class (`carrier`, `brake`, `idle`) for a question: `layer, site, index, value`."""
        rows = self.neurons.filter(pl.col(f"{question}_class") == kind)
        return rows.select(*NEURON, pl.col(question).alias("value"))


def load_truth(folder: str | Path) -> Truth | None:
    """The ground truth in a model's folder; None without a truth.parquet.

    Raises ModelError where it is damaged, or was measured on different weights. One of an earlier release has no
    digest of itself.
    """
    folder = Path(folder)
    if not (folder / "truth.parquet").is_file():
        return None
    try:
        facts = json.loads((folder / "truth.json").read_text("utf-8"))
        truth = Truth(
            neurons=pl.read_parquet(folder / "truth.parquet", glob=False).select(
                pl.col(name).cast(kind) for name, kind in TRUTH_SCHEMA.items()
            ),
            totals={name: (facts["totals"][name]["none"], facts["totals"][name]["all"]) for name in QUESTIONS},
            widths=dict(facts["widths"]),
            pairs=facts["pairs"],
            prompts=facts["prompts"],
            seed=facts["seed"],
        )
        damaged = "sha256" in facts and facts["sha256"] != truth_digest(folder, facts)
        weights = facts["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise ModelError(
            f"The ground truth in {folder} cannot be read: {first_line(error)}",
            "Copy truth.parquet and truth.json again, or make the organism again.",
        ) from error
    if damaged:
        raise ModelError(
            f"The ground truth in {folder} is damaged: truth.parquet or truth.json does not match its SHA-256.",
            "Copy truth.parquet and truth.json again, or make the organism again.",
        )
    if weights != weights_digest(folder):
        raise ModelError(
            f"The ground truth in {folder} was measured on other weights than those in the folder.",
            "Copy the whole folder again, or remove truth.parquet and truth.json if the weights are meant to differ.",
        )
    return truth


def truth_digest(folder: Path, facts: Mapping[str, Any]) -> str:
    """SHA-256 of truth.parquet and of the other fields of truth.json."""
    others = {name: value for name, value in facts.items() if name != "sha256"}
    return digest({"table": sha256(folder / "truth.parquet"), "facts": others})


def largest_share(neurons: pl.DataFrame, question: str = "harmful") -> float:
    """The share of all positive Shapley mass that the strongest neuron has; 0 where no value is positive."""
    positive = [value for value in neurons[question] if value > 0]
    return max(positive) / sum(positive) if positive else 0.0


def against_truth(truth: Truth, name: str, neurons: NeuronSet, ranking: pl.DataFrame | None = None) -> pl.DataFrame:
    """How a set compares with the ground truth: a row per language of the set and question, columns as in `COMPARISON`.

    Args:
        truth: the organism's ground truth.
        name: the set's name, for the column `set`.
        neurons: the set.
        ranking: scores of neurons, `language, layer, site, index, score`, for `average_precision`; the language `*`
            stands for every language. Neurons without a row or a score rank last, together.

    Returns:
        `selected` counts the set's neurons in each (layer, site) with planted neurons, `outside` those elsewhere.
        `planted` and `true` are how many planted neurons and carriers there are, `hits` the carriers selected,
        `brakes` the brakes selected. precision = hits / selected, recall = hits / true, `mass` = the share of the
        carriers' Shapley mass that the set has. A ratio is null where its denominator is 0, and
        `average_precision` without a ranking in that language.
    """
    rows = [
        _compare(truth, name, language, question, neurons.neurons(language), _ranked(ranking, language))
        for language in neurons.languages
        for question in QUESTIONS
    ]
    return pl.DataFrame(rows, schema=COMPARISON)


def _ranked(ranking: pl.DataFrame | None, language: str) -> pl.DataFrame | None:
    """The rows of a ranking that apply to a language; None where there are none."""
    if ranking is None:
        return None
    if ranking["score"].is_nan().any():
        raise ResultError("The ranking has scores that are not numbers.", "Rank again: a NaN cannot be ordered.")
    for known in (language, EVERY):
        rows = ranking.filter(pl.col("language") == known)
        if not rows.is_empty():
            return rows
    return None


def _compare(
    truth: Truth, name: str, language: str, question: str, chosen: pl.DataFrame, ranking: pl.DataFrame | None
) -> dict[str, Any]:
    carriers, places = truth.members(question, CARRIER), truth.neurons.select(PLACE).unique()
    selected = chosen.join(places, on=PLACE, how="semi")
    hits = carriers.join(selected, on=NEURON, how="semi")
    return {
        "set": name,
        "language": language,
        "question": question,
        "selected": selected.height,
        "outside": chosen.height - selected.height,
        "planted": truth.neurons.height,
        "true": carriers.height,
        "hits": hits.height,
        "precision": _share(hits.height, selected.height),
        "recall": _share(hits.height, carriers.height),
        "mass": _share(hits["value"].sum(), carriers["value"].sum()),
        "brakes": selected.join(truth.members(question, BRAKE), on=NEURON, how="semi").height,
        "average_precision": None if ranking is None else _average_precision(truth, carriers, ranking),
    }


def _share(part: Any, whole: Any) -> float | None:
    return part / whole if whole else None


def _average_precision(truth: Truth, carriers: pl.DataFrame, ranking: pl.DataFrame) -> float | None:
    """The average precision of the ranking of all neurons in each (layer, site) with planted neurons."""
    everyone = pl.concat(
        pl.select(
            layer=pl.lit(layer, pl.Int32), site=pl.lit(site), index=pl.int_range(truth.widths[site], dtype=pl.Int32)
        )
        for layer, site in truth.neurons.select(PLACE).unique().iter_rows()
    )
    scored = everyone.join(ranking.select(*NEURON, "score"), on=NEURON, how="left").join(
        carriers.with_columns(relevant=pl.lit(True)), on=NEURON, how="left"
    )
    return average_precision(scored["score"].to_list(), scored["relevant"].fill_null(False).to_list())


def average_precision(scores: Sequence[float | None], relevant: Sequence[bool]) -> float | None:
    """Mean precision at every relevant item: Σ (R_n − R_{n−1}) P_n over the distinct scores, from the highest.

    Items of the same score enter together, so their order does not matter; items without a score enter last. None where
    nothing is relevant.
    """
    items = pl.DataFrame({"score": scores, "relevant": relevant}, schema={"score": pl.Float64, "relevant": pl.Int64})
    steps = (
        items.group_by("score", maintain_order=True)
        .agg(pl.col("relevant").sum(), pl.len().alias("entered"))
        .sort("score", descending=True, nulls_last=True)
    )
    precision = steps["relevant"].cum_sum() / steps["entered"].cum_sum()
    return _share((steps["relevant"] * precision).sum(), items["relevant"].sum())
