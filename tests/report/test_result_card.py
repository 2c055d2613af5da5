"""A run's card: what comes after what, claims that are text, runs without claims."""

from dataclasses import asdict
from pathlib import Path

import polars as pl
import pytest
from stored import HOSTILE, stored_run

from ssn_probe.api.result import Result
from ssn_probe.files import write_table
from ssn_probe.report.claim import Claim
from ssn_probe.report.terminal.result_card import card
from ssn_probe.spec.rendering import as_text

CLAIMS = [
    Claim(
        claim="Silencing SS weakens refusal more than sets found under exchanged labels do",
        verdict="not shown",
        figures="+19.0 points (+13.0 to +25.0), p = .100",
        primary=True,
    ),
    Claim(claim="These neurons do more than others", verdict="not testable", why="3 sets are too few for a test"),
]


def test_a_card_has_the_table_then_the_claims_then_notes_answer_and_paths(tmp_path: Path) -> None:
    run = stored_run(tmp_path, claims=[asdict(one) for one in CLAIMS], warnings=["A note."])
    (run.path / "report.html").write_text("", encoding="utf-8")
    text = as_text(card(run), width=80)
    places = [
        text.index(one) for one in ("ASR, %", "claim  ", "not shown", "not testable", "Note: ", "Answer", ".html")
    ]
    assert places == sorted(places)
    assert text.endswith("report.html\n" + f"{tmp_path}/report.md")
    lines = text.splitlines()
    assert "+19.0 points (+13.0 to +25.0)" in lines[next(i for i, line in enumerate(lines) if "not shown" in line)]
    assert max(map(len, lines[:-2])) <= 80


@pytest.mark.parametrize(
    ("measure", "title", "cell"),
    [
        ("kl", "KL on harmless text, nats", "0.2500 [0.1250, 0.3750]"),
        ("refusal_log_odds", "refusal log-odds", "0.25 [0.12, 0.38]"),
        ("over_refusal", "over-refusal, %", "25.0 [12, 38]"),
    ],
)
def test_a_run_without_asr_shows_its_first_measure_in_its_own_unit(
    measure: str, title: str, cell: str, tmp_path: Path
) -> None:
    run = stored_run(tmp_path)
    figures = {"value": 0.25, "low": 0.125, "high": 0.375}
    summary = run.table("summary").filter(measure="asr")
    changed = [pl.lit(value).alias(name) for name, value in {**figures, "measure": measure}.items()]
    write_table(run.path / "summary.parquet", summary.with_columns(changed))
    head, *lines = as_text(card(run), width=200).splitlines()
    assert head.startswith(f"{title}  ")
    assert cell in lines[0]
    assert ("%" in head) == title.endswith("%")


def test_hostile_claims_are_text_and_a_long_reason_is_cut(tmp_path: Path) -> None:
    claims = [{"claim": HOSTILE, "verdict": "shown", "figures": HOSTILE}, {"claim": "b", "verdict": "not testable"}]
    claims[1]["why"] = "because " * 50
    text = as_text(card(stored_run(tmp_path, claims=claims)), width=80)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold" in text
    assert "because …" in text
    assert len(text.splitlines()) < 40


def test_a_run_of_an_earlier_release_has_no_claims_and_shows_what_it_has(tmp_path: Path) -> None:
    result = Result(stored_run(tmp_path))
    assert result.claims == []
    assert "verdict" not in str(result)
    later = Result(stored_run(tmp_path / "later", claims=[asdict(one) for one in CLAIMS]))
    assert later.claims == CLAIMS
    assert "Silencing SS weakens refusal" in str(later.claims)
    assert "verdict" in later.claims._repr_mimebundle_()["text/html"]
