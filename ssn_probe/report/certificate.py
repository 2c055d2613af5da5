"""A judge's certificate in figures, and ASR corrected for the errors that it shows.

A certificate counts, per language, what the judge says of labelled responses: `refused_as_refused`,
`refused_as_complied`, `refused_as_invalid`, and the same of others, `other_as_…`; `unjudged` ones are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import hypot
from pathlib import Path
from typing import Any

from ssn_probe.errors import ResultError
from ssn_probe.languages import language_code
from ssn_probe.runs.folder import read_json
from ssn_probe.runs.recorded import Certificate
from ssn_probe.stats.agreement import Agreement, agreement
from ssn_probe.stats.intervals import normal_quantile, wilson
from ssn_probe.stats.prevalence import Corrected, mean_of, rogan_gladen
from ssn_probe.study.summary import AVERAGE

FOLDER = "certificates"
SIDES, GIVEN = ("refused", "other"), ("refused", "complied", "invalid")
Counts = Mapping[str, int]
QUALITY = ("language", "precision", "recall", "specificity", "κ", "n", "invalid", "unjudged")
"""Columns of `quality_rows`."""
CORRECTED = ("arm", "language", "ASR, %", "corrected, %", "Se / Sp, % (n)")
"""Columns of `corrected_rows`."""
READING = (
    "Se: the share of labelled answers that the judge calls complied; Sp: of labelled refusals that it calls refused; "
    "n: both together; what it calls invalid is left out. Corrected: Rogan and Gladen's estimate, whose 95 % interval "
    "counts the sampling error of labels and responses. The average is the mean of the corrected languages, and its "
    "interval the mean of theirs, which is too wide rather than too narrow. All of it holds as far as the labelled "
    "responses are like these."
)


def certificate_of(cache: Path, identity: str) -> dict[str, Any] | None:
    """The certificate of a judge that a results folder keeps, by the digest of its identity."""
    try:
        found = read_json(cache / FOLDER / f"{identity}.json")
        return found if Certificate.model_validate(found).sha256 == identity else None
    except (ResultError, ValueError):
        return None


def with_certificate(judge: Mapping[str, Any], cache: Path) -> dict[str, Any]:
    """What a manifest says of a judge, with the certificate that is in force."""
    found = certificate_of(cache, judge["sha256"])
    return {**judge, **({} if found is None else {"certificate": found})}


def judge_of_asr(manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a manifest says of the judge of harmful prompts; None where it names none."""
    return next((one for one in manifest.get("judges", ()) if "harmful" in one.get("contexts", ())), None)


def quality(counts: Counts) -> dict[str, tuple[int, int]]:
    """Precision, recall and specificity for refusals as (right, of so many); an invalid verdict is no refusal."""
    cell = {(side, given): counts.get(f"{side}_as_{given}", 0) for side in SIDES for given in GIVEN}
    refused, other = (sum(cell[side, given] for given in GIVEN) for side in SIDES)
    hits, false = cell["refused", "refused"], cell["other", "refused"]
    return {"precision": (hits, hits + false), "recall": (hits, refused), "specificity": (other - false, other)}


def kappa(counts: Counts) -> Agreement:
    """The agreement of label and judge, refused or not."""
    pairs = [
        (side == "refused", given == "refused")
        for side in SIDES
        for given in GIVEN
        for _ in range(counts.get(f"{side}_as_{given}", 0))
    ]
    sides = [[str(pair[which]) for pair in pairs] for which in (0, 1)]
    return agreement(sides[0], sides[1], list(map(str, range(len(pairs)))))


def kappa_cell(row: Mapping[str, Any]) -> str:
    """Kappa with its interval, or a dash where it is undefined."""
    return "–" if row["kappa"] is None else f"{row['kappa']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def arm_title(row: Mapping[str, Any]) -> str:
    """An arm in a few words."""
    of = f" of {row['of']}" if row["of"] else ""
    return f"{row['arm']}{of}" + (f", {row['step']} steps" if row["step"] is not None else "")


def cell(right: int, of: int) -> str:
    """A share of labelled responses in per cent, with Wilson's interval."""
    if not of:
        return "–"
    low, high = wilson(right, of)
    return _share(right / of, low, high, 0)


def quality_rows(certificate: Mapping[str, Any]) -> list[list[str]]:
    """Precision, recall and specificity for refusals in %, kappa, and counts, per language; see `QUALITY`."""
    rows = []
    for language, counts in certificate["languages"].items():
        n = sum(count for name, count in counts.items() if name != "unjudged")
        invalid = sum(counts.get(f"{side}_as_invalid", 0) for side in SIDES)
        cells = [*(cell(*pair) for pair in quality(counts).values()), kappa_cell(asdict(kappa(counts)))]
        rows.append([language, *cells, f"{n:,}", f"{invalid:,}", f"{counts.get('unjudged', 0):,}"])
    return rows


def errors(counts: Counts) -> tuple[tuple[int, int], tuple[int, int]]:
    """Sensitivity for answers and specificity, each as (right, of so many), without what the judge calls invalid."""
    right, wrong = counts.get("other_as_complied", 0), counts.get("other_as_refused", 0)
    passed, missed = counts.get("refused_as_refused", 0), counts.get("refused_as_complied", 0)
    return (right, right + wrong), (passed, passed + missed)


def corrected_asr(asr: float, invalid: float, n: float, counts: Counts) -> Corrected:
    """ASR corrected for the errors between refused and complied; `n`: independent prompts behind it.

    Labels know refusals and nothing of invalid responses, so what the judge calls invalid stays so: the share that
    complied among the others is corrected, with errors counted among labelled responses that the judge calls refused or
    complied, and multiplied by the share of the others. Its interval also has the sampling error of that share.
    """
    valid = 1 - invalid
    if valid <= 0:
        return Corrected(value=None, why="all invalid")
    found = rogan_gladen(min(1.0, asr / valid), n * valid, *errors(counts))
    if found.value is None or found.low is None or found.high is None:
        return found
    noise = normal_quantile(0.95) * found.value * (invalid * valid / n) ** 0.5
    low = valid * found.value - hypot(valid * (found.value - found.low), noise)
    high = valid * found.value + hypot(valid * (found.high - found.value), noise)
    return Corrected(value=valid * found.value, low=max(0.0, low), high=min(1.0, high), clipped=found.clipped)


def last_steps(asr: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows without the points of learning curves but the last of each, as tables per language have them."""
    last = {row["arm"]: max(one["step"] or 0 for one in asr if one["arm"] == row["arm"]) for row in asr}
    return [row for row in asr if row["step"] in (None, last[row["arm"]])]


def corrected_rows(
    asr: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any], digits: int = 1
) -> list[list[str]]:
    """ASR of every arm and language beside what is left of it after the correction; see `CORRECTED`.

    `asr`: the rows that `study.judged_again.asr_rows` gives. Of a learning curve, the last step. `digits`: of the ends
    of intervals.
    """
    averages: dict[tuple[Any, ...], list[Corrected]] = {}
    rows = []
    for row in last_steps(asr):
        own = averages.setdefault(tuple(row[name] for name in ("arm", "of", "step", "role")), [])
        known, language = certificate["languages"], row["language"]
        counts = known.get(language) or known.get(language_code(language))  # labels have the base codes
        if row["language"] == AVERAGE:
            found = mean_of(own)
        elif counts is None:
            found = Corrected(value=None, why="no labels")
        else:
            found = corrected_asr(row["value"], row["invalid"], row["clusters"], counts)
        own += [found] if row["in_average"] else []
        before, after = _share(row["value"], row["low"], row["high"], digits), _corrected_cell(found, digits)
        rows.append([arm_title(row), row["language"], before, after, _errors_cell(counts)])
    return rows


def _share(value: float, low: float, high: float, digits: int) -> str:
    return f"{100 * value:.1f} [{100 * low:.{digits}f}, {100 * high:.{digits}f}]"


def _corrected_cell(found: Corrected, digits: int) -> str:
    if found.value is None or found.low is None or found.high is None:
        return f"– ({found.why})"
    return _share(found.value, found.low, found.high, digits) + (", clipped" if found.clipped else "")


def _errors_cell(counts: Counts | None) -> str:
    if counts is None:
        return "–"
    sides = errors(counts)
    shares = (f"{100 * right / of:.1f}" if of else "–" for right, of in sides)
    return f"{' / '.join(shares)} ({sum(of for _, of in sides):,})"
