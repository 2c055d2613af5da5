"""The judge `python:FILE.py@function`: a function of the user's, from rows to verdicts.

It takes a list of JudgedRow (`language`, `request`, `response`), and returns for each, in order, a verdict, a pair of a
verdict and a reason, or a Judgement. Its identity is the text of its file, so a changed function judges anew.
"""

import os.path
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from ssn_probe.data.judges.verdicts import VERDICTS, Judge, JudgeContext, JudgedRow, Judgement
from ssn_probe.errors import JudgeError, nearest
from ssn_probe.spec.decorator import users_code
from ssn_probe.spec.discovery import execute_file
from ssn_probe.spec.node import brief
from ssn_probe.text import counted, plain

USAGE = "Write --judge python:FILE.py@function."


def own_judge(argument: str | None, _languages: tuple[str, ...], _context: JudgeContext) -> Judge:
    """The function that a Python file defines. Raises JudgeError without the file or the function."""
    file, at, name = (argument or "").rpartition("@")
    if not (file and at and name):
        raise JudgeError("The judge python needs a file and the name of a function in it", USAGE)
    path = Path(file)
    if not os.path.isfile(path):
        raise JudgeError(f"There is no file {brief(file)} with a judge", USAGE)
    text = path.read_bytes()
    functions = {key: one for key, one in vars(execute_file(path)).items() if callable(one)}
    if name not in functions:
        raise JudgeError(f"{path} has no function {name!r}", nearest(name, list(functions)) if functions else USAGE)
    return Judge(
        name=f"{path.name}@{name}",
        identity={"kind": "python", "file": sha256(text).hexdigest(), "function": name},
        judge=lambda rows: _judged(functions[name], f"{path}@{name}", rows),
        local=True,
    )


def _judged(function: Callable[[list[JudgedRow]], Any], what: str, rows: Sequence[JudgedRow]) -> list[Judgement]:
    with users_code(what, "Fix the function."):
        answers = list(function(list(rows)))
    if len(answers) != len(rows):
        raise JudgeError(
            f"{what} returns {counted(len(answers), 'verdict')} for {counted(len(rows), 'response')}",
            "Return a list with one for each row, in order.",
        )
    return [_judgement(answer, what) for answer in answers]


def _judgement(answer: Any, what: str) -> Judgement:
    if isinstance(answer, Judgement):
        answer = (answer.verdict, answer.reason)
    verdict, reason = answer if isinstance(answer, tuple | list) and len(answer) == 2 else (answer, "the function's")
    if verdict not in VERDICTS or not isinstance(reason, str):
        raise JudgeError(
            f"{what} returns {brief(answer)}",
            f"A verdict is one of {', '.join(VERDICTS)}, alone or in a pair with a reason.",
        )
    return Judgement(verdict, plain(reason) or "no reason given")
