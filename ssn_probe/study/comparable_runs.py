"""Two finished runs beside each other: what is the same in both, so that their responses can be paired.

Paired is what answers the same prompt: its id, language, text and reference are equal. Where the data of both runs have
one SHA-256, they are; else both prompt sets are read again, and their texts are compared. Verdicts pair that one judge
gave, whether in the run or afterwards.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.data.judges import UNJUDGED, make_judge
from ssn_probe.data.prompt_set import PromptSet, load_prompts
from ssn_probe.errors import DataError, JudgeError, ResultError, SSNProbeError, nearest
from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec import PromptMeasure, Prompts, Recipe
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.spec.node import digest, walk
from ssn_probe.stats import fewest_discordant
from ssn_probe.study.arms import TESTED, ArmName
from ssn_probe.study.resolve import CONTEXT_OF
from ssn_probe.study.summary import applied_language
from ssn_probe.text import counted, listing

LEAST = fewest_discordant()
"""Fewer prompts could show no difference, even if all of them changed in one direction."""
JUDGED = ("harmful", "lookalike")
"""Contexts whose measures count verdicts."""
SHOWN = 6
"""Names that an error lists."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredRun:
    """A run that is done, with the tables that are paired."""

    folder: RunFolder
    manifest: Mapping[str, Any]
    recipe: Recipe
    samples: pl.DataFrame
    log_odds: pl.DataFrame | None
    language_odds: pl.DataFrame | None

    @property
    def name(self) -> str:
        return self.folder.name

    @cached_property
    def prompts(self) -> dict[str, tuple[Prompts, str]]:
        """The prompt set of every context that is measured, and the SHA-256 of its data."""
        nodes = list(dict.fromkeys(node for node in walk(self.recipe) if isinstance(node, Prompts)))
        digests = {node: one["sha256"] for node, one in zip(nodes, self.manifest["data"], strict=False)}
        measures = (one for one in self.recipe.measures if isinstance(one, PromptMeasure) and type(one) in CONTEXT_OF)
        return {CONTEXT_OF[type(one)]: (one.prompts, digests.get(one.prompts, "")) for one in measures}

    @cached_property
    def arms(self) -> dict[str, ArmName]:
        """Every tested arm by its title."""
        rows = self.samples.filter(role=TESTED)
        named = rows.select("arm", applied_language("eval_language"), "step").unique(maintain_order=True)
        found = [ArmName(*row) for row in named.iter_rows()]
        return {arm.title: arm for arm in found}


def stored_run(folder: RunFolder) -> StoredRun:
    """A run that is done. Raises ResultError for one that is not, that has no responses, or whose files are damaged."""
    manifest = folder.manifest()
    status = results.status(folder, manifest)
    if status != "done":
        what = "is still running" if status == "running" else f"is {status}"
        raise ResultError(f"{folder.name} {what}, and only finished runs can be compared", "Run its recipe to the end.")
    tables = {"log_odds": "log_odds", "language_odds": "language_log_odds"}
    read = {name: folder.table(file) if _has(folder.path, file) else None for name, file in tables.items()}
    recipe = find_recipe(str(folder.path / "recipe.json"), {})
    return StoredRun(folder=folder, manifest=manifest, recipe=recipe, samples=folder.table("samples"), **read)


def _has(path: Path, name: str) -> bool:
    return (path / f"{name}.parquet").is_file()


# ── arms ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def arm_pairs(first: StoredRun, second: StoredRun, asked: Iterable[str] = ()) -> list[tuple[ArmName, ArmName]]:
    """The arms that are compared: those `asked` for as `A` or `A=B`, else the primary ones, else those of one name."""
    named = [(one.partition("=")[0].strip(), (one.partition("=")[2] or one).strip()) for one in asked]
    if not named and first.recipe.primary is not None and second.recipe.primary is not None:
        named = [(first.recipe.primary, second.recipe.primary)]
    elif not named:
        named = [(title, title) for title in first.arms if title in second.arms]
    return [(_arm(first, one), _arm(second, other)) for one, other in named]


def _arm(run: StoredRun, title: str) -> ArmName:
    if title not in run.arms:
        known = list(run.arms)
        hint = nearest(title, known) if len(known) <= SHOWN else f"Arms: {listing([*known[:SHOWN], 'others'])}."
        raise ResultError(f"{run.name} has no arm {title!r}", hint if known else "It has none.")
    return run.arms[title]


# ── prompts ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True, eq=False)
class SamePrompts:
    """`rows`: per context, the ids and languages that are one prompt in both runs. `notes`: what does not pair."""

    rows: Mapping[str, pl.DataFrame]
    notes: tuple[str, ...]


KEYS = ("prompt_id", "eval_language")


def same_prompts(first: StoredRun, second: StoredRun) -> SamePrompts:
    """What pairs. Raises ResultError where it is fewer than `LEAST` prompts in every context."""
    rows, notes = {}, []
    for context in [one for one in first.prompts if one in second.prompts]:
        answered = [_answered(run, context) for run in (first, second)]
        try:
            pairs = answered[0].join(answered[1], on=KEYS, how="semi", maintain_order="left")
            if first.prompts[context][1] != second.prompts[context][1]:
                same = _same_texts(first, second, context)
                pairs = pairs.join(same, on=KEYS, how="semi", maintain_order="left")
        except ResultError as error:
            notes.append(f"The {context} prompts do not pair: {error.message}")
            continue
        found, most = pairs["prompt_id"].n_unique(), max(frame["prompt_id"].n_unique() for frame in answered)
        if found >= LEAST:
            rows[context] = pairs
        if found < most:
            notes.append(_unpaired(context, found, most))
    if not rows:
        why = " ".join(notes) or "They measure nothing on prompts of one context."
        hint = "Give both runs the same data set and languages; --limit may differ."
        raise ResultError(f"{first.name} and {second.name} cannot be paired. {why}", hint)
    return SamePrompts(rows=rows, notes=tuple(notes))


def _unpaired(context: str, found: int, most: int) -> str:
    few = f", and fewer than {LEAST} could show nothing: they are not compared" if found < LEAST else ""
    return f"Of {most:,} {context} prompts {found:,} {'is' if found == 1 else 'are'} in both runs{few}."


def _answered(run: StoredRun, context: str) -> pl.DataFrame:
    return run.samples.filter(context=context).select(KEYS).unique(maintain_order=True)


def _same_texts(first: StoredRun, second: StoredRun, context: str) -> pl.DataFrame:
    """The prompts whose texts and references are equal, of two prompt sets that are read again."""
    frames = [reread(run, context).select("evaluate", context) for run in (first, second)]
    columns = [frame.select("prompt_id", "text", "reference", eval_language="language") for frame in frames]
    same = columns[0].join(columns[1], on=[*KEYS, "text", "reference"], how="semi", nulls_equal=True)
    return same.select(KEYS)


def reread(run: StoredRun, context: str) -> PromptSet:
    """A prompt set of a run from its source. Raises ResultError where it is not what it was."""
    node, recorded = run.prompts[context]
    hint = "Restore the prompts, or run both recipes on the same ones."
    try:
        prompts = load_prompts(node)
    except DataError as error:
        reason = f"{run.name} has other prompts, and those cannot be read again: {error.message}"
        raise ResultError(reason, hint) from error
    if prompts.digest != recorded:
        raise ResultError(f"the prompts of {run.name} have changed since it was made", hint)
    return prompts


# ── judges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, kw_only=True)
class _Verdicts:
    """A judge of a run: its name, its identity per context, and the table with its verdicts."""

    name: str
    identities: Mapping[str, str]
    table: str = "samples"

    @property
    def called(self) -> str:
        return self.name if self.name == UNJUDGED else f"{self.name} ({next(iter(self.identities.values()))[:8]})"


def one_judge(first: StoredRun, second: StoredRun, contexts: Iterable[str]) -> tuple[str | None, list[pl.DataFrame]]:
    """The judge of both runs, or who judged either afterwards, with the samples under it; None where nobody judged.

    Raises JudgeError where there is no judge of both.
    """
    needed = [context for context in contexts if context in JUDGED]
    known = [_judges(run, needed) for run in (first, second)]
    for one in known[0]:
        for other in known[1]:
            if one.name != UNJUDGED and all(
                one.identities[context] == other.identities[context] or _alike(first, second, one, other, context)
                for context in needed
            ):
                return one.name, [first.folder.table(one.table), second.folder.table(other.table)]
    own, others = (listing([one.called for one in judges]) for judges in known)
    if own == others == UNJUDGED or not needed:
        return None, [first.samples, second.samples]
    raise JudgeError(
        f"Verdicts of different judges cannot be compared: {first.name} was judged by {own}, {second.name} by {others}",
        f"Let one judge judge both: ssn-probe judge {second.name} --with {known[0][0].name} (or another, and both).",
    )


def _judges(run: StoredRun, contexts: list[str]) -> list[_Verdicts]:
    """The run's own judges, then those that judged it afterwards."""
    own = {context: one for one in run.manifest.get("judges") or () for context in one.get("contexts", ())}
    found = []
    if own and all(context in own for context in contexts):
        names = dict.fromkeys(own[context]["name"] for context in contexts)
        found.append(
            _Verdicts(name=" and ".join(names), identities={context: own[context]["sha256"] for context in contexts})
        )
    for one in run.manifest.get("judged") or ():
        same = {context: one["sha256"] for context in contexts}
        found.append(_Verdicts(name=one["name"], identities=same, table=f"{one['folder']}/samples"))
    if not found:
        raise JudgeError(f"{run.name} does not record who judged it", "Run its recipe again: what it measured is kept.")
    return found


def _alike(first: StoredRun, second: StoredRun, one: _Verdicts, other: _Verdicts, context: str) -> bool:
    """Are two runs' own judges one in the languages of both, where each has languages that the other has not?"""
    if one.name != other.name or (one.table, other.table) != ("samples", "samples"):
        return False
    try:
        sets = [reread(run, context) for run in (first, second)]
        common = tuple(language for language in sets[0].languages if language in sets[1].languages)
        found = []
        for run, prompts, judge in zip((first, second), sets, (one, other), strict=True):
            declared = prompts.judge if run.recipe.judge is None else run.recipe.judge
            made = make_judge(declared, prompts.languages, prompts.name, asked=False)
            if digest(dict(made.identity)) != judge.identities[context]:
                return False
            found.append(digest(dict(make_judge(declared, common, prompts.name, asked=False).identity)))
    except SSNProbeError:
        return False
    return found[0] == found[1]


def counted_pairs(rows: Mapping[str, pl.DataFrame]) -> str:
    """How many prompts pair: `200 harmful and 80 harmless prompts in 3 languages`."""
    counts = [f"{frame['prompt_id'].n_unique():,} {context}" for context, frame in rows.items()]
    languages = pl.concat(rows.values())["eval_language"].n_unique()
    return f"{listing(counts)} prompts in {counted(languages, 'language')}"
