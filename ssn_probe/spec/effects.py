"""Effects as values: what moves when a neuron is silenced. Standard library only."""

from dataclasses import dataclass

from ssn_probe.spec.node import Node, one_of

EFFECTS = ("local", "final", "refusal")


@dataclass(frozen=True, eq=False)
class Local(Node):
    """Effect on the neuron's own module output: closed form, one forward pass (`algorithms.md` 2a)."""

    position: str = "mean"

    def check(self) -> None:
        one_of("position", self.position, ("mean", "last"))


@dataclass(frozen=True, eq=False)
class Final(Node):
    """Effect on the final hidden state at the last prompt token, by brute force: one forward per neuron."""

    position: str = "last"

    def check(self) -> None:
        one_of("position", self.position, ("last",))


@dataclass(frozen=True, eq=False)
class Refusal(Node):
    """Signed first-order effect on the refusal log-odds: positive supports refusal."""


Effect = Local | Final | Refusal
EFFECT_OF = {"local": Local, "final": Final, "refusal": Refusal}
