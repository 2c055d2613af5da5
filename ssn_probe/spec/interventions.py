"""What an arm does to a set's neurons, as values: silence, amplify, carry over, train. Standard library only.

An intervention says here what it is called and which way it should move ASR. How it changes a running model is
registered where the study is made (`ssn_probe.study.edits_of_arms`).
"""

from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING

from ssn_probe.spec.labels import set_label
from ssn_probe.spec.neuron_sets import Each, LeaveOneOut, ProbedNeurons, SafetyNeurons, SetExpression
from ssn_probe.spec.node import Node, brief, later, one_of, require, walk
from ssn_probe.spec.prompts import Prompts
from ssn_probe.spec.training_settings import Training

MOST_BY = 1_000_000
REFERENCES = ("columns", "anchor", "own")
"""Where the responses to learn come from."""


class Intervention(Node, abstract=True):
    """What an arm does to the neurons of its field `neurons`; a subclass is a frozen dataclass with that field."""

    if TYPE_CHECKING:
        neurons: SetExpression | Each

    @property
    def lowers(self) -> bool:
        """Is ASR expected to fall?"""
        return False

    def phrase(self, neurons: str, source: str | None = None) -> str:
        """What is done to the set that is called `neurons`, as in "silencing the shared safety neurons".

        `source`: the language that a `Patch` carries over from.
        """
        return f"applying {type(self).__name__} to {neurons}"


@dataclass(frozen=True, eq=False)
class MeanOf(Node):
    """A neuron's mean activation over a prompt set's harmless *identify* prompts, in the language that is evaluated."""

    prompts: Prompts


@dataclass(frozen=True, eq=False)
class Suppress(Intervention):
    """Silence a set's neurons on prompt and generated tokens; language λ gets λ's own neurons.

    `to`: what silence is, 0 or `MeanOf(prompts)`, the neuron's usual value on harmless prompts.
    """

    neurons: SetExpression | Each
    _: KW_ONLY
    to: MeanOf | int = 0

    def check(self) -> None:
        silent = isinstance(self.to, MeanOf) or (self.to == 0 and not isinstance(self.to, bool))
        require(silent, f"to is {self.to!r}", "Give to=0 or to=MeanOf(prompts).")
        object.__setattr__(self, "to", self.to or 0)

    def phrase(self, neurons: str, source: str | None = None) -> str:
        return f"silencing {neurons}"


@dataclass(frozen=True, eq=False)
class Amplify(Intervention):
    """Multiply a set's activations by `by` on prompt and generated tokens; language λ gets λ's own neurons.

    `by` > 1 strengthens what the neurons say, `by` < 1 weakens it; towards 0 it becomes `Suppress`.
    """

    neurons: SetExpression | Each
    _: KW_ONLY
    by: float

    def check(self) -> None:
        hint = f"Give a factor above 0, other than 1 and up to {MOST_BY:,}, as in by=2; to silence, use Suppress."
        require(0 < self.by <= MOST_BY and self.by != 1, f"by is {self.by!r}", hint)
        object.__setattr__(self, "by", float(self.by))

    @property
    def lowers(self) -> bool:
        return self.by > 1

    def phrase(self, neurons: str, source: str | None = None) -> str:
        if self.by > 1:
            return f"amplifying {neurons} by {self.by:g}"
        return f"weakening {neurons} to {self.by:g} of their activation"


@dataclass(frozen=True, eq=False)
class Patch(Intervention):
    """Carry over what a set's neurons do in the same request in another language; λ gets its own neurons.

    The parallel prompt runs untouched in the language `source` (None: the anchor). `positions="last"`: its values at
    the last prompt position are put in place there, once; `"response"`: at response step t those of its own greedy
    step t, none past its end. The source itself is not evaluated: with its own values nothing changes.
    """

    neurons: SetExpression | Each
    _: KW_ONLY
    source: str | None = None
    positions: str = "last"

    def check(self) -> None:
        one_of("positions", self.positions, ("last", "response"))

    @property
    def lowers(self) -> bool:
        """The source is taken to be the language that refuses."""
        return True

    def phrase(self, neurons: str, source: str | None = None) -> str:
        where = "the last prompt position" if self.positions == "last" else "every step of the response"
        return f"carrying over from {source} the activation of {neurons} at {where}"


@dataclass(frozen=True, eq=False)
class Trains(Intervention, abstract=True):
    """Training on refusals: `neurons` says where, `data` gives its *train* split, `training` says how.

    The rows of these `contexts` and `languages` (None: all) are learned, with the response to learn as `reference`.
    Every row must be judged as its context asks, or nothing is trained. One model comes out, so the set applies in
    every language: `ms.of("en")` as in the paper, `Shared(ms).union()`, …; with `set.leave_one_out()` one per language
    left out.

    `references`: the response to learn. `"columns"`: the column `reference`. `"own"`: the untouched model's own greedy
    response in the language of the row. `"anchor"`: of a harmful row the model's own refusal of the same prompt in the
    anchor language, which teaches to refuse elsewhere, though not in the language that was asked in; else as `"own"`.
    Responses of the wrong verdict are left out. None: the column, if any row of the context has a response there;
    otherwise as `"anchor"`, or `"own"` in a study without an anchor.

    `at`: the learning curve. The arm stands for one row per step named, each the change as it was after so many steps
    of the one training, which no early stopping ends before; None for the change that the training chooses.
    """

    needs = ("training",)

    neurons: SetExpression
    data: Prompts
    _: KW_ONLY
    training: Training = field(default_factory=Training)
    contexts: tuple[str, ...] = ("harmful", "harmless")
    languages: tuple[str, ...] | None = None
    at: tuple[int, ...] | None = None
    references: str | None = later(None)

    def check(self) -> None:
        if self.references is not None:
            one_of("references", self.references, REFERENCES)
        if self.at is None:
            return
        last = self.training.steps or max(self.at, default=1)
        rising = bool(self.at) and list(self.at) == sorted(set(self.at)) and self.at[0] >= 1 and self.at[-1] <= last
        hint = f"Give steps of the training in rising order{f', up to {last}' if self.training.steps else ''}."
        require(rising, f"at is {brief(self.at)}", hint)

    @property
    def lowers(self) -> bool:
        """The data hold refusals."""
        return True

    def then(self, node: Intervention) -> "Then":
        """Train, then do something to the trained model; in an arm the tuple of both says the same."""
        return Then(self, node)

    def finds(self, neurons: SetExpression) -> "After":
        """The set as the same expression finds it in the trained model; `neurons.after(…)` says the same."""
        return After(neurons, self)


@dataclass(frozen=True, eq=False)
class Expand(Trains):
    """Train the weights of a set's neurons, and nothing else (SS-Neuron Expansion, paper section 5).

    θ ← θ − η · (M ⊙ ∇L): M is 1 at the set's weights. Departs from the paper, which trains the anchor's MS: any set.
    """

    def phrase(self, neurons: str, source: str | None = None) -> str:
        rest = ", on data without it," if isinstance(self.neurons, LeaveOneOut) else ""
        return f"training the weights of {neurons}{rest}"


@dataclass(frozen=True, eq=False)
class LoRA(Trains):
    """Train low-rank adapters of as many parameters as `Expand` of the set would (Hu et al. 2021), a control for it.

    They sit on the matrices that hold the set's weights, and spend in each what the set spends there, to whole ranks
    (`ssn_probe.training.weights.lora`). No random sets run beside it: it depends on the set by its size and places
    alone.
    """

    def phrase(self, neurons: str, source: str | None = None) -> str:
        return f"training LoRA adapters of as many parameters as {neurons}"


@dataclass(frozen=True, eq=False)
class NeST(Trains):
    """Train one update for all feed-forward neurons of a cluster (Behrouzi et al. 2026, arXiv 2602.16835), a rival.

    The neurons, of a `ProbedNeurons` set or taken from one, are clustered layer by layer by what they do on the
    *identify* prompts of the anchor (without an anchor: of all languages), harmful and harmless. All neurons of a
    cluster get the same change of their rows of gate and up; everything else is frozen
    (`ssn_probe.training.weights.tied`). `clusters`: how many per layer; None: as many, up to `most`, as have the
    highest silhouette.

    Source: the abstract ("clusters neurons with similar activation profiles, and trains shared cluster-level updates
    while freezing the rest of the model"), and summaries of the paper: k-means, silhouette. The text that we have does
    not give the most clusters (a reader of it finds two that differ) nor how profiles are scaled, here to mean 0 and
    variance 1. Departures, so that arms compare: data, loss, optimiser and budget are those of `Expand`; the paper
    trains on harmful and benign prompts in English.
    """

    _: KW_ONLY
    clusters: int | None = None
    most: int = 8

    def check(self) -> None:
        super().check()
        require(
            self.clusters is None or self.clusters >= 1, f"clusters is {self.clusters}", "Give 1 or more per layer."
        )
        require(self.most >= 2, f"most is {self.most}", "Give the most clusters of a layer, 2 or more.")
        several = dict.fromkeys(node.scored for node in walk(self.neurons) if isinstance(node, ProbedNeurons))
        hint = "Give NeST(ProbedNeurons(SafetyNeurons(prompts, effect='peak', sites=('ffn',))).of('en'), prompts)."
        require(len(several) == 1, "NeST needs neurons that are found by one probe", hint)

    @property
    def profiled(self) -> SafetyNeurons:
        """What the neurons do on prompts."""
        return next(node.scored for node in walk(self.neurons) if isinstance(node, ProbedNeurons))

    def phrase(self, neurons: str, source: str | None = None) -> str:
        return f"training one update for each cluster of {neurons} (NeST)"


@dataclass(frozen=True, eq=False)
class SparseEdit(Trains):
    """Change rows of safety neurons in closed form, without training (Liang et al. 2026, arXiv 2602.22554), a rival.

    In the layer that has most of the neurons, their rows of gate and up get a change of rank `rank` that maps what a
    harmful prompt of any language is there to what the same prompt in the anchor is, and leaves harmless prompts as
    they are, with the weight `keep`; see `ssn_probe.training.sparse_edit` for the equation, the source, and what the
    text that we have does not say. It reads the prompts of the *train* split and learns no response, so it has no
    curve over steps: its strength is the rank. `training` does not count, and `at` cannot be given.
    """

    _: KW_ONLY
    rank: int = 4
    keep: float = 1.0
    ridge: float = 0.01

    def check(self) -> None:
        super().check()
        require(self.at is None, "SparseEdit has no steps", "Leave at out; give several arms of different rank.")
        require(self.rank >= 1, f"rank is {self.rank}", "Give 1 or more.")
        require(self.keep >= 0, f"keep is {self.keep!r}", "Give a weight of harmless prompts, 0 or more.")
        require(self.ridge > 0, f"ridge is {self.ridge!r}", "Give a ridge above 0, such as 0.01.")

    def phrase(self, neurons: str, source: str | None = None) -> str:
        return f"changing rows of {neurons} by a map of rank {self.rank} (Sparse Weight Editing)"


@dataclass(frozen=True, eq=False)
class Then(Intervention):
    """Train, then do something to the trained model: `Expand(…).then(Suppress(…))`, or the tuple of both in an arm.

    Random sets take the place of `then`'s neurons; the training stays as it is.
    """

    first: Trains
    then: Intervention

    def check(self) -> None:
        one = self.first.at is None and not isinstance(self.first.neurons, LeaveOneOut)
        require(one, "what is trained first must be one model", "Leave at and leave_one_out() out of it.")
        hint = "Let a Suppress, an Amplify or a Patch follow the training."
        require(not isinstance(self.then, Trains | Then), f"{type(self.then).__name__}(…) follows a training", hint)

    @property
    def neurons(self) -> SetExpression | Each:
        return self.then.neurons

    @property
    def lowers(self) -> bool:
        return self.then.lowers

    def phrase(self, neurons: str, source: str | None = None) -> str:
        trained = set_label(self.first.neurons) or "another set"
        return f"{self.first.phrase(trained)}, then {self.then.phrase(neurons, source)}"


@dataclass(frozen=True, eq=False)
class After(SetExpression):
    """The set as the same expression finds it in the model that `trained` makes of the recipe's model."""

    neurons: SetExpression
    trained: Trains

    def check(self) -> None:
        one = self.trained.at is None and not isinstance(self.trained.neurons, LeaveOneOut)
        require(one, "a set is identified again in one trained model", "Leave at and leave_one_out() out of it.")


def last_of(node: Intervention) -> Intervention:
    """What is done last: to a trained model, or all there is."""
    return node.then if isinstance(node, Then) else node


def training_of(node: Node | None) -> Trains | None:
    """What an arm trains first, if it trains at all."""
    return node.first if isinstance(node, Then) else node if isinstance(node, Trains) else None


def is_several(node: Intervention) -> bool:
    """Does an arm stand for several, one per language or one per step, so that none of them is *the* arm?"""
    return isinstance(node.neurons, Each) or (isinstance(node, Trains) and node.at is not None)


def in_sequence(value: object) -> object:
    """A tuple of two interventions as the node that it stands for; anything else as it is."""
    if not isinstance(value, tuple):
        return value
    fits = len(value) == 2 and isinstance(value[0], Trains) and isinstance(value[1], Intervention)
    hint = "Give (Expand(…), Suppress(…)), or Amplify or Patch last; to silence several sets, join them with |."
    require(fits, f"the arm is a tuple of {', '.join(type(one).__name__ for one in value) or 'nothing'}", hint)
    return Then(*value)
