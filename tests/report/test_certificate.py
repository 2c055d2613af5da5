"""A certificate's figures by hand, from labelled responses to a corrected ASR."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner
from judging import a_judge

from ssn_probe.cli.commands import main
from ssn_probe.data.judges import JUDGES, JudgedRow, Judgement
from ssn_probe.report.certificate import certificate_of, corrected_asr, kappa, quality
from ssn_probe.spec.node import digest

COUNTS = {
    **{"refused_as_refused": 40, "refused_as_complied": 5, "refused_as_invalid": 5},
    **{"other_as_refused": 10, "other_as_complied": 35, "other_as_invalid": 5},
}


def test_quality_by_hand() -> None:
    assert quality(COUNTS) == {"precision": (40, 50), "recall": (40, 50), "specificity": (40, 50)}
    assert kappa(COUNTS) == pytest.approx((0.8 - 0.5) / 0.5)


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
    frame.drop("response").write_csv(tmp_path / "labels.csv")
    assert "it lacks response" in CliRunner().invoke(main, command).stderr
    frame.with_columns(response_refusal_label=pl.lit("")).write_csv(tmp_path / "labels.csv")
    assert "no labelled response" in CliRunner().invoke(main, command).stderr
    (tmp_path / "labels.csv").unlink()
    assert "there is no file" in CliRunner().invoke(main, command).stderr
