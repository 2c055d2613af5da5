"""Neuron sets as values: expressions that compute nothing. Standard library only.

The `version` of a node is raised whenever its method gives other numbers.
"""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal

from ssn_probe.spec.effect_registry import EFFECTS, Effect, Final, named_effect
from ssn_probe.spec.node import Node, brief, later, one_of, require
from ssn_probe.spec.prompts import Prompts
from ssn_probe.spec.relabelling import Labels

if TYPE_CHECKING:
    from ssn_probe.spec.interventions import After, Trains

RULES = {"difference": 0.005, "harmful": 0.005, "both": 0.005, "paper": 0.03}
"""Selection rule → the share of neurons per layer and site that it takes when `top` is not given."""
Site = Literal["q", "k", "v", "o", "ffn"]
SITES: tuple[Site, ...] = ("q", "k", "v", "o", "ffn")
"""Every site, in the order in which a decoder layer computes them."""


@dataclass(frozen=True, eq=False)
class SetExpression(Node, abstract=True):
    """An expression for a `NeuronSet`; `& | -` build new expressions."""

    def __and__(self, other: "SetExpression") -> "Combine":
        return Combine("and", self, _set(other))

    def __or__(self, other: "SetExpression") -> "Combine":
        return Combine("or", self, _set(other))

    def __sub__(self, other: "SetExpression") -> "Combine":
        return Combine("minus", self, _set(other))

    def of(self, language: str | None = None) -> "Of":
        """The neurons of one language (by default the anchor), applied in every language."""
        return Of(self, language)

    def union(self) -> "UnionOf":
        """The neurons of any language, applied in every language.

        For a set that is shared with an anchor, the neurons of any language but the anchor.
        """
        return UnionOf(self)

    def each(self) -> "Each":
        """In an arm: one arm per language of the set, each applied in every language."""
        return Each(self)

    def without_strongest(self) -> "WithoutStrongest":
        """The set without its highest-scoring neuron in every language."""
        return WithoutStrongest(self)

    def whole_layers(self) -> "WholeLayers":
        """Every neuron of the layers that the set touches."""
        return WholeLayers(self)

    def leave_one_out(self) -> "LeaveOneOut":
        """For each language but the anchor, the set as found without that language."""
        return LeaveOneOut(self)

    def after(self, trained: "Trains") -> "After":
        """The set as found in the model that an `Expand` or `LoRA` trains."""
        finds = getattr(trained, "finds", None)
        require(finds is not None, f"after(…) got {brief(trained)}", "Give an Expand(…) or a LoRA(…).")
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

    `effect` is the quantity that changes when a neuron is silenced (`"local"`, `"final"`, `"finalablation"`,
    `"refusal"`, `"ablation"`, `"ablation:0.01"` of other than 5 % of the neurons, or your own);
    `rule` makes a set of the mean effects on harmful and on harmless prompts (`ssn_probe.neurons.selection`),
    `"difference"`, `"harmful"`, `"both"` or `"paper"`; `top` is
    the share of neurons taken per `pool`: `"site"` for each (layer, site), `"layer"` for all sites of a layer together.
    Reads the *identify* split.

    `stable=π` keeps instead the neurons that the rule takes in a share of at least π of complementary half-samples of
    the prompts, which bounds the number taken by chance (Shah & Samworth 2013). `fdr=q` takes the neurons, however
    many, whose effect is larger on harmful than on harmless prompts at a false discovery rate of q. `labels` says which
    prompts count as harmful, None for those that are: `Exchanged(draw)` or `Placebo(split)` show what the method finds
    without a difference between harmful and harmless. `scoring_dtype`: neurons are scored with the same weights in this
    wider dtype, None for the one that the model is loaded in.

    `verify=share` measures neurons exactly, by ablation, whose estimated effect is within that share of the threshold
    and leaves open on which side they are, those of `ffn` whose estimates may be far off, and an audit of the others
    that `audit_seed` draws (`ssn_probe.study.verification`); None or 0: nothing is verified. `verify_most`: of all
    neurons × all prompts the share that is ablated at most; what this leaves in doubt is counted.
    """

    version = 2

    prompts: Prompts
    _: KW_ONLY
    effect: Effect | str = "refusal"
    rule: str = "difference"
    top: float | None = None
    sites: tuple[str, ...] = SITES
    pool: str = "site"
    stable: float | None = None
    fdr: float | None = None
    labels: Labels | None = None
    scoring_dtype: str | None = later(None)
    verify: float | None = later(None)
    audit_seed: int = later(0)
    verify_most: float = later(0.04)

    def check(self) -> None:
        require(isinstance(self.prompts, Prompts), f"prompts is {self.prompts!r}", "Give Prompts(…).")
        if isinstance(self.effect, str):
            object.__setattr__(self, "effect", named_effect(self.effect))
        require(isinstance(self.effect, Effect), f"effect is {self.effect!r}", f"Effects: {', '.join(EFFECTS)}.")
        one_of("rule", self.rule, tuple(RULES))
        one_of("pool", self.pool, ("site", "layer"))
        self._check_precision()
        self._check_verify()
        for site in self.sites:
            one_of("site", site, SITES)
        require(bool(self.sites), "sites is empty", f"Sites: {', '.join(SITES)}.")
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

    def _check_precision(self) -> None:
        if self.scoring_dtype == "auto":
            object.__setattr__(self, "scoring_dtype", None)
        if self.scoring_dtype is not None:
            one_of("scoring_dtype", self.scoring_dtype, ("auto", "float32", "float64"))
            object.__setattr__(self, "needs", ("wider weights",))

    def _check_verify(self) -> None:
        if self.verify is None or self.verify == 0:
            object.__setattr__(self, "verify", None)
            return
        number = isinstance(self.verify, int | float) and not isinstance(self.verify, bool)
        hint = "Give a share of the threshold in (0, 1), for example 0.2, or leave verify out."
        require(number and 0 < self.verify < 1, f"verify is {self.verify!r}", hint)
        seed = isinstance(self.audit_seed, int) and not isinstance(self.audit_seed, bool) and self.audit_seed >= 0
        require(seed, f"audit_seed is {self.audit_seed!r}", "Give a whole number, 0 or larger.")
        most = isinstance(self.verify_most, int | float) and not isinstance(self.verify_most, bool)
        hint = "Give a share of all neurons × prompts in (0, 1], for example 0.04."
        require(most and 0 < self.verify_most <= 1, f"verify_most is {self.verify_most!r}", hint)
        object.__setattr__(self, "verify_most", float(self.verify_most))
        require(
            self.scored_by.ablated is not None,
            f"verify ablates single neurons, and effect={self.scored_by.spelled} is no estimate of what that changes",
            "Give effect='final' or effect='refusal:1', whose gradient is taken at the untouched model, or leave out "
            "verify.",
        )
        require(
            self.fdr is None,
            "verify measures neurons near a threshold, and fdr has none before its null is known",
            "Leave out verify, or fdr.",
        )
        object.__setattr__(self, "verify", float(self.verify))

    @property
    def scored_by(self) -> Effect:
        """The effect as a node, which `effect` is once the fields have been checked."""
        assert isinstance(self.effect, Effect)
        return self.effect

    def _check_fdr(self, rate: float) -> None:
        require(0 < rate < 1, f"fdr is {rate!r}", "Give a false discovery rate in (0, 1), for example fdr=0.05.")
        alone = self.top is None and self.stable is None
        require(
            alone,
            "fdr decides how many neurons it takes, so top and stable do not apply",
            "Leave out top and stable, or fdr.",
        )
        require(
            self.rule == "difference",
            f"fdr tests the difference of harmful and harmless effects, but rule={self.rule!r} does not rank by it",
            "Give rule='difference', or leave out fdr.",
        )


def paper(prompts: Prompts) -> SafetyNeurons:
    """The paper's set: final effect; q, k, v, o pooled per layer; top 3 % on harmful minus top 3 % on harmless.

    The effect is estimated by gradients (`Final`). Where a host allows none, give `SafetyNeurons` a `FinalAblation()`.
    """
    return SafetyNeurons(prompts, effect=Final(), rule="paper", sites=("q", "k", "v", "o"), pool="layer")


@dataclass(frozen=True, eq=False)
class ProbedNeurons(SetExpression):
    """NeST's safety neurons: those a linear probe leans on to tell harmful from harmless prompts, in every language.

    In each layer and site a logistic regression with a ridge `penalty` reads the per-prompt effects of
    `scored`, standardised; the neurons are taken whose weight is more than `threshold` standard deviations above the
    mean of the layer's. `scored` says what is read, where, and on which prompts; its rule and its size do not count.

    Source: Behrouzi et al. 2026, arXiv 2602.16835: "identifies safety-relevant feed-forward neurons via activation
    probing on vanilla harmful and benign prompts"; summaries of it have the maximum over tokens, a linear probe per
    layer, weights in standard deviations, and a z threshold. That is `SafetyNeurons(prompts, effect="peak",
    sites=("ffn",))`. The text that we have gives no value of threshold or penalty, and does not say whether features
    are standardised, whether gate and up are probed apart, or whether large negative weights count. Here they do not;
    2.5 takes 0.6 % of normally distributed weights.
    """

    version = 2

    scored: SafetyNeurons
    _: KW_ONLY
    threshold: float = 2.5
    penalty: float = 1.0

    def check(self) -> None:
        require(self.threshold > 0, f"threshold is {self.threshold!r}", "Give standard deviations, such as 2.5.")
        require(self.penalty > 0, f"penalty is {self.penalty!r}", "Give a ridge penalty above 0, such as 1.")
        plain = self.scored.stable is self.scored.fdr is self.scored.verify is self.scored.labels is None
        hint = "Leave them out: a probe takes neurons by its threshold."
        require(plain, "stable, fdr, verify and labels do not apply to what a probe reads", hint)


@dataclass(frozen=True, eq=False)
class Shared(SetExpression):
    """Shared safety neurons (SS): the MS of each language that are also MS of the `anchor` (paper, section 3).

    `anchor=None` takes the anchor that the prompt set declares. `at_least=k` takes the neurons that are MS in at least
    k languages; `by="mean"` applies the rule to the importance averaged over languages. Both give one set that is
    applied in every language.
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
            averages, "by='mean' averages importance, which only SafetyNeurons have", "Give Shared(SafetyNeurons(…))."
        )
        ranked = not isinstance(self.neurons, SafetyNeurons) or (self.neurons.stable is self.neurons.fdr is None)
        require(
            self.by != "mean" or ranked,
            "by='mean' ranks neurons, which stable and fdr do not",
            "Leave out stable and fdr, or by='mean'.",
        )
        given = [self.anchor is not None, self.at_least is not None, self.by == "mean"]
        require(sum(given) <= 1, "anchor, at_least and by='mean' exclude each other", "Give one of them.")
        require(self.at_least is None or self.at_least >= 1, f"at_least is {self.at_least}", "Give 1 or more.")


@dataclass(frozen=True, eq=False)
class RandomLike(SetExpression):
    """As many random neurons per (language, layer, site) as `neurons` has, drawn from all neurons there.

    One permutation of a (layer, site) serves all languages, so that they share as many neurons as those of `neurons`.
    """

    version = 2
    neurons: SetExpression
    seed: int = 0

    def check(self) -> None:
        require(self.seed >= 0, f"seed is {self.seed}", "Give 0 or more.")


@dataclass(frozen=True, eq=False)
class NeuronFile(SetExpression):
    """Neurons from a parquet or csv file with the columns language, layer, site, index and, optionally, score."""

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
    """The neurons of one language (None: the anchor), applied in every language."""

    neurons: SetExpression
    language: str | None = None


@dataclass(frozen=True, eq=False)
class UnionOf(SetExpression):
    """The neurons of any language; for a set shared with an anchor, of any language but the anchor."""

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
            hint = "Name at least one, and each only once; or leave the argument out."
            require(each_once, f"only(…) got {name}={brief(values)}", hint)
        require(
            min(self.layers or (0,)) >= 0, f"only(…) got layers={brief(self.layers)}", "Layers are numbered from 0."
        )


@dataclass(frozen=True, eq=False)
class WholeLayers(SetExpression):
    """Every neuron of the layers in which `neurons` has at least one, at every site and in every language.

    In `Expand` this fine-tunes all matrices of these layers (norms, biases and embeddings stay frozen).
    """

    neurons: SetExpression


@dataclass(frozen=True, eq=False)
class LeaveOneOut(SetExpression):
    """For each language but the anchor, the set as found from the prompts of all other languages.

    When a language is evaluated, the set found without it is applied, so `neurons` must be one set for all languages,
    such as `Shared(ms).union()`. In `Expand` each language has a model of its own, whose data leave it out, too. The
    anchor is not evaluated.
    """

    neurons: SetExpression


@dataclass(frozen=True, eq=False)
class Each(Node):
    """In an arm: one arm for each language of `neurons`."""

    neurons: SetExpression


def _set(value: Any) -> SetExpression:
    require(isinstance(value, SetExpression), f"{value!r} is not a neuron set", "Give SafetyNeurons(…), Shared(…), … .")
    return value


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
