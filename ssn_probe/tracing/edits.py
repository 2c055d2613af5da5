"""What to change while the model runs, as plain data: (layer, site, indices, what is done to them), in forward order.

Neurons are set to a value, scaled by a factor, or given their activations in another run. These differ between prompts
and are passed beside the edits (`carried.Carried`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

from ssn_probe.errors import ModelError
from ssn_probe.model.families import BUILT_IN, Family, check_neurons, known_site
from ssn_probe.model.subject import Subject
from ssn_probe.model.text_config import text_config
from ssn_probe.neurons import SITES, Site

Action = (
    tuple[Literal["set"], float | tuple[float, ...]] | tuple[Literal["scale"], float] | tuple[Literal["carry"], str]
)
"""Set to a number, or to one per index; multiply by a number; carry over from the run that the text names."""
Edit = tuple[int, Site, tuple[int, ...], Action]
Edits = tuple[Edit, ...]
Neuron = tuple[int, str, int]

NO_EDITS: Edits = ()
OF_LOADING = ("name", "loader", "implementation", "examples")
"""What of a family's row no body asks for."""


def suppression(neurons: Iterable[Neuron], means: Mapping[Site, Any] | None = None) -> Edits:
    """Set these neurons' activations to zero, or to their mean, whatever the token.

    Zero: for o and ffn this equals zeroing the weight columns that read them, for q, k and v zeroing rows and biases.
    `means` are those of `mean_activations`, {site: [layer, neuron]}.
    """

    if means is None:
        return setting(neurons, 0.0)
    return _edits(
        neurons, lambda layer, site, indices: ("set", tuple(float(means[site][layer, index]) for index in indices))
    )


def setting(neurons: Iterable[Neuron], value: float) -> Edits:
    """Set these neurons' activations to a number, whatever the token."""
    return _edits(neurons, lambda _layer, _site, _indices: ("set", float(value)))


def amplification(neurons: Iterable[Neuron], by: float) -> Edits:
    """Multiply these neurons' activations by a factor, whatever the token.

    For o and ffn this equals scaling the weight columns that read them. For q, k and v it equals scaling the rows and
    biases that write them; where a norm on the head follows, it undoes part of that.
    """
    return _edits(neurons, lambda _layer, _site, _indices: ("scale", float(by)))


def carrying(neurons: Iterable[Neuron], run: str) -> Edits:
    """Give these neurons the activations that they had in another run, one token per step; see `carried.Carried`.

    `run` names that run: edits that carry over from different runs are different edits.
    """
    return _edits(neurons, lambda _layer, _site, _indices: ("carry", run))


def _edits(neurons: Iterable[Neuron], action: Callable[[int, Site, tuple[int, ...]], Action]) -> Edits:
    """One edit per place, in forward order, each index once."""
    places: dict[tuple[int, Site], set[int]] = defaultdict(set)
    for layer, site, index in neurons:
        places[int(layer), known_site(site)].add(int(index))
    forward = sorted(places, key=lambda place: (place[0], SITES.index(place[1])))
    indices = {place: tuple(sorted(places[place])) for place in forward}
    return tuple((layer, site, found, action(layer, site, found)) for (layer, site), found in indices.items())


def carried_neurons(edits: Edits) -> list[Neuron]:
    """The neurons that are given another run's activations, in the order in which `Carried` holds them."""
    return [(layer, site, index) for layer, site, indices, action in edits if action[0] == "carry" for index in indices]


def prepared(subject: Subject, edits: Edits) -> list[tuple[int, Site, Any, str, Any]]:
    """The edits with their indices, and values that differ between them, as tensors on the model's device.

    What is carried over comes batch by batch, see `carried.for_batch`.

    Raises:
        ModelError: a layer, site or index that the model does not have.
    """
    import torch

    ready = []
    for layer, site, indices, (how, value) in edits:
        extremes = (min(indices, default=0), max(indices, default=0))
        check_neurons([(layer, site, index) for index in extremes], n_layers=subject.n_layers, widths=subject.widths)
        values = torch.tensor(value, device=subject.device) if isinstance(value, tuple) else value
        ready.append((layer, site, torch.tensor(indices, device=subject.device), how, values))
    return ready


def places_of(subject: Subject, sites: Iterable[str] = SITES) -> dict[str, Any]:
    """The family's row as the plain data that the bodies interpret, and the wanted sites in forward order."""
    wanted = {known_site(site) for site in sites}
    if not wanted:
        raise ModelError("No site was asked for.", f"Sites: {', '.join(SITES)}.")
    row = {name: value for name, value in vars(subject.family).items() if name not in OF_LOADING}
    modules = _modules(subject)
    sites = {site: place for site, place in modules.items() if site in wanted}
    known = {"depth": subject.n_layers, "dtype": subject.identity["dtype"], "widths": dict(subject.widths)}
    return row | known | _attention(subject) | {"modules": modules, "sites": sites}


def places_reading_last(subject: Subject, sites: Iterable[str] = SITES) -> dict[str, Any]:
    """The same, for passes that read the last positions alone: the last layer need not run everywhere.

    That its ffn as a whole, the parent of the module of site `ffn`, neither mixes positions nor adds what it is given
    is known of the families that come with ssn-probe, here and not on a host.
    """
    known = subject.family in BUILT_IN and subject.calls is None and subject.shards is None
    path = subject.family.modules["ffn"][0].rpartition(".")[0] if known else ""
    return places_of(subject, sites) | {"narrow": path}


def _modules(subject: Subject) -> dict[Site, tuple[Any, ...]]:
    """Where each site is read and written: the module, its side, and the first and the end of its channels if fused."""
    family, sizes = subject.family, {**subject.widths, **dict.fromkeys(("gate", "up"), subject.widths["ffn"])}
    return {
        site: (*place, *family.span(place[0], site, sizes)) if place[0] in family.fused else place
        for site, place in family.modules.items()
    }


def _attention(subject: Subject) -> dict[str, Any]:
    """Numbers of the attention modules, which a job in a host's sandbox cannot read.

    "heads": key-value groups, query heads of each, channels of a head. "scores", of each layer: the factor `scale`, the
    soft-cap `cap`, `eps` of the norms on queries and keys (None where it has none), whether it rotates them (`turned`),
    and how queries grow with their position (`growth`: the factor and the length, or None).
    """

    def compute() -> dict[str, Any]:
        if not subject.can_run:
            return {}
        family, module = subject.family, subject.model._module
        layers = family.part(module, family.layers)
        first = family.part(layers[0], family.attention)
        size, rep = first.head_dim, first.num_key_value_groups
        return {
            "heads": (subject.widths["o"] // (size * rep), rep, size),
            "scores": [_scores(family, module, layer) for layer in layers],
        }

    return subject.kept.value("attention", repr(subject.family), compute)


def _scores(family: Family, module: Any, layer: Any) -> dict[str, Any]:
    attention, norms = family.part(layer, family.attention), family.head_norms
    normed = family.norm_switch is None or getattr(attention, family.norm_switch)
    rope = text_config(module.config).rope_parameters if family.query_growth else {}
    beta, length = rope.get("llama_4_scaling_beta"), rope.get("original_max_position_embeddings")
    return {
        "scale": attention.scaling,
        "cap": None if family.score_cap is None else getattr(attention, family.score_cap),
        "eps": getattr(family.part(layer, norms["q"]), family.norm_eps) if norms and normed else None,
        "turned": not family.rotates_if or any(_is_true(attention, word) for word in family.rotates_if),
        "growth": (beta, length) if beta else None,
    }


def _is_true(attention: Any, word: str) -> bool:
    """The attribute of a module, or the contrary if `not ` precedes it."""
    negated, name = word.startswith("not "), word.removeprefix("not ")
    return bool(getattr(attention, name)) != negated
