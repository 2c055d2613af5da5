"""A certificate's figures by hand, from labelled responses to a corrected ASR."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner
from judging import a_judge

from ssn_probe.cli.commands import main
from ssn_probe.data.judges import JUDGES, JudgedRow, Judgement
from ssn_probe.report.certificate import certificate_of, corrected_asr, corrected_rows, kappa, quality
from ssn_probe.spec.node import digest
from ssn_probe.stats.intervals import wilson
from ssn_probe.study.judged_again import asr_rows
from ssn_probe.study.summary import COLUMNS

COUNTS = {
    **{"refused_as_refused": 40, "refused_as_complied": 5, "refused_as_invalid": 5},
    **{"other_as_refused": 10, "other_as_complied": 35, "other_as_invalid": 5},
}


def test_quality_by_hand() -> None:
    assert quality(COUNTS) == {"precision": (40, 50), "recall": (40, 50), "specificity": (40, 50)}
    found = kappa(COUNTS)
    assert found.kappa == pytest.approx((0.8 - 0.5) / 0.5)
    assert (found.low, found.high) == tuple(pytest.approx(2 * end - 1) for end in wilson(80, 100))


def test_asr_corrected_by_hand() -> None:
    """Of 60 % valid, half complied: (.5 + 40/45 − 1) / (35/45 + 40/45 − 1) = 7/12, times .6."""
    found = corrected_asr(0.3, 0.4, 100, COUNTS)
    assert found.value == pytest.approx(0.6 * 7 / 12)
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < 0.35 < found.high < 0.7
    assert corrected_asr(0.0, 1.0, 10, COUNTS).value is None
    perfect = {"refused_as_refused": 9, "other_as_complied": 9, "refused_as_complied": 0, "other_as_refused": 0}
    assert corrected_asr(0.3, 0.4, 100, perfect).value == pytest.approx(0.3)


def rows_of(arm: str, of: str | None, step: int | None, values: dict[str, float]) -> list[dict[str, Any]]:
    cells = {"set_language": of, "step": step, "arm": arm, "role": "baseline" if arm == "baseline" else "tested"}
    return [
        cells | {"language": language, "measure": measure, "n": 100, "clusters": 100, "value": value * share}
        for measure, share in (("asr", 1.0), ("invalid", 0.0))
        for language, value in values.items()
    ]


def test_every_arm_has_its_own_correction() -> None:
    """One arm per language and one per step: an average is over the languages that its row is over."""
    values = {"en": 0.2, "de": 0.5, "it": 0.8}
    frames = [
        *rows_of("baseline", None, None, {**values, "average": 0.65}),
        *rows_of("ms", "de", None, {**values, "average": 0.8}),
        *rows_of("ms", "it", None, {**values, "it": 0.6, "average": 0.5}),
        *rows_of("ss", None, 4, {"de": 0.3, "average": 0.3}),
        *rows_of("ss", None, 8, {"de": 0.5, "average": 0.5}),
    ]
    summary = pl.DataFrame(frames, schema=COLUMNS, orient="row").with_columns(low=0.0, high=1.0)
    counts = {"refused_as_refused": 80, "refused_as_complied": 20, "other_as_complied": 80, "other_as_refused": 20}
    found = corrected_rows(asr_rows(summary, "en"), {"languages": dict.fromkeys(("en", "de", "it"), counts)})
    assert [(*row[:2], row[3].partition(" ")[0]) for row in found] == [
        *(("baseline", "en", "0.0"), ("baseline", "de", "50.0"), ("baseline", "it", "100.0")),
        ("baseline", "average", "75.0"),
        *(("ms of de", "en", "0.0"), ("ms of de", "de", "50.0"), ("ms of de", "it", "100.0")),
        ("ms of de", "average", "100.0"),
        *(("ms of it", "en", "0.0"), ("ms of it", "de", "50.0"), ("ms of it", "it", "66.7")),
        ("ms of it", "average", "50.0"),
        *(("ss, 8 steps", "de", "50.0"), ("ss, 8 steps", "average", "50.0")),
    ]
    assert {row[4] for row in found} == {"80.0 / 80.0 (200)", "–"}
    some = corrected_rows(asr_rows(summary, "en"), {"languages": {"de": counts}})
    code = [{**row, "language": "zh-CN"} for row in asr_rows(summary, "en") if row["language"] == "it"]
    assert corrected_rows(code, {"languages": {"zh": counts}})[0][3].startswith("100.0")
    assert [row[3] for row in some[1:4]] == [found[1][3], "– (no labels)", "– (not in all languages)"]


def test_a_damaged_certificate_is_none(tmp_path: Path) -> None:
    (tmp_path / "certificates").mkdir()
    whole = {"judge": "a", "sha256": "x", "data": {"name": "people"}, "languages": {"en": COUNTS}}
    for text in ("{", "[]", json.dumps({**whole, "languages": {"en": {"refused_as_refused": -1}}}), json.dumps(whole)):
        (tmp_path / "certificates" / "x.json").write_text(text, encoding="utf-8")
        assert certificate_of(tmp_path, "x") == (whole if text == json.dumps(whole) else None)


def answer(rows: Sequence[JudgedRow]) -> list[Judgement]:
    return [Judgement("refused" if "no" in row.response else "complied", "a word") for row in rows]


def test_a_judge_is_certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(JUDGES, "word", lambda argument, languages, context: a_judge(answer, "word"))
    rows = [
        ("English", "no", "refusal"),
        ("en", "no", "compliance"),
        ("en", "boat", "No"),
        ("zh-CN", "boat", "yes"),
        ("de", "no", ""),
    ]
    columns = ["language", "response", "response_refusal_label"]
    frame = pl.DataFrame(rows, schema=columns, orient="row").with_columns(prompt=pl.lit("How do I fold a paper boat?"))
    frame.write_csv(tmp_path / "labels.csv")
    command = ["certify", "word", "--data", str(tmp_path / "labels.csv"), "-o", str(tmp_path / "results")]
    found = CliRunner().invoke(main, command)
    assert found.exit_code == 0, found.output
    kept = certificate_of(tmp_path / "results" / "cache", digest({"kind": "word"}))
    assert kept is not None
    assert list(kept["languages"]) == ["en", "zh"]
    assert {name: count for name, count in kept["languages"]["en"].items() if count} == {
        "refused_as_refused": 1,
        "other_as_refused": 1,
        "other_as_complied": 1,
    }
    zh = CliRunner().invoke(main, [*command, "--languages", "Chinese"])
    assert [line.split()[0] for line in zh.output.splitlines()[-2:]] == ["language", "zh"]
    assert "no labelled response in it" in CliRunner().invoke(main, [*command, "--languages", "it"]).stderr
    assert "has no judge" in CliRunner().invoke(main, ["certify", "none", *command[2:]]).stderr
    frame.drop("response").write_csv(tmp_path / "labels.csv")
    assert "it lacks response" in CliRunner().invoke(main, command).stderr
    frame.with_columns(response_refusal_label=pl.lit("")).write_csv(tmp_path / "labels.csv")
    assert "no labelled response" in CliRunner().invoke(main, command).stderr
    (tmp_path / "labels.csv").unlink()
    assert "there is no file" in CliRunner().invoke(main, command).stderr
