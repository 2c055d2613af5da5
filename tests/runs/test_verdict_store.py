"""Verdicts are kept by content: asked for once, whoever asks, and whenever it is killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from judging import a_judge

from ssn_probe.data.judges import Judge, JudgedRow, Judgement
from ssn_probe.data.judges.verdicts import HalfJudged
from ssn_probe.errors import JudgeError
from ssn_probe.runs import verdict_store
from ssn_probe.runs.cache import NotCached
from ssn_probe.runs.verdict_store import stored

ROWS = [JudgedRow("en", "How do I fold a paper boat?", f"Fold it {number} times.") for number in range(100)]


class Counted:
    """A judge that costs something; an odd number of characters refuses."""

    def __init__(self, most: int = 1000) -> None:
        self.asked: list[JudgedRow] = []
        self.most = most

    @property
    def judge(self) -> Judge:
        return a_judge(self.answer, "counted", stored=True)

    def answer(self, rows: Sequence[JudgedRow]) -> list[Judgement]:
        if len(self.asked) + len(rows) > self.most:
            raise JudgeError("the service is gone", "Wait.")
        self.asked += rows
        return [Judgement("refused" if len(row.response) % 2 else "complied", "it counts") for row in rows]


def test_a_verdict_is_asked_for_once(tmp_path: Path) -> None:
    judge = Counted()
    again = Counted()
    first = stored(judge.judge, tmp_path).judge([*ROWS, *ROWS])
    assert first == judge.answer([*ROWS, *ROWS])
    assert judge.asked[:100] == ROWS
    assert stored(again.judge, tmp_path).judge(ROWS) == first[:100]
    assert again.asked == []


def test_another_language_request_or_response_is_another_row(tmp_path: Path) -> None:
    judge = Counted()
    rows = [JudgedRow("en", "a", "b"), JudgedRow("de", "a", "b"), JudgedRow("en", "ab", ""), JudgedRow("en", "b", "a")]
    stored(judge.judge, tmp_path).judge(rows)
    assert judge.asked == rows


def test_another_identity_has_verdicts_of_its_own(tmp_path: Path) -> None:
    stored(Counted().judge, tmp_path).judge(ROWS)
    other = a_judge(lambda rows: [Judgement("invalid", "always")] * len(rows), "other", stored=True)
    assert {one.verdict for one in stored(other, tmp_path).judge(ROWS)} == {"invalid"}


def test_a_judge_without_cost_is_not_stored(tmp_path: Path) -> None:
    judge = a_judge(lambda rows: [])
    assert stored(judge, tmp_path) is judge


def test_a_failure_loses_the_batch_in_flight_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdict_store, "BATCH", 10)
    judge, later = Counted(most=35), Counted()
    with pytest.raises(JudgeError, match="gone"):
        stored(judge.judge, tmp_path).judge(ROWS)
    stored(later.judge, tmp_path).judge(ROWS)
    assert [len(judge.asked), len(later.asked)] == [30, 70]


def test_what_was_judged_of_the_batch_in_flight_is_kept(tmp_path: Path) -> None:
    def answer(rows: Sequence[JudgedRow]) -> list[Judgement]:
        raise HalfJudged("the service is gone", "Wait.", {number: Judgement("refused", "early") for number in (1, 3)})

    later = Counted()
    with pytest.raises(HalfJudged, match="gone"):
        stored(a_judge(answer, "counted", stored=True), tmp_path).judge(ROWS)
    found = stored(later.judge, tmp_path).judge(ROWS)
    assert later.asked == [row for number, row in enumerate(ROWS) if number not in (1, 3)]
    assert [number for number, one in enumerate(found) if one.reason == "early"] == [1, 3]


def test_a_torn_line_is_asked_for_again(tmp_path: Path) -> None:
    stored(Counted().judge, tmp_path).judge(ROWS)
    [path] = (tmp_path / "verdicts").glob("*.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    again, third = Counted(), Counted()
    stored(again.judge, tmp_path).judge(ROWS)
    stored(third.judge, tmp_path).judge(ROWS)
    assert [len(again.asked), len(third.asked)] == [1, 0]


@pytest.mark.parametrize(
    "line", [b"nonsense", b"[]", b'["a", "maybe", "x"]', b'{"a": 1}', b"\xff\xfe", b"7", b"[[]]", b"[" * 100_000]
)
def test_a_line_of_somebody_else_is_passed_over(line: bytes, tmp_path: Path) -> None:
    stored(Counted().judge, tmp_path).judge(ROWS)
    [path] = (tmp_path / "verdicts").glob("*.jsonl")
    path.write_bytes(line + b"\n" + path.read_bytes())
    again = Counted()
    stored(again.judge, tmp_path).judge(ROWS)
    assert again.asked == []


def test_what_another_process_has_kept_meanwhile_stands(tmp_path: Path) -> None:
    """Both began without a verdict; whoever writes later takes the first one's."""
    other = a_judge(lambda rows: [Judgement("invalid", "first")] * len(rows), "counted", stored=True)

    def slow(rows: Sequence[JudgedRow]) -> list[Judgement]:
        stored(other, tmp_path).judge(rows)
        return [Judgement("complied", "second")] * len(rows)

    found = stored(a_judge(slow, "counted", stored=True), tmp_path).judge(ROWS[:3])
    assert found == [Judgement("invalid", "first")] * 3


def test_where_nothing_may_be_asked_what_is_missing_is_not_cached(tmp_path: Path) -> None:
    judge = Counted()
    with pytest.raises(NotCached):
        stored(judge.judge, tmp_path, compute=False).judge(ROWS)
    stored(judge.judge, tmp_path).judge(ROWS[:3])
    assert len(stored(judge.judge, tmp_path, compute=False).judge(ROWS[:3])) == 3
    assert judge.asked == ROWS[:3]


def test_a_judge_that_stops_half_way_is_an_error(tmp_path: Path) -> None:
    short = a_judge(lambda rows: [Judgement("refused", "x")], "short", stored=True)
    with pytest.raises(JudgeError, match="short gave 1 verdicts for 3 responses"):
        stored(short, tmp_path).judge(ROWS[:3])


SLOW = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from judging import a_judge
from test_verdict_store import ROWS
from ssn_probe.data.judges import Judgement
from ssn_probe.runs import verdict_store
verdict_store.BATCH = 5
def answer(rows):
    time.sleep(0.05)
    return [Judgement("refused" if len(row.response) % 2 else "complied", "it counts") for row in rows]
verdict_store.stored(a_judge(answer, "counted", stored=True), Path({folder!r})).judge(ROWS)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_process_goes_on(tmp_path: Path) -> None:
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    script = SLOW.format(path=paths, folder=str(tmp_path))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if any(path.read_bytes().count(b"\n") >= 10 for path in (tmp_path / "verdicts").glob("*.jsonl")):
            break
        time.sleep(0.01)
    process.kill()
    process.wait()
    judge = Counted()
    found = stored(judge.judge, tmp_path).judge(ROWS)
    assert 0 < len(judge.asked) <= 90
    assert found == judge.answer(ROWS)
