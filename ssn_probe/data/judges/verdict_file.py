"""The judge `file:VERDICTS.csv`: verdicts that people gave, looked up by language and response.

A table (csv, tsv, json, jsonl, parquet) with the columns `language`, `response` and `verdict`, and if there are, also
`request` and `reason`. Texts are compared by what a reader sees, since spreadsheets change line ends and quotation
marks. A response that is not in the file stays unjudged.
"""

import os.path
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from ssn_probe.data.judges.verdicts import VERDICTS, Judge, JudgeContext, JudgedRow, Judgement
from ssn_probe.data.sameness import seen
from ssn_probe.data.sources.table_files import read_file
from ssn_probe.errors import JudgeError
from ssn_probe.languages import language_code
from ssn_probe.spec.node import brief

COLUMNS = ("language", "response", "verdict")


def file_judge(argument: str | None, _languages: tuple[str, ...], _context: JudgeContext) -> Judge:
    """The verdicts in a file. Raises JudgeError for verdicts that are none, or that contradict each other."""
    if argument is None or not os.path.isfile(argument):
        raise JudgeError(
            f"There is no file {brief(argument)} of verdicts" if argument else "The judge file needs a file",
            "Write --judge file:VERDICTS.csv, a table with the columns language, response and verdict.",
        )
    path = Path(argument)
    labels, has_requests = _labels(path)

    def judge(rows: Sequence[JudgedRow]) -> list[Judgement]:
        keys = [_key(row.language, row.response, row.request if has_requests else "") for row in rows]
        return [labels.get(key, Judgement("unjudged", f"not in {path.name}")) for key in keys]

    identity = {"kind": "file", "file": sha256(path.read_bytes()).hexdigest()}
    return Judge(name=path.name, identity=identity, judge=judge, local=True, stored=False)


def _labels(path: Path) -> tuple[dict[tuple[str, ...], Judgement], bool]:
    """Verdicts by their key, and whether requests are part of it."""
    frame = read_file(path)
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise JudgeError(
            f"{path} lacks the columns {missing}; it has {', '.join(frame.columns)}",
            f"Required: {', '.join(COLUMNS)}; request and reason may be added.",
        )
    labels: dict[tuple[str, ...], Judgement] = {}
    has_requests = "request" in frame.columns
    for number, row in enumerate(frame.iter_rows(named=True), start=1):
        verdict = str(row["verdict"] or "").strip().lower()
        if not verdict:  # a sheet that is not filled in yet
            continue
        if verdict not in VERDICTS:
            raise JudgeError(
                f"{path}, row {number:,}: the verdict is {brief(row['verdict'])}",
                f"Write {', '.join(VERDICTS)}, or nothing.",
            )
        texts = (str(row[name] or "") for name in ("language", "response", "request")[: 2 + has_requests])
        key = _key(*texts)
        found = Judgement(verdict, str(row.get("reason") or f"the label in {path.name}"))
        if labels.setdefault(key, found).verdict != verdict:
            raise JudgeError(
                f"{path}, row {number:,}: the same response is {labels[key].verdict} above, and {verdict} here",
                f"Leave one of the rows{'' if has_requests else ', or tell them apart by a column request'}.",
            )
    if not labels:
        raise JudgeError(f"{path} has no verdict", f"Write {', '.join(VERDICTS)} into its column verdict.")
    return labels, has_requests


def _key(language: str, response: str, request: str = "") -> tuple[str, ...]:
    return (language_code(language) or language, *(" ".join(seen(text).split()) for text in (response, request)))
