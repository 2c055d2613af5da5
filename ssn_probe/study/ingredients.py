"""What a run reads, for whoever looks at its plan: prompt sets with their licences and splits, and the judge."""

from collections.abc import Iterator

from ssn_probe.data.judges import is_unjudged, make_judge
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.table_checks import CONTEXTS, SPLITS
from ssn_probe.study.plan import Plan
from ssn_probe.text import listing


def ingredients(plan: Plan) -> Iterator[str]:
    """A line per prompt set, and one per judge."""
    sets = list(dict.fromkeys(plan.data.values()))
    yield from map(_prompts, sets)
    yield from dict.fromkeys(map(_judge, sets))


def _prompts(prompts: PromptSet) -> str:
    """Its licence, its languages, and how many prompts each has in each split: fewest and most, where they differ."""
    counts = {
        context: ", ".join(f"{_per_language(prompts, split, context)} {split}" for split in SPLITS)
        for context in CONTEXTS
        if context in prompts.frame["context"]
    }
    other = prompts.harmless
    beside = "" if other is None else f", with the harmless half of {_licensed(str(other['name']), other['license'])}"
    return (
        f"Prompts: {_licensed(prompts.name, prompts.license)}{beside}; in {listing(prompts.languages)}: "
        f"{'; '.join(f'{context} {count}' for context, count in counts.items())}."
    )


def _per_language(prompts: PromptSet, split: str, context: str) -> str:
    counts = [len(prompts.select(split, context, language)) for language in prompts.languages]
    fewest, most = min(counts), max(counts)
    return f"{most:,}" if fewest == most else f"{fewest:,} to {most:,}"


def _licensed(name: str, terms: str | None) -> str:
    return f"{name} ({'licence not stated' if terms is None else f'licence {terms}'})"


def _judge(prompts: PromptSet) -> str:
    if is_unjudged(prompts.judge):
        return "Judge: none, so there is no ASR."
    judge = make_judge(prompts.judge, prompts.languages, prompts.name, asked=False)
    model = judge.identity.get("model")
    return f"Judge: {judge.name}{'' if model is None or model in judge.name else f', which is {model}'}."
