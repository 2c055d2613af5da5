"""What a reader must know of a recipe's arms before they are tried: what is missing, and what cannot be trusted."""

from collections.abc import Callable

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.spec import InLanguage, Recipe, Trains
from ssn_probe.study.arms import Arm, has_scores
from ssn_probe.study.language_readout import language_readouts
from ssn_probe.study.refusal_readout import UntrustedReadoutError, readouts
from ssn_probe.study.resolve import measured
from ssn_probe.study.workbench import Workbench


def note_gaps(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> None:
    """Notes languages without prompts, and arms of which no neuron is known to be the top one."""
    for context, prompts in measured(recipe, bench.data).items():
        for language in prompts.languages:
            if prompts.select("evaluate", context, language).is_empty():
                bench.warn(f"{language} has no {context} prompts to evaluate on: averages leave it out there")
    for arm in arms:
        if not has_scores(arm) and not isinstance(arm.does, Trains):
            bench.warn(f"{arm.title} has no scores, so none of its neurons is known to be the top neuron")


def can_read_log_odds(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> bool:
    """Can the refusal log-odds be trusted in every language? Where not, the run says so and measures none."""
    return bool(recipe.log_odds_label_sets) and _is_trusted(bench, recipe, arms, "refusal", readouts)


def can_read_language(bench: Workbench, recipe: Recipe, arms: list[Arm]) -> bool:
    """The same of the language log-odds."""
    asked = any(isinstance(measure, InLanguage) for measure in recipe.measures)
    return asked and _is_trusted(bench, recipe, arms, "language", language_readouts)


def _is_trusted(
    bench: Workbench, recipe: Recipe, arms: list[Arm], what: str, read: Callable[[Workbench, PromptSet], object]
) -> bool:
    prompts = measured(recipe, bench.data).get("harmful")
    if prompts is None or not arms:
        return False
    try:
        read(bench, prompts)
    except UntrustedReadoutError as error:
        bench.warn(f"{what} log-odds not measured: {error.message}")
        return False
    return True
