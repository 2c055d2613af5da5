"""Judging the stored responses of a run again, without the model.

What the other judge says is kept in the run, below `judged/`, with its digests in the manifest and a section in
report.md. Verdicts that cost something are stored as they come, so the same command goes on where it was stopped.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssn_probe.api.pages import write_pages
from ssn_probe.data.judges import Judge, JudgedRow, Judgement, is_unjudged, make_judge
from ssn_probe.data.judges.endpoint import at_recorded_endpoint
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.errors import JudgeError, ResultError
from ssn_probe.files import disk_errors, sha256, write_table
from ssn_probe.report.certificate import with_certificate
from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.manifest import SEAL, write_manifest
from ssn_probe.runs.verdict_store import BATCH, stored
from ssn_probe.spec import Recipe
from ssn_probe.study.judged_again import JudgedAgain, asr_rows, judged_again
from ssn_probe.study.past_plan import past_plan
from ssn_probe.study.plan import Plan, make_plan
from ssn_probe.study.unjudged import judges_json, recorded, sending

FOLDER = "judged"
Advance = Callable[[int], None]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Judging:
    """A run under another judge: what it found, what the manifest says of it, and the plan that it is judged by."""

    found: JudgedAgain
    entry: Mapping[str, Any]


def check_judges(recipe: Recipe, specs: Sequence[str]) -> None:
    """Raises JudgeError for a judge that could not judge a run afterwards, before anything is computed."""
    plan = make_plan(recipe) if specs else None
    own = judges_json(plan.recipe, plan.data) if plan else []
    for prompts in plan.data.values() if plan else ():
        for spec in specs:
            _another(spec, prompts, own)


def _another(spec: str, prompts: PromptSet, own: Sequence[Mapping[str, Any]], device: str = "auto") -> Judge:
    """Another judge than the `own` ones of a run. Raises JudgeError for one that is its only one, or is none."""
    if is_unjudged(spec):
        raise JudgeError(f"The further judge {spec} would judge nothing", "Name a judge, such as phrases.")
    judge = make_judge(spec, prompts.languages, prompts.name, device)
    if [one["sha256"] for one in own] == [recorded(judge)["sha256"]]:
        raise JudgeError(f"{judge.name} is the run's own judge, and would agree with itself", "Name another judge.")
    return judge


def judge_run(
    run: RunFolder,
    spec: str,
    *,
    device: str = "auto",
    advance: Advance = lambda _count: None,
    say: Say = lambda _text: None,
) -> Judging:
    """Judges the responses of a run with another judge and keeps what it says in the run's folder.

    `advance` gets the number of responses that were judged, and `say` what will be sent to whom. Raises ResultError
    for a run without responses, or one whose prompts or files are no longer those that it was made with; JudgeError
    where the judge fails.
    """
    manifest = run.as_written()
    if results.status(run, manifest) == "running":
        raise ResultError(f"{run.name} is running", "Judge its responses when it has ended.")
    samples, plan = run.table("samples"), past_plan(run, manifest, "A judge needs the requests")
    if manifest.get("files", {}).get("samples.parquet") not in (None, sha256(run.path / "samples.parquet")):
        raise ResultError(f"samples.parquet of {run.name} is not as it was written", "Run the recipe again.")
    judges: list[Judge] = []

    def judge_for(prompts: PromptSet) -> Judge:
        judge = _another(spec, prompts, manifest.get("judges") or [], device)
        if not judge.local and not judges:
            say(sending(judge, samples.select("prompt_id", "eval_language", "response").n_unique()))
        same = [one for one in judges if one.stored and one.identity == judge.identity]
        if same:  # it counts all its costs
            return same[0]
        judges.append(stored(judge, run.path.parent / "cache"))
        return judges[-1]

    def ask(judge: Judge, rows: Sequence[JudgedRow]) -> list[Judgement]:
        verdicts: dict[JudgedRow, Judgement] = {}
        distinct = list(dict.fromkeys(rows))
        for start in range(0, len(distinct), BATCH):
            batch = distinct[start : start + BATCH]
            verdicts |= zip(batch, judge.judge(batch), strict=True)
            advance(len(batch))
        return [verdicts[row] for row in rows]

    found = judged_again(plan.recipe, plan.data, samples, plan.anchor, judge_for, ask)
    one, first = recorded(judges[0]), samples["judge"][0]
    spent = "; ".join(dict.fromkeys(judge.spent() for judge in judges if judge.spent()))
    entry = {
        "judge": spec,
        **one,
        "folder": f"{FOLDER}/{re.sub(r'[^A-Za-z0-9.-]+', '_', one['name'])[:40].strip('_.')}-{one['sha256'][:8]}",
        "first": first,
        "asr": asr_rows(found.summary, plan.anchor),
        "agreement": found.agreement.to_dicts(),
    } | ({"spent": spent} if spent else {})
    if one["name"] == first:  # two files of the same name
        entry["name"] = f"{first} ({one['sha256'][:8]})"
    entry = with_certificate(entry, run.path.parent / "cache")
    is_own = _report_is_own(run, manifest)
    _keep(run, manifest, found, entry)
    if is_own:
        write_pages(run)
    return Judging(found=found, entry=entry)


def first_asr(run: RunFolder) -> list[dict[str, Any]]:
    """The ASR rows under the run's own judge; none where it has no summary, or nobody judged."""
    found = (run.path / "summary.parquet").is_file()
    return asr_rows(run.table("summary"), run.manifest().get("anchor")) if found else []


def kept_judge(run: RunFolder, prompts: PromptSet, spec: str | None = None) -> Judge:
    """The judge of a run, or another one, that is asked nothing: NotCached is raised where it would be."""
    judge = make_judge(spec or prompts.judge, prompts.languages, prompts.name, "cpu", asked=False)
    return stored(judge, run.path.parent / "cache", compute=False)


def judging_differs(run: RunFolder, plan: Plan, entry: Mapping[str, Any]) -> str:
    """How what a run keeps of another judge differs from what follows from its responses; empty where it does not."""
    with at_recorded_endpoint([entry]):
        found = judged_again(
            plan.recipe,
            plan.data,
            run.table("samples"),
            plan.anchor,
            lambda prompts: kept_judge(run, prompts, entry["judge"]),
            lambda judge, rows: judge.judge(rows),
        )
    other = [name for name, table in found.tables.items() if not run.table(f"{entry['folder']}/{name}").equals(table)]
    same = entry["asr"] == asr_rows(found.summary, plan.anchor) and entry["agreement"] == found.agreement.to_dicts()
    return f"{', '.join([*other, *([] if same else ['the manifest'])])} differ" if other or not same else ""


def _keep(run: RunFolder, manifest: Mapping[str, Any], found: JudgedAgain, entry: Mapping[str, Any]) -> None:
    """Writes the tables and the manifest, in this order."""
    others = [one for one in manifest.get("judged", []) if one["sha256"] != entry["sha256"]]
    kept = {**{name: value for name, value in manifest.items() if name != SEAL}, "judged": [*others, entry]}
    changed = []
    with disk_errors(run.path), results.alone(run):
        (run.path / entry["folder"]).mkdir(parents=True, exist_ok=True)
        for name, table in found.tables.items():
            changed.append(f"{entry['folder']}/{name}.parquet")
            write_table(run.path / changed[-1], table)
        if "files" in manifest:
            digests = manifest["files"] | {name: sha256(run.path / name) for name in changed}
            kept["files"] = dict(sorted(digests.items()))
        write_manifest(run.path / "manifest.json", kept)


def _report_is_own(run: RunFolder, manifest: Mapping[str, Any]) -> bool:
    """Is report.md as the run wrote it? One that somebody changed stays so."""
    path = run.path / "report.md"
    return path.is_file() and manifest.get("files", {}).get(path.name) == sha256(path)
