"""Neuron sets as values: expressions that compute nothing. Standard library only.

`version` on a node is raised whenever the numbers of its method change.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ssn_probe.spec.effect_registry import EFFECTS, Effect, Final
from ssn_probe.spec.node import Node, brief, one_of, require
from ssn_probe.spec.prompts import Prompts

if TYPE_CHECKING:
    from ssn_probe.spec.interventions import After, Trains

RULES = {"difference": 0.005, "harmful": 0.005, "paper": 0.03}
"""Selection rules and the share of neurons, per layer and site, that each takes when `top` is not given."""
Site = Literal["q", "k", "v", "o", "ffn"]
SITES: tuple[Site, ...] = ("q", "k", "v", "o", "ffn")
"""Every site, in the order in which a decoder layer computes them."""


@dataclass(frozen=True, eq=False)
class SetExpression(Node, abstract=True):
    """An expression that stands for a `NeuronSet`; `& | -` build new expressions."""

    def __and__(self, other: "SetExpression") -> "Combine":
        return Combine("and", self, _set(other))

    def __or__(self, other: "SetExpression") -> "Combine":
        return Combine("or", self, _set(other))

    def __sub__(self, other: "SetExpression") -> "Combine":
        return Combine("minus", self, _set(other))

    def of(self, language: str | None = None) -> "Of":
        """One language's neurons, the anchor's where none is named, applied in every language."""
        return Of(self, language)

    def union(self) -> "UnionOf":
        """The neurons of any language, applied in every language.

        Of a set that is shared with an anchor: of any language but the anchor, whose own are shared with nobody.
        """
        return UnionOf(self)

    def each(self) -> "Each":
        """In an arm: one arm per language of the set, each applied in every language."""
        return Each(self)

    def without_strongest(self) -> "WithoutStrongest":
        """The set less its highest-scoring neuron in every language."""
        return WithoutStrongest(self)

    def whole_layers(self) -> "WholeLayers":
        """Every neuron of the layers that the set touches."""
        return WholeLayers(self)

    def leave_one_out(self) -> "LeaveOneOut":
        """For each language but the anchor, the set as it is found without that language."""
        return LeaveOneOut(self)

    def after(self, trained: "Trains") -> "After":
        """The set as it is found in the model that an `Expand` or `LoRA` trains."""
        finds = getattr(trained, "finds", None)
        require(finds is not None, f"after(…) is given {brief(trained)}", "Give an Expand(…) or a LoRA(…).")
        return trained.finds(self)

    def only(
        self,
        *,
        layers: Sequence[int] | None = None,
        sites: Sequence[str] | None = None,
        languages: Sequence[str] | None = None,
    ) -> "Only":
        """The neurons in these layers, sites and languages."""
        return Only(self, layers=_tuple(layers), sites=_tuple(sites), languages=_tuple(languages))


@dataclass(frozen=True, eq=False)
class SafetyNeurons(SetExpression):
    """Monolingual safety neurons (MS): important on harmful prompts and not on harmless ones (paper, section 3).

    `effect` is what moves when a neuron is silenced (`"local" | "final" | "refusal"`, your own, or its node); `rule`
    turns the two means into a set (`ssn_probe.neurons.selection`); `top` is the share taken per `pool`: `"site"` for
    each (layer, site), `"layer"` for all sites of a layer together. Reads the *identify* split.

    `stable=π` keeps instead what the rule takes in a share π or more of complementary half-samples of the prompts,
    which bounds the number taken by chance (Shah & Samworth 2013). `fdr=q` takes, whatever their number, the neurons
    whose harmful exceeds their harmless effect at a false discovery rate of q. `placebo` contrasts harmless prompts
    with harmless prompts of other topics: what the method finds where there is no safety to find.
    """

    prompts: Prompts
    _: KW_ONLY
    effect: Effect | str = "refusal"
    rule: str = "difference"
    top: float | None = None
    sites: tuple[str, ...] = SITES
    pool: str = "site"
    stable: float | None = None
    fdr: float | None = None
    placebo: bool = False

    def check(self) -> None:
        require(isinstance(self.prompts, Prompts), f"prompts is {self.prompts!r}", "Give Prompts(…).")
        if isinstance(self.effect, str):
            one_of("effect", self.effect, tuple(EFFECTS))
            object.__setattr__(self, "effect", EFFECTS[self.effect]())
        require(isinstance(self.effect, Effect), f"effect is {self.effect!r}", f"Effects: {', '.join(EFFECTS)}.")
        one_of("rule", self.rule, tuple(RULES))
        one_of("pool", self.pool, ("site", "layer"))
        for site in self.sites:
            one_of("site", site, SITES)
        require(bool(self.sites), "no sites are given", f"Sites: {', '.join(SITES)}.")
        object.__setattr__(self, "sites", tuple(site for site in SITES if site in self.sites))
        if self.fdr is not None:
            self._check_fdr(self.fdr)
            return
        stable = self.stable is None or 0.5 < self.stable <= 1
        require(stable, f"stable is {self.stable!r}", "Give a share of half-samples in (0.5, 1], for example 0.9.")
        top = RULES[self.rule] if self.top is None else self.top
        require(
            isinstance(top, int | float) and not isinstance(top, bool) and 0 < top <= 1,
            f"top is {top!r}",
            "Give a share of neurons in (0, 1], for example top=0.005.",
        )
        object.__setattr__(self, "top", float(top))

    @property
    def scored_by(self) -> Effect:
        """The effect as a node, which `effect` is once the fields have been checked."""
        assert isinstance(self.effect, Effect)
        return self.effect

    def _check_fdr(self, rate: float) -> None:
        require(0 < rate < 1, f"fdr is {rate!r}", "Give a false discovery rate in (0, 1), for example fdr=0.05.")
        alone = self.top is None and self.stable is None
        require(alone, "fdr decides by itself how many neurons it takes", "Leave top and stable out, or fdr.")
        require(
            self.rule == "difference",
            f"fdr tests harmful against harmless effects, which rule={self.rule!r} does not rank by",
            "Give rule='difference', or leave fdr out.",
        )


def paper(prompts: Prompts) -> SafetyNeurons:
    """The paper's set: final effect; q, k, v, o pooled per layer; top 3 % on harmful less top 3 % on harmless."""
    return SafetyNeurons(prompts, effect=Final(), rule="paper", sites=("q", "k", "v", "o"), pool="layer")


@dataclass(frozen=True, eq=False)
class Shared(SetExpression):
    """Shared safety neurons (SS). With `anchor`: MS of a language that are also MS of the anchor (paper, section 3).

    `at_least=k`: neurons that are MS in k languages or more; `by="mean"`: the rule applied to the importance averaged
    over languages. Both of these are language-free. `anchor=None` takes the anchor that the prompt set declares.
    """

    neurons: SetExpression
    _: KW_ONLY
    anchor: str | None = None
    at_least: int | None = None
    by: str = "intersection"

    def check(self) -> None:
        one_of("by", self.by, ("intersection", "mean"))
        averages = self.by != "mean" or isinstance(self.neurons, SafetyNeurons)
        require(
            averages, "by='mean' averages importances, which only SafetyNeurons have", "Give Shared(SafetyNeurons(…))."
        )
        ranked = not isinstance(self.neurons, SafetyNeurons) or (self.neurons.stable is self.neurons.fdr is None)
        require(self.by != "mean" or ranked, "by='mean' ranks neurons", "Leave stable and fdr out, or by='mean'.")
        given = [self.anchor is not None, self.at_least is not None, self.by == "mean"]
        require(sum(given) <= 1, "anchor, at_least and by='mean' exclude each other", "Give one of them.")
        require(self.at_least is None or self.at_least >= 1, f"at_least is {self.at_least}", "Give 1 or more.")


@dataclass(frozen=True, eq=False)
class RandomLike(SetExpression):
    """As many neurons per (language, layer, site) as `neurons`, drawn from the rest."""

    neurons: SetExpression
    seed: int = 0

    def check(self) -> None:
        require(self.seed >= 0, f"seed is {self.seed}", "Give 0 or more.")


@dataclass(frozen=True, eq=False)
class NeuronFile(SetExpression):
    """Neurons from a parquet or csv file: language, layer, site, index and, if it likes, score."""

    path: str


@dataclass(frozen=True, eq=False)
class Combine(SetExpression):
    """`left & right`, `left | right` or `left - right`."""

    operation: str
    left: SetExpression
    right: SetExpression

    def check(self) -> None:
        one_of("operation", self.operation, ("and", "or", "minus"))


@dataclass(frozen=True, eq=False)
class Of(SetExpression):
    """One language's neurons, in every language; `language` None: the anchor's."""

    neurons: SetExpression
    language: str | None = None


@dataclass(frozen=True, eq=False)
class UnionOf(SetExpression):
    """The neurons of any language; of a set shared with an anchor, of any language but the anchor."""

    version = 2
    neurons: SetExpression


@dataclass(frozen=True, eq=False)
class WithoutStrongest(SetExpression):
    neurons: SetExpression


@dataclass(frozen=True, eq=False)
class Only(SetExpression):
    neurons: SetExpression
    _: KW_ONLY
    layers: tuple[int, ...] | None = None
    sites: tuple[str, ...] | None = None
    languages: tuple[str, ...] | None = None

    def check(self) -> None:
        for site in self.sites or ():
            one_of("site", site, SITES)
        for name in ("layers", "sites", "languages"):
            values = getattr(self, name)
            each_once = values is None or (bool(values) and len(set(values)) == len(values))
            hint = "Name each once, at least one; or leave it out."
            require(each_once, f"only(…) is given {name}={brief(values)}", hint)
        require(min(self.layers or (0,)) >= 0, f"only(…) is given layers={brief(self.layers)}", "Layers count from 0.")


@dataclass(frozen=True, eq=False)
class WholeLayers(SetExpression):
    """Every neuron, of every site, of the layers in which `neurons` has one, in every language.

    In `Expand` it is full fine-tuning of these layers' matrices (norms, biases and embeddings stay frozen).
    """

    neurons: SetExpression


@dataclass(frozen=True, eq=False)
class LeaveOneOut(SetExpression):
    """For each language but the anchor, the set as it is found from the prompts of all other languages.

    While λ is evaluated it applies what was found without λ, so `neurons` must be language-free: `Shared(ms).union()`.
    In `Expand` each λ has a model of its own, whose data leave λ out, too. The anchor is not evaluated.
    """

    neurons: SetExpression


@dataclass(frozen=True, eq=False)
class Each(Node):
    """Stands in an arm for one arm per language of `neurons`."""

    neurons: SetExpression


def _set(value: Any) -> SetExpression:
    require(isinstance(value, SetExpression), f"{value!r} is no neuron set", "Give SafetyNeurons(…), Shared(…), … .")
    return value


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
