"""Who judges the responses of a study, and what it cannot do without a judge."""

from collections.abc import Iterator, Mapping
from typing import Any

from ssn_probe.data.judges import is_unjudged, require_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.model.subject import Subject
from ssn_probe.spec import Prompts, Recipe
from ssn_probe.spec.node import digest
from ssn_probe.study.measurements import judge_of
from ssn_probe.study.resolve import choosers, measured
from ssn_probe.study.workbench import Workbench


def check_judged(recipe: Recipe, data: Mapping[Prompts, PromptSet], subject: Subject) -> None:
    """Raises JudgeError where neurons are chosen by openings that only verdicts could tell."""
    for node in choosers(recipe):
        prompts = data[node.prompts]
        unknown = [language for language in prompts.languages if language not in _declared(subject)]
        if node.scored_by.needs_openings and unknown:
            purpose = (
                f"effect={node.effect} learns from judged responses how the model begins to refuse in "
                f"{', '.join(unknown)}"
            )
            require_judge(prompts.judge, prompts.name, purpose)


def _declared(subject: Subject) -> Mapping[str, Any]:
    return subject.openings or {}


def notes_on_judges(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> Iterator[str]:
    """That responses are unjudged, where they are, and how to judge them later."""
    names = {prompts.name for prompts in measured(recipe, data).values() if is_unjudged(prompts.judge)}
    for name in sorted(names):
        yield (
            f"the responses to {name} are unjudged, as nothing names a judge: there is no ASR. "
            "`ssn-probe judge RUN --with phrases` judges them without the model"
        )


def judges_json(bench: Workbench, recipe: Recipe) -> list[dict[str, Any]]:
    """What a manifest says of the judges of responses."""
    found: dict[str, dict[str, Any]] = {}
    for prompts in measured(recipe, bench.data).values():
        judge = judge_of(bench, prompts)
        identity = dict(judge.identity)
        key = digest(identity)
        spent = judge.spent()
        found[key] = {"name": judge.name, "sha256": key} | ({"spent": spent} if spent else {})
    return list(found.values())
