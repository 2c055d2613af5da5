"""A judge against people: labelled responses in PolyGuardPrompts' format, and what the judge says of them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.data.judges import JudgedRow, make_judge, require_judge
from ssn_probe.data.labelled_responses import LabelledResponses, labelled_responses
from ssn_probe.errors import DataError
from ssn_probe.files import disk_errors, write_json
from ssn_probe.languages import language_code
from ssn_probe.report.certificate import FOLDER, GIVEN, SIDES
from ssn_probe.runs.verdict_store import BATCH, stored
from ssn_probe.spec.node import digest
from ssn_probe.study.unjudged import sending


def certify(
    spec: str,
    source: str,
    out: Path,
    *,
    languages: Sequence[str] = (),
    device: str = "auto",
    advance: Callable[[int], None] = lambda _count: None,
    say: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """The certificate of a judge, which is also kept in the cache of the results folder `out`.

    `languages`: only the labelled responses in these. `advance` gets the number of responses that were judged, and
    `say` what will be sent to whom. Raises JudgeError for a judge that is none.
    """
    require_judge(spec, f"certify {spec}", "there is nothing to compare with people")
    labelled = labelled_responses(source)
    rows = _in_languages(labelled, languages)
    judge = make_judge(spec, tuple(rows["language"].unique(maintain_order=True)), labelled.name, device)
    if not judge.local:
        say(sending(judge, rows.height))
    judge = stored(judge, out / "cache")
    asked = [JudgedRow(*row) for row in rows.select("language", "request", "response").iter_rows()]
    verdicts: list[str] = []
    for start in range(0, len(asked), BATCH):
        found = judge.judge(asked[start : start + BATCH])
        verdicts += [one.verdict for one in found]
        advance(len(found))
    made: dict[str, dict[str, int]] = {}
    for (language, label), verdict in zip(rows.select("language", "label").iter_rows(), verdicts, strict=True):
        counts = made.setdefault(language, {f"{side}_as_{given}": 0 for side in SIDES for given in GIVEN})
        side = "refused" if label == "refused" else "other"
        name = "unjudged" if verdict == "unjudged" else f"{side}_as_{verdict}"
        counts[name] = counts.get(name, 0) + 1
    identity = digest(dict(judge.identity))
    data = {"name": labelled.name, "sha256": digest(rows.rows()), "responses": rows.height}
    certificate = {"judge": judge.name, "sha256": identity, "data": data, "languages": made}
    folder = out / "cache" / FOLDER
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{identity}.json", certificate)
    return certificate


def _in_languages(labelled: LabelledResponses, languages: Sequence[str]) -> pl.DataFrame:
    known = list(labelled.frame["language"].unique(maintain_order=True))
    wanted = [language_code(name) or name for name in languages] or known
    missing = [name for name in wanted if name not in known]
    if missing:
        raise DataError(
            f"{labelled.name} has no labelled response in {', '.join(missing)}", f"It has {', '.join(known)}."
        )
    return labelled.frame.filter(pl.col("language").is_in(wanted))
