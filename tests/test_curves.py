"""Learning curves as tables, sections and a chart."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ssn_probe.charts import cost_chart, save_chart
from ssn_probe.curves import Point, curve_section, curve_table, trained_section
from ssn_probe.errors import ResultError
from ssn_probe.measured import measured_of

MEASURES = {"asr": 0.4, "over_refusal": 0.01, "utility": 1.0}


def cell(arm: str, role: str, measure: str, value: float, **more: Any) -> dict[str, Any]:
    row = {"language": "average", "arm": arm, "role": role, "measure": measure, "n": 1200, "value": value}
    row |= {"low": max(0.0, value - 0.02), "high": min(1.0, value + 0.02)}
    return row | {"controls": None, "control_mean": None, "control_low": None, "control_high": None} | more


def summary_of(arms: list[str], measures: tuple[str, ...] = tuple(MEASURES)) -> pl.DataFrame:
    rows = [cell("baseline", "baseline", measure, MEASURES[measure]) for measure in measures]
    for place, arm in enumerate(arms, start=1):
        rows += [cell(arm, "tested", measure, MEASURES[measure] * (1 - 0.1 * place)) for measure in measures]
    return pl.DataFrame(rows, schema_overrides={"controls": pl.Int64, "control_mean": pl.Float64})


def point(curve: str, step: int, group: str | None = None) -> Point:
    return Point(curve=curve, step=step, group=group or curve, parameters=3328)


POINTS = {
    "ss.at(8)": point("ss", 8),
    "ss.at(20)": point("ss", 20),
    "random 1.at(8)": point("random 1", 8, "random"),
    "random 1.at(20)": point("random 1", 20, "random"),
}
TABLE = curve_table(summary_of(list(POINTS)), POINTS)


def test_rows_follow_curves_and_steps_after_the_untouched_model() -> None:
    shuffled = {name: POINTS[name] for name in ("ss.at(20)", "random 1.at(8)", "ss.at(8)", "random 1.at(20)")}
    table = curve_table(summary_of(list(POINTS)), shuffled)
    assert table.select("curve", "step").rows() == [
        ("untouched", 0),
        ("ss", 8),
        ("ss", 20),
        ("random 1", 8),
        ("random 1", 20),
    ]
    assert table.equals(TABLE)
    assert table.filter(curve="ss", step=20).row(0, named=True)["asr"] == pytest.approx(0.32)


def test_what_was_not_measured_is_absent() -> None:
    table = curve_table(summary_of(list(POINTS), ("asr",)), POINTS)
    assert table["utility"].null_count() == table.height
    section = curve_section(table, None)
    assert "| ss | 3,328 | 8 | 36.0 % [34.0, 38.0] | – | – |" in section
    assert "Averages over all languages" in section


def test_every_figure_of_the_section_is_in_the_table() -> None:
    section = curve_section(TABLE, "qaa")
    body = [line for line in section.splitlines() if line.startswith("| ss")]
    found = [[float(figure) for figure in re.findall(r"(\d+\.\d) %", line)] for line in body]
    wanted = TABLE.filter(curve="ss").select("asr", "over_refusal", "utility").rows()
    assert found == [[pytest.approx(100 * value, abs=0.05) for value in row] for row in wanted]
    assert "other than the anchor qaa" in section


def told(name: str, step: int | None, **more: Any) -> dict[str, Any]:
    site = {"neurons": 2, "parameters": 256, "percent": 0.0107, "percent_of_site": 0.195}
    parameters = [{"site": "q", **site}, {"site": "all", **site}]
    steps = {"done": 20, "planned": 60, "chosen": step or 12}
    loss = {"base": 0.5, "chosen": 0.25}
    return {"row": name, "step": step, "steps": steps, "parameters": parameters, "held_out_loss": loss} | more


def test_points_of_one_training_are_told_once() -> None:
    manifest = {
        "expanded": {
            "ss.at(8)": told("ss", 8),
            "ss.at(20)": told("ss", 20, held_out_loss={"base": 0.5, "chosen": 0.125}),
            "<x>": told("<x>", None, held_out_loss=None),
        }
    }
    section = trained_section(manifest)
    assert (
        "| ss | all | 2 | 256 | 0.0107 | 0.195 | 20 of 60, stopped early; kept 8, 20 | 0.500 → 0.250 → 0.125 |"
        in section
    )
    assert section.count("| ss | q |") == 1
    assert "| \\<x\\> | all | 2 | 256 | 0.0107 | 0.195 | 20 of 60, stopped early; kept 12 | – |" in section
    assert trained_section({}) == ""


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
    for words in ("ASR, %", "over-refusal, %", "utility, %", "after 8, 20 steps", "n = 1,200"):
        assert words in text, words
    assert (tmp_path / "plots" / "a.png").read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"a.svg", "a.png", "b.svg", "b.png"}


def test_every_curve_has_a_line_and_random_ones_share_a_colour() -> None:
    points = POINTS | {f"random 2.at({step})": point("random 2", step, "random") for step in (8, 20)}
    chart = cost_chart(curve_table(summary_of(list(points)), points)).to_dict()
    scale = chart["hconcat"][0]["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == ["ss", "random"]
    values = [row for rows in chart["datasets"].values() for row in rows]
    assert {row["colour"] for row in values if row["curve"].startswith("random")} == {"random"}
    assert len(chart["hconcat"]) == 2
    assert len(cost_chart(curve_table(summary_of(list(POINTS), ("asr", "utility")), POINTS)).to_dict()["hconcat"]) == 1


def test_names_are_text_in_the_picture(tmp_path: Path) -> None:
    points = {"a": point("<script>alert('x')</script> & \"b\"", 8)}
    save_chart(cost_chart(curve_table(summary_of(["a"]), points)), tmp_path / "x")
    root = ET.fromstring((tmp_path / "x.svg").read_bytes())
    assert "script" not in {element.tag.rpartition("}")[2] for element in root.iter()}
    assert "<script>alert('x')</script>" in " ".join(root.itertext())


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "plots").write_text("a file")
    with pytest.raises(ResultError, match="cannot write"):
        save_chart(cost_chart(TABLE), tmp_path / "plots" / "cost")


def test_what_was_measured_is_plain_and_whole() -> None:
    summary = summary_of(["ss", "lora"])
    drawn = pl.col("arm") == "ss"
    summary = summary.with_columns(
        controls=pl.when(drawn).then(4).cast(pl.Int64),
        control_mean=pl.when(drawn).then(0.3),
        control_low=pl.when(drawn).then(-0.1),
        control_high=pl.when(drawn).then(0.5),
    )
    found = measured_of(summary, "ss", run="r")
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
    assert {row["arm"] for row in found["controls"]} == {"4 random sets", "lora"}
    assert {row["value"] for row in found["controls"] if row["arm"] == "4 random sets"} == {0.3}
