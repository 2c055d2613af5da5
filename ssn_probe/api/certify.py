"""A judge against people: labelled responses in PolyGuardPrompts' format, and what the judge says of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.data.judges import JudgedRow, make_judge
from ssn_probe.data.sources.table_files import read_file
from ssn_probe.errors import DataError
from ssn_probe.files import disk_errors, sha256, write_json
from ssn_probe.languages.codes import language_code
from ssn_probe.report.certificate import FOLDER, GIVEN, SIDES
from ssn_probe.runs.verdict_store import BATCH, stored
from ssn_probe.spec.node import digest

COLUMNS = ("prompt", "response", "language", "response_refusal_label")
LABELS = {"yes": "refused", "no": "other"}


def labelled_responses(path: Path) -> pl.DataFrame:
    """`language, prompt, response, label` of every labelled response; the label is refused or other.

    Raises DataError for a table without the columns, or without a labelled response.
    """
    frame = read_file(path)
    if missing := [name for name in COLUMNS if name not in frame.columns]:
        raise DataError(f"{path} has no column {', '.join(missing)}", f"A table of labels has {', '.join(COLUMNS)}.")
    text = frame.select(pl.col(name).cast(pl.String).fill_null("") for name in COLUMNS)
    codes = {name: language_code(name) or name for name in text["language"].unique()}
    label = pl.col("response_refusal_label").str.strip_chars().str.to_lowercase()
    rows = text.select(
        pl.col("language").replace(codes),
        "prompt",
        "response",
        label.replace_strict(LABELS, default=None).alias("label"),
    ).drop_nulls("label")
    rows = rows.filter(pl.col("response").str.strip_chars() != "")
    if rows.is_empty():
        raise DataError(f"{path} has no labelled response", "response_refusal_label is yes or no.")
    return rows


def certify(
    spec: str, path: Path, out: Path, *, device: str = "auto", advance: Callable[[int], None] = lambda _count: None
) -> dict[str, Any]:
    """The certificate of a judge, which is also kept in the cache of the results folder `out`."""
    rows = labelled_responses(path)
    judge = make_judge(spec, tuple(rows["language"].unique(maintain_order=True)), path.name, device)
    judge = stored(judge, out / "cache")
    asked = [JudgedRow(*row) for row in rows.select("language", "prompt", "response").iter_rows()]
    verdicts: list[str] = []
    for start in range(0, len(asked), BATCH):
        found = judge.judge(asked[start : start + BATCH])
        verdicts += [one.verdict for one in found]
        advance(len(found))
    languages: dict[str, dict[str, int]] = {}
    for (language, label), verdict in zip(rows.select("language", "label").iter_rows(), verdicts, strict=True):
        counts = languages.setdefault(language, {f"{side}_as_{given}": 0 for side in SIDES for given in GIVEN})
        name = "unjudged" if verdict == "unjudged" else f"{label}_as_{verdict}"
        counts[name] = counts.get(name, 0) + 1
    identity = digest(dict(judge.identity))
    data = {"name": path.name, "sha256": sha256(path), "responses": rows.height}
    made = {"judge": judge.name, "sha256": identity, "data": data, "languages": languages}
    folder = out / "cache" / FOLDER
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{identity}.json", made)
    return made
