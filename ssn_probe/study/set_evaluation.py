"""Evaluating set expressions: a `SetExpression` becomes a `NeuronSet` of this model and these prompts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import polars as pl

from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import EVERY, KEYS, NeuronSet, read_neurons
from ssn_probe.neurons.selection import (
    averaged,
    check_trained,
    random_like,
    select_neurons,
    shared_at_least,
    shared_with_anchor,
    whole_layers,
)
from ssn_probe.runs.cache import Frames
from ssn_probe.spec import (
    After,
    Combine,
    LeaveOneOut,
    NeuronFile,
    Of,
    Only,
    Prompts,
    RandomLike,
    SafetyNeurons,
    SetExpression,
    Shared,
    UnionOf,
    WholeLayers,
    WithoutStrongest,
)
from ssn_probe.spec.anchors import the_anchor
from ssn_probe.spec.node import walk
from ssn_probe.study.evidence import evidence_of, placebo_importance
from ssn_probe.study.importance import importance
from ssn_probe.study.plan import resolved_key
from ssn_probe.study.progress import Advance, Silent, Tracker
from ssn_probe.study.resolve import anchor_of, languages_left_out, left_out, without
from ssn_probe.study.steps import AFTER
from ssn_probe.study.trained_weights import done, trained_bench
from ssn_probe.study.workbench import Workbench


def evaluate(bench: Workbench, expression: SetExpression) -> NeuronSet:
    """The neurons that an expression stands for. Raises what its parts raise: DataError, RecipeError, ModelError."""
    return bench.remember(("set", expression), lambda: _evaluate(bench, expression))


def _evaluate(bench: Workbench, expression: SetExpression) -> NeuronSet:
    match expression:
        case SafetyNeurons():
            return _chosen(bench, expression)
        case Shared():
            return _shared(bench, expression)
        case Combine(operation=operation, left=left, right=right):
            first, second = evaluate(bench, left), evaluate(bench, right)
            return {"and": first.__and__, "or": first.__or__, "minus": first.__sub__}[operation](second)
        case Of(neurons=inner, language=language):
            return evaluate(bench, inner).of(language or the_anchor(bench.anchor))
        case UnionOf(neurons=inner):
            found, own = evaluate(bench, inner), left_out(inner, bench.data)
            return found.only(languages=[one for one in found.languages if one not in own]).union()
        case WithoutStrongest(neurons=inner):
            return evaluate(bench, inner).without_strongest()
        case Only(neurons=inner, layers=layers, sites=sites, languages=languages):
            return evaluate(bench, inner).only(layers=layers, sites=sites, languages=languages)
        case RandomLike(neurons=inner, seed=seed):
            return random_like(evaluate(bench, inner), bench.widths(), seed)
        case NeuronFile(path=path):
            return read_neurons(path)
        case WholeLayers(neurons=inner):
            return whole_layers(evaluate(bench, inner), bench.widths())
        case LeaveOneOut():
            return _left_out(bench, expression)
        case After():
            return _found_again(bench, expression)
    raise TypeError(f"{type(expression).__name__} is no set expression")


def _left_out(bench: Workbench, node: LeaveOneOut) -> NeuronSet:
    """Every language's own set, found without it. First with it, so that progress shows what is computed once."""
    evaluate(bench, node.neurons)
    languages = languages_left_out(node, bench.data, bench.anchor)
    frames = []
    for language in languages:
        inner = without(node.neurons, language, bench.data)
        assert isinstance(inner, SetExpression)
        data = {one: load_prompts(one) for one in walk(inner) if isinstance(one, Prompts)}
        found = evaluate(replace(bench, data={**bench.data, **data}, tracker=Silent()), inner)
        if not found.language_free:
            hint = "Take one language's, set.of('en'), or those of any language, set.union()."
            raise RecipeError(f"without {language} the set has no neurons of {language}", hint)
        frames.append(found.frame.with_columns(language=pl.lit(language)))
    return NeuronSet(pl.concat(frames).sort(KEYS), languages)


def _found_again(bench: Workbench, node: After) -> NeuronSet:
    """The same expression in the model that training makes."""
    chosen, tracker = evaluate(bench, node.trained.neurons), Again(bench.tracker)
    check_trained(chosen, bench.widths())
    inside = trained_bench(bench, node.trained, chosen, f"{AFTER}training", tracker=tracker)
    found = evaluate(replace(inside, data=bench.data), node.neurons)
    done(bench, node.trained, chosen, f"{AFTER}training")
    return found


@dataclass(frozen=True)
class Again:
    """A tracker whose rows are those of sets that are identified again."""

    tracker: Tracker

    def advance(self, label: str) -> Advance:
        return self.tracker.advance(AFTER + label)

    def settle(self, totals: Mapping[str, int]) -> None:
        self.tracker.settle({AFTER + label: total for label, total in totals.items()})

    def note(self, label: str, text: str) -> None:
        self.tracker.note(AFTER + label, text)


def importance_of(bench: Workbench, node: SafetyNeurons) -> pl.DataFrame:
    """The two means that a node's rule contrasts: harmful and harmless, or for a placebo harmless and harmless."""
    if not node.placebo:
        return importance(bench, node)
    evidence = evidence_of(bench, node)
    return bench.remember(("placebo", evidence), lambda: placebo_importance(evidence))


def _chosen(bench: Workbench, node: SafetyNeurons) -> NeuronSet:
    """Safety neurons by rank, by stability over half-samples, or at a false discovery rate."""
    if node.fdr is not None:
        return _discovered(bench, node, node.fdr)
    if node.stable is not None:
        return _stable(bench, node, node.stable)
    assert node.top is not None
    return select_neurons(importance_of(bench, node), rule=node.rule, top=node.top, pool=node.pool)


def _discovered(bench: Workbench, node: SafetyNeurons, rate: float) -> NeuronSet:
    """Neurons with a q-value of `rate` or less, of each language, and how many pass where nothing differs."""
    from ssn_probe.stats.nulls.false_discoveries import Discoveries, discoveries

    evidence = evidence_of(bench, node)
    what = bench.what("discoveries", evidence=evidence.key, rate=rate)
    frames = bench.frames(what, ["neurons", "check"], lambda: vars(discoveries(evidence, rate=rate)))
    found = Discoveries(**frames)
    own = found.check.filter(pl.col("language") != EVERY)
    bench.warn(
        f"fdr={rate:g}: {own['passed'].min()} to {own['passed'].max()} neurons of a language pass; under exchanged "
        f"labels {own['passed_permuted'].mean():.2g} do on average"
    )
    kept = found.neurons.filter((pl.col("q") <= rate) & (pl.col("language") != EVERY))
    return _set_of(kept, bench.data[node.prompts].languages, f"at fdr={rate:g}", "Raise fdr, or give more prompts.")


def _stable(bench: Workbench, node: SafetyNeurons, share: float) -> NeuronSet:
    """What is taken in `share` or more of the half-samples, ranked by the effect over all prompts."""
    from ssn_probe.stats.nulls.stability import Stability, stability
    from ssn_probe.stats.nulls.stable_neurons import stable_set

    evidence, bare = evidence_of(bench, node), replace(node, stable=None)
    ranked = resolved_key(bare, bench.subject.identity, bench.data)
    what = bench.what("stability", evidence=evidence.key, stable=ranked, share=share)

    def compute() -> Frames:
        return vars(stability(evidence, {"ms": bare}, permutations=20, null_pairs=50, share=share))

    found = Stability(**bench.frames(what, ["frequencies", "jaccard", "curve"], compute))
    chosen, bounds = stable_set(found.frequencies, evidence, share)
    worst = bounds.sort("bound_by_place", descending=True).row(0, named=True)
    bench.warn(
        f"stable={share:g}: at most {worst['bound']:.2g} of a language's neurons are expected to be there by chance if "
        f"all noise neurons are alike, {worst['bound_by_place']:.2g} if those of a layer and site are "
        f"({worst['language']}, {worst['neurons']} neurons; Shah & Samworth 2013); under exchanged labels "
        f"{found.jaccard['stable_permuted'].max():.2g} are"
    )
    contrast = pl.col("harmful") if node.rule == "harmful" else pl.col("harmful") - pl.col("harmless")
    scored = importance_of(bench, node).select(*KEYS, contrast.alias("score"))
    rows = chosen.frame.select(KEYS).join(scored, on=KEYS, how="left")
    hint = "Lower stable, raise top, or give more prompts."
    return _set_of(rows, bench.data[node.prompts].languages, f"by {share:.0%} of the half-samples", hint)


def _set_of(rows: pl.DataFrame, languages: tuple[str, ...], how: str, hint: str) -> NeuronSet:
    without = [language for language in languages if language not in set(rows["language"])]
    if without:
        raise DataError(f"no neuron of {', '.join(without)} is taken {how}", hint)
    return NeuronSet(rows.select(*KEYS, "score").sort(KEYS), languages)


def _shared(bench: Workbench, node: Shared) -> NeuronSet:
    if node.at_least is not None:
        return shared_at_least(evaluate(bench, node.neurons), node.at_least)
    choosers = [inner for inner in walk(node) if isinstance(inner, SafetyNeurons)]
    if len(set(choosers)) != 1:
        return _shared_by_own_scores(evaluate(bench, node.neurons), node.anchor or bench.anchor)
    chosen = choosers[0]
    mean = averaged(importance_of(bench, chosen))
    if node.by == "mean":
        assert chosen.top is not None
        return select_neurons(mean, rule=chosen.rule, top=chosen.top, pool=chosen.pool)
    score = pl.col("harmful") if chosen.rule == "harmful" else pl.col("harmful") - pl.col("harmless")
    anchor = anchor_of(bench.data[chosen.prompts], node.anchor)
    return shared_with_anchor(evaluate(bench, node.neurons), anchor, mean.with_columns(score=score).drop("language"))


def _shared_by_own_scores(neurons: NeuronSet, anchor: str | None) -> NeuronSet:
    """Shared neurons of files, or of several choices: ranked by their own scores, averaged over languages."""
    if anchor is None:
        raise RecipeError("Shared(…) of a neuron file needs an anchor language", "Give Shared(…, anchor=…).")
    return shared_with_anchor(neurons, anchor, neurons.union().frame.drop("language"))
