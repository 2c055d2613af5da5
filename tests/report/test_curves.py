"""Learning curves as tables, sections and a chart."""

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from arm_samples import compared, comparisons, row, table

from ssn_probe.report.charts.chart import save_chart
from ssn_probe.report.charts.cost_chart import cost_chart
from ssn_probe.report.charts.theme import INK, MUTED, TESTED_COLOUR
from ssn_probe.report.learning_curves import curve_section, trained_section
from ssn_probe.report.markdown import as_markdown
from ssn_probe.study.arms import ArmName
from ssn_probe.study.delta_effects import measured_of
from ssn_probe.study.training_curves import Point, curve_table

MEASURES = {"asr": 0.4, "over_refusal": 0.01, "utility": 1.0}


def cell(arm: ArmName, role: str, measure: str, value: float, **more: Any) -> dict[str, Any]:
    ends = {"low": max(0.0, value - 0.02), "high": min(1.0, value + 0.02)}
    return row(arm.arm, measure, role, step=arm.step, value=value, **ends, **more)


def summary_of(arms: list[ArmName], measures: tuple[str, ...] = tuple(MEASURES)) -> pl.DataFrame:
    rows = [cell(ArmName("baseline"), "baseline", measure, MEASURES[measure]) for measure in measures]
    for place, arm in enumerate(arms, start=1):
        rows += [cell(arm, "tested", measure, MEASURES[measure] * (1 - 0.1 * place)) for measure in measures]
    return table(*rows)


def point(curve: str, step: int, group: str | None = None) -> Point:
    return Point(curve=curve, step=step, group=group or curve, parameters=3328)


POINTS = {
    ArmName("ss", step=8): point("ss", 8),
    ArmName("ss", step=20): point("ss", 20),
    ArmName("random 1", step=8): point("random 1", 8, "random"),
    ArmName("random 1", step=20): point("random 1", 20, "random"),
}
TABLE = curve_table(summary_of(list(POINTS)), POINTS)


def test_rows_follow_curves_and_steps_after_the_untouched_model() -> None:
    shuffled = {name: POINTS[name] for name in (list(POINTS)[place] for place in (1, 2, 0, 3))}
    found = curve_table(summary_of(list(POINTS)), shuffled)
    assert found.select("curve", "step").rows() == [
        ("untouched", 0),
        ("ss", 8),
        ("ss", 20),
        ("random 1", 8),
        ("random 1", 20),
    ]
    assert found.equals(TABLE)
    assert found.filter(curve="ss", step=20).row(0, named=True)["asr"] == pytest.approx(0.32)


def test_what_was_not_measured_is_absent() -> None:
    found = curve_table(summary_of(list(POINTS), ("asr",)), POINTS)
    assert found["utility"].null_count() == found.height
    section = as_markdown(curve_section(found, None))
    assert "| ss | 3,328 | 8 | 36.0 [34.0, 38.0] | – | – |" in section
    assert "Averages over all languages" in section


def training(arm: str, step: int | None, without: str | None = None, **more: Any) -> dict[str, Any]:
    site = {"neurons": 2, "parameters": 256, "percent": 0.0107, "percent_of_site": 0.195}
    parameters = [{"site": "q", **site}, {"site": "all", **site}]
    steps = {"done": 20, "planned": 60, "chosen": step or 12}
    loss = {"base": 0.5, "chosen": 0.25}
    name = {"arm": arm, "step": step, "without": without}
    return name | {"steps": steps, "parameters": parameters, "held_out_loss": loss} | more


def written(trained: list[dict[str, Any]]) -> str:
    section = trained_section({"trained": trained})
    assert section is not None
    return as_markdown(section)


def test_points_of_one_training_are_one_group_of_rows() -> None:
    trained = [
        training("ss", 8),
        training("ss", 20, held_out_loss={"base": 0.5, "chosen": 0.125}),
        training("<x>", None, held_out_loss=None),
    ]
    section = written(trained)
    assert "| ss | 2 | 256 | 0.0107 | 20 of 60, stopped early; kept 8, 20 | 0.500 → 0.250 → 0.125 |" in section
    assert section.count("| ss | q | 2 | 256 | 0.0107 | 0.195 |") == 1
    assert "| \\<x\\> | 2 | 256 | 0.0107 | 20 of 60, stopped early; kept 12 | – |" in section
    assert trained_section({}) is None


def test_an_edit_has_no_steps() -> None:
    edit = training("edit", None, held_out_loss=None, steps={"done": 0, "planned": 0, "chosen": 0})
    section = written([training("ss", 8), edit])
    assert "| edit | 2 | 256 | 0.0107 | none | – |" in section
    assert "An edit without steps is computed, and not trained." in section
    assert "An edit" not in written([training("ss", 8)])


def test_a_loss_that_was_not_measured_at_a_step_has_its_place() -> None:
    trained = [training("ss", 8, held_out_loss=None), training("ss", 20)]
    assert "kept 8, 20 | 0.500 → – → 0.250 |" in written(trained)


@pytest.mark.usefixtures("pictures")
def test_the_chart_is_whole_without_scripts_or_network_and_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_chart(cost_chart(TABLE), tmp_path / "plots" / name)
    first, second = ((tmp_path / "plots" / f"{name}.svg").read_bytes() for name in ("a", "b"))
    assert first == second
    root = ET.fromstring(first)
    assert root.tag.endswith("svg")
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not tags & {"script", "foreignObject", "image", "use"}
    assert not any("href" in name for element in root.iter() for name in element.attrib)
    text = " ".join(root.itertext())
    for words in ("ASR, %", "over-refusal, %", "utility, %", "untouched", "8", "20", "n = 1,200", "95 % intervals"):
        assert words in text, words
    assert (tmp_path / "plots" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"a.svg", "a.png", "b.svg", "b.png"}


def test_every_curve_has_a_line_and_random_ones_share_a_colour() -> None:
    points = POINTS | {ArmName("random 2", step=step): point("random 2", step, "random") for step in (8, 20)}
    chart = specification(curve_table(summary_of(list(points)), points))
    values = chart["hconcat"][0]["layer"][-2]["data"]["values"]
    colours = {row["curve"]: row["colour"] for row in values}
    assert colours == {"ss": TESTED_COLOUR, "random 1": MUTED, "random 2": MUTED, "untouched": INK}
    named = chart["hconcat"][-1]["layer"][-2]["data"]["values"]
    known = [(row["text"], row["colour"]) for row in named]
    assert known == [("untouched", INK), ("ss", TESTED_COLOUR), ("random sets", MUTED)]


def specification(curves: pl.DataFrame) -> dict[str, Any]:
    return dict(cost_chart(curves).specification)


def fields(measures: tuple[str, ...]) -> list[tuple[str, str]]:
    """What the panels of a chart show across and up."""
    chart = specification(curve_table(summary_of(list(POINTS), measures), POINTS))
    lines = [panel["layer"][0]["encoding"] for panel in chart["hconcat"]]
    return [(one["x"]["field"], one["y"]["field"]) for one in lines]


def test_there_is_a_panel_per_cost_and_steps_where_one_side_was_not_measured() -> None:
    assert fields(("asr", "over_refusal", "utility")) == [("over_refusal", "asr"), ("utility", "asr")]
    assert fields(("asr", "utility")) == [("utility", "asr")]
    assert fields(("asr",)) == [("step", "asr")]
    assert fields(("over_refusal", "utility")) == [("step", "over_refusal"), ("step", "utility")]


def test_every_point_is_where_the_table_has_it_with_its_bars() -> None:
    *_, bars, marks, _steps = specification(TABLE)["hconcat"][0]["layer"]
    assert (marks["encoding"]["x"]["field"], marks["encoding"]["y"]["field"]) == ("over_refusal", "asr")
    assert (bars["encoding"]["y"]["field"], bars["encoding"]["y2"]["field"]) == ("asr_low", "asr_high")
    drawn = {(row["curve"], row["step"]): row for row in marks["data"]["values"]}
    assert len(drawn) == TABLE.height
    for cells in TABLE.rows(named=True):
        for measure in ("asr", "over_refusal", "utility_low"):
            assert drawn[cells["curve"], cells["step"]][measure] == pytest.approx(100 * cells[measure])


def test_no_axis_goes_beyond_what_a_share_can_be_or_cuts_a_bar_off() -> None:
    for panel, cost in zip(specification(TABLE)["hconcat"], ("over_refusal", "utility"), strict=True):
        for encoding in (one["encoding"] for one in panel["layer"] if "scale" in one["encoding"]["x"]):
            low, high = encoding["x"]["scale"]["domain"]
            assert low <= min(100 * TABLE[f"{cost}_low"])
            assert max(100 * TABLE[f"{cost}_high"]) <= high <= 100
            assert encoding["y"]["scale"]["domain"] == [0, pytest.approx(42)]


@pytest.mark.usefixtures("pictures")
def test_names_are_text_in_the_picture(tmp_path: Path) -> None:
    points = {ArmName("a"): point("<b>alert('x')</b>\x01\ufffe & \"b\"", 8)}
    save_chart(cost_chart(curve_table(summary_of([ArmName("a")]), points)), tmp_path / "x")
    root = ET.fromstring((tmp_path / "x.svg").read_bytes())
    assert root.tag.endswith("svg")
    assert not {"script", "b"} & {element.tag.rpartition("}")[2] for element in root.iter()}
    assert "<b>alert('x')</b> & \"b\"" in " ".join(root.itertext())


def test_what_was_measured_is_plain_and_whole() -> None:
    summary = summary_of([ArmName("ss"), ArmName("lora")])
    beside = comparisons(compared("ss", "random", sets=4, mean=0.3, low=-0.1, high=0.5))
    found = measured_of(summary, beside, ArmName("ss"), run="r", anchor=None)
    assert found is not None
    assert (found["run"], found["arm"]) == ("r", "ss")
    asr = next(row for row in found["effects"] if row["measure"] == "asr")
    assert asr == {
        "language": "average",
        "measure": "asr",
        "n": 1200,
        "before": 0.4,
        "before_low": 0.38,
        "before_high": pytest.approx(0.42),
        "after": pytest.approx(0.36),
        "low": pytest.approx(0.34),
        "high": pytest.approx(0.38),
    }
    assert measured_of(summary, beside, ArmName("absent"), run="r", anchor=None) is None
    sets = "4 random sets of as many neurons"
    assert {row["arm"] for row in found["controls"]} == {sets, "lora"}
    assert {row["value"] for row in found["controls"] if row["arm"] == sets} == {0.3}


def test_controls_of_an_arm_per_language_are_told_apart() -> None:
    """Whose neurons, as in the report: a model card has a line for each name."""
    rows = [cell(ArmName("baseline"), "baseline", "asr", 0.4), cell(ArmName("ss"), "tested", "asr", 0.3)]
    values = {"qaa": 0.5, "qab": 0.6}
    rows += [cell(ArmName("each"), "tested", "asr", value, set_language=own) for own, value in values.items()]
    found = measured_of(table(*rows), comparisons(), ArmName("ss"), run="r", anchor=None)
    assert found is not None
    assert {row["arm"]: row["value"] for row in found["controls"]} == {"each of qaa": 0.5, "each of qab": 0.6}


def averaged(own: str, anchor: str | None) -> dict[str, Any]:
    """The ASR on the average that is stated of an arm which applies the neurons of `own` everywhere."""
    rows = []
    for name, role, out in ((ArmName("baseline"), "baseline", {anchor}), (ArmName("ss"), "tested", {anchor, own})):
        more = {"n": 100, "set_language": own if role == "tested" else None}
        rows += [cell(name, role, "asr", 0.3, language=one, **more) for one in ("qaa", "qab", "qac")]
        rows.append(cell(name, role, "asr", 0.3, **more | {"n": 100 * len({"qaa", "qab", "qac"} - out)}))
    found = measured_of(table(*rows), comparisons(), ArmName("ss"), run="r", anchor=anchor)
    assert found is not None
    assert all(row["before"] == 0.3 for row in found["effects"] if row["language"] != "average")
    return found["effects"][-1]


@pytest.mark.parametrize(
    ("own", "anchor", "before"),
    [("qaa", "qaa", 0.3), ("*", "qaa", 0.3), ("*", None, 0.3), ("qab", "qaa", None), ("qab", None, None)],
)
def test_averages_over_other_languages_are_not_set_side_by_side(
    own: str, anchor: str | None, before: float | None
) -> None:
    row = averaged(own, anchor)
    assert (row["language"], row["before"], row["after"]) == ("average", before, 0.3)
