"""Evaluating set expressions: a `SetExpression` becomes a `NeuronSet` of this model and these prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import polars as pl

from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.neurons import EVERY, KEYS, NeuronSet, read_neurons
from ssn_probe.neurons.model_neurons import check_trained, whole_layers
from ssn_probe.neurons.random_controls import random_like
from ssn_probe.neurons.selection import averaged, scored, select_neurons, shared_at_least, shared_with_anchor
from ssn_probe.neurons.set_algebra import SetAlgebra
from ssn_probe.runs.cache import Frames
from ssn_probe.spec import (
    After,
    LeaveOneOut,
    NeuronFile,
    ProbedNeurons,
    Prompts,
    RandomLike,
    SafetyNeurons,
    SetExpression,
    Shared,
    WholeLayers,
    WithoutStrongest,
)
from ssn_probe.spec.node import Node, walk
from ssn_probe.stats.nulls.relabelled import labelled_means
from ssn_probe.study.contrast_effects import prompt_effects
from ssn_probe.study.exchange_checks import exchangeability_of
from ssn_probe.study.importance import importance
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.probed_sets import probed
from ssn_probe.study.relabelled_sets import (
    discoveries_of,
    relabelled_by_mean,
    relabelled_mean_score,
    relabelled_set,
)
from ssn_probe.study.resolve import anchor_of, languages_left_out, left_out, without
from ssn_probe.study.trained_weights import AFTER, trained_bench
from ssn_probe.study.workbench import Workbench


def evaluate(bench: Workbench, expression: SetExpression) -> NeuronSet:
    """The neurons that an expression stands for. Raises what its parts raise: DataError, RecipeError, ModelError."""
    return NeuronSets(bench).evaluate(expression)


def choosers(expression: Node) -> list[SafetyNeurons]:
    """The different `SafetyNeurons` that an expression is made of."""
    return list(dict.fromkeys(node for node in walk(expression) if isinstance(node, SafetyNeurons)))


@dataclass(frozen=True, eq=False)
class NeuronSets(SetAlgebra[NeuronSet]):
    """Set expressions as sets of neurons; each is evaluated once per bench."""

    bench: Workbench

    @property
    def anchor(self) -> str | None:
        return self.bench.anchor

    def evaluate(self, expression: SetExpression) -> NeuronSet:
        return self.bench.remember(("set", expression), partial(super().evaluate, expression))

    def chosen(self, node: SafetyNeurons) -> NeuronSet:
        """Safety neurons by rank, by stability over half-samples, or at a false discovery rate.

        Under other labels none may be found: then an empty set is what the tested set is compared with.
        """
        if node.labels is not None:
            return relabelled_set(self.bench, node)
        if node.fdr is not None:
            return _discovered(self.bench, node, node.fdr)
        if node.stable is not None:
            return _stable(self.bench, node, node.stable)
        return _ranked(node, importance_of(self.bench, node))

    def chosen_by_mean(self, node: SafetyNeurons) -> NeuronSet:
        if node.labels is not None:
            return relabelled_by_mean(self.bench, node)
        return _ranked(node, averaged(importance_of(self.bench, node)))

    def shared_with_anchor(self, node: Shared, found: NeuronSet) -> NeuronSet:
        chosen = choosers(node)
        if len(chosen) == 1:
            anchor = anchor_of(self.bench.data[chosen[0].prompts], node.anchor)
            if chosen[0].labels is not None:
                return shared_with_anchor(found, anchor, relabelled_mean_score(self.bench, chosen[0]))
            mean = scored(averaged(importance_of(self.bench, chosen[0])), chosen[0].rule).drop("language")
        else:  # neurons of files, or of several choices, are ranked by their own scores, averaged over languages
            named = node.anchor or self.anchor
            if named is None:
                raise RecipeError("Shared(…) of a neuron file needs an anchor language", "Give Shared(…, anchor=…).")
            anchor, mean = named, found.union().frame.drop("language")
        shared = shared_with_anchor(found, anchor, mean)
        if set(shared.frame["language"]) <= {anchor} < set(found.languages) and not _is_relabelled(node):
            best = found.neurons(anchor)["score"].drop_nulls().top_k(3).sort(descending=True)
            scores = f", whose highest scores are {', '.join(f'{one:.3g}' for one in best)}" if len(best) else ""
            self.bench.warn(f"no language shares a safety neuron with the anchor {anchor}{scores}")
        return shared

    def shared_at_least(self, node: Shared, found: NeuronSet) -> NeuronSet:
        assert node.at_least is not None
        return shared_at_least(found, node.at_least, may_be_empty=_is_relabelled(node))

    def left_out(self, inner: SetExpression) -> Sequence[str]:
        return left_out(inner, self.bench.data)

    def other(self, expression: SetExpression) -> NeuronSet:
        match expression:
            case WithoutStrongest(neurons=inner):
                return self.evaluate(inner).without_strongest()
            case RandomLike(neurons=inner, seed=seed):
                return random_like(self.evaluate(inner), self.bench.widths(), seed)
            case WholeLayers(neurons=inner):
                return whole_layers(self.evaluate(inner), self.bench.widths())
            case ProbedNeurons():
                return probed(self.bench, expression)
            case NeuronFile(path=path):
                return read_neurons(path)
            case LeaveOneOut():
                return _left_out(self.bench, expression)
            case After():
                return _found_again(self.bench, expression)
        raise TypeError(f"{type(expression).__name__} is not a set expression")


def _is_relabelled(node: Node) -> bool:
    """Is a set found under other labels than those of its prompts, so that an empty one is no result?"""
    return any(one.labels is not None for one in choosers(node))


def _left_out(bench: Workbench, node: LeaveOneOut) -> NeuronSet:
    """Every language's set, found without that language. First with it, so that progress shows the work done once."""
    evaluate(bench, node.neurons)
    languages = languages_left_out(node, bench.data, bench.anchor)
    frames = []
    for language in languages:
        inner = without(node.neurons, language, bench.data)
        assert isinstance(inner, SetExpression)
        data = {prompts: load_prompts(prompts) for prompts in walk(inner) if isinstance(prompts, Prompts)}
        found = evaluate(replace(bench, data={**bench.data, **data}), inner)
        if not found.language_free:
            hint = "Take the neurons of a single language, set.of('en'), or of any language, set.union()."
            raise RecipeError(f"without {language} the set has no neurons of {language}", hint)
        frames.append(found.frame.with_columns(language=pl.lit(language)))
    return NeuronSet(pl.concat(frames).sort(KEYS), languages)


def _found_again(bench: Workbench, node: After) -> NeuronSet:
    """The same expression in the model that training makes."""
    chosen = evaluate(bench, node.trained.neurons)
    check_trained(chosen, bench.widths())
    inside = trained_bench(bench, node.trained, chosen, f"{AFTER}training")
    return evaluate(replace(inside, data=bench.data), node.neurons)


def importance_of(bench: Workbench, node: SafetyNeurons) -> pl.DataFrame:
    """The means that a node's rule contrasts, of harmful and of harmless prompts by the node's labels."""
    if node.labels is None:
        return importance(bench, node)
    effects = prompt_effects(bench, node)
    return bench.remember(("means", effects), lambda: labelled_means(effects))


def _ranked(node: SafetyNeurons, means: pl.DataFrame) -> NeuronSet:
    assert node.top is not None
    return select_neurons(means, rule=node.rule, top=node.top, pool=node.pool)


def _discovered(bench: Workbench, node: SafetyNeurons, rate: float) -> NeuronSet:
    """Every language's neurons with a q-value of `rate` or less; notes how many pass where nothing differs."""
    found = discoveries_of(bench, node)
    own = found.check.filter(pl.col("language") != EVERY)
    bench.warn(
        f"fdr={rate:g}: {own['passed'].min()} to {own['passed'].max()} neurons of a language pass; under exchanged "
        f"labels {own['passed_permuted'].mean():.2g} do on average"
    )
    why = exchangeability_of(bench, prompt_effects(bench, node)).reason
    if why is not None:
        bench.warn(f"the rate of fdr={rate:g} is not known, because no valid null exists: {why}")
    kept = found.neurons.filter((pl.col("q") <= rate) & (pl.col("language") != EVERY))
    return _set_of(kept, bench.data[node.prompts].languages, f"at fdr={rate:g}", "Raise fdr, or give more prompts.")


def _stable(bench: Workbench, node: SafetyNeurons, share: float) -> NeuronSet:
    """The neurons that `share` or more of the half-samples take, ranked by the effect over all prompts."""
    from ssn_probe.stats.nulls.stability import Stability, stability
    from ssn_probe.stats.nulls.stable_neurons import stable_set

    effects, bare = prompt_effects(bench, node), replace(node, stable=None)
    ranked = resolved_key(bare, bench.subject.identity, bench.data)
    has_null = exchangeability_of(bench, effects).reason is None
    inputs = bench.inputs("stability", evidence=effects.key, stable=ranked, share=share, null=has_null)

    def compute() -> Frames:
        options = {"permutations": 20 if has_null else 0, "null_pairs": 50, "share": share}
        return vars(stability(effects, {"ms": bare}, **options))

    found = Stability(**bench.frames(inputs, ["frequencies", "jaccard", "curve"], compute))
    chosen, bounds = stable_set(found.frequencies, effects, share)
    worst = bounds.sort("bound_by_place", descending=True).row(0, named=True)
    permuted = found.jaccard["stable_permuted"].max()
    bench.warn(
        f"stable={share:g}: at most {worst['bound']:.2g} of a language's neurons are expected to be there by chance if "
        f"all noise neurons are exchangeable, {worst['bound_by_place']:.2g} if only those of a layer and site are "
        f"({worst['language']}, {worst['neurons']} neurons; Shah & Samworth 2013)"
        + ("" if permuted is None else f"; under exchanged labels {permuted:.2g} are found")
    )
    rows = chosen.frame.select(KEYS).join(scored(importance_of(bench, node), node.rule), on=KEYS, how="left")
    hint = "Lower stable, raise top, or give more prompts."
    return _set_of(rows, bench.data[node.prompts].languages, f"by {share:.0%} of the half-samples", hint)


def _set_of(rows: pl.DataFrame, languages: tuple[str, ...], how: str, hint: str) -> NeuronSet:
    without = [language for language in languages if language not in set(rows["language"])]
    if without:
        raise DataError(f"no neuron of {', '.join(without)} is selected {how}", hint)
    return NeuronSet(rows.select(*KEYS, "score").sort(KEYS), languages)
