"""Is a run what it says it is? Its files against their digests, its tables against what they were computed from.

Nothing is measured and no weight is loaded. Three questions, each answered by recomputing:

1. does the manifest match the digest of itself, are its files there and no others, and do they match their digests?
2. does `summary` follow from `samples` and `log_odds`, and every verdict from its response and the data's judge?
3. do all tables follow from the batches in the cache? The whole run is repeated from the cache alone, in a folder that
   is thrown away, with the same model (by digest) and data (by digest).
"""

import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe import __version__, limits
from ssn_probe.api.judging import judging_differs, kept_judge
from ssn_probe.api.runner import Options, Record, log_lines, manifest_of, study
from ssn_probe.data.judges.endpoint import at_recorded_endpoint
from ssn_probe.engines.vllm_engine import engine_of_run
from ssn_probe.errors import ResultError, SSNProbeError
from ssn_probe.files import sha256, write_json
from ssn_probe.model.asking import asking_of
from ssn_probe.model.coarse_products import as_recorded
from ssn_probe.model.known import find_subject
from ssn_probe.model.subject import Subject
from ssn_probe.report.charts.chart import kept_pictures
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.run_report import write_report
from ssn_probe.runs import folder as results
from ssn_probe.runs.cache import DAMAGED, Cache, NotCached
from ssn_probe.runs.folder import RunFolder
from ssn_probe.runs.integrity import Finding, file_findings, manifest_finding
from ssn_probe.runs.manifest import Manifest, is_intact
from ssn_probe.runs.recorded import Recorded
from ssn_probe.spec import Recipe
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.comparison_table import comparison_table
from ssn_probe.study.judged_again import judged_rows
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.pipeline import summary_of
from ssn_probe.study.plan import Plan, limited, make_plan
from ssn_probe.study.resolve import measured
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import listing

PART = re.compile(r"[0-9a-f]{64}/[^/\0]+\.[0-9a-f]{64}\.(safetensors|parquet)")
LISTED = 3
"""Parts of the cache that a finding names; of the others it says how many they are."""


def verify(run: RunFolder) -> list[Finding]:
    """Everything that can be verified of a run. Raises ResultError for one that is not done or too old to tell."""
    manifest = run.manifest()
    status = results.status(run, manifest)
    if status != "done" or "files" not in manifest:
        raise ResultError(
            f"{run.name} cannot be verified: it is {status}{'' if 'files' in manifest else ' and records no digests'}",
            "Verify a run that is done; run the same command again to complete it.",
        )
    files = file_findings(run, manifest["files"])
    with at_recorded_endpoint(manifest.get("judges") or []):
        return [manifest_finding(run), *files, _log(run, manifest), *_tables(run, manifest)]


def _log(run: RunFolder, manifest: Recorded) -> Finding:
    """A run that is done logged its warnings, and nothing else."""
    expected = log_lines(manifest.get("warnings", []))
    return _checked("run.log has the warnings of the manifest", lambda: _log_differs(run.path / "run.log", expected))


def _log_differs(path: Path, expected: str) -> str:
    text = limits.read_limited(path, limits.MANIFEST, ResultError).decode("utf-8", "backslashreplace")
    return "" if text == expected else "its lines differ"


def _tables(run: RunFolder, manifest: Recorded) -> Iterator[Finding]:
    """What needs the data, the model's files and the cache; each that is not there is reported."""
    try:
        recipe = find_recipe(str(run.path / "recipe.json"), {})
        plan = make_plan(recipe)
        dtype = manifest["model"].get("dtype", "auto")  # a host may have chosen another than the checkpoint's
        settings = {"dtype": dtype, "device": "cpu", "weights": False, "asking": asking_of(recipe)}
        subject = find_subject(recipe.model, cache=run.path.parent / "cache", writes=False, **settings)
        subject = replace(subject, identity=as_recorded(subject.identity, manifest["model"]))
        yield from _how_it_was_made(recipe, plan, subject, manifest)
    except SSNProbeError as error:
        yield Finding(what="tables follow from what was measured", holds=None, why=error.message)
        return
    if os.path.lexists(run.path / "samples.parquet"):
        yield _judged("verdicts follow from the responses", lambda: _verdicts(run, plan))
        for entry in manifest.get("judged", []):
            what = f"what {entry['name']} says follows from the responses"
            yield _judged(what, lambda entry=entry: judging_differs(run, plan, entry))
        yield _checked("summary follows from samples and log_odds", lambda: _summary(run, recipe, plan))
        yield _checked("comparisons follow from samples and log_odds", lambda: _comparisons(run, recipe, plan))
    yield from _repeated(run, recipe, plan, subject)


def _how_it_was_made(recipe: Recipe, plan: Plan, subject: Subject, manifest: Recorded) -> Iterator[Finding]:
    """What the manifest says of prompts, model and recipe, against what it would say of them now."""
    options = Options(
        limit=manifest["options"].get("limit"),
        dtype=manifest["options"].get("dtype", "auto"),
        batch_size=manifest["options"].get("batch_size"),
    )
    key = resolved_key(recipe, subject.identity, plan.data)
    now = json.loads(json.dumps(manifest_of(recipe, plan, options, subject, key).to_json()))
    then, found = manifest.get("data", []), now["data"]
    why = "" if then == found else "they changed, or what is said of them: " + ", ".join(_other_fields(then, found))
    yield Finding(what="the prompts are those of the run", holds=not why, why=why)
    model = _same_fields("the model is that of the run", now["model"], manifest["model"])
    yield model
    names = ("seed", "recipe", "question", "neurons", "generation") + (("key", "nodes") if model.holds else ())
    yield _same_fields("the manifest is that of the recipe", {name: now[name] for name in names}, manifest)
    if "judges" in manifest:
        then, here = ([(one["name"], one["sha256"]) for one in found["judges"]] for found in (manifest, now))
        yield Finding(what="the judge is that of the run", holds=then == here)
    limit = options.limit
    holds = limit is None or limited(recipe, limit) == recipe
    why = "" if holds else f"the recipe's prompts are not limited to {limit}"
    yield Finding(what="the limit is that of the recipe", holds=holds, why=why)


def _other_fields(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fields in which some prompt set differs; where there are other sets, how many there were and are."""
    if len(then) != len(now):
        return [f"{len(then)} sets, and now {len(now)}"]
    pairs = list(zip(then, now, strict=True))
    return sorted({name for old, new in pairs for name in {**old, **new} if old.get(name) != new.get(name)})


def _same_fields(what: str, expected: Mapping[str, Any], recorded: Mapping[str, Any]) -> Finding:
    """Fields that the release which wrote the manifest did not know cannot be verified."""
    other = [name for name, value in expected.items() if name in recorded and recorded[name] != value]
    unknown = [name for name in expected if name not in recorded]
    if other or not unknown:
        return Finding(what=what, holds=not other, why=f"these differ: {', '.join(other)}" if other else "")
    return Finding(what=what, holds=None, why=f"the manifest does not record {', '.join(unknown)}")


def _checked(what: str, differs: Callable[[], str]) -> Finding:
    try:
        why = differs()
    except NotCached:
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # of files that may hold anything
        return Finding(what=what, holds=False, why=str(error).partition("\n")[0] or type(error).__name__)
    return Finding(what=what, holds=not why, why=why)


def _judged(what: str, differs: Callable[[], str]) -> Finding:
    """The same where verdicts are needed; those of a judge that costs something are taken from the store alone."""
    try:
        return _checked(what, differs)
    except NotCached as missing:
        why = f"the cache does not hold all {missing.args[0]['method']}, and verify asks no such judge"
        return Finding(what=what, holds=None, why=why)


def _verdicts(run: RunFolder, plan: Plan) -> str:
    samples = run.table("samples")
    other = 0
    for context, prompts in measured(plan.recipe, plan.data).items():
        rows = samples.filter(context=context)
        found = kept_judge(run, prompts).judge(judged_rows(rows, prompts, context))
        other += int((pl.Series([one.verdict for one in found], dtype=pl.String) != rows["verdict"]).sum())
    return f"{other:,} of {samples.height:,} verdicts are not the judge's" if other else ""


def _summary(run: RunFolder, recipe: Recipe, plan: Plan) -> str:
    again = summary_of(recipe, *_measured(run), plan.anchor, _language_odds(run))
    return difference(run.table("summary"), again)


def _comparisons(run: RunFolder, recipe: Recipe, plan: Plan) -> str:
    again = comparison_table(recipe, *_measured(run), run.table("compared_sets"), plan.anchor, _language_odds(run))
    return difference(run.table("comparisons"), again)


def _language_odds(run: RunFolder) -> pl.DataFrame | None:
    return run.table("language_log_odds") if (run.path / "language_log_odds.parquet").is_file() else None


def _measured(run: RunFolder) -> tuple[pl.DataFrame, pl.DataFrame | None, pl.DataFrame | None]:
    """Samples, log-odds and text of a run; None where it has none."""
    log_odds, text = (
        run.table(name) if (run.path / f"{name}.parquet").is_file() else None for name in ("log_odds", "kl")
    )
    return run.table("samples"), log_odds, text


def _repeated(run: RunFolder, recipe: Recipe, plan: Plan, subject: Subject) -> list[Finding]:
    """The whole run again, from the cache alone: its tables, its report, and the parts that it did not need."""
    recorded, damaged = run.manifest(), []
    cache = Cache(root=run.path.parent / "cache", compute=False, derive=True, warn=damaged.append)
    with tempfile.TemporaryDirectory() as folder:
        again = RunFolder(Path(folder))
        engine = engine_of_run(recorded["options"].get("engine"), subject)
        bench = Workbench(subject=subject, data=plan.data, anchor=plan.anchor, cache=cache, engine=engine)
        try:
            size = {"layers": subject.n_layers, "per_layer": dict(subject.widths)}
            record = Record(replace(Manifest.from_json(recorded), seconds={}, neurons=size), bench.warnings)
            write_json(again.path / "manifest.json", record.to_json())  # tells of which schema its tables are
            found = study(bench, recipe, again, record)
        except NotCached as missing:
            return [_not_cached(missing.args[0]["method"], damaged)]
        except (SSNProbeError, TypeError, ValueError) as error:  # of a manifest that says anything
            why = str(error).partition("\n")[0]
            return [Finding(what="tables follow from the cache", holds=None, why=why)]
        files = sorted({*recorded["files"], *results.digests(again)} - _unknown_then(recorded))
        findings = [
            _checked(f"{name} follows from the cache", lambda name=name: difference(run.table(name), again.table(name)))
            for name in (
                file.removesuffix(".parquet") for file in files if file.endswith(".parquet") and "/" not in file
            )
        ]
        if not run.from_schema_1:  # the words of an earlier release are others
            words = [
                _checked("the manifest says what was found", lambda: _statements(recorded, record.to_json())),
                *_reports(run, again, FinishedRun(recipe=recipe, manifest=recorded, findings=found)),
            ]
            findings += words if _is_of_this_release(run, recorded) else [_by_another(word) for word in words]
    try:
        parts = _parts(run)
    except SSNProbeError as error:
        return [*findings, Finding(what="parts.json names parts of the cache", holds=False, why=error.message)]
    if unread := sorted(parts.difference(cache.used)):
        findings.append(_unread(cache.root, unread))
    return findings if parts.issuperset(cache.used) else [_since(finding) for finding in findings]


def _unknown_then(recorded: Recorded) -> set[str]:
    """The tables that the release which made the run did not write."""
    return {"responses.parquet"} - set(recorded["files"])


def _parts(run: RunFolder) -> set[str]:
    """The parts of the cache that the run wrote or read; none lies outside the cache."""
    found = results.read_json(run.path / "parts.json").get("parts")
    if not isinstance(found, list) or not all(isinstance(one, str) and PART.fullmatch(one) for one in found):
        raise ResultError("it is damaged", "Run the recipe again.")
    return set(found)


def _is_of_this_release(run: RunFolder, recorded: Recorded) -> bool:
    """Did the release that verifies a run make it? Some that had the same number wrote no seal or no claims."""
    same = recorded.get("packages", {}).get("ssn-probe") == __version__
    return same and is_intact(run.as_written()) is not None and "claims" in recorded


def _by_another(finding: Finding) -> Finding:
    """Another release may use other words."""
    return finding if finding.holds else replace(finding, holds=None, why=f"another release wrote it ({finding.why})")


def _not_cached(method: str, damaged: list[str]) -> Finding:
    """The cache is shared and may be removed: what it lacks is no fault of the run."""
    why = f"the cache no longer holds all of it ({method}): run the recipe again to restore it"
    if damaged:
        files = listing([message.partition(" in the cache")[0] for message in damaged[:LISTED]])
        why = f"the cache is damaged ({files}), no fault of the run: running the recipe again computes it again"
    return Finding(what="tables follow from the cache", holds=None, why=why)


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


def _statements(recorded: Recorded, found: Mapping[str, Any]) -> str:
    """Which fields of the manifest differ from what the run found; what it warned of damage in the cache is over."""
    fields = ("answer", "claims", "sets", "gates", "anchor", "evaluated", "tokens", "trained")
    names = [name for name in fields if recorded.get(name) != found.get(name)]
    then, now = (_lasting(each.get("warnings", [])) for each in (recorded, found))
    names += ["warnings"] if then != now else []
    return f"{', '.join(names)} of the manifest differ" if names else ""


def _lasting(warnings: Sequence[str]) -> list[str]:
    return [warning for warning in warnings if DAMAGED not in warning]


def _reports(run: RunFolder, again: RunFolder, found: FinishedRun) -> Iterator[Finding]:
    """Do report.md and report.html follow from the manifest and the tables? Fonts, and so charts, may be others."""
    write_report(again.path, found, kept_pictures(run.path.parent / "cache", writes=False))
    for name in ("report.md", "report.html"):
        what = f"{name} follows from manifest and tables"
        if name not in found.manifest["files"]:
            why = f"it was not written: `ssn-probe report {run.name}` does"
            yield Finding(what=what, holds=None, why=why)
            continue
        yield _checked(what, lambda name=name: _report_differs(run.path / name, again.path / name))


def _report_differs(path: Path, expected: Path) -> str:
    """How a report differs from what the manifest and the tables give."""
    text = limits.read_limited(path, limits.MANIFEST, ResultError).decode("utf-8", "backslashreplace")
    lines, wanted = (_without_charts(one).splitlines() for one in (text, expected.read_text(encoding="utf-8")))
    known, needed = set(lines), set(wanted)
    other = [line for line in lines if line not in needed] + [line for line in wanted if line not in known]
    if other:
        return f"{len(other)} lines of the report, such as {other[0][:60]!r}, differ"
    return "" if lines == wanted else "its lines are in another order"


def _without_charts(text: str) -> str:
    return re.sub("<svg.*?</svg>", "", text, flags=re.DOTALL)


def difference(recorded: pl.DataFrame, again: pl.DataFrame) -> str:
    """In words, how a table differs from what it should be; empty where it does not."""
    if "verdict" in recorded.columns:  # an earlier release wrote no reasons, nor the prompt set of a response
        again = again.drop({"reason", "data"} - set(recorded.columns), strict=False)
    if recorded.schema != again.schema:
        return "its columns differ"
    if recorded.height != again.height:
        return f"it has {recorded.height:,} rows, and should have {again.height:,}"
    other = [name for name in recorded.columns if not recorded[name].equals(again[name])]
    return f"other values in {', '.join(other)}" if other else ""
