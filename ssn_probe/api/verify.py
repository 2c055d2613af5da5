"""Is a run what it says it is? Its files against their digests, its tables against what they were computed from.

Nothing is measured and no weight is loaded. Three questions, each answered by recomputing:

1. do the files have the digests that the manifest recorded?
2. does `summary` follow from `samples` and `log_odds`, and every verdict from its response and the data's judge?
3. do all tables follow from the batches in the cache? The whole run is repeated from the cache alone, in a folder that
   is thrown away, with the same model (by digest) and data (by digest).
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.api.runner import Record, study_and_report
from ssn_probe.data.judges import make_judge
from ssn_probe.errors import ResultError, SSNProbeError
from ssn_probe.files import sha256, write_json
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.runs import folder as results
from ssn_probe.runs.cache import Cache, NotCached
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.manifest import Manifest
from ssn_probe.spec import Recipe
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.pipeline import summary_of
from ssn_probe.study.plan import Plan, make_plan
from ssn_probe.study.resolve import measured
from ssn_probe.study.workbench import Workbench

LISTED = 3
"""Parts of the cache that a finding names; of the others it says how many they are."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was verified: `holds` is None where it could not be, and `why` says why or what differs."""

    what: str
    holds: bool | None
    why: str = ""


def verify(run: RunFolder) -> list[Finding]:
    """Everything that can be verified of a run. Raises ResultError for one that is not done or too old to tell."""
    manifest = run.manifest()
    status = results.status(run, manifest)
    if status != "done" or "files" not in manifest:
        raise ResultError(
            f"{run.name} cannot be verified: it is {status}{'' if 'files' in manifest else ' and records no digests'}",
            "Verify a run that is done; run the same command again to complete it.",
        )
    return [*_files(run, manifest), *_tables(run, manifest)]


def _files(run: RunFolder, manifest: dict[str, Any]) -> Iterator[Finding]:
    found = results.digests(run)
    for name, digest in manifest["files"].items():
        why = "it is missing" if name not in found else "its SHA-256 does not match" if found[name] != digest else ""
        yield Finding(what=f"{name} is as it was written", holds=not why, why=why)


def _tables(run: RunFolder, manifest: dict[str, Any]) -> Iterator[Finding]:
    """What needs the data, the model's files and the cache; each that is not there is reported."""
    try:
        recipe = find_recipe(str(run.path / "recipe.json"), {})
        plan = make_plan(recipe)
        yield _data(plan, manifest)
        subject = load_subject(recipe.model, dtype=manifest["options"]["dtype"], device="cpu", weights=False)
        yield _model(subject, manifest)
        yield _question(recipe, plan, subject, manifest)
    except SSNProbeError as error:
        yield Finding(what="tables follow from what was measured", holds=None, why=error.message)
        return
    if (run.path / "samples.parquet").is_file():
        yield _checked("verdicts follow from the responses", lambda: _verdicts(run, plan))
        yield _checked("summary follows from samples and log_odds", lambda: _summary(run, recipe, plan))
    yield from _repeated(run, recipe, plan, subject)


def _data(plan: Plan, manifest: dict[str, Any]) -> Finding:
    then, now = {data["sha256"] for data in manifest["data"]}, {data.digest for data in plan.data.values()}
    return Finding(
        what="the prompts are those of the run", holds=then == now, why="" if then == now else "they changed"
    )


def _model(subject: Subject, manifest: dict[str, Any]) -> Finding:
    return _same_fields("the model is that of the run", subject.identity, manifest["model"])


def _question(recipe: Recipe, plan: Plan, subject: Subject, manifest: dict[str, Any]) -> Finding:
    """The manifest's key, seed and question are those of the recipe, this model and these prompts."""
    key = resolved_key(recipe, subject.identity, plan.data)
    expected = {"key": key, "seed": recipe.seed, "recipe": recipe.name, "question": recipe.question}
    return _same_fields("the manifest is that of the recipe", expected, manifest)


def _same_fields(what: str, expected: Mapping[str, Any], recorded: Mapping[str, Any]) -> Finding:
    other = [name for name, value in expected.items() if recorded.get(name) != value]
    return Finding(what=what, holds=not other, why=f"these differ: {', '.join(other)}" if other else "")


def _checked(what: str, differs: Callable[[], str]) -> Finding:
    try:
        why = differs()
    except (SSNProbeError, pl.exceptions.PolarsError) as error:
        return Finding(what=what, holds=False, why=str(error).partition("\n")[0])
    return Finding(what=what, holds=not why, why=why)


def _verdicts(run: RunFolder, plan: Plan) -> str:
    samples = run.table("samples")
    other = 0
    for context, prompts in measured(plan.recipe, plan.data).items():
        judge = make_judge(prompts.judge, prompts.languages, prompts.name)
        rows = samples.filter(context=context).select("eval_language", "response", "verdict").iter_rows()
        other += sum(judge(language, response) != verdict for language, response, verdict in rows)
    return f"{other:,} of {samples.height:,} verdicts are not the judge's" if other else ""


def _summary(run: RunFolder, recipe: Recipe, plan: Plan) -> str:
    log_odds = run.table("log_odds") if (run.path / "log_odds.parquet").is_file() else None
    again = summary_of(recipe, run.table("samples"), log_odds, plan.anchor)
    return difference(run.table("summary"), again)


def _repeated(run: RunFolder, recipe: Recipe, plan: Plan, subject: Subject) -> list[Finding]:
    """The whole run again, from the cache alone: its tables, its report, and the parts that it did not need."""
    cache, recorded = Cache(root=run.path.parent / "cache", compute=False), run.manifest()
    with tempfile.TemporaryDirectory() as folder:
        again = RunFolder(Path(folder))
        bench = Workbench(subject=subject, data=plan.data, anchor=plan.anchor, cache=cache)
        record = Record(replace(Manifest.from_json(recorded), seconds={}), bench.warnings)
        write_json(again.path / "manifest.json", record.to_json())  # tells of which schema its tables are
        try:
            study_and_report(bench, recipe, again, record)
        except NotCached as missing:
            method = missing.args[0]["method"]
            why = f"the cache no longer holds all of it ({method}): run the recipe again to restore it"
            return [Finding(what="tables follow from the cache", holds=None, why=why)]
        files = sorted({*recorded["files"], *results.digests(again)})
        findings = [
            _checked(f"{name} follows from the cache", lambda name=name: difference(run.table(name), again.table(name)))
            for name in (file.removesuffix(".parquet") for file in files if file.endswith(".parquet"))
        ]
        if not run.from_schema_1:  # the words of an earlier release are others
            what = "report and manifest say what was found"
            findings.append(_checked(what, lambda: _words(run, again, recorded, record.to_json())))
    parts = set(results.read_json(run.path / "parts.json")["parts"])
    if unread := sorted(parts.difference(cache.used)):
        findings.append(_unread(cache.root, unread))
    return findings if parts.issuperset(cache.used) else [_since(finding) for finding in findings]


def _unread(root: Path, parts: list[str]) -> Finding:
    """Parts that the run wrote or read, and that none of its tables needs any more: carried activations, mostly."""
    what = "parts of the cache that no table needs are as they were written"
    harm = {root / part: _harm(root / part) for part in parts}
    if harmed := [f"{path} ({_method(path)}) is {why}" for path, why in harm.items() if why]:
        more = f"; and {len(harmed) - LISTED:,} more" if len(harmed) > LISTED else ""
        return Finding(what=what, holds=None, why="; ".join(harmed[:LISTED]) + more)
    counts = Counter(_method(path) for path in harm)
    return Finding(what=what, holds=True, why=", ".join(f"{count:,} of {name}" for name, count in counts.items()))


def _harm(part: Path) -> str:
    try:
        return "" if sha256(part) == part.name.split(".")[-2] else "damaged"
    except FileNotFoundError:
        return "missing"
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _method(part: Path) -> str:
    try:
        return str(results.read_json(part.parent / "what.json")["method"])
    except (ResultError, KeyError):
        return "unknown method"


def _since(finding: Finding) -> Finding:
    """Other batches than the run's are no evidence against it: the same, computed again, may differ by rounding."""
    if finding.holds:
        return finding
    return replace(finding, holds=None, why=f"the cache was computed anew since ({finding.why})")


def _words(run: RunFolder, again: RunFolder, recorded: dict[str, Any], found: dict[str, Any]) -> str:
    """How the report differs, except for times and damaged files of the cache, and which fields of the manifest."""
    lines, expected = (_lines(each.path / "report.md") for each in (run, again))
    other = [line for line in lines if line not in expected] + [line for line in expected if line not in lines]
    fields = ("answer", "sets", "gates", "anchor", "evaluated", "trained")
    names = [name for name in fields if recorded.get(name) != found.get(name)]
    why = [f"{len(other)} lines of the report, such as {other[0][:60]!r}"] if other else []
    why += [f"{', '.join(names)} of the manifest"] if names else []
    return f"{' and '.join(why)} differ" if why else ""


def _lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("| seconds |") and "in the cache is damaged" not in line]


def difference(recorded: pl.DataFrame, again: pl.DataFrame) -> str:
    """In words, how a table differs from what it should be; empty where it does not."""
    if recorded.schema != again.schema:
        return "its columns differ"
    if recorded.height != again.height:
        return f"it has {recorded.height:,} rows, and should have {again.height:,}"
    other = [name for name in recorded.columns if not recorded[name].equals(again[name])]
    return f"other values in {', '.join(other)}" if other else ""
