"""What verification did, and what its audit found: a row per language of every node that verifies.

A node may verify in the recipe's own model and in models that are trained (`set.after(…)`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from ssn_probe.spec import Recipe, SafetyNeurons
from ssn_probe.study.importance import CONTRASTED, distinct_sites, effects_at, scored, unverified, verified
from ssn_probe.study.resolve import choosers, found_again
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.trained_weights import AFTER as TRAINED
from ssn_probe.study.trained_weights import trained_bench
from ssn_probe.study.verification_audit import Audit, audit, upper_bound
from ssn_probe.study.workbench import Workbench

NODE = (
    "effect", "rule", "top", "pool", "sites", "prompts", "scoring_dtype", "verify", "audit_seed", "verify_most",
)  # fmt: skip
"""The columns that say which node a row is of: all that decides which neurons are ablated, and the set."""
AFTER = "after"
"""The column that says after which training; null: in the recipe's own model. Only where a trained model has rows."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Verifying:
    """Nodes, and the bench on which they choose neurons; `after`: the name of what it is trained with, if it is."""

    bench: Workbench
    nodes: Sequence[SafetyNeurons]
    after: str | None = None


def verifying(bench: Workbench, recipe: Recipe) -> Iterator[Verifying]:
    """All that choose neurons, those of the recipe's own model first.

    A training has the name of the arm that it is; one that is none has a number.
    """
    yield Verifying(bench=bench, nodes=list(choosers(recipe)))
    names = {node: name for name, node in recipe.arms.items()}
    for number, (training, nodes) in enumerate(found_again(recipe).items(), 1):
        if any(node.verify is not None for node in nodes):
            inside = trained_bench(bench, training, evaluate(bench, training.neurons), f"{TRAINED}training")
            yield Verifying(bench=inside, nodes=nodes, after=names.get(training, f"training {number}"))


def verification_table(verifying: Iterable[Verifying]) -> pl.DataFrame | None:
    """The columns of `NODE`, and those of `Audit`; None where no node verifies."""
    rows = [
        {AFTER: some.after, **_columns(some.bench, node), **asdict(audited(some.bench, node, language))}
        for some in verifying
        for node in dict.fromkeys(some.nodes)
        if node.verify is not None and node.labels is None
        for language in some.bench.data[node.prompts].languages
    ]
    if not rows:
        return None
    table = pl.DataFrame(rows, schema_overrides={"scoring_dtype": pl.String}, infer_schema_length=None)
    return (table if any(row[AFTER] for row in rows) else table.drop(AFTER)).unique(maintain_order=True)


def _columns(bench: Workbench, node: SafetyNeurons) -> dict[str, object]:
    own = {"effect": node.scored_by.spelled, "sites": " ".join(node.sites), "prompts": bench.data[node.prompts].name}
    return {name: own[name] if name in own else getattr(node, name) for name in NODE}


def audited(bench: Workbench, node: SafetyNeurons, language: str) -> Audit:
    """What verification did in a language, under the observed labels."""
    estimated, chosen = unverified(node), verified(bench, node, language)
    assert estimated is not None
    sides = [scored(bench, node, language, context).exact[:, len(chosen.neurons) :] for context in CONTRASTED]
    means = np.stack([side.mean(axis=0, dtype=np.float64) for side in sides], axis=1)
    exact = {neuron: (float(one), float(other)) for neuron, (one, other) in zip(chosen.audited, means, strict=True)}
    places = [(layer, site) for layer in range(bench.subject.n_layers) for site in distinct_sites(bench, node)]

    def reader(of: SafetyNeurons):
        return lambda context, layer, site: effects_at(bench, of, language, context, layer, site)

    return audit(node, places, language, chosen, (reader(estimated), reader(node)), exact)


def told_apart(table: pl.DataFrame, row: Mapping[str, Any]) -> dict[str, Any]:
    """What tells the node of a row from the others, beside effect and rule: the columns that have several values."""
    apart = {name: row[name] for name in NODE[2:] if name in table.columns and table[name].n_unique() > 1}
    return apart | ({AFTER: row[AFTER]} if row.get(AFTER) is not None else {})


def verification_notes(table: pl.DataFrame | None) -> Iterator[str]:
    """One sentence per node, over its languages."""
    if table is None:
        return
    by = [*NODE, *({AFTER} & set(table.columns))]
    for (effect, rule, *_), rows in table.group_by(by, maintain_order=True):
        further = "".join(f", {name}={value}" for name, value in told_apart(table, rows.row(0, named=True)).items())
        shares, doubtful = rows["verified"] / rows["total"], int(rows["doubtful"].sum())
        missed, rejected = int(rows["missed"].sum()), int(rows["rejected"].sum())
        yield (
            f"effect={effect}, rule={rule}{further}: {shares.min():.1%} to {shares.max():.1%} of a language's neurons "
            f"were verified by ablation on all prompts, {rows['spent'].max():.1%} of neurons × prompts at most "
            f"({rows['computed'].max():.1%} of their tokens); {doubtful} neurons are left in doubt; of {rejected} "
            f"audited neurons that the rule left out it would take {missed} with their "
            f"exact effects (at most {upper_bound(missed, rejected):.1%}, one-sided 95%)"
        )
