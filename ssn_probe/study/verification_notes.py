"""What a run says of the neurons that were verified, and of the audit of the others: lines for manifest and report."""

from collections.abc import Iterable, Iterator

import numpy as np

from ssn_probe.spec import SafetyNeurons
from ssn_probe.study.importance import CONTRASTED, distinct_sites, effects_at, scored, unverified, verified
from ssn_probe.study.verification import Audit, audit
from ssn_probe.study.workbench import Workbench


def verification_notes(bench: Workbench, nodes: Iterable[SafetyNeurons]) -> Iterator[str]:
    """One line per language of every node that verifies."""
    for node in dict.fromkeys(nodes):
        if node.verify is None or node.labels is not None:
            continue
        for language in bench.data[node.prompts].languages:
            yield in_words(node, audited(bench, node, language))


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


def in_words(node: SafetyNeurons, found: Audit) -> str:
    share = found.verified / found.total
    return (
        f"{found.language}, effect={node.scored_by.name}, rule={node.rule}: {found.verified:,} of {found.total:,} "
        f"neurons ({share:.1%}) were verified by ablation, among them {found.covered:,} of the {found.band:,} within "
        f"{node.verify:.0%} of the threshold under the observed labels; the others keep their estimates. Audit of "
        f"{found.audited:,} neurons that were not verified, drawn with seed {node.audit_seed}: {found.missed} of "
        f"{found.rejected} rejected would have been taken with their exact effect (at most {found.upper:.1%} of all "
        f"rejected, one-sided 95 % bound of Clopper and Pearson); Spearman's correlation of estimate and exact effect "
        f"{found.ranks:.3f}, median relative error {found.error:.1%}"
    )
