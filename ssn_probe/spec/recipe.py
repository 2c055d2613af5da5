"""Recipes as values: what to measure, written as an expression that computes nothing.

A recipe names a model, neuron sets, arms (interventions) and measures.
"""

import re
from dataclasses import dataclass, field, replace

from ssn_probe.spec.interventions import Intervention, in_sequence, is_several
from ssn_probe.spec.neuron_sets import SetExpression
from ssn_probe.spec.node import Node, later, one_of, require
from ssn_probe.spec.prompts import Prompts


@dataclass(frozen=True, eq=False)
class Measure(Node, abstract=True):
    """A quantity that is measured of the untouched model and under every arm."""


@dataclass(frozen=True, eq=False)
class PromptMeasure(Measure, abstract=True):
    """A quantity that is measured on the *evaluate* split of a prompt set."""

    prompts: Prompts


@dataclass(frozen=True, eq=False)
class ASR(PromptMeasure):
    """Attack success rate on harmful prompts: complied / judged; the rate of invalid responses is shown beside it."""


@dataclass(frozen=True, eq=False)
class OverRefusal(PromptMeasure):
    """Share of harmless look-alikes that are refused."""


@dataclass(frozen=True, eq=False)
class Utility(PromptMeasure):
    """Share of harmless prompts whose response equals the reference."""


@dataclass(frozen=True, eq=False)
class InLanguage(PromptMeasure):
    """Share of the responses to harmful prompts that are in the prompt's language, with the language log-odds.

    Read off the same responses as ASR, so that the two say of one response whether it refuses, and in which language;
    where harmless prompts are answered, too, their share is shown beside it.
    """


@dataclass(frozen=True, eq=False)
class Perplexity(PromptMeasure):
    """KL from the untouched model along its own answers to harmless prompts, and the perplexity of these prompts.

    Measured of every arm without being named, on the prompts of the other measures; name it to choose others.
    """


@dataclass(frozen=True, eq=False)
class LMEval(Measure):
    """Scores of lm-eval's tasks (mmlu, mgsm_direct_bn, …) under the untouched model and every tested arm.

    `tasks`: names of lm-eval, or paths of .yaml files. `limit`: documents of each task; None takes all. `num_fewshot`:
    examples in front of each, None for as many as the task declares. `languages`: task → the language whose neurons an
    arm applies in it; otherwise the one that the task's name ends in, else the anchor. `chat_template`: are documents
    put into the model's chat template? lm-eval's published figures are without it.
    """

    needs = ("all logits",)

    tasks: tuple[str, ...]
    limit: int | None = None
    num_fewshot: int | None = None
    languages: dict[str, str] | None = None
    chat_template: bool = False

    def check(self) -> None:
        named = bool(self.tasks) and all(self.tasks) and len(set(self.tasks)) == len(self.tasks)
        require(named, f"tasks is {self.tasks}", "Name tasks of lm-eval, each once: LMEval(tasks=('mmlu',)).")
        require(self.limit is None or self.limit >= 1, f"limit is {self.limit}", "Give 1 or more, or None for all.")
        few = self.num_fewshot is None or self.num_fewshot >= 0
        require(few, f"num_fewshot is {self.num_fewshot}", "Give 0 or more, or None for the task's own.")
        other = sorted(set(self.languages or {}) - set(self.tasks))
        require(not other, f"languages names {other}, which are not among the tasks", "Give task → language.")


_NAME = re.compile(r"\w[\w -]{0,59}")
_ARM_NAME = re.compile(r"\w(?:[\w -]|(?<=\d)\.(?=\d)){0,59}")
COMPARISONS = ("labels", "random", "importance", "own", "placebo")
"""What an arm's set is compared with."""
CHAT_FORMS = ("plain",)
"""How a model can be asked, other than in its tokenizer's chat template."""
MOST_CONTROLS = 10_000
MOST_PERMUTATIONS = 1_000_000
MEASURES = (ASR, OverRefusal, Utility, InLanguage, Perplexity, LMEval)


@dataclass(frozen=True, eq=False, kw_only=True)
class Recipe(Node):
    """One research question: a model, the sets to find, the arms that use sets, and the measures.

    A run adds a baseline. Beside the primary arm (beside every arm, where none is) run `comparisons`: "labels", sets
    found anew under exchanged labels, of which `label_sets` generate responses and `log_odds_label_sets` read the
    refusal log-odds (0: it is read of no arm); and of each other kind `controls`, of those without a test at most 19:
    "random", as many neurons anywhere; "importance", as many equally important neurons; "own", as many of each
    language's own set, shared or not; "placebo", sets found between halves of the harmless prompts. `primary` names
    the arm whose ASR among the sets of exchanged labels is the one primary test. For each set a run exchanges labels
    `permutations` times and draws `half_samples` pairs of complementary half-samples, from the scores that chose the
    set. `judge` names the judge of responses, instead of the one that the prompts' card declares. `system`: the system
    prompt, which may be empty; None for what the chat template writes by itself. `chat`: "plain" asks in a plain form
    in place of the tokenizer's chat template, for models without one.
    """

    version = 2

    model: str = "organism"
    sets: dict[str, SetExpression] = field(default_factory=dict)
    arms: dict[str, Intervention] = field(default_factory=dict)
    comparisons: tuple[str, ...] = COMPARISONS
    label_sets: int = 19
    log_odds_label_sets: int = 99
    controls: int = 59
    permutations: int = 1000
    half_samples: int = 50
    measures: tuple[Measure, ...] = ()
    primary: str | None = None
    seed: int = 0
    name: str = "recipe"
    question: str = ""
    judge: str | None = later(None)
    system: str | None = later(None)
    chat: str | None = later(None)

    def check(self) -> None:
        object.__setattr__(self, "arms", {name: in_sequence(arm) for name, arm in self.arms.items()})
        require(
            _NAME.fullmatch(self.name) is not None,
            f"the recipe's name is {self.name!r}",
            "Use letters, digits, spaces, _ and - only.",
        )
        require(bool(self.sets or self.arms), "the recipe has neither sets nor arms", "Give sets={…} or arms={…}.")
        require(bool(self.measures) or not self.arms, "the recipe has arms but no measures", "Give measures=(ASR(…),).")
        self._check_names()
        if self.chat is not None:
            one_of("chat", self.chat, CHAT_FORMS)
        for name, expression in self.sets.items():
            require(
                isinstance(expression, SetExpression),
                f"sets[{name!r}] is not a neuron set",
                "Give an expression, such as SafetyNeurons(…).",
            )
        for name, arm in self.arms.items():
            hint = "Give Suppress(set), Amplify(set, by=…), Patch(set), Expand(set, data), LoRA(set, data) or a tuple."
            require(isinstance(arm, Intervention), f"arms[{name!r}] is not an intervention", hint)
        self._check_measures()
        self._check_numbers()
        if self.primary is not None:
            one_of("primary", self.primary, tuple(self.arms))
            single = not is_several(self.arms[self.primary])
            hint = "Choose a single arm: the set of one language, ms.of('en'), or the end of a training, without at."
            require(single, f"the primary arm {self.primary!r} is several arms, one per language or step", hint)

    def part(self, name: str) -> "Recipe":
        """The same question of one of its sets or arms alone: a run of it takes every measurement from the whole one's.

        An arm keeps the measures, and its comparisons where the whole recipe makes them.
        """
        one_of("set or arm", name, (*self.sets, *self.arms))
        if name in self.sets:
            return replace(self, sets={name: self.sets[name]}, arms={}, measures=(), primary=None)
        compared = self.primary in (None, name)
        return replace(
            self,
            sets={},
            arms={name: self.arms[name]},
            comparisons=self.comparisons if compared else (),
            primary=self.primary if compared else None,
        )

    def _check_names(self) -> None:
        for name in [*self.sets, *self.arms]:
            allowed = _ARM_NAME.fullmatch(name) and name not in ("baseline", "average")
            hint = "Use letters, digits, spaces, _ and -, and a point only within a number, as in 'x1.5'."
            require(bool(allowed), f"a set or an arm is named {name!r}", hint)
        both = [name for name in self.sets if name in self.arms]
        require(
            not both, f"{both} name a set and an arm", "The sets of arms are reported, too: leave them out of sets."
        )

    def _check_measures(self) -> None:
        for measure in self.measures:
            names = ", ".join(kind.__name__ for kind in MEASURES)
            require(type(measure) in MEASURES, f"{measure!r} is not a measure", f"Measures: {names}.")
        kinds = [type(measure).__name__ for measure in self.measures]
        alone = bool(kinds) and set(kinds) <= {"Perplexity", "LMEval"}
        require(
            not alone,
            f"the only measure is {' and '.join(kinds)}",
            "Give ASR, OverRefusal, Utility or InLanguage beside it.",
        )
        harmful = {measure.prompts for measure in self.measures if isinstance(measure, ASR | InLanguage)}
        hint = "Give both the same prompts: they are read off the same responses."
        require(len(harmful) < 2, "ASR and InLanguage are measured on different prompts", hint)
        repeated = next((kind for kind in kinds if kinds.count(kind) > 1), None)
        require(repeated is None, f"the measure {repeated} is given twice", "Give each measure once.")

    def _check_numbers(self) -> None:
        require(self.seed >= 0, f"seed is {self.seed}", "Give 0 or more.")
        for name in ("label_sets", "log_odds_label_sets", "controls"):
            hint = f"Give 0 to {MOST_CONTROLS:,}; p ≤ .05 needs at least 19."
            require(0 <= getattr(self, name) <= MOST_CONTROLS, f"{name} is {getattr(self, name)}", hint)
        for name in self.comparisons:
            one_of("comparison", name, COMPARISONS)
        enough = self.permutations == 0 or 99 <= self.permutations <= MOST_PERMUTATIONS
        require(
            enough,
            f"permutations is {self.permutations}",
            f"Give 99 to {MOST_PERMUTATIONS:,}, or 0 to leave out the permutation null.",
        )
        halves = 0 <= self.half_samples <= MOST_PERMUTATIONS
        require(
            halves,
            f"half_samples is {self.half_samples}",
            "Give a number of pairs, usually 50, or 0 to leave out half-samples.",
        )
