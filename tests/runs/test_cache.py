"""The cache: entries under keys, batches whose names are their digests, one writer at a time, no file believed."""

import contextlib
import itertools
import json
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssn_probe.errors import ResultError
from ssn_probe.files import sha256
from ssn_probe.runs.cache import Cache, NotCached
from ssn_probe.spec.node import digest
from ssn_probe.tracing.batching import covered, gather, no_progress, run_batches

WHAT = {"method": "doubling", "version": 1, "texts": "a"}
TOKENS = [[0]] * 6


def doubled(rows: Sequence[int]) -> Mapping[str, torch.Tensor]:
    return {"twice": torch.tensor(list(rows)) * 2}


def compute(cache: Cache, what: Mapping[str, Any] = WHAT, size: int = 2) -> list[list[int]]:
    """What had to run; the values are checked."""
    ran = []

    def run(rows: list[int]) -> Mapping[str, torch.Tensor]:
        ran.append(rows)
        return doubled(rows)

    with cache.entry(what) as entry:
        run_batches(TOKENS, size, run, entry, no_progress)
        assert gather(entry.parts(), "twice", torch.zeros(6)).tolist() == [0, 2, 4, 6, 8, 10]
    return ran


def files(root: Path) -> list[Path]:
    return sorted((root / digest(WHAT)).glob("*.safetensors"))


def test_what_was_computed_is_found_by_another_run(tmp_path: Path) -> None:
    assert compute(Cache(root=tmp_path)) == [[0, 1], [2, 3], [4, 5]]
    assert compute(Cache(root=tmp_path)) == []
    assert compute(Cache(root=tmp_path), size=5) == [], "the size of a batch is in no key"
    assert json.loads((tmp_path / digest(WHAT) / "what.json").read_text(encoding="utf-8")) == WHAT
    assert all(sha256(path) in path.name for path in files(tmp_path))


def test_another_version_is_another_entry_and_leaves_the_others_alone(tmp_path: Path) -> None:
    compute(Cache(root=tmp_path))
    assert len(compute(Cache(root=tmp_path), WHAT | {"version": 2})) == 3
    assert compute(Cache(root=tmp_path)) == []


def test_only_the_missing_batch_runs(tmp_path: Path) -> None:
    compute(Cache(root=tmp_path))
    files(tmp_path)[1].unlink()
    assert compute(Cache(root=tmp_path)) == [[2, 3]]


@pytest.mark.parametrize("harm", ["flip", "truncate", "empty", "extend"])
def test_a_damaged_file_is_reported_and_computed_again(harm: str, tmp_path: Path) -> None:
    compute(Cache(root=tmp_path))
    path = files(tmp_path)[2]
    whole = path.read_bytes()
    harmed = {
        "flip": whole[:-1] + bytes([whole[-1] ^ 1]),
        "truncate": whole[:50],
        "empty": b"",
        "extend": whole + b"\0",
    }
    path.write_bytes(harmed[harm])
    messages: list[str] = []
    assert compute(Cache(root=tmp_path, warn=messages.append)) == [[4, 5]]
    assert [path.name in line and "damaged" in line for line in messages] == [True]
    assert path.read_bytes() == whole, "the same batch gives the same bytes"
    assert compute(Cache(root=tmp_path, warn=messages.append)) == []
    assert len(messages) == 1


def test_fresh_uses_nothing_that_was_there_and_replaces_it(tmp_path: Path) -> None:
    compute(Cache(root=tmp_path), size=3)
    fresh = Cache(root=tmp_path, fresh=True)
    assert compute(fresh) == [[0, 1], [2, 3], [4, 5]]
    assert compute(fresh) == [], "what it computed itself it need not compute again"
    assert len(files(tmp_path)) == 3, "the two older batches are gone"
    assert compute(Cache(root=tmp_path)) == []


def test_a_fresh_run_that_fails_destroys_nothing(tmp_path: Path) -> None:
    compute(Cache(root=tmp_path), size=3)

    def interrupted(rows: list[int]) -> Mapping[str, torch.Tensor]:
        if 2 in rows:
            raise KeyboardInterrupt
        return doubled(rows)

    with contextlib.suppress(KeyboardInterrupt), Cache(root=tmp_path, fresh=True).entry(WHAT) as entry:
        run_batches(TOKENS, 2, interrupted, entry, no_progress)
        pytest.fail("was not interrupted")
    assert compute(Cache(root=tmp_path)) == [], "old and new batches hold the same prompts, each is used once"


def test_looking_computes_and_writes_nothing(tmp_path: Path) -> None:
    looking = Cache(root=tmp_path / "cache", compute=False)
    with looking.entry(WHAT) as entry:
        assert not entry.complete(6)
    with pytest.raises(NotCached):
        looking.frames(WHAT, ["table"], lambda: pytest.fail("computed"))
    table = {"table": pl.DataFrame({"x": [1.0]})}
    deriving = Cache(root=tmp_path / "cache", compute=False, derive=True)
    assert deriving.frames(WHAT, ["table"], lambda: table) is table
    assert not (tmp_path / "cache").exists()
    compute(Cache(root=tmp_path / "cache"))
    with looking.entry(WHAT) as entry:
        assert entry.complete(6)
    files(tmp_path / "cache")[0].write_bytes(b"")
    with Cache(root=tmp_path / "cache", compute=False).entry(WHAT) as entry:
        assert not entry.complete(6)
    assert len(files(tmp_path / "cache")) == 3, "a damaged file is left for the run that replaces it"


def test_tables_are_kept_whole(tmp_path: Path) -> None:
    made = {"a": pl.DataFrame({"x": [1, None]}), "b": pl.DataFrame({"y": ["ü"]})}
    assert Cache(root=tmp_path).frames(WHAT, ["a", "b"], lambda: made) is made
    found = Cache(root=tmp_path).frames(WHAT, ["a", "b"], lambda: pytest.fail("computed"))
    assert all(found[name].equals(made[name]) for name in made)
    next((tmp_path / digest(WHAT)).glob("b.*")).unlink()
    assert Cache(root=tmp_path).frames(WHAT, ["a", "b"], lambda: made) is made, "a part of a result is no result"


@pytest.mark.parametrize("harm", ["", "{", "[]", '{"method": "tripling"}'])
def test_a_damaged_description_is_written_again(harm: str, tmp_path: Path) -> None:
    compute(Cache(root=tmp_path))
    file = tmp_path / digest(WHAT) / "what.json"
    file.write_text(harm, encoding="utf-8")
    assert compute(Cache(root=tmp_path)) == []
    assert json.loads(file.read_text(encoding="utf-8")) == WHAT


def test_what_a_killed_run_left_half_written_is_cleared(tmp_path: Path) -> None:
    compute(Cache(root=tmp_path))
    left = tmp_path / digest(WHAT) / ".00000002.safetensors.123.tmp"
    left.write_bytes(b"half")
    assert compute(Cache(root=tmp_path)) == []
    assert not left.exists()


def test_a_file_that_goes_while_it_is_read_is_one_clear_error(tmp_path: Path) -> None:
    compute(Cache(root=tmp_path))
    with Cache(root=tmp_path).entry(WHAT) as entry:
        part = entry.parts()[0]
    files(tmp_path)[0].unlink()
    with pytest.raises(ResultError, match="removed or changed while it was in use"):
        part.get("twice")


def test_a_place_is_read_without_the_rest(tmp_path: Path) -> None:
    values = torch.randn(3, 4, 5)
    with Cache(root=tmp_path).entry(WHAT) as entry:
        entry.put([4, 0, 2], {"values": values})
        (part,) = entry.parts()
        assert part.rows == (4, 0, 2)
        assert set(part.names()) == {"values"}
        assert torch.equal(part.at("values", 2), values[:, 2])


@given(st.permutations(range(7)), st.lists(st.integers(1, 6), unique=True, max_size=4))
def test_parts_hold_every_prompt_once(order: Sequence[int], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), 7]
    with tempfile.TemporaryDirectory() as folder, Cache(root=Path(folder)).entry(WHAT) as entry:
        for start, end in itertools.pairwise(edges):
            entry.put(order[start:end], doubled(order[start:end]))
        entry.put(order[:1], {"twice": torch.tensor([99])})  # a prompt that is there already
        assert covered(entry, 7)
        assert sorted(row for part in entry.parts() for row in part.rows) == list(range(7))
        assert [min(part.rows) for part in entry.parts()] == sorted(min(part.rows) for part in entry.parts())


def test_waiting_is_reported(tmp_path: Path) -> None:
    messages: list[str] = []
    inside, leave = threading.Event(), threading.Event()

    def holds() -> None:
        with Cache(root=tmp_path).entry(WHAT):
            inside.set()
            leave.wait(10)

    def waiting(message: str) -> None:
        messages.append(message)
        leave.set()

    thread = threading.Thread(target=holds)
    thread.start()
    inside.wait(10)
    compute(Cache(root=tmp_path, waiting=waiting))
    thread.join()
    assert messages == ["another run is computing the same; waiting for it"]
