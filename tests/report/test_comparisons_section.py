"""What compared sets gave: the table of all comparisons, the one per language, and the picture of them."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from arm_samples import RECIPE, compared, comparisons, findings, primary_test, ran, row, samples, spelled, table

from ssn_probe.report.charts.chart import save_chart
from ssn_probe.report.charts.comparison_chart import compared as drawn_of
from ssn_probe.report.charts.comparison_chart import comparison_chart
from ssn_probe.report.document import Folded, Section, Table
from ssn_probe.report.sections.comparison_sections import comparisons_section
from ssn_probe.spec import Recipe
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.study.arms import WEAKENED
from ssn_probe.study.findings import Findings
from ssn_probe.study.robustness import Robustness

ROWS = [
    primary_test("ss", 0.05, empty=2),
    compared("ss", "random", mean=0.3, language="bb", observed=0.7),
    compared("ss", measure="refusal_log_odds", observed=-1.5, mean=-1.0, difference=-0.5, p=0.01, p_holm=0.03),
    compared("ss", "random", mean=0.44),
]


def section_of(study: Findings, recipe: Recipe = RECIPE) -> Section:
    section = comparisons_section(recipe, study)
    assert section is not None
    return section


def folded_in(section: Section) -> dict[str, Table]:
    """The table below each title."""
    folded = (part for part in section.parts if isinstance(part, Folded))
    return {one.title: table for one in folded for table in one.parts if isinstance(table, Table)}


def test_every_comparison_has_a_line_and_its_own_p() -> None:
    section = section_of(findings(comparisons=comparisons(*ROWS)))
    (table,) = (part for part in section.parts if isinstance(part, Table))
    first, random = table.rows
    assert table.head[2] == "ASR, %, in place of 60.0 by ss"
    assert first[0] == "primary test: 19 sets found under exchanged labels, 2 of them empty"
    assert first[1:] == ("6.0, 5.5", "41.0 [35.0, 47.0]", "+19.0 [+13.0, +25.0]", "46.0", ".050")
    assert (random[0], random[-1]) == ("19 random sets of as many neurons", "–")
    folded = folded_in(section)
    (odds,) = folded["Other measures and arms compared"].rows
    assert (odds[1], odds[2], odds[-1]) == ("refusal log-odds", "-1.50", ".030")
    languages = folded["ASR in % per language: descriptions, without a test"]
    assert (languages.head, languages.rows) == (
        ("language", "ss", "random sets"),
        (("bb", "70.0", "30.0 [35.0, 47.0]"),),
    )
    assert len(odds) == len(folded["Other measures and arms compared"].head)


def test_sets_that_all_gave_what_the_set_gave_leave_no_negative_zero() -> None:
    """Averages of equal figures differ in their last bits, on either side."""
    same = {"observed": 0.0, "mean": -1e-17, "low": -2e-17, "high": 1e-17}
    ends = {"difference": 1e-17, "difference_low": -1e-17, "difference_high": 2e-17}
    rows = [
        compared("ss", comparison, measure, **same, **ends)
        for measure in ("asr", "refusal_log_odds", "utility", "kl")
        for comparison in ("labels", "random")
    ]
    section = section_of(findings(comparisons=comparisons(*rows)))
    assert "-0" not in str(section)
    assert "[-" not in str(section)


def test_the_arms_own_figure_stands_in_the_head_where_another_set_is_ranked() -> None:
    """The set of the prompts whose labels exchange gave 52 %, the arm 60 % on the average and 65 % in bb."""
    own = table(row("ss", value=0.6), row("ss", value=0.65, language="bb"))
    rows = [
        primary_test("ss", observed=0.52, neurons=7.5, difference=0.11),
        compared("ss", "random"),
        primary_test("ss", observed=0.5, language="bb"),
    ]
    section = section_of(findings(comparisons=comparisons(*rows), summary=own))
    (main,) = (part for part in section.parts if isinstance(part, Table))
    assert main.head[2] == "ASR, %, in place of 60.0 by ss"
    ranked, random = main.rows
    assert ranked[0].endswith("ranked among them: the set of the prompts whose labels exchange, 52.0")
    assert "ranked" not in random[0]
    languages = folded_in(section)["ASR in % per language: descriptions, without a test"]
    assert languages.rows[0][:2] == ("bb", "65.0")


def test_a_band_ends_where_no_figure_can_be() -> None:
    """As in the tables of the measures themselves."""
    rows = [
        primary_test("ss", mean=0.02, low=-0.1, high=0.14),
        compared("ss", "random", language="bb", mean=0.98, low=0.9, high=1.06),
        compared("ss", measure="kl", mean=0.1, low=-0.2, high=1.4),
    ]
    section = section_of(findings(comparisons=comparisons(*rows)))
    (main,) = (part for part in section.parts if isinstance(part, Table))
    assert main.rows[0][2] == "2.0 [0.0, 14.0]"
    folded = folded_in(section)
    assert folded["ASR in % per language: descriptions, without a test"].rows[0][2] == "98.0 [90.0, 100.0]"
    assert folded["Other measures and arms compared"].rows[0][5] == "0.1000 [0.0000, 1.4000]"


def test_without_a_valid_null_there_is_no_p_and_no_primary_test() -> None:
    found = Exchangeability(sets=("ss",), prompts=10, impossible="no prompts are exchangeable")
    section = section_of(findings(comparisons=comparisons(*ROWS), robustness=Robustness(exchangeability=(found,))))
    (table,) = (part for part in section.parts if isinstance(part, Table))
    assert table.rows[0][0].startswith("19 sets")
    assert table.rows[0][-2:] == ("–", "no valid null")
    assert "ss: no valid null exists: no prompts are exchangeable." in section.parts


def test_nothing_compared_is_no_section() -> None:
    assert comparisons_section(RECIPE, findings()) is None
    assert comparisons_section(RECIPE, findings(comparisons=comparisons())) is None
    alone = section_of(findings(comparisons=comparisons(*ROWS)), replace(RECIPE, primary=None))
    assert list(folded_in(alone)) == ["Other measures and arms compared"]
    assert len(folded_in(alone)["Other measures and arms compared"].rows) == 3


def study_with_sets() -> Findings:
    """Two sets of exchanged labels and the set of the observed ones, which is no dot, on the languages bb and cc."""
    frame, summary = ran({"ss": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrrcccc"}}, "ss")
    verdicts = {0: ("c" * 8, "c" * 8), 1: ("r" * 8, "rrrrcccc"), 2: ("rrrrcccc", "c" * 8)}
    sets = [
        samples("ss", "labels", {"bb": spelled(bb), "cc": spelled(cc)}, seed=seed)
        for seed, (bb, cc) in verdicts.items()
    ]
    weaker = table(row("ss", role=WEAKENED, value=0.5))
    beside = comparisons(primary_test("ss", None, sets=2, low=0.1, high=0.9), compared("ss", "random", low=None))
    return findings(samples=pl.concat([frame, *sets]), summary=pl.concat([summary, weaker]), comparisons=beside)


def values_of(layer: dict[str, Any]) -> list[dict[str, Any]]:
    return layer["data"]["values"]


def test_the_picture_has_a_dot_per_set_a_band_and_two_lines() -> None:
    drawn = drawn_of(RECIPE, study_with_sets())
    assert drawn is not None
    chart = comparison_chart(drawn).specification
    bands, untouched, tested, dots, _ = chart["layer"]
    labels = "2 sets found under exchanged labels"
    shown = [(one["row"], one["asr"]) for one in values_of(dots)]
    assert shown == [(labels, 25.0), (labels, 75.0), ("The set without its top neuron", 50.0)]
    assert [(one["row"], one["asr"], one["high"]) for one in values_of(bands)] == [(labels, 10.0, 90.0)]
    lines = [values_of(one["layer"][0])[0]["label"] for one in (untouched, tested)]
    assert lines == ["untouched 37.5 %", "ss 75.0 %"]
    assert "n = 16 responses a set" in " ".join(chart["title"]["subtitle"])
    only = comparison_chart(replace(drawn, only=("random",))).specification
    assert not values_of(only["layer"][3])


@pytest.mark.usefixtures("pictures")
def test_names_are_text_in_the_picture(tmp_path: Path) -> None:
    drawn = drawn_of(RECIPE, study_with_sets())
    assert drawn is not None
    save_chart(comparison_chart(drawn), tmp_path / "comparisons")
    text = " ".join(ET.fromstring((tmp_path / "comparisons.svg").read_bytes()).itertext())
    assert "ss 75.0 %" in text
    assert "2 sets found under exchanged labels" in text
    assert (tmp_path / "comparisons.png").stat().st_size > 1000


@pytest.mark.parametrize("missing", ["samples", "summary", "comparisons"])
def test_without_its_tables_there_is_no_picture(missing: str) -> None:
    assert drawn_of(RECIPE, replace(study_with_sets(), **{missing: None})) is None
    assert drawn_of(replace(RECIPE, primary=None), study_with_sets()) is None
