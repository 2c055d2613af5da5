"""What a method is given, and what it returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.identification.peers.passes import Change, Pass, Place, Reading, passed, places_of
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import Site

Ranking = dict[Site, Tensor]
"""Site → score of every neuron: [layer, neuron]."""
HARMFUL, HARMLESS = "harmful", "harmless"


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a method may use: the model, prompts by (language, context), and openings by language."""

    subject: Subject
    tokens: Mapping[tuple[str, str], Sequence[Sequence[int]]]
    reads: Mapping[str, Openings]
    sites: tuple[Site, ...] = ("o", "ffn")

    @property
    def places(self) -> list[Place]:
        return places_of(self.subject, self.sites)

    def run(self, language: str, context: str, read: Reading | None = None, change: Change | None = None) -> Pass:
        """A pass of one language's prompts of one context."""
        return passed(self.subject, self.tokens[language, context], self.places, read, change)

    def over_languages(self, scored: Callable[[str], Mapping[Place, Tensor]]) -> Ranking:
        """The mean over languages of the scores of each, by place [neuron]."""
        by_language = [scored(language) for language in self.reads]
        means = {place: torch.stack([one[place].double() for one in by_language]).mean(0) for place in self.places}
        return {
            site: torch.stack([means[layer, site] for layer in range(self.subject.n_layers)]) for site in self.sites
        }
