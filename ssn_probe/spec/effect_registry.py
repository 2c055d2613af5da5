"""Effects as values: what moves when a neuron is silenced, and the one registry of them. Standard library only.

An effect is a class, and a function marked with `@scores(…)` that computes it; both may be in a user's file. The rest
of the program asks the class for the costs and the function for the scores, and knows no effect by name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

from ssn_probe.errors import RecipeError
from ssn_probe.spec.node import NODES, Node, brief, one_of, require

EFFECTS: dict[str, type["Effect"]] = {}
"""Every effect by the name that `effect=…` takes: that of its class, in lower case."""
SCORERS: dict[str, Callable[..., Any]] = {}
"""How the effects are computed, by the same names."""


@dataclass(frozen=True, eq=False)
class Effect(Node, abstract=True):
    """What is measured of every neuron; a subclass registers itself when it is defined.

    A subclass is a frozen dataclass whose fields, if any, are its parameters. `version` is raised when its numbers
    change: it is part of every key.
    """

    formula: ClassVar[str]
    """The effect of a neuron with activation a, as a reader would write it down."""
    needs_openings: ClassVar[bool] = False
    """Does it read a behaviour off the openings of responses, so that these must pass their gate first?"""
    behaviour: ClassVar[Literal["refusal", "language"]] = "refusal"
    """What those openings tell: does a response refuse, or is it in the language of its prompt?"""
    needs_gradients: ClassVar[bool] = False
    """Does every prompt take a backward pass, too?"""
    by_neuron: ClassVar[bool] = False
    """Does every neuron take a pass of its own?"""
    memory: ClassVar[str | None] = None
    """The work of `model.memory` that estimates what it takes on a device; None: not estimated."""
    caution: ClassVar[str] = ""
    """What may not be concluded from it, for the report."""

    def __init_subclass__(cls, abstract: bool = False, **kwargs: Any):
        known = NODES.get(cls.__name__)
        if known is not None and is_shipped(known) and not is_shipped(cls):
            raise RecipeError(f"the name {cls.__name__} belongs to ssn-probe", "Give your effect another name.")
        super().__init_subclass__(abstract=abstract, **kwargs)
        if cls.needs_gradients and "gradients" not in cls.needs:
            cls.needs = (*cls.needs, "gradients")
        if not abstract:
            EFFECTS[cls.__name__.lower()] = cls

    @property
    def name(self) -> str:
        """The word that `effect=…` takes."""
        return type(self).__name__.lower()

    @property
    def spelled(self) -> str:
        """What `effect=…` takes where that says all, as in `refusal:1`; else with the parameters: `final(probes=4)`."""
        own = list(fields(self))
        changed = {one.name: _written(getattr(self, one.name)) for one in own if getattr(self, one.name) != one.default}
        if not changed:
            return self.name
        if list(changed) == [own[0].name]:
            return f"{self.name}:{changed[own[0].name]}"
        return f"{self.name}({', '.join(f'{name}={value}' for name, value in changed.items())})"

    @property
    def reads_refusal(self) -> bool:
        """Does it read the refusal log-odds?"""
        return self.needs_openings and self.behaviour == "refusal"

    @property
    def reads_language(self) -> bool:
        """Does it read the language log-odds?"""
        return self.needs_openings and self.behaviour == "language"

    @property
    def reads_responses(self) -> bool:
        """Is it read along the untouched model's own greedy response to every prompt, which its function then gets?"""
        return False

    @property
    def screen(self) -> "tuple[Effect, float] | None":
        """A cheaper effect, and the share of every (layer, site) that is largest by it; all others count as 0.

        None: the effect is computed for every neuron. The candidates are chosen for a language by the mean over all its
        prompts, harmful and harmless, so that they are the same whichever prompts are called harmful.
        """
        return None

    @property
    def chance(self) -> float:
        """The standard error of an effect on a prompt, as a share of it: of how it is measured, not of prompts."""
        return 0.0

    @property
    def ablated(self) -> Literal["final state", "log odds"] | None:
        """What changes when single neurons are silenced, where the effect is an estimate of just that; else None."""
        return None

    def label(self, prompts: str) -> str:
        """The row of progress of its scores on a prompt set."""
        changed = [str(getattr(self, one.name)) for one in fields(self) if getattr(self, one.name) != one.default]
        scored = "every neuron" if self.screen is None else "candidates"
        return f"{self.name} effect of {scored} ({', '.join([prompts, *changed])})"

    def passes(self, neurons: int) -> float:
        """Forward passes per prompt of a model of so many neurons; a backward pass counts two."""
        return neurons if self.by_neuron else 3 if self.needs_gradients else 1


def named_effect(text: str) -> Effect:
    """The effect that `effect=…` names: `NAME`, or `NAME:VALUE` with the value of its first parameter."""
    name, colon, value = text.partition(":")
    one_of("effect", name, tuple(EFFECTS))
    if not colon:
        return EFFECTS[name]()
    own = [one.name for one in fields(EFFECTS[name])]
    require(bool(own), f"the effect {name} has no parameter, but is given {brief(value)}", f"Give effect={name}.")
    try:
        given: str | float = float(value)
    except ValueError:
        given = value
    return EFFECTS[name](**{own[0]: given})


def _written(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_shipped(kind: type) -> bool:
    """Does a class come with ssn-probe?"""
    return kind.__module__.startswith("ssn_probe.")


def scores(kind: type[Effect]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the function that computes an effect.

    It is called as `function(effect, subject, tokens, *, reads, sites, batch_size, shelf, advance)`, with `candidates`
    where it has a `screen` and `responses` where it `reads_responses`, and returns `Scores`; see
    `ssn_probe.tracing.effects.score` for the arguments, and docs/extend/score.md.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        SCORERS[kind.__name__.lower()] = function
        return function

    return register


@dataclass(frozen=True, eq=False)
class Local(Effect):
    """‖y − y without the neuron‖, y the output of the neuron's own module: closed form, one forward pass.

    `position`: the mean over the prompt's tokens, or the last token. `exact_qk`: the share of every prompt's q and k
    neurons of each layer, largest by a first-order estimate, whose effect through the softmax is exact; the others keep
    the estimate. It is 3 · 3 %, three times what a set usually takes; 1: all are exact, as v, o and ffn always are.
    Departs from the paper, whose effect is of the whole model's output: see `Final`.
    """

    version = 2
    formula = "‖Δ module output‖; of q and k exact for each prompt's largest, first order for the others"
    memory = "local"

    position: str = "mean"
    exact_qk: float = 0.09

    def check(self) -> None:
        one_of("position", self.position, ("mean", "last"))
        _check_share(self, "exact_qk")


@dataclass(frozen=True, eq=False)
class Final(Effect):
    """‖z − z without the neuron‖, z the final hidden state, estimated for all neurons at once.

    `position`: "last", z at the last prompt token, with the neuron silent at every token of the prompt; or "response",
    √ of the mean of ‖Δz‖² over the tokens of the untouched model's own greedy response, with the neuron silent at these
    alone (as in ACTR, the paper's first author's later work; `Prompts(max_new_tokens=…)` says how long they are).
    One forward pass, and a backward pass for each of `probes` random read-outs of z, drawn from `seed` and the prompt.
    First order in the change of the neuron's own module, which for the strongest q and k, a share of `exact_qk`, is
    exact through the softmax. The paper's Δ(x, N) = ‖LLM(x) − LLM without N (x)‖₂, read in this way; the paper does
    not say of which output. By ablation: `FinalAblation`.
    """

    version = 2
    formula = "‖Δ final state‖, from random read-outs of it"
    needs_gradients = True
    memory = "final"
    caution = (
        "The final effect is estimated: from a few random read-outs of the final state, and to first order beyond the "
        "neuron's module."
    )

    position: str = "last"
    probes: int = 16
    seed: int = 0
    exact_qk: float = 0.09

    def check(self) -> None:
        one_of("position", self.position, ("last", "response"))
        hint = "Give at least 1, for example 16; by a forward pass per neuron it is FinalAblation (finalablation)."
        require(self.probes > 0, f"probes is {self.probes!r}", hint)
        _check_share(self, "exact_qk")

    @property
    def reads_responses(self) -> bool:
        return self.position == "response"

    @property
    def chance(self) -> float:
        """√(1 − c_k²): the mean square e² of the effect e is σ²/c_k², e's variance σ² (1/c_k² − 1), σ² that of Δz."""
        return math.sqrt(1 - lowness(self.probes) ** 2)

    @property
    def ablated(self) -> Literal["final state"] | None:
        return "final state" if self.position == "last" else None

    def passes(self, neurons: int) -> float:
        return 1 + 2 * self.probes


def lowness(probes: int) -> float:
    """c_k = E √(mean of k squares) of standard normal numbers: √(2/k) Γ((k+1)/2) / Γ(k/2)."""
    return math.sqrt(2 / probes) * math.exp(math.lgamma((probes + 1) / 2) - math.lgamma(probes / 2))


@dataclass(frozen=True, eq=False)
class FinalAblation(Effect):
    """‖z − z without the neuron‖ as `Final`, exact: one forward pass per neuron."""

    formula = "‖Δ final state‖, by ablation"
    by_neuron = True
    memory = "final_ablation"

    position: str = "last"

    def check(self) -> None:
        one_of("position", self.position, ("last",))


@dataclass(frozen=True, eq=False)
class FirstOrder(Effect, abstract=True):
    """Signed effect on log-odds of openings: the neuron's activation times the gradient.

    To first order but for q and k, of which a share of `exact_qk` of every layer, largest to first order, has its exact
    change of the attention pattern; 0: none. The gradient is taken where the prompt's `candidates` are scaled together
    to `at`: the share of every (layer, site) whose effects at the untouched model are largest, either way. There the
    log-odds answer to neurons that stand in for each other, which they hardly do where all are at work. Activations are
    those of the untouched model. Candidates depend on their prompt alone, and on no label. `at=1` scales nothing, and
    takes half the passes.
    """

    needs_openings = True
    needs_gradients = True
    memory = "refusal"

    at: float = 0.5
    candidates: float = 0.05
    exact_qk: float = 0.09

    def check(self) -> None:
        hint = "Give a factor from 0 to 1, for example 0.5; 1 scales nothing."
        require(0 <= self.at <= 1, f"at is {self.at!r}", hint)
        object.__setattr__(self, "at", float(self.at))
        _check_share(self, "candidates")
        _check_share(self, "exact_qk", or_none=True)

    @property
    def ablated(self) -> Literal["log odds"] | None:
        return "log odds" if self.at == 1 else None

    def passes(self, neurons: int) -> float:
        return 3 if self.at == 1 else 6


@dataclass(frozen=True, eq=False)
class Refusal(FirstOrder):
    """Signed effect on the refusal log-odds, beyond the neuron's module to first order: positive supports refusal.

    Σ ∂r/∂a · a over tokens, a the activation, r(x) the log-probability of the model's own openings of refusals less
    that of its openings of answers, in nats. Departs from the paper, whose effect has no sign and no behaviour.
    """

    version = 3
    formula = "Σ ∂r/∂a · a, r the refusal log-odds, ∂r/∂a with the strongest neurons of the prompt scaled"
    caution = (
        "What q and k do through the softmax: in the refusal effect it is exact for each prompt's strongest alone, and "
        "what follows the attention is first order."
    )


@dataclass(frozen=True, eq=False)
class Ablation(Effect):
    """Signed effect on the refusal log-odds by forward passes alone, exact: r(x) − r(x without the neuron).

    One pass per neuron, so only for `candidates`: that share of every (layer, site) whose local effect is largest. For
    hosts that allow no gradients; elsewhere `Refusal` costs six passes for all neurons.
    """

    version = 2
    formula = "r − r without the neuron, r the refusal log-odds; 0 for all but candidates"
    needs_openings = True
    by_neuron = True
    memory = "log_odds"
    caution = (
        "What neurons outside the candidates do: only those with the largest local effects were ablated, and a set "
        "holds no other. Half-samples share the candidates of all prompts."
    )

    candidates: float = 0.05

    def check(self) -> None:
        _check_share(self, "candidates")

    @property
    def screen(self) -> tuple[Effect, float]:
        return Local(), self.candidates

    def passes(self, neurons: int) -> float:
        return self.candidates * neurons


@dataclass(frozen=True, eq=False)
class Language(FirstOrder):
    """Signed effect on the language log-odds, as `Refusal`: positive supports a response in the prompt's language.

    The language log-odds is that of the openings of responses in the prompt's language, refusals and answers together,
    against the openings in the other languages of the prompt set.
    """

    version = 3
    formula = "Σ ∂l/∂a · a, l the log-odds of a response in the prompt's language, ∂l/∂a as in `Refusal`"
    behaviour = "language"
    caution = (
        "What q and k do through the softmax: in the language effect it is exact for each prompt's strongest alone, "
        "and what follows the attention is first order."
    )


@dataclass(frozen=True, eq=False)
class Peak(Effect):
    """The largest activation over the prompt's tokens: what the linear probe of NeST reads, one forward pass.

    Not what silencing a neuron does. Source: Behrouzi et al. 2026 (arXiv 2602.16835) as summarised by others:
    activations pooled by their maximum over tokens. Which activation of a feed-forward neuron is meant, the text that
    we have does not say; here it is what `down_proj` reads, act(gate) · up.
    """

    formula = "max over tokens of a"
    caution = "That the neurons do anything: a peak says how active a neuron is, and not what depends on it."


def _check_share(effect: Effect, name: str, or_none: bool = False) -> None:
    """That a parameter is a share of neurons, such as `candidates` or `exact_qk`; it becomes a float.

    Raises:
        RecipeError: it is not above 0 (or 0, with `or_none`) and at most 1.
    """
    share, span = getattr(effect, name), "[0, 1]" if or_none else "(0, 1]"
    known = 0 < share <= 1 or (or_none and share == 0)
    require(known, f"{name} is {share!r}", f"Give a share of neurons in {span}, for example 0.05.")
    object.__setattr__(effect, name, float(share))
