"""Ordinary texts, with nothing that needs torch: what `divergence` reads, and how that can fail."""

from dataclasses import dataclass

from ssn_probe.errors import ModelError


class UnknownLogitsError(ModelError):
    """The logits are not the final states times the head, scaled and soft-capped as the config says."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Token ids of a prompt and of the answer, and where in the prompt the user's own words are."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    own: tuple[int, int]

    @property
    def read(self) -> tuple[int, ...]:
        """What the model is given: the answer's last token is predicted and never fed."""
        return (*self.prompt, *self.answer[:-1])

    @property
    def predicted(self) -> range:
        """The positions of the prompt's own tokens that something comes before."""
        return range(max(1, self.own[0]), self.own[1])
