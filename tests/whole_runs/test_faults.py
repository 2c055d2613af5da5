"""What goes wrong while a study runs: a full disk, Ctrl-C, a clock set back. One clear word, and nothing is lost."""

import errno
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import filelock
import pytest
from killing import same_tables, study
from rich.console import Console

import ssn_probe.files as files
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.errors import ResultError
from ssn_probe.runs import folder as results
from ssn_probe.runs.folder import RunFolder, find_run, runs
from ssn_probe.runs.history import history

SOURCE = "# as it was executed\n"
MOMENTS = [2, 4, 9, 23, 50, 90, 110]
"""Files of a run: its own, batches of every kind of measurement, tables of nulls, its last."""


def run(out: Path, **options: Any) -> RunFolder:
    return run_recipe(study(), Options(out=out, batch_size=9, **options), Console(quiet=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return run(tmp_path_factory.mktemp("whole"), source=SOURCE)


def at_file(moment: int, fault: Callable[[], None]) -> Callable[[Any, Any], None]:
    """An `os.replace` at whose `moment`-th call something happens; how far a run is may fail to be written."""
    replace, left = os.replace, [moment]

    def faulty(source: Any, target: Any) -> None:
        left[0] -= Path(target).name != results.PROGRESS
        if left[0] == 0:
            fault()
        replace(source, target)

    return faulty


def full() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def ctrl_c() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("fault", "status"), [(full, "failed"), (ctrl_c, "interrupted")])
def test_stopped_at_many_moments_it_says_so_and_goes_on(
    fault: Callable[[], None], status: str, whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = 0
    for moment in MOMENTS:
        with monkeypatch.context() as patched:
            patched.setattr(files.os, "replace", at_file(moment, fault))
            try:
                run(tmp_path)
            except KeyboardInterrupt:
                stopped += 1
            except ResultError as error:
                stopped += "No space left on device" in error.message and "Free some space" in str(error.hint)
            except UserWarning as warned:  # the run is done, and only its report was not written
                stopped += "No space left on device" in str(warned)
        last = runs(tmp_path)[0]
        assert last.manifest()["status"] in (status, "done")
        assert not list(tmp_path.rglob(".*.tmp")), "nothing half written"
        assert not list(tmp_path.glob(f"2*/{results.LOCK}"))
    assert stopped >= 5
    ended = run(tmp_path)
    assert same_tables(ended, whole)
    assert ended.manifest()["warnings"] == whole.manifest()["warnings"]


class Backwards:
    """`datetime` of a clock that is set back by an hour whenever it is asked."""

    asked = 0

    @classmethod
    def now(cls, zone: Any) -> datetime:
        cls.asked += 1
        return datetime(2026, 1, 2, 12, 0, tzinfo=UTC) - timedelta(hours=cls.asked)


@pytest.mark.slow
def test_a_clock_that_goes_backwards_changes_nothing(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(tmp_path)
    monkeypatch.setattr(results, "datetime", Backwards)
    second = run(tmp_path)
    assert second.manifest()["status"] == "done"
    assert all(value >= 0 for value in second.manifest()["seconds"].values())
    assert find_run("latest", tmp_path).path == second.path.resolve()
    assert {past.run.name for past in history(tmp_path)} == {first.name, second.name}
    assert same_tables(second, whole)


def test_a_cache_that_may_not_be_written_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so the refusal is made up; it comes where a lock or a file is made."""
    acquire = filelock.FileLock.acquire

    def only_runs(self: Any, *arguments: Any, **options: Any) -> Any:
        if f"{os.sep}cache{os.sep}" in str(self.lock_file):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return acquire(self, *arguments, **options)

    monkeypatch.setattr(filelock.FileLock, "acquire", only_runs)
    with pytest.raises(ResultError, match="Permission denied") as caught:
        run(tmp_path)
    assert "-o DIR" in (caught.value.hint or "")
    manifest = runs(tmp_path)[0].manifest()
    assert manifest["status"] == "failed"
    assert set(manifest["seconds"]) == {"load", "until it ended"}, "the stage in which it ended takes its time, too"


@pytest.mark.slow
def test_a_cache_that_is_deleted_while_it_is_used_is_made_again(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(files.os, "replace", at_file(60, lambda: shutil.rmtree(tmp_path / "cache")))
        try:
            run(tmp_path)
        except ResultError as error:
            assert error.hint  # noqa: PT017 (either ends well or says what to do)
    ended = run(tmp_path)
    assert same_tables(ended, whole)


def test_the_copy_of_the_recipe_is_what_was_executed(whole: RunFolder) -> None:
    assert (whole.path / "recipe.py").read_text(encoding="utf-8") == SOURCE
