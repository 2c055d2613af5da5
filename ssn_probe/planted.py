"""A run on an organism whose truth is known: what its sets get right, beside what was planted."""

from collections.abc import Mapping

import polars as pl

from ssn_probe.lab import Lab
from ssn_probe.loading import locate
from ssn_probe.neurons import KEYS, NeuronSet
from ssn_probe.node import walk
from ssn_probe.recipe import SafetyNeurons, SetExpression, Shared
from ssn_probe.selection import averaged
from ssn_probe.sets import importance_of
from ssn_probe.tables import ABSENT, table
from ssn_probe.text import markdown, percent
from ssn_probe.yardstick import against_truth, load_truth

QUESTIONS = {"harmful": "H: supports refusing what is harmful", "difference": "D: refuses harmful rather than harmless"}


def truth_table(
    lab: Lab, model: str, expressions: Mapping[str, SetExpression], sets: Mapping[str, NeuronSet]
) -> pl.DataFrame | None:
    """Every set against the truth, see `against_truth`; None for a model whose truth is not known."""
    truth = load_truth(locate(model))
    if truth is None:
        return None
    return pl.concat(against_truth(truth, name, sets[name], _ranking(lab, node)) for name, node in expressions.items())


def _ranking(lab: Lab, expression: SetExpression) -> pl.DataFrame | None:
    """The scores that the set's rule ranks all neurons by: a shared set's are averaged over languages."""
    choosers = {node for node in walk(expression) if isinstance(node, SafetyNeurons)}
    if len(choosers) != 1:
        return None
    node = choosers.pop()
    means = importance_of(lab, node)
    if isinstance(expression, Shared):
        means = averaged(means)
    score = pl.col("harmful") if node.rule == "harmful" else pl.col("harmful") - pl.col("harmless")
    return means.select(*KEYS, score.alias("score"))


def truth_section(truth: pl.DataFrame | None) -> str:
    """Precision, recall, mass and average precision per set and question; the mean over the set's languages."""
    if truth is None:
        return ""
    rows = truth.group_by("set", "question", maintain_order=True).agg(
        pl.col("selected", "outside", "planted", "true", "hits", "brakes").mean(),
        pl.col("precision", "recall", "mass", "average_precision").mean(),
        languages=pl.len(),
    )
    body = []
    for row in rows.rows(named=True):
        counts = [f"{row[name]:.3g}" for name in ("selected", "hits", "true", "brakes", "outside")]
        shares = [_share(row[name]) for name in ("precision", "recall", "mass")]
        ap = ABSENT if row["average_precision"] is None else f"{row['average_precision']:.2f}"
        body.append([markdown(row["set"]), row["question"], *counts, *shares, ap])
    header = ["set", "question", "at planted sites", "carriers found", "carriers", "brakes", "elsewhere"]
    header += ["precision", "recall", "mass", "average precision"]
    asked = "; ".join(f"*{name}* is {words}" for name, words in QUESTIONS.items())
    note = (
        f"The truth is a Shapley value over the planted neurons, on prompts that no method sees ({asked}). Means over "
        "the set's languages; *mass* is the share of the carriers' value that the set holds. Precision is a lower "
        "bound: neurons that were not planted carry refusal, too.\n"
    )
    return f"## Against what was planted\n\n{table(header, body)}\n{note}"


def _share(value: float | None) -> str:
    return ABSENT if value is None else percent(value, 0)
