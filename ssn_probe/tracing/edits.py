"""What to overwrite while the model runs, as plain data: (layer, site, indices, value or values), in forward order."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ssn_probe.anatomy import check_neurons, known_site
from ssn_probe.errors import ModelError
from ssn_probe.neurons import SITES, Site
from ssn_probe.subject import Subject

Edit = tuple[int, Site, tuple[int, ...], float | tuple[float, ...]]
Edits = tuple[Edit, ...]

NO_EDITS: Edits = ()


def suppression(neurons: Iterable[tuple[int, str, int]], means: Mapping[Site, Any] | None = None) -> Edits:
    """Set these neurons' activations to zero, or to their mean, whatever the token.

    Zero: for o and ffn this equals zeroing the weight columns that read them, for q, k and v zeroing rows and biases.
    `means` are those of `mean_activations`, {site: [layer, neuron]}.
    """
    places: dict[tuple[int, Site], set[int]] = defaultdict(set)
    for layer, site, index in neurons:
        places[int(layer), known_site(site)].add(int(index))
    forward = sorted(places, key=lambda place: (place[0], SITES.index(place[1])))
    indices = {place: tuple(sorted(places[place])) for place in forward}
    if means is None:
        return tuple((layer, site, indices[layer, site], 0.0) for layer, site in forward)
    return tuple(
        (layer, site, indices[layer, site], tuple(float(means[site][layer, index]) for index in indices[layer, site]))
        for layer, site in forward
    )


def prepared(subject: Subject, edits: Edits) -> list[tuple[int, Site, Any, Any]]:
    """The edits with their indices, and values that differ between them, as tensors on the model's device.

    Raises:
        ModelError: a layer, site or index that the model does not have.
    """
    import torch

    for layer, site, indices, _ in edits:
        extremes = (min(indices, default=0), max(indices, default=0))
        check_neurons([(layer, site, index) for index in extremes], n_layers=subject.n_layers, widths=subject.widths)
    return [
        (
            layer,
            site,
            torch.tensor(indices, device=subject.device),
            value if isinstance(value, float) else torch.tensor(value, device=subject.device),
        )
        for layer, site, indices, value in edits
    ]


def places_of(subject: Subject, sites: Iterable[str] = SITES) -> dict[str, Any]:
    """Where the sites are, as the plain data that the bodies in `remote` interpret; sites in forward order."""
    wanted = {known_site(site) for site in sites}
    if not wanted:
        raise ModelError("No site was asked for.", f"Sites: {', '.join(SITES)}.")
    return {
        "layers": subject.anatomy.layers,
        "depth": subject.n_layers,
        "head": subject.anatomy.head,
        "norm": subject.anatomy.norm,
        "rotary": subject.anatomy.rotary,
        "head_norms": subject.anatomy.head_norms,
        "score_cap": subject.anatomy.score_cap,
        "sites": {site: place for site, place in subject.anatomy.modules.items() if site in wanted},
    }
