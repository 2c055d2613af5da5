"""The sets that a recipe names. Of several names of one set, one stands for all in the tables about sets."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import polars as pl

from ssn_probe.spec import Each, Recipe, SetExpression
from ssn_probe.spec.node import Node
from ssn_probe.study.findings import Findings
from ssn_probe.text import listing


def expression_of(recipe: Recipe, name: str) -> SetExpression | Each:
    """The expression of a set that the recipe names, or of an arm's."""
    return recipe.sets[name] if name in recipe.sets else recipe.arms[name].neurons


def distinct_sets(recipe: Recipe) -> dict[str, list[str]]:
    """The name that stands for each set (the primary arm's, else the first) → the other names of the same set."""
    names: dict[Node, list[str]] = {}
    for name in (*recipe.sets, *recipe.arms):
        node = expression_of(recipe, name)
        names.setdefault(node.neurons if isinstance(node, Each) else node, []).append(name)
    found = {}
    for same in names.values():
        standing = recipe.primary if recipe.primary in same else same[0]
        found[str(standing)] = [name for name in same if name != standing]
    return found


def same_sets_note(names: Mapping[str, list[str]]) -> str:
    """Which names are not in the tables about sets, and which stands for them; empty where every name has rows."""
    lines = [
        f"In the tables below {name} stands for {listing(others)}, too: the set is the same."
        for name, others in names.items()
        if others
    ]
    return " ".join(lines)


def without_repeats(findings: Findings, names: Mapping[str, list[str]]) -> Findings:
    """The findings with the rows of the sets that stand for others alone."""
    robustness = replace(findings.robustness, **_of_sets(vars(findings.robustness), names))
    tables = {"neurons": findings.neurons, "overlap": findings.overlap, "truth": findings.truth}
    return replace(findings, robustness=robustness, **_of_sets(tables, names))


def _of_sets(tables: Mapping[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    kept = pl.col("set").is_in(list(names))
    return {name: table.filter(kept) for name, table in tables.items() if isinstance(table, pl.DataFrame)}
