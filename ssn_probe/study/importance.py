"""From traces to importances: the per-prompt effect of every neuron, and its mean per language and context."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.precision import HALF, computing_in, widens
from ssn_probe.neurons.selection import contrast_score
from ssn_probe.runs.cache import VanishedError
from ssn_probe.spec import Local, SafetyNeurons
from ssn_probe.spec.node import digest, to_json
from ssn_probe.study.harmless_text import answer_tokens
from ssn_probe.study.language_readout import language_readouts
from ssn_probe.study.measurements import UNCHANGED, reads_json, response_inputs, tokens_of, untouched_tokens
from ssn_probe.study.progress import Advance, Note, counted, no_note
from ssn_probe.study.refusal_readout import readouts
from ssn_probe.study.verification import Read, Verified, in_fixed_order, liable_sites, to_verify
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.batching import Part, Shelf, all_done, no_progress
from ssn_probe.tracing.kept_values import Neuron, highest, in_order, mean_effects, place

CONTRASTED = ("harmful", "harmless")

Means = Mapping[str, np.ndarray]
"""Site → mean effect of every neuron, [layer, neuron]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """The effect of every neuron in one language and context: `means` over prompts, and batch by batch the prompts'.

    `exact` [prompt, neuron]: effects of `neurons` that stand in the place of estimates, those of audited ones after
    them.
    """

    means: Means
    parts: Sequence[Part]
    neurons: Sequence[Neuron] = ()
    exact: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))


def importance(bench: Workbench, node: SafetyNeurons) -> pl.DataFrame:
    """Mean effect per neuron: `language, layer, site, index, harmful, harmless`, over the *identify* prompts.

    Where a head has its own keys and values, `v` silences what `o` silences and is left out, so that no neuron counts
    twice.
    """
    sites = distinct_sites(bench, node)

    def compute() -> pl.DataFrame:
        frames = []
        for language in bench.data[node.prompts].languages:
            means = {context: scored(bench, node, language, context).means for context in CONTRASTED}
            frames.extend(importance_frame(means, site, language) for site in sites)
        return pl.concat(frames)

    key = ("importance", bench.data[node.prompts].digest, sites, *scored_as(node))
    return bench.remember(key, compute)


def chance_errors(bench: Workbench, node: SafetyNeurons) -> pl.DataFrame | None:
    """The standard error that the measurement itself gives to what a rule ranks by: `language, layer, site, index`,
    `score_error`.

    Of an effect that is estimated by chance, such as `Final` from random read-outs; None for others. Effects of prompts
    are independent, so a mean of n effects e has √Σ (chance · e)² / n, whose square is unbiased; equal prompts of a
    context have the same read-outs, and count as one with the sum of their effects. It is no error of prompts, whose
    choice adds to it. What is verified on all prompts has none.
    """
    if not node.scored_by.chance or node.labels is not None:
        return None
    estimated, frames = unverified(node) or node, []
    weights = {"harmful": 1.0, "harmless": float(contrast_score(node.rule, 0.0, 1.0))}
    for language in bench.data[node.prompts].languages:
        exact = () if node.verify is None else verified(bench, node, language).complete
        copies = {context: _copies(bench, node, language, context) for context in weights}
        for site in distinct_sites(bench, node):
            places = []
            for layer in range(bench.subject.n_layers):
                squares: Any = 0.0
                for context, weight in weights.items():
                    effects = effects_at(bench, estimated, language, context, layer, site)
                    first, times = copies[context]
                    apart = effects if len(first) == len(effects) else effects[first] * times[:, None]
                    errors = node.scored_by.chance * weight * np.linalg.norm(apart, axis=0) / len(effects)
                    squares = squares + errors**2
                squares[[index for where, kind, index in exact if (where, kind) == (layer, site)]] = 0.0
                places.append(np.sqrt(squares))
            frames.append(importance_frame({"score_error": {site: np.stack(places)}}, site, language))
    return pl.concat(frames)


def _copies(bench: Workbench, node: SafetyNeurons, language: str, context: str) -> tuple[np.ndarray, np.ndarray]:
    """The rows of different prompts, each the first of its like, and how many are like it: int64 [different prompt]."""
    rows: dict[tuple[int, ...], list[int]] = {}
    for number, tokens in enumerate(tokens_of(bench, bench.data[node.prompts].select("identify", context, language))):
        rows.setdefault(tuple(tokens), []).append(number)
    return np.array([same[0] for same in rows.values()]), np.array([len(same) for same in rows.values()])


def distinct_sites(bench: Workbench, node: SafetyNeurons) -> tuple[str, ...]:
    """The node's sites, less `v` where it is `o` by another name."""
    widths = bench.subject.widths
    if widths["v"] == widths["o"] and {"v", "o"} <= set(node.sites):
        bench.warn("v is left out: with one query head per key-value head it silences exactly what o silences")
        return tuple(site for site in node.sites if site != "v")
    return node.sites


def scored(
    bench: Workbench,
    node: SafetyNeurons,
    language: str,
    context: str,
    advance: Advance = no_progress,
    note: Note = no_note,
) -> Scored:
    """Per-prompt effects on the *identify* prompts of a language and context, and their means."""
    sites = distinct_sites(bench, node)

    def compute() -> Scored:
        if node.verify is not None:
            return _verified(bench, node, language, context, advance, note)
        rows = bench.data[node.prompts].select("identify", context, language)
        with bench.shelf(score_inputs(bench, node, language, context), rows.height) as shelf:
            if not all_done(shelf, rows.height, advance):
                _score(bench, node, language, rows, shelf, advance)
            parts = shelf.parts()
            return Scored(means={site: mean_effects(parts, site) for site in sites}, parts=parts)

    return bench.remember(_scores_key(bench, node, language, context), compute)


def _score(
    bench: Workbench, node: SafetyNeurons, language: str, rows: pl.DataFrame, shelf: Shelf, advance: Advance
) -> None:
    """Computes what the shelf lacks of the effects on some prompts."""
    from ssn_probe.tracing.effects import score

    if isinstance(node.scored_by, Local):
        _recall_weights(bench)
    known = {"reads": reads_of(bench, node, language), "candidates": candidates(bench, node, language)}
    known["responses"] = responses_read(bench, node, rows, language)
    with computing_in(bench.subject, node.scoring_dtype) as subject:
        score(
            node.scored_by,
            subject,
            tokens_of(bench, rows),
            **known,
            sites=distinct_sites(bench, node),
            batch_size=bench.size(node.scored_by.name),
            shelf=shelf,
            advance=advance,
        )


def _recall_weights(bench: Workbench) -> None:
    """What a sandbox is asked about weights is kept for later runs."""
    from ssn_probe.tracing.known_weights import hides_weights, recall_weights

    if hides_weights(bench.subject):
        with bench.shelf(bench.inputs("weights"), 1) as shelf:
            recall_weights(bench.subject, shelf)


def score_inputs(bench: Workbench, node: SafetyNeurons, language: str, context: str) -> dict[str, Any]:
    """What decides per-prompt scores: the tokens of the prompts, the effect with what it reads, and the sites."""
    prompts = bench.data[node.prompts]
    estimated = unverified(node)
    if estimated is not None:
        of = [one for one in (estimated, sized(node)) if one is not None]
        scores = [digest(score_inputs(bench, one, language, side)) for one in of for side in CONTRASTED]
        return bench.inputs("verified", context=context, scores=scores, chosen=to_json(scored_as(node)))
    found = reads_of(bench, node, language)
    reads = None if found is None else reads_json(found)
    shown = digest(tokens_of(bench, prompts.select("identify", context, language)))
    sites = list(distinct_sites(bench, node))
    further: dict[str, Any] = {} if node.scored_by.screen is None else {"screened": _screened(bench, node, language)}
    if node.scored_by.reads_responses:
        rows = prompts.select("identify", context, language)
        further["responses"] = digest(response_inputs(bench, prompts, rows, UNCHANGED))
    further |= {"widened_to": node.scoring_dtype} if widens(bench.subject, node.scoring_dtype) else {}
    return bench.inputs("scores", prompts=shown, effect=to_json(node.effect), reads=reads, sites=sites, **further)


def responses_read(bench: Workbench, node: SafetyNeurons, rows: pl.DataFrame, language: str) -> list[list[int]] | None:
    """The greedy responses of the bench's model to some prompts, each with its end token; None if none is read.

    Raises ModelError where a response has no token: in the plain form, where the model said nothing for itself.
    """
    if not node.scored_by.reads_responses:
        return None
    new = untouched_tokens(bench, bench.data[node.prompts], rows)
    answers = [list(answer_tokens(one, bench.subject)) for one in new]
    if empty := sum(not one for one in answers):
        raise ModelError(
            f"{bench.data[node.prompts].name}: {empty:,} of {len(answers):,} responses in {language} have no token, "
            f"and the effect {node.scored_by.name} is read along them",
            'Give position="last", or leave these prompts out.',
        )
    return answers


def _screened(bench: Workbench, node: SafetyNeurons, language: str) -> list[str]:
    """What decides the candidates, beside their share: the scores of the screening effect in both contexts."""
    first = screening(node)
    assert first is not None
    return [digest(score_inputs(bench, first, language, context)) for context in CONTRASTED]


def screening(node: SafetyNeurons) -> SafetyNeurons | None:
    """The node with the effect that chooses candidates for its own; None where that is computed for every neuron."""
    screen = node.scored_by.screen
    return None if screen is None else replace(node, effect=screen[0])


def unverified(node: SafetyNeurons) -> SafetyNeurons | None:
    """The node whose estimates decide which neurons are verified; None where none is."""
    return None if node.verify is None else replace(node, verify=None)


def sized(node: SafetyNeurons) -> SafetyNeurons | None:
    """The node whose scores say how large neurons are where they are, and so whose estimates may be far off."""
    sites = () if node.verify is None else liable_sites(node)
    return replace(node, effect=Local(), sites=sites, verify=None) if sites else None


def scored_as(node: SafetyNeurons) -> tuple[Any, ...]:
    """The fields of a node that decide its scores: with verification, those that set the threshold, too."""
    own = (node.effect, node.scoring_dtype)
    if node.verify is None:
        return own
    return (*own, node.rule, node.top, node.pool, node.verify, node.audit_seed, node.verify_most)


def verified(bench: Workbench, node: SafetyNeurons, language: str, note: Note = no_note) -> Verified:
    """The neurons that are measured exactly in a language. No label has a part in it, see `verification`."""
    estimated = unverified(node)
    assert estimated is not None
    every, local = _tokens_of_both(bench, node, language), sized(node)
    of = [one for one in (estimated, local) if one is not None]
    scores = sorted(digest(score_inputs(bench, one, language, side)) for one in of for side in CONTRASTED)

    def reader(one: SafetyNeurons) -> Read:
        return lambda context, layer, site: effects_at(bench, one, language, context, layer, site)

    ran: list[float] = []

    def measure(neurons: Sequence[Neuron], rows: Sequence[int]) -> np.ndarray:
        tokens = [every[row] for row in rows]
        which = {"prompts": digest(tokens), "neurons": digest([list(neuron) for neuron in neurons])}
        inputs = bench.inputs("tried", **which, scores=scores, chosen=to_json(scored_as(node)))
        text = f"{language}: {len(neurons):,} neurons near a threshold"
        advance = counted(note, text, len(tokens))
        effects, shares = _ablated(bench, node, language, inputs, tokens, every, neurons, advance)
        ran.append(len(neurons) * float(shares.sum()))
        return effects

    def verify() -> Verified:
        found = to_verify(node, places, language, *reads)
        return replace(found, computed=sum(ran) / (found.total * len(every)))

    places = [(layer, site) for layer in range(bench.subject.n_layers) for site in distinct_sites(bench, node)]
    key = ("verified", bench.data[node.prompts].digest, *scored_as(node), tuple(places), language)
    reads = reader(estimated), measure, in_fixed_order(every), None if local is None else reader(local)
    return bench.remember(key, verify)


def _ablated(
    bench: Workbench,
    node: SafetyNeurons,
    language: str,
    inputs: Mapping[str, Any],
    tokens: Sequence[Sequence[int]],
    among: Sequence[Sequence[int]],
    neurons: Sequence[Neuron],
    advance: Advance,
) -> tuple[np.ndarray, np.ndarray]:
    """Exact effects, [prompt, neuron], in single precision at least, of some prompts among those of both contexts; and
    of each the tokens that ran, over those of the whole prompt."""
    with bench.shelf(inputs, len(tokens)) as shelf:
        if not all_done(shelf, len(tokens), advance):
            from ssn_probe.tracing.exact_effects import exact_effects

            reads, size = reads_of(bench, node, language), bench.size("verified")
            with computing_in(bench.subject, verified_in(bench, node)) as subject:
                exact_effects(
                    subject, tokens, neurons, reads, among=among, batch_size=size, shelf=shelf, advance=advance
                )
        return in_order(shelf.parts(), "exact"), in_order(shelf.parts(), "ran")


def _tokens_of_both(bench: Workbench, node: SafetyNeurons, language: str) -> list[list[int]]:
    """The *identify* prompts of a language, harmful ones before harmless ones."""
    prompts = bench.data[node.prompts]
    return [row for side in CONTRASTED for row in tokens_of(bench, prompts.select("identify", side, language))]


def _verified(
    bench: Workbench, node: SafetyNeurons, language: str, context: str, advance: Advance, note: Note
) -> Scored:
    """The estimates, with the exact effects of verified neurons in their place, in single precision at least."""
    estimated = unverified(node)
    assert estimated is not None
    chosen, prompts = verified(bench, node, language, note), bench.data[node.prompts]
    rows, inputs = prompts.select("identify", context, language), score_inputs(bench, node, language, context)
    every = _tokens_of_both(bench, node, language)
    audited, _ = _ablated(bench, node, language, inputs, tokens_of(bench, rows), every, chosen.audited, advance)
    first = 0 if context == CONTRASTED[0] else len(chosen.effects) - len(audited)
    exact = np.concatenate([chosen.effects[first : first + len(audited)], audited], axis=1)
    found = scored(bench, estimated, language, context)
    means = {site: values.copy() for site, values in found.means.items()}
    for column, (layer, site, index) in enumerate(chosen.neurons):
        means[site][layer, index] = exact[:, column].mean(dtype=np.float64)
    return Scored(means=means, parts=found.parts, neurons=chosen.neurons, exact=exact)


def verified_in(bench: Workbench, node: SafetyNeurons) -> str | None:
    """The dtype of exact effects: single precision at least, whose rounding one neuron's effect is above; None: the
    model's own."""
    return node.scoring_dtype or ("float32" if bench.subject.identity["dtype"] in HALF else None)


def candidates(bench: Workbench, node: SafetyNeurons, language: str) -> list[Neuron] | None:
    """The neurons that the node's effect is computed for in a language; None for all.

    Those with the largest mean over all *identify* prompts of both contexts: which of them are called harmful has no
    part in it, so exchanged labels choose the same candidates, and a null that exchanges them is valid.
    """
    first, screen = screening(node), node.scored_by.screen
    if first is None or screen is None:
        return None
    found = [scored(bench, first, language, context) for context in CONTRASTED]
    counts = [sum(len(part.rows) for part in side.parts) for side in found]
    sites = distinct_sites(bench, node)
    pooled = {site: np.average([side.means[site] for side in found], axis=0, weights=counts) for site in sites}
    return highest(pooled, screen[1])


def reads_of(bench: Workbench, node: SafetyNeurons, language: str) -> Openings | Direction | None:
    """How the effect's behaviour is read in a language; None for an effect that does not ask."""
    if not node.scored_by.needs_openings:
        return None
    read = language_readouts if node.scored_by.reads_language else readouts
    return read(bench, bench.data[node.prompts])[language].reads


def effects_at(bench: Workbench, node: SafetyNeurons, language: str, context: str, layer: int, site: str) -> np.ndarray:
    """Every prompt's effects at one place, float32 [prompt, neuron]."""
    estimated = unverified(node)
    if estimated is not None:
        effects = effects_at(bench, estimated, language, context, layer, site)
        found = scored(bench, node, language, context)
        for column, neuron in enumerate(found.neurons):
            if neuron[:2] == (layer, site):
                effects[:, neuron[2]] = found.exact[:, column]
        return effects
    try:
        return place(scored(bench, node, language, context).parts, layer, site)
    except VanishedError:  # another run has computed them anew, or somebody has deleted the cache
        bench.forget(_scores_key(bench, node, language, context))
        return place(scored(bench, node, language, context).parts, layer, site)


def _scores_key(bench: Workbench, node: SafetyNeurons, language: str, context: str) -> tuple[Any, ...]:
    """The selection rule changes no score that is not verified."""
    sites = distinct_sites(bench, node)
    return "scores", bench.data[node.prompts].digest, sites, *scored_as(node), language, context


def importance_frame(means: Mapping[str, Means], site: str, language: str) -> pl.DataFrame:
    """The mean effects at a site, by context, as `importance` has them."""
    layers, width = next(iter(means.values()))[site].shape
    return pl.DataFrame(
        {
            "language": pl.repeat(language, layers * width, eager=True),
            "layer": np.repeat(np.arange(layers, dtype=np.int32), width),
            "site": pl.repeat(site, layers * width, eager=True),
            "index": np.tile(np.arange(width, dtype=np.int32), layers),
        }
        | {context: found[site].ravel() for context, found in means.items()}
    )
