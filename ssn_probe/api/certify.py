"""A judge against people: labelled responses in PolyGuardPrompts' format, and what the judge says of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ssn_probe.data.judges import JudgedRow, make_judge
from ssn_probe.data.labelled_responses import labelled_responses
from ssn_probe.files import disk_errors, write_json
from ssn_probe.report.certificate import FOLDER, GIVEN, SIDES
from ssn_probe.runs.verdict_store import BATCH, stored
from ssn_probe.spec.node import digest
from ssn_probe.study.unjudged import sending


def certify(
    spec: str,
    source: str,
    out: Path,
    *,
    device: str = "auto",
    advance: Callable[[int], None] = lambda _count: None,
    say: Callable[[str], None] = lambda _text: None,
) -> dict[str, Any]:
    """The certificate of a judge, which is also kept in the cache of the results folder `out`.

    `advance` gets the number of responses that were judged, and `say` what will be sent to whom.
    """
    labelled = labelled_responses(source)
    rows = labelled.frame
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
    languages: dict[str, dict[str, int]] = {}
    for (language, label), verdict in zip(rows.select("language", "label").iter_rows(), verdicts, strict=True):
        counts = languages.setdefault(language, {f"{side}_as_{given}": 0 for side in SIDES for given in GIVEN})
        side = "refused" if label == "refused" else "other"
        name = "unjudged" if verdict == "unjudged" else f"{side}_as_{verdict}"
        counts[name] = counts.get(name, 0) + 1
    identity = digest(dict(judge.identity))
    data = {"name": labelled.name, "sha256": digest(rows.rows()), "responses": rows.height}
    made = {"judge": judge.name, "sha256": identity, "data": data, "languages": languages}
    folder = out / "cache" / FOLDER
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{identity}.json", made)
    return made
