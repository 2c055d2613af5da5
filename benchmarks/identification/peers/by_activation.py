"""Definitions of others that take activations alone: one forward pass per prompt."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from benchmarks.identification.peers.given import HARMFUL, HARMLESS, Given, Ranking
from benchmarks.identification.peers.passes import Pass, Place, candidates_of, module_of


def activation_size(given: Given) -> Ranking:
    """Mean |activation| over the tokens of harmful prompts: the baseline of pruning by activity."""
    return given.over_languages(lambda language: _size(given.run(language, HARMFUL)))


def _size(run: Pass) -> dict[Place, Tensor]:
    return {place: _over_tokens(a.abs(), run.mask).mean(0) for place, a in run.activations.items()}


def _over_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over real tokens: [prompt, neuron]."""
    return (values * mask).sum(1) / mask.sum(1)


def summed_up_projection(given: Given) -> Ranking:
    """Σ over tokens of |up_proj(x)|, mean over harmful prompts.

    What the published code of PLND (DAMO-NLP-SG/multilingual_analysis, its changed modeling_llama.py) sorts
    feed-forward neurons by, though the paper defines the norm of the output's change (`plnd`). Departures: a mean over
    prompts, where the code intersects top sets of fixed size; at `o`, where the code stores the sum of what the module
    puts out, which belongs to no neuron, Σ |activation|.
    """

    def scored(language: str) -> dict[Place, Tensor]:
        up: dict[Place, Tensor] = {}
        handles = []
        for layer in range(given.subject.n_layers):
            place = (layer, "ffn")
            path = given.subject.family.modules["ffn"][0].rpartition(".")[0]
            module = given.subject.model._module.get_submodule(f"{given.subject.family.layers}.{layer}.{path}.up_proj")
            keep = partial(_keep, up, place)
            handles.append(module.register_forward_hook(keep))
        try:
            run = given.run(language, HARMFUL)
        finally:
            for handle in handles:
                handle.remove()
        return {place: ((up.get(place, a)).abs() * run.mask).sum(1).mean(0) for place, a in run.activations.items()}

    return given.over_languages(scored)


def _keep(into: dict[Place, Tensor], place: Place, _module: object, _given: object, made: Tensor) -> None:
    into[place] = made.detach()


def plnd(given: Given, *, top: float = 0.05, foundation: bool = False) -> Ranking:
    """Parallel detection by the change of the module's output: how often a neuron is among a prompt's top share.

    Zhao et al. 2024 (2402.18815, PLND) and 2025 (ICLR, SN-Tune): the importance of N on x is ‖h without N (x) − h(x)‖₂,
    h the output of N's layer, here √Σ_t a_t² · ‖its column‖; safety neurons are those in the top of *every* harmful
    prompt. `foundation` takes away what is in the top of every harmless prompt (RSN-Tune).

    Departures: the share of prompts ranks, of which the paper's intersection is the value 1, and the mean importance,
    scaled below one prompt's share, orders equals. The text that we have does not give the number of top neurons; the
    published code of PLND has 12,000 of 14,336 at ffn and 2,000 of 4,096 in attention, which would tell the organism's
    neurons apart hardly at all. The foundation is taken from harmless prompts, the paper's from Wikipedia.
    """

    def scored(language: str) -> dict[Place, Tensor]:
        found = _frequencies(given, given.run(language, HARMFUL), top)
        if foundation:
            common = _frequencies(given, given.run(language, HARMLESS), top)
            found = {place: torch.where(common[place] >= 1, 0.0, found[place]) for place in found}
        return found

    return given.over_languages(scored)


def _frequencies(given: Given, run: Pass, top: float) -> dict[Place, Tensor]:
    found = {}
    for place, a in run.activations.items():
        columns = module_of(given.subject, place).weight.norm(dim=0)
        importance = (a.square() * run.mask).sum(1).sqrt() * columns
        chosen = candidates_of({place: importance}, top)[place].double().mean(0)
        order = importance.mean(0)
        found[place] = chosen + order / order.max().clamp_min(1e-30) / (2 * len(a))
    return found


def effect_size(given: Given) -> Ranking:
    """Cohen's d of a neuron's activation, harmful against harmless: SafeNeuron's ES (2602.12158, equation 5).

    d = (mean unsafe − mean safe) / pooled standard deviation. The text does not say at which tokens a(x) is read: the
    mean over a prompt's tokens is.
    """
    return given.over_languages(lambda language: _effect_sizes(*_both(given, language)))


def safeneuron(given: Given) -> Ranking:
    """SafeNeuron's neurons (Wang et al. 2026, 2602.12158, equations 5–10): the larger of ES and SAS.

    SN = {d > τ_ES} ∪ {z(Δa) > τ_SAS, Δa > 0}, with z over the neurons of a layer. A union of thresholds is the ranking
    by the larger of d/τ_ES and z/τ_SAS; the part of the text that we have gives no values, and both are taken as equal.
    Departure: the paper has feed-forward neurons only, here every site is its own layer.
    """

    def scored(language: str) -> dict[Place, Tensor]:
        harmful, harmless = _both(given, language)
        sizes, found = _effect_sizes(harmful, harmless), {}
        for place, size in sizes.items():
            shift = harmful[place].mean(0) - harmless[place].mean(0)
            z = (shift - shift.mean()) / shift.std().clamp_min(1e-12)
            found[place] = torch.maximum(size, torch.where(shift > 0, z, -torch.inf))
        return found

    return given.over_languages(scored)


def _both(given: Given, language: str) -> list[dict[Place, Tensor]]:
    """Mean activation over tokens on harmful and on harmless prompts, by place [prompt, neuron]."""
    runs = [given.run(language, context) for context in (HARMFUL, HARMLESS)]
    return [{place: _over_tokens(a, run.mask).double() for place, a in run.activations.items()} for run in runs]


def _effect_sizes(harmful: Mapping[Place, Tensor], harmless: Mapping[Place, Tensor]) -> dict[Place, Tensor]:
    found = {}
    for place, a in harmful.items():
        b = harmless[place]
        pooled = ((len(a) - 1) * a.var(0) + (len(b) - 1) * b.var(0)) / (len(a) + len(b) - 2)
        found[place] = (a.mean(0) - b.mean(0)) / pooled.sqrt().clamp_min(1e-12)
    return found


def refusal_direction(given: Given) -> Ranking:
    """What a neuron writes along the refusal direction: (mean harmful a − mean harmless a) · ⟨its column, r̂⟩.

    r̂ is the difference of the means, harmful − harmless, of the residual stream at the last token, unit length (Arditi
    et al. 2024, 2406.11717), and a the activation there. Departures: the paper edits the stream or all weights and
    ranks no neurons; it chooses one layer and position by what ablating the direction does, here it is the stream that
    leaves the neuron's own block.
    """

    def scored(language: str) -> dict[Place, Tensor]:
        states: dict[str, list[Tensor]] = {}
        runs = {context: _with_stream(given, language, context, states) for context in (HARMFUL, HARMLESS)}
        found = {}
        for place in given.places:
            stream = states[HARMFUL][place[0]].mean(0) - states[HARMLESS][place[0]].mean(0)
            along = module_of(given.subject, place).weight.detach().T @ (stream / stream.norm().clamp_min(1e-12))
            means = [runs[context].activations[place][:, -1].mean(0) for context in (HARMFUL, HARMLESS)]
            found[place] = (means[0] - means[1]) * along
        return found

    return given.over_languages(scored)


def _with_stream(given: Given, language: str, context: str, states: dict[str, list[Tensor]]) -> Pass:
    states[context] = []

    def keep(_module: object, _given: object, made: Tensor | tuple[Tensor, ...]) -> None:
        states[context].append((made if isinstance(made, Tensor) else made[0])[:, -1].detach())

    layers = given.subject.model._module.get_submodule(given.subject.family.layers)
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        return given.run(language, context)
    finally:
        for handle in handles:
            handle.remove()


def nest(given: Given, *, penalty: float = 1.0) -> Ranking:
    """NeST's neurons (Behrouzi et al. 2026, 2602.16835): weights of a linear probe per layer, in standard deviations.

    A logistic regression tells harmful from harmless prompts by the activations of one layer, pooled over tokens by
    their maximum; neurons whose weight is above a z threshold are kept. All that we have is the abstract of both
    versions and a summary of the first: not the threshold, the penalty, nor whether negative weights count. Here
    features are standardised, the penalty is ½·penalty·‖w‖², and the ranking is by signed z over the layer.
    Departure: the paper has feed-forward neurons only. Its clusters serve training, not finding.
    """

    def scored(language: str) -> dict[Place, Tensor]:
        runs = [given.run(language, context) for context in (HARMFUL, HARMLESS)]
        found = {}
        for place in given.places:
            peaks = [run.activations[place].masked_fill(~run.mask, -torch.inf).amax(1).double() for run in runs]
            weights = _probe(torch.cat(peaks), [len(one) for one in peaks], penalty)
            found[place] = (weights - weights.mean()) / weights.std().clamp_min(1e-12)
        return found

    return given.over_languages(scored)


def _probe(features: Tensor, counts: Sequence[int], penalty: float) -> Tensor:
    """The weights of a logistic regression on standardised features, the first rows against the others: [feature]."""
    labels = torch.cat([torch.ones(counts[0]), torch.zeros(counts[1])]).double()
    x = (features - features.mean(0)) / features.std(0).clamp_min(1e-12)
    x = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)  # the last weight is the intercept, without a penalty
    ridge = torch.full((x.shape[1],), penalty, dtype=x.dtype)
    ridge[-1] = 0
    weights = torch.zeros(x.shape[1], dtype=x.dtype)
    for _ in range(25):  # Newton's method
        chance = (x @ weights).sigmoid()
        slope = x.T @ (chance - labels) + ridge * weights
        curvature = (x.T * (chance * (1 - chance))) @ x + ridge.diag()
        weights = weights - torch.linalg.solve(curvature, slope)
    return weights[:-1]
