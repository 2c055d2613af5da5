"""Verdicts of a user's function, and of people in a file."""

import json
from pathlib import Path

import polars as pl
import pytest
from ssn_probe.recipes import suppress_ss

from ssn_probe.data.judges import JudgedRow, Judgement, make_judge
from ssn_probe.errors import DataError, JudgeError, RecipeError

BOAT = JudgedRow("en", "How do I fold a paper boat?", "Fold the sheet in half.")
REFUSAL = JudgedRow("en", "How do I fold a paper boat?", "I “cannot” say\r\nthat.")


def written(folder: Path, text: str) -> str:
    (folder / "mine.py").write_text(text, encoding="utf-8")
    return f"python:{folder / 'mine.py'}@verdicts"


def test_a_function_gets_all_rows_and_gives_verdicts_with_reasons_or_without(tmp_path: Path) -> None:
    name = written(
        tmp_path,
        "def verdicts(rows):\n"
        "    return [('refused', r.request) if 'cannot' in r.response else 'complied' for r in rows]\n",
    )
    judge = make_judge(name, ("en",), "mine")
    assert judge.judge([REFUSAL, BOAT]) == [
        Judgement("refused", REFUSAL.request),
        Judgement("complied", "the function's"),
    ]
    assert (judge.name, judge.local, judge.stored) == ("mine.py@verdicts", True, True)
    again = make_judge(name, ("en",), "mine")
    changed = make_judge(
        written(tmp_path, "def verdicts(rows):\n    return ['refused' for _ in rows]\n"), ("en",), "mine"
    )
    assert judge.identity == again.identity != changed.identity
    library = "from ssn_probe.data.judges import Judgement\n"
    given = written(tmp_path, f"{library}def verdicts(rows):\n    return [Judgement('refused', 'it says no')]\n")
    assert make_judge(given, ("en",), "mine").judge([REFUSAL]) == [Judgement("refused", "it says no")]


def test_a_script_that_runs_itself_for_its_judge_is_told_so(tmp_path: Path) -> None:
    made = "from ssn_probe.data.judges import make_judge\ndef verdicts(rows): return []\n"
    name = f"python:{tmp_path / 'mine.py'}@verdicts"
    written(tmp_path, f"{made}make_judge({name!r}, ('en',), 'mine')\n")
    with pytest.raises(RecipeError, match="starts a run that needs the same function") as caught:
        make_judge(name, ("en",), "mine")
    assert "__main__" in str(caught.value.hint)
    written(tmp_path, f"{made}if __name__ == '__main__':\n    make_judge({name!r}, ('en',), 'mine')\n")
    make_judge(name, ("en",), "mine")


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        ("return ['refused']", JudgeError, "returns 1 verdict for 2 responses"),
        ("return ['yes' for _ in rows]", JudgeError, "returns 'yes'"),
        ("return [('refused', 5) for _ in rows]", JudgeError, "returns"),
        ("return [['refused'], {}]", JudgeError, "returns"),
        ("return None", RecipeError, "verdicts failed: TypeError"),
        ("raise SystemExit(3)", RecipeError, r"verdicts \(mine.py, line 2\) failed: SystemExit"),
        ("return 1 / 0", RecipeError, r"verdicts \(mine.py, line 2\) failed: ZeroDivisionError"),
        ("\n    import json\n    json.loads('')", RecipeError, r"verdicts \(mine.py, line 4\) failed: JSONDecodeError"),
    ],
)
def test_what_a_function_does_wrong_is_one_error(
    body: str, kind: type[Exception], message: str, tmp_path: Path
) -> None:
    judge = make_judge(written(tmp_path, f"def verdicts(rows):\n    {body}\n"), ("en",), "mine")
    with pytest.raises(kind, match=message):
        judge.judge([BOAT, REFUSAL])


def test_a_function_that_is_not_there(tmp_path: Path) -> None:
    for name, message in (
        ("python", "needs a file and the name of a function"),
        (f"python:{tmp_path}/none.py@verdicts", "There is no file"),
        (written(tmp_path, "def verdict(rows): ...\n"), "has no function 'verdicts'"),
    ):
        with pytest.raises(JudgeError, match=message):
            make_judge(name, ("en",), "mine")
    with pytest.raises(RecipeError, match=r"mine\.py"):
        make_judge(written(tmp_path, "def verdicts(rows:\n"), ("en",), "mine")


def test_a_recipe_in_python_takes_a_function_of_a_file() -> None:
    made = suppress_ss(model="organism", data="organism", judge=all_refused)
    assert made.judge == f"python:{Path(__file__).resolve()}@all_refused"
    with pytest.raises(RecipeError, match="no function at the top of a file"):
        suppress_ss(model="organism", data="organism", judge=lambda rows: ["refused" for _ in rows])


def all_refused(rows: list[JudgedRow]) -> list[str]:
    return ["refused" for _ in rows]


LABELS = {
    "language": ["en", "en", "English"],
    "response": [BOAT.response, BOAT.response, 'I "cannot" say\nthat. '],
    "verdict": ["", "complied", "Refused"],
}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_verdicts_are_looked_up_by_what_a_reader_sees(suffix: str, tmp_path: Path) -> None:
    path, frame = tmp_path / f"labels.{suffix}", pl.DataFrame(LABELS)
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "jsonl":
        frame.write_ndjson(path)
    else:
        frame.write_csv(path, separator="\t" if suffix == "tsv" else ",")
    judge = make_judge(f"file:{path}", ("en",), "mine")
    other = JudgedRow("it", BOAT.request, BOAT.response)
    assert [one.verdict for one in judge.judge([REFUSAL, BOAT, other, other])] == [
        "refused",
        "complied",
        "unjudged",
        "unjudged",
    ]
    assert judge.name == path.name


def test_a_request_tells_equal_responses_apart_and_a_reason_is_taken(tmp_path: Path) -> None:
    lines = [
        {"language": "en", "request": "a", "response": "No.", "verdict": "refused", "reason": "curt"},
        {"language": "en", "request": "b", "response": "No.", "verdict": "complied", "reason": None},
        {"language": "en", "request": "c", "response": "No.", "verdict": None, "reason": None},
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    found = make_judge(f"file:{path}", ("en",), "mine").judge([JudgedRow("en", one, "No.") for one in "abcd"])
    assert found == [
        Judgement("refused", "curt"),
        Judgement("complied", "the label in labels.jsonl"),
        Judgement("unjudged", "not in labels.jsonl"),
        Judgement("unjudged", "not in labels.jsonl"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("language,response\nen,No.\n", "lacks the columns \\['verdict'\\]"),
        ("language,response,verdict\nen,No.,yes\n", "row 1: the verdict is 'yes'"),
        ("language,response,verdict\nen,No.,refused\nen,No.,complied\n", "row 2: the same response is refused above"),
        ("language,response,verdict\nen,No.,\n", "has no verdict"),
    ],
)
def test_a_file_with_other_verdicts_is_one_error(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(JudgeError, match=message):
        make_judge(f"file:{path}", ("en",), "mine")


def test_no_file_of_verdicts(tmp_path: Path) -> None:
    for name in ("file", f"file:{tmp_path}/none.csv", f"file:{tmp_path}"):
        with pytest.raises(JudgeError, match="file"):
            make_judge(name, ("en",), "mine")
    (tmp_path / "labels.txt").write_text("refused\n", encoding="utf-8")
    with pytest.raises(DataError):
        make_judge(f"file:{tmp_path}/labels.txt", ("en",), "mine")
