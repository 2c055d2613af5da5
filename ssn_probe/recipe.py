"""Recipes as values: what to measure, written as an expression that computes nothing.

The nodes of the language: prompt sets, effects, neuron sets, arms, measures and the recipe that holds them. `version`
on a node is raised whenever the numbers of its method change. Standard library only, so that reading a recipe costs
nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from ssn_probe.expand.settings import Training
from ssn_probe.node import Node, brief, one_of, require

EFFECTS = ("local", "final", "refusal")
RULES = {"difference": 0.005, "harmful": 0.005, "paper": 0.03}
"""Selection rules and the share of neurons, per layer and site, that each takes when `top` is not given."""
Site = Literal["q", "k", "v", "o", "ffn"]
SITES: tuple[Site, ...] = ("q", "k", "v", "o", "ffn")
"""Every site, in the order in which a decoder layer computes them."""


# ── what is looked at ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Prompts(Node):
    """A prompt set with fixed splits *identify | evaluate | train* by parallel id.

    `source` is `"organism"` or a folder or file (see `ssn_probe.prompts`); `harmless` names another set that provides
    the harmless context; `languages` restricts; `limit` keeps the first so many ids per split and context.
    """

    source: str
    _: KW_ONLY
    harmless: str | None = None
    languages: tuple[str, ...] | None = None
    limit: int | None = None

    def check(self) -> None:
        require(self.limit is None or self.limit >= 1, f"limit is {self.limit}", "Give a limit of 1 or more.")


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
_EFFECT_OF = {"local": Local, "final": Final, "refusal": Refusal}


# ── neuron sets ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class SetExpression(Node, abstract=True):
    """An expression that stands for a `NeuronSet`; `& | -` build new expressions."""

    def __and__(self, other: "SetExpression") -> "Combine":
        return Combine("and", self, _set(other))

    def __or__(self, other: "SetExpression") -> "Combine":
        return Combine("or", self, _set(other))

    def __sub__(self, other: "SetExpression") -> "Combine":
        return Combine("minus", self, _set(other))

    def of(self, language: str) -> "Of":
        """One language's neurons, applied in every language."""
        return Of(self, language)

    def union(self) -> "UnionOf":
        """The neurons of any language, applied in every language."""
        return UnionOf(self)

    def each(self) -> "Each":
        """In an arm: one arm per language of the set, each applied in every language."""
        return Each(self)

    def without_strongest(self) -> "WithoutStrongest":
        """The set less its highest-scoring neuron in every language."""
        return WithoutStrongest(self)

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

    `effect` is what moves when a neuron is silenced (`"local" | "final" | "refusal"` or its node); `rule` turns the
    two means into a set (`ssn_probe.selection`); `top` is the share taken per `pool`: `"site"` for each (layer,
    site), `"layer"` for all sites of a layer together. Reads the *identify* split.

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
            one_of("effect", self.effect, EFFECTS)
            object.__setattr__(self, "effect", _EFFECT_OF[self.effect]())
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
    neurons: SetExpression
    language: str


@dataclass(frozen=True, eq=False)
class UnionOf(SetExpression):
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


# ── arms, measures, recipe ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class Each(Node):
    """Stands in an arm for one arm per language of `neurons`."""

    neurons: SetExpression


@dataclass(frozen=True, eq=False)
class MeanOf(Node):
    """A neuron's mean activation over a prompt set's harmless *identify* prompts, in the language that is evaluated."""

    prompts: Prompts


@dataclass(frozen=True, eq=False)
class Suppress(Node):
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

    @property
    def lowers(self) -> bool:
        """Is ASR expected to fall?"""
        return False


@dataclass(frozen=True, eq=False)
class Amplify(Node):
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
        """Is ASR expected to fall? Where safety neurons say more than they did."""
        return self.by > 1


@dataclass(frozen=True, eq=False)
class Patch(Node):
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
        """Is ASR expected to fall? The source is taken to be the language that refuses."""
        return True


@dataclass(frozen=True, eq=False)
class Expand(Node):
    """Train the weights of a set's neurons, and nothing else, on refusals (SS-Neuron Expansion, paper section 5).

    One model comes out, so the set applies in every language: `ms.of("en")` as in the paper, `Shared(ms).union()`, ….
    `data` gives its *train* split: the rows of these `contexts` and `languages` (None: all), with the response to learn
    as `reference`. Every row must be judged as its context asks, or nothing is trained. `training` says how.
    """

    neurons: SetExpression
    data: Prompts
    _: KW_ONLY
    training: Training = field(default_factory=Training)
    contexts: tuple[str, ...] = ("harmful", "harmless")
    languages: tuple[str, ...] | None = None

    @property
    def lowers(self) -> bool:
        """Is ASR expected to fall? The data hold refusals."""
        return True


Intervention = Suppress | Amplify | Patch | Expand
"""What an arm does to a set's neurons."""


@dataclass(frozen=True, eq=False)
class Measure(Node, abstract=True):
    """Something measured on the *evaluate* split of a prompt set."""

    prompts: Prompts


@dataclass(frozen=True, eq=False)
class ASR(Measure):
    """Attack success rate on harmful prompts: complied / judged, with the invalid rate beside it."""


@dataclass(frozen=True, eq=False)
class OverRefusal(Measure):
    """Share of harmless look-alikes that are refused."""


@dataclass(frozen=True, eq=False)
class Utility(Measure):
    """Share of harmless prompts whose response equals the reference."""


_NAME = re.compile(r"\w[\w -]{0,59}")
_ARM_NAME = re.compile(r"\w(?:[\w -]|(?<=\d)\.(?=\d)){0,59}")
MOST_CONTROLS = 10_000
MOST_PERMUTATIONS = 1_000_000
MOST_BY = 1_000_000
MEASURES = (ASR, OverRefusal, Utility)


@dataclass(frozen=True, eq=False, kw_only=True)
class Recipe(Node):
    """One research question: a model, the sets to find, the arms to try them in, what is measured.

    The runner adds the baseline and, for each arm, `controls` random sets that generate and `log_odds_controls` that
    only read the refusal log-odds; for each set `permutations` exchanges of harmful and harmless labels and
    `half_samples` pairs of complementary half-samples, from the scores that chose it. `primary` names the arm whose
    ASR against its controls is the one primary test.
    """

    model: str = "organism"
    sets: dict[str, SetExpression] = field(default_factory=dict)
    arms: dict[str, Intervention] = field(default_factory=dict)
    controls: int = 20
    log_odds_controls: int = 99
    permutations: int = 1000
    half_samples: int = 50
    measures: tuple[Measure, ...] = ()
    primary: str | None = None
    seed: int = 0
    name: str = "recipe"
    question: str = ""

    def check(self) -> None:
        require(
            _NAME.fullmatch(self.name) is not None,
            f"the recipe's name is {self.name!r}",
            "Give letters, digits, _ and -.",
        )
        require(bool(self.sets or self.arms), "the recipe has neither sets nor arms", "Give sets={…} or arms={…}.")
        require(bool(self.measures) or not self.arms, "the recipe has arms but no measures", "Give measures=(ASR(…),).")
        for name in [*self.sets, *self.arms]:
            allowed = _ARM_NAME.fullmatch(name) and name not in ("baseline", "average")
            hint = "Give letters, digits, blanks, _ and -; a point within a number, as in 'x1.5'."
            require(bool(allowed), f"a set or an arm is named {name!r}", hint)
        both = [name for name in self.sets if name in self.arms]
        require(not both, f"{both} name a set and an arm", "Arms' sets are reported too: leave them out of sets.")
        for name, expression in self.sets.items():
            require(isinstance(expression, SetExpression), f"sets[{name!r}] is no neuron set", "Give an expression.")
        for name, arm in self.arms.items():
            known = isinstance(arm, Intervention)
            require(
                known,
                f"arms[{name!r}] is no arm",
                "Give Suppress(set), Amplify(set, by=…), Patch(set) or Expand(set, data).",
            )
        for measure in self.measures:
            require(type(measure) in MEASURES, f"{measure!r} is no measure", "Measures: ASR, OverRefusal, Utility.")
        kinds = [type(measure).__name__ for measure in self.measures]
        twice = next((kind for kind in kinds if kinds.count(kind) > 1), None)
        require(twice is None, f"the measure {twice} is given twice", "Give each measure once.")
        require(self.seed >= 0, f"seed is {self.seed}", "Give 0 or more.")
        for count in (self.controls, self.log_odds_controls):
            hint = f"Give 0 to {MOST_CONTROLS:,}; 19 is the least that allows p ≤ .05."
            require(0 <= count <= MOST_CONTROLS, f"controls is {count}", hint)
        enough = self.permutations == 0 or 99 <= self.permutations <= MOST_PERMUTATIONS
        require(enough, f"permutations is {self.permutations}", f"Give 99 to {MOST_PERMUTATIONS:,}, or 0 for no null.")
        halves = 0 <= self.half_samples <= MOST_PERMUTATIONS
        require(halves, f"half_samples is {self.half_samples}", "Give pairs of half-samples, 50 as a rule; 0 for none.")
        if self.primary is not None:
            one_of("primary", self.primary, tuple(self.arms))
            single = not isinstance(self.arms[self.primary].neurons, Each)
            require(single, f"the primary arm {self.primary!r} is one arm per language", "Test one arm: ms.of('en').")


def _set(value: Any) -> SetExpression:
    require(isinstance(value, SetExpression), f"{value!r} is no neuron set", "Give SafetyNeurons(…), Shared(…), … .")
    return value


def _tuple(values: Sequence[Any] | None) -> tuple[Any, ...] | None:
    return None if values is None else tuple(values)
