"""What an arm is compared with: the sets that would have been found, or drawn, if the claim about its set were false.

A comparison is a row of `COMPARISONS`. Its sets are numbered, run through the same intervention on the same harmful
prompts, and are found without a new scoring pass: the effects of prompts are stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ssn_probe.neurons import NeuronSet
from ssn_probe.neurons.own_sets import own_of
from ssn_probe.neurons.random_controls import random_like
from ssn_probe.neurons.size_matching import enlarged, matched, sizes_of
from ssn_probe.spec import Exchanged, Labels, LoRA, Placebo, Recipe, SafetyNeurons, SetExpression, Trains
from ssn_probe.spec.interventions import Intervention
from ssn_probe.spec.node import Node, rewrite
from ssn_probe.study.drawn_sets import important_set, measured_by, own_set
from ssn_probe.study.resolve import is_contrast
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench

LABELS, RANDOM, IMPORTANCE, OWN, PLACEBO = "labels", "random", "importance", "own", "placebo"

MOST_DESCRIBED = 19
"""Sets of a comparison that is a description: more would show their spread no better than a test needs."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A kind of sets beside a tested set.

    `one`, `several`: what they are called, `short`: the title of their column. `find(bench, expression, neurons,
    number, seed)`: the set of that number, beside the set `neurons` that `expression` stands for. `applies`: can there
    be any? `tested`: is their rank a test, or a description? `side_effects`: is what else they do measured?
    """

    one: str
    several: str
    short: str
    find: Callable[[Workbench, SetExpression, NeuronSet, int, int], NeuronSet]
    applies: Callable[[SetExpression], bool] = is_contrast
    tested: bool = False
    side_effects: bool = False

    def counted(self, count: int) -> str:
        """How many of them: "19 random sets"."""
        return f"{count:,} {self.one if count == 1 else self.several}"


def under(expression: SetExpression, labels: Labels) -> SetExpression:
    """The expression with other labels for the prompts that choose its sets; what is trained stays as it is."""

    def changed(node: Node) -> Node:
        return replace(node, labels=labels) if isinstance(node, SafetyNeurons) and node.labels is None else node

    return rewrite(expression, changed, leave=Trains)


def _exchanged(bench: Workbench, expression: SetExpression, _neurons: NeuronSet, number: int, seed: int) -> NeuronSet:
    return evaluate(bench, under(expression, Exchanged(draw=number, seed=seed)))


def _random(bench: Workbench, _expression: SetExpression, neurons: NeuronSet, number: int, seed: int) -> NeuronSet:
    return random_like(neurons, bench.widths(), seed * 10_000 + number)


def _placebo(bench: Workbench, expression: SetExpression, neurons: NeuronSet, number: int, seed: int) -> NeuronSet:
    """Of the tested set's size: as large a set as there is safety, in the same languages; whole layers stay whole."""
    labels = Placebo(split=number, seed=seed)

    def found(factor: int) -> NeuronSet:
        larger = enlarged(expression, factor)
        return evaluate(bench, under(expression if larger is None else larger, labels))

    return found(1) if enlarged(expression, 1) is None else matched(found, sizes_of(neurons))


COMPARISONS = {
    LABELS: Comparison(
        one="set found under exchanged labels",
        several="sets found under exchanged labels",
        short="exchanged labels",
        find=_exchanged,
        tested=True,
        side_effects=True,
    ),
    RANDOM: Comparison(
        one="random set of as many neurons",
        several="random sets of as many neurons",
        short="random sets",
        find=_random,
        applies=lambda _: True,
        side_effects=True,
    ),
    IMPORTANCE: Comparison(
        one="random set of as many equally important neurons",
        several="random sets of as many equally important neurons",
        short="equally important",
        find=important_set,
        applies=lambda expression: measured_by(expression) is not None,
        tested=True,
    ),
    OWN: Comparison(
        one="random set of as many of each language's own neurons",
        several="random sets of as many of each language's own neurons",
        short="own neurons",
        find=own_set,
        applies=lambda expression: own_of(expression) is not None,
        tested=True,
    ),
    PLACEBO: Comparison(
        one="set found between halves of the harmless prompts",
        several="sets found between halves of the harmless prompts",
        short="placebo sets",
        find=_placebo,
    ),
}
"""In the order in which reports print them; `spec.recipe.COMPARISONS` has the same names."""


def is_compared(recipe: Recipe, arm: str) -> bool:
    """Do comparisons run beside this arm? Beside the primary arm, and beside every arm of a recipe without any."""
    return recipe.primary in (None, arm)


def expected(recipe: Recipe, arm: str, expression: SetExpression) -> tuple[str, ...]:
    """The comparisons that a recipe asks for beside an arm, as far as its expression allows them."""
    node = recipe.arms[arm]
    wanted = [name for name in COMPARISONS if name in recipe.comparisons and is_compared(recipe, arm)]
    return tuple(
        name for name in wanted if sets_generating(recipe, node, name) and COMPARISONS[name].applies(expression)
    )


def sets_generating(recipe: Recipe, node: Intervention | None, name: str) -> int:
    """How many sets of a comparison generate responses; LoRA, which depends on a set by its size alone, has none."""
    return 0 if isinstance(node, LoRA) else _count(recipe, name)


def _count(recipe: Recipe, name: str) -> int:
    if name == LABELS:
        return recipe.label_sets
    return recipe.controls if COMPARISONS[name].tested else min(recipe.controls, MOST_DESCRIBED)


def sets_reading(recipe: Recipe, node: Intervention | None, name: str) -> int:
    """How many read the refusal log-odds; sets that must be trained first are those that generate."""
    several = sets_generating(recipe, node, name)
    if name != LABELS or not several:
        return several
    most = recipe.log_odds_label_sets
    return min(several, most) if isinstance(node, Trains) else most


def find(
    bench: Workbench, name: str, expression: SetExpression, neurons: NeuronSet, number: int, seed: int
) -> NeuronSet:
    """The set of that number, found once per bench."""
    key = ("compared set", name, expression, number, seed)
    return bench.remember(key, partial(COMPARISONS[name].find, bench, expression, neurons, number, seed))


def in_words(recipe: Recipe) -> str:
    """What a recipe's arms are compared with: "19 random sets of as many neurons; …"."""
    names = [name for name in COMPARISONS if name in recipe.comparisons]
    found = []
    for name in names:
        count = _count(recipe, name)
        odds = f" ({recipe.log_odds_label_sets:,} on the log-odds)" if name == LABELS else ""
        found += [f"{COMPARISONS[name].counted(count)}{odds}"] if count else []
    return "; ".join(found) or "none"
