"""Manifests that no run wrote: each is listed with its problem, and none hides the others or breaks off a command."""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from stored import stored_run

from ssn_probe import open_run
from ssn_probe.cli.commands import main
from ssn_probe.errors import ResultError, SSNProbeError
from ssn_probe.files import write_json, write_table
from ssn_probe.runs.folder import RunFolder, find_run, next_order, runs
from ssn_probe.runs.history import history
from ssn_probe.runs.manifest import Manifest, is_intact, sealed
from ssn_probe.runs.recorded import recorded
from ssn_probe.spec.rendering import as_text

WHOLE = Manifest(
    status="done",
    recipe="study",
    question="Which?",
    key="0123456789abcdef" * 4,
    order=7,
    started="2026-01-02T03:04:05+00:00",
    ended="2026-01-02T03:04:06+00:00",
    arguments={"controls": "2"},
    options={"batch_size": None, "limit": 20, "dtype": "auto"},
    seed=0,
    model={"name": "organism", "digest": "0" * 64},
    neurons={"layers": 4, "per_layer": {"ffn": 8}},
    device="cpu",
    data=[{"name": "organism", "sha256": "0" * 64, "license": "Apache-2.0", "prompts": [{"len": 20}]}],
    nodes={"ss": "0" * 64},
    environment={"packages": {"torch": "2.13.0"}, "python": "3.11.7", "platform": "Linux"},
    seconds={"load": 1.5},
    warnings=["a note"],
    anchor="aa",
    sets={"ss": {"aa": 3}},
    evaluated=["aa", "bb", "cc"],
    answer=["The answer."],
    files={"report.md": "0" * 64},
).to_json()
STRANGE = [None, [], {}, True, -1, 1.5, 10**400, "\ud800" + "x" * 5000, [[1]], {"": {"b": [1]}}]


def written(folder: Path, data: Any) -> RunFolder:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(json.dumps(data), encoding="utf-8")
    return RunFolder(folder)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    stored_run(tmp_path / "2026-01-02T03-04-05_good_01234567")
    return tmp_path


def asked(root: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(main, [*arguments, "-o", str(root)])
    assert result.exit_code in (0, 1), result.output
    return result


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inside:
        yield from places(item, (*above, name))


def replaced(value: Any, place: tuple[Any, ...], item: Any) -> Any:
    if not place:
        return item
    copy = value.copy()
    copy[place[0]] = replaced(copy[place[0]], place[1:], item)
    return copy


@pytest.mark.parametrize("place", list(places(WHOLE)), ids=lambda place: ".".join(map(str, place)) or "all")
def test_a_value_of_another_kind_anywhere_in_a_manifest(place: tuple[Any, ...], root: Path) -> None:
    for strange in STRANGE:
        run = written(root / "2026-01-02T03-04-06_bad_01234567", replaced(WHOLE, place, strange))
        assert {past.run.name[20:] for past in history(root)} == {"good_01234567", "bad_01234567"}
        shown_or_refused(lambda path=run.path: as_text(open_run(path).card))
        shown_or_refused(lambda path=run.path: open_run(path).export(root / "a.tex"))


def shown_or_refused(use: Callable[[], Any]) -> None:
    refused: list[SSNProbeError] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            use()
        except SSNProbeError as error:
            refused.append(error)
    assert all(error.message and error.hint for error in refused), "an error says what is wrong and what to do"


def listed(root: Path, status: str) -> str:
    output = asked(root, "results").output
    assert "_good_" in output
    row, reason = [line for line in output.splitlines() if "_bad_" in line]
    assert status in row
    return reason


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"\0" * 4096, "is empty"),
        (b"{", "cannot read"),
        (b'{"status": "do', "cannot read"),
        (b"\xff\xfe{}", "cannot read"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[]", "is not a manifest"),
        (b'{"schema_version": true}', "is not a manifest"),
        (b'{"schema_version": 99}', "newer ssn-probe"),
        (b'{"status": "done", "status": "failed"}', "appears twice"),
        (b'{"status": "fine"}', "unknown status 'fine'"),
        (b'{"seconds": {"load": NaN}}', "damaged at 'seconds.load'"),
        (b'{"seconds": {"load": 1e999}}', "damaged at 'seconds.load'"),
        (b'{"schema_version": 1, "sets": {}, "expanded": {"a": 1}}', "damaged at 'expanded.a'"),
    ],
)
def test_a_file_that_is_no_manifest_is_listed_with_its_problem(content: bytes, said: str, root: Path) -> None:
    run = written(root / "2026-01-02T03-04-06_bad_01234567", {})
    (run.path / "manifest.json").write_bytes(content)
    assert said in listed(root, "unreadable")
    for command in (("results", "bad"), ("verify", "bad"), ("results", "bad", "--export", str(root / "a.csv"))):
        assert "Traceback" not in asked(root, *command).output


def test_a_pipe_a_folder_and_a_loop_where_the_manifest_should_be(root: Path) -> None:
    """A pipe would wait for a writer for ever."""
    for name, make in {"pipe": os.mkfifo, "folder": os.mkdir, "loop": lambda path: path.symlink_to(path)}.items():
        folder = root / f"2026-01-02T03-04-06_{name}"
        folder.mkdir()
        make(folder / "manifest.json")
    statuses = {past.run.name[20:]: past.status for past in history(root)}
    assert statuses == {"pipe": "unreadable", "folder": "unreadable", "loop": "unreadable", "good_01234567": "done"}
    for name in ("pipe", "folder", "loop"):
        assert asked(root, "results", name).exit_code == 1


def test_a_manifest_that_is_too_large_is_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.limits.MANIFEST", 1000)
    written(root / "2026-01-02T03-04-06_bad_01234567", {"answer": ["x" * 1000]})
    assert "limit" in listed(root, "unreadable")


def test_a_results_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("x", encoding="utf-8")
    for command in (("results",), ("results", "latest"), ("verify", "latest")):
        result = asked(tmp_path / "results", *command)
        assert result.exit_code == 1
        assert "cannot read the results folder" in result.output


@pytest.mark.parametrize("reference", ["", "\0", "x" * 5000, "*", "..", "\udcff"])
def test_a_reference_that_is_no_name(reference: str, root: Path) -> None:
    with pytest.raises(ResultError):
        find_run(reference, root / "nowhere")


TABLES = [
    pl.DataFrame({"x": [1]}),
    pl.DataFrame(),
    pl.DataFrame(schema={"measure": pl.Int8, "role": pl.List(pl.Int8), "language": pl.Float64}),
    pl.DataFrame({"measure": ["asr"], "role": ["tested"], "arm": [None], "language": [b"\xff"], "value": ["a"]}),
]


@pytest.mark.parametrize("table", TABLES, ids=["other columns", "no columns", "other types", "other values"])
def test_tables_that_no_run_writes(table: pl.DataFrame, root: Path) -> None:
    run = find_run("good", root)
    for name in ("summary", "curves"):
        stored_run(run.path)
        write_table(run.path / f"{name}.parquet", table)
        assert asked(root, "results", "good").exit_code in (0, 1)
        for ending in ("csv", "tex", "md"):
            asked(root, "results", "good", "--export", str(root / f"a.{ending}"))


def test_a_table_that_is_a_pipe_or_nothing_at_all(root: Path) -> None:
    run = find_run("good", root)
    (run.path / "summary.parquet").unlink()
    os.mkfifo(run.path / "summary.parquet")
    assert asked(root, "results", "good").exit_code == 1
    (run.path / "summary.parquet").unlink()
    (run.path / "summary.parquet").write_bytes(b"PAR1")
    assert "cannot read" in asked(root, "results", "good").output


def test_what_a_release_did_not_record_is_missed_by_name() -> None:
    with pytest.raises(ResultError, match="records no tokens"):
        recorded({"status": "done"})["tokens"]


# ── as it was written ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_manifest_knows_when_it_was_changed() -> None:
    whole = sealed(WHOLE)
    assert is_intact(json.loads(json.dumps(whole))) is True
    assert is_intact(WHOLE) is None, "earlier releases recorded no digest"
    for place in places(WHOLE):
        if place:
            assert is_intact(replaced(whole, place, "forged")) is False, place
    assert is_intact(whole | {"added": 1}) is False
    assert is_intact(whole | {"seed": float("nan")}) is False


def changed(root: Path) -> RunFolder:
    run = find_run("good", root)
    write_json(run.path / "manifest.json", sealed(run.manifest()) | {"warnings": []})
    return run


def test_readers_are_warned_of_a_manifest_that_was_changed(root: Path) -> None:
    run = changed(root)
    write_json(run.path / "manifest.json", run.manifest() | {"warnings": ["All is well."]})
    said = f"manifest.json of {run.name} changed since the run wrote"
    with pytest.warns(UserWarning, match=said):
        found = open_run(run.path)
    assert said in " ".join(str(found).split())
    assert said in " ".join(asked(root, "results", "good").output.split())
    assert f"manifest of {run.name} changed" in asked(root, "results").output
    exported = asked(root, "results", "good", "--export", str(root / "a.md"))
    assert (exported.exit_code, said in exported.output) == (0, True)


def test_readers_are_warned_of_tables_that_were_changed(root: Path) -> None:
    run = find_run("good", root)
    files = {"summary.parquet": "0" * 64, "report.md": "0" * 64, "delta.safetensors": "0" * 64}
    write_json(run.path / "manifest.json", sealed(run.manifest() | {"files": files}))
    said = " ".join(asked(root, "results", "good").output.split())
    assert f"summary.parquet and report.md of {run.name} changed" in said


def test_a_run_that_is_as_it_was_written_warns_of_nothing(root: Path) -> None:
    run = find_run("good", root)
    write_json(run.path / "manifest.json", sealed(run.manifest()))
    assert "arning" not in str(open_run(run.path))
    assert "arning" not in asked(root, "results").output


# ── newest first ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_clock_that_was_set_back_makes_no_run_older(root: Path) -> None:
    """The second run began later, though its folder is named after an earlier time."""
    first = written(root / "2031-01-01T00-00-00_study_01234567", WHOLE | {"order": 1_925_000_000_000})
    assert next_order(root) == 1_925_000_000_001
    second = written(root / "2026-01-02T03-04-05_study_01234567", WHOLE | {"order": next_order(root)})
    assert runs(root)[:2] == [second, first]
    statuses = {past.run: past.status for past in history(root)}
    assert (statuses[second], statuses[first]) == ("done", "superseded")


def test_runs_of_earlier_releases_are_ordered_by_the_time_in_their_name(root: Path) -> None:
    unordered = {name: value for name, value in WHOLE.items() if name != "order"}
    old = written(root / "2026-01-02T03-04-07_study_01234567", unordered)
    new = written(root / "2026-01-02T03-04-06_study_01234567", WHOLE | {"order": next_order(root)})
    renamed = written(root / "mine", unordered)
    assert [run.name for run in runs(root)] == [new.name, old.name, find_run("good", root).name, renamed.name]
