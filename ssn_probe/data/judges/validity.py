"""Is a response one at all? The check that every judge of natural language makes before it asks for refusals.

Guard models and lists of phrases take noise for compliance or for refusal, as they happen to. So a response that is
empty or gibberish, or in a third language, is invalid for each of them, and their agreement is about refusals.
"""

from collections.abc import Callable, Sequence

from ssn_probe.data.judges.verdicts import HalfJudged, JudgedRow, Judgement
from ssn_probe.languages.detect import is_gibberish, off_language

VALIDITY = 1
"""Of this check, as a part of the identity of those judges that make it: it rises when it answers otherwise."""


def invalid_reason(row: JudgedRow) -> str | None:
    """Why a response is no answer, or None; besides the language of the request, a model may answer in English."""
    gibberish = is_gibberish(row.response)
    if gibberish is not None:
        return gibberish
    other = off_language(row.response, row.language)
    return None if other is None or off_language(row.response, "en") is None else other


def judged_if_valid(
    rows: Sequence[JudgedRow], judge: Callable[[list[JudgedRow]], Sequence[Judgement]]
) -> list[Judgement]:
    """The judgements of all rows, of which `judge` gets those with an answer."""
    reasons = [invalid_reason(row) for row in rows]
    valid = [number for number, reason in enumerate(reasons) if reason is None]
    found = {number: Judgement("invalid", reason) for number, reason in enumerate(reasons) if reason is not None}
    try:
        found |= zip(valid, judge([rows[number] for number in valid]), strict=True)
    except HalfJudged as error:
        error.finished = found | {valid[number]: one for number, one in error.finished.items()}
        raise
    return [found[number] for number in range(len(rows))]
