"""A few responses per verdict, arm and language, of the same prompts under every arm, so that they compare."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from ssn_probe.spec import Recipe
from ssn_probe.study.arms import BASELINE, TESTED, ArmName

BEGINNING = 80
"""Characters of a response that are shown: responses to harmful prompts may be harmful."""
VERDICTS = ("complied", "refused", "invalid", "unjudged")
EACH, MOST_PROMPTS, MOST_ARMS = 2, 8, 8
"""Prompts per arm and verdict, if there are so many; prompts per language; arms, the primary one first."""
WHOLE, WHOLE_PAGE = 1_000, 500_000
"""Characters of a whole text, and of all whole texts of a page."""
Requests = Mapping[tuple[str, str], str]
"""The text of a prompt by its id and language."""


@dataclass(frozen=True, kw_only=True)
class Response:
    """What an arm answered. `whole` is empty where only the beginning may be shown."""

    arm: str
    verdict: str
    beginning: str
    whole: str = ""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A prompt and what every arm answered. `request` is empty where it may not be shown."""

    prompt: str
    responses: tuple[Response, ...]
    request: str = ""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Prompts per language. `most`: characters of a whole text. `note`: what is left out, and why."""

    languages: Mapping[str, tuple[Asked, ...]]
    note: str
    most: int = WHOLE
    whole: bool = False


def sample_responses(
    recipe: Recipe, samples: pl.DataFrame, note: str, requests: Requests | None = None
) -> Samples | None:
    """Of harmful prompts, chosen by their order alone; None where there are none. `requests`: whole texts, too."""
    rows = samples.filter(pl.col("context") == "harmful", pl.col("role").is_in([BASELINE, TESTED]))
    arms = _arms(recipe, rows)
    found = {}
    for language in rows["eval_language"].unique(maintain_order=True):
        own = {arm.title: _answers(rows.filter(arm.rows, eval_language=language)) for arm in arms}
        texts = {prompt: text for (prompt, spoken), text in (requests or {}).items() if spoken == language}
        found[language] = tuple(_asked(own, texts, prompt, requests is not None) for prompt in _chosen(own))
    count = sum(len(asked.responses) + 1 for language in found.values() for asked in language)
    most = min(WHOLE, WHOLE_PAGE // max(1, count))
    return Samples(languages=found, note=note, most=most, whole=requests is not None) if count else None


def _arms(recipe: Recipe, rows: pl.DataFrame) -> list[ArmName]:
    """The untouched model, the primary arm, then the others in the recipe's order."""
    known = [ArmName(arm, None, step) for arm, step in rows.select("arm", "step").unique(maintain_order=True).rows()]
    names = list(dict.fromkeys([BASELINE, *([recipe.primary] if recipe.primary else []), *recipe.arms]))
    return sorted((arm for arm in known if arm.arm in names), key=lambda arm: names.index(arm.arm))[:MOST_ARMS]


def _answers(rows: pl.DataFrame) -> Mapping[str, Mapping[str, str]]:
    """Prompt → its row. Of one arm per language, the language's own: of others, the first."""
    own = pl.col("set_language").eq_missing(pl.col("eval_language"))
    kept = rows.sort("prompt_id", ~own, "set_language", maintain_order=True).unique("prompt_id", keep="first")
    return {row["prompt_id"]: row for row in kept.sort("prompt_id").iter_rows(named=True)}


def _chosen(answers: Mapping[str, Mapping[str, Mapping[str, str]]]) -> Sequence[str]:
    chosen: list[str] = []
    for rows in answers.values():
        for verdict in VERDICTS:
            with_it = [prompt for prompt, row in rows.items() if row["verdict"] == verdict]
            have = len(set(with_it) & set(chosen))
            chosen += [prompt for prompt in with_it if prompt not in chosen][: max(0, EACH - have)]
    return sorted(chosen[:MOST_PROMPTS])


def _asked(
    answers: Mapping[str, Mapping[str, Mapping[str, str]]], texts: Mapping[str, str], prompt: str, whole: bool
) -> Asked:
    return Asked(prompt=prompt, request=texts.get(prompt, ""), responses=tuple(_responses(answers, prompt, whole)))


def _responses(answers: Mapping[str, Mapping[str, Mapping[str, str]]], prompt: str, whole: bool) -> Iterator[Response]:
    for arm, rows in answers.items():
        if prompt in rows:
            text = rows[prompt]["response"] or ""
            beginning = text if len(text) <= BEGINNING else f"{text[:BEGINNING]}…"
            yield Response(
                arm=arm, verdict=rows[prompt]["verdict"] or "", beginning=beginning, whole=text if whole else ""
            )
