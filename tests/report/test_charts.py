"""Charts show what the tables say, in the same colours everywhere, as SVG that a page can hold and as files."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from arm_samples import RECIPE, compared, comparisons, findings, primary_test, ran
from pages import smallest, without_report

from ssn_probe.api.result import Result
from ssn_probe.errors import ResultError
from ssn_probe.model.kept import NOTHING_KEPT
from ssn_probe.report.charts.catalogue import chart_of, charts_of
from ssn_probe.report.charts.chart import PICTURES, Chart, kept_pictures, save_charts
from ssn_probe.report.charts.svg import clean_svg
from ssn_probe.report.charts.theme import BESIDE, CLASSES, COLOURS, INK, TESTED_COLOUR, drawable, language_marks
from ssn_probe.report.finished import FinishedRun
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.study.findings import Findings
from ssn_probe.study.robustness import Robustness
from ssn_probe.study.summary import AVERAGE

ARMS = {"ss": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrrcccc"}}


def study(**changes: Any) -> Findings:
    samples, summary = ran(ARMS, "ss")
    beside = comparisons(
        primary_test("ss", 0.05), compared("ss", "random"), compared("ss", language="bb", observed=1.0, high=1.4)
    )
    return replace(findings(samples=samples, summary=summary, comparisons=beside), **changes)


def run_of(found: Findings) -> FinishedRun:
    neurons = pl.DataFrame(schema={"set": pl.String})
    return FinishedRun(recipe=RECIPE, manifest={}, findings=replace(found, neurons=neurons))


def drawn(name: str, found: Findings) -> Chart:
    return chart_of(run_of(found), name)


def marks(chart: Chart, kind: str) -> list[dict[str, Any]]:
    """The rows of all marks of a kind."""
    return [row for one in layers(chart.specification) if one["mark"]["type"] == kind for row in one["data"]["values"]]


def layers(specification: Any) -> Iterator[dict[str, Any]]:
    """All layers of a chart, of its panels and of layers within layers."""
    for name in ("layer", "hconcat", "vconcat", "concat"):
        for one in specification.get(name, ()):
            yield from layers(one)
    if "mark" in specification:
        yield dict(specification)


# ── what is drawn ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_asr_is_drawn_as_the_summary_has_it() -> None:
    found = study()
    assert found.summary is not None
    dots = [row for row in marks(drawn("asr", found), "point") if "asr" in row]
    for colour, role in ((INK, "baseline"), (TESTED_COLOUR, "tested")):
        rows = found.summary.filter(measure="asr", role=role)
        of_role = sorted(row["asr"] for row in dots if row["colour"] == colour)
        assert of_role == pytest.approx(sorted(100 * value for value in rows["value"]))
        ends = {(row["low"], row["high"]) for row in dots if row["colour"] == colour}
        assert ends == {(100 * low, 100 * high) for low, high in rows.select("low", "high").iter_rows()}


def test_bands_are_those_of_the_comparison_table_as_far_as_a_share_goes() -> None:
    bands = [row for row in marks(drawn("asr", study()), "rule") if row.get("band")]
    found = [(row["colour"], row["low"], row["high"]) for row in bands]
    assert found == [
        (BESIDE["labels"], pytest.approx(35), pytest.approx(47)),
        (BESIDE["random"], pytest.approx(35), pytest.approx(47)),
        (BESIDE["labels"], pytest.approx(35), 100),
    ]


def test_the_title_says_the_finding_and_the_subtitle_n() -> None:
    chart = drawn("asr", study())
    assert chart.title.startswith("ss broke refusal more than sets found under exchanged labels: ASR ")
    assert "n = 8 responses per language" in " ".join(chart.specification["title"]["subtitle"])
    missed = study(comparisons=comparisons(primary_test("ss", 0.4)))
    assert "was not shown to do so more than" in drawn("asr", missed).title
    assert "not shown beyond exchanged labels (p = .400)" in drawn("comparisons", missed).title


def test_without_a_valid_null_the_title_claims_no_test() -> None:
    found = Exchangeability(sets=("ss",), prompts=10, impossible="no prompts are exchangeable")
    assert drawn("comparisons", study(robustness=Robustness(exchangeability=(found,)))).title.endswith("no test")


def test_without_a_primary_arm_every_arm_has_a_colour() -> None:
    samples, summary = ran(ARMS | {"ms": ARMS["ss"]}, "")
    recipe = replace(RECIPE, primary=None, arms={"ss": RECIPE.arms["ss"], "ms": RECIPE.arms["ss"]})
    run = FinishedRun(recipe=recipe, manifest={}, findings=findings(samples=samples, summary=summary))
    dots = [row for row in marks(chart_of(run, "asr"), "point") if "asr" in row]
    assert len({row["colour"] for row in dots}) == 3
    assert not any(row["band"] for row in dots)


def test_a_run_has_the_charts_that_it_has_data_for() -> None:
    assert list(charts_of(run_of(study()))) == ["asr", "comparisons"]
    assert charts_of(run_of(findings())) == {}
    with pytest.raises(ResultError, match="no chart 'ars'") as raised:
        drawn("ars", study())
    assert "asr" in str(raised.value.hint)
    with pytest.raises(ResultError, match="nothing to draw"):
        drawn("curves", study())


def test_a_result_lists_and_gives_its_charts(tmp_path: Path) -> None:
    result = Result(without_report(tmp_path, smallest()))
    listed = result.plot()
    assert list(listed) == ["asr", "neurons"]
    assert "ASR on the average" in str(listed)
    assert result.plot("asr").title == listed["asr"].title
    with pytest.raises(ResultError, match="no chart 'neuron'"):
        result.plot("neuron")


# ── how it looks ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_colours_are_one_per_role_and_language() -> None:
    assert len({INK, TESTED_COLOUR, *BESIDE.values()}) == len(BESIDE) + 2
    assert set(CLASSES) >= {INK, *BESIDE.values()}
    three = language_marks(["cc", "aa", "bb"])
    assert [three[name][0] for name in ("aa", "bb", "cc")] == list(COLOURS[:3])
    assert len(set(map(str, language_marks(map(str, range(40))).values()))) == 40


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<b>&\"'", "<b>&\"'"),
        ("a\x00b\ufffec\u202ed", "abcd"),
        ("e" + "\u0301" * 50 + "x", "e\u0301\u0301x"),
        ("x" * 1_000_000, "x" * 39 + "…"),
        ("العربية", "العربية\u200e"),
    ],
)
def test_names_can_be_drawn(name: str, shown: str) -> None:
    assert drawable(name) == shown


# ── the picture ──────────────────────────────────────────────────────────────────────────────────────────────────────


def charts_drawn() -> dict[str, Chart]:
    return charts_of(run_of(study()))


@pytest.mark.usefixtures("pictures")
def test_a_picture_can_stand_in_a_page(tmp_path: Path) -> None:
    save_charts(charts_drawn(), tmp_path)
    ids: list[str] = []
    for name, chart in charts_drawn().items():
        text = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
        root = ET.fromstring(text)
        assert text == chart.svg
        assert len(text) < 150_000
        assert {key for element in root.iter() for key in element.attrib}.isdisjoint({"style", "href", "onload"})
        assert "viewBox" in root.attrib
        assert not {"width", "height"} & set(root.attrib)
        own = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
        assert root.attrib["aria-labelledby"].split() == own[:2]
        assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(own)
        ids += own
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert len(ids) == len(set(ids))


@pytest.mark.usefixtures("pictures")
def test_marks_have_tooltips_and_colours_have_classes() -> None:
    root = ET.fromstring(charts_drawn()["asr"].svg)
    space = "{http://www.w3.org/2000/svg}"
    said = [one.text for one in root.iter(f"{space}title")][1:]
    assert "average, ss: ASR 75.0 % (49.2 to 90.3), n = 16" in said
    for element in root.iter():
        if element.get("fill") == INK:
            assert element.get("class") == "ink-fill"
    assert {"paper-fill", "ink-fill", "c0-fill", "grid-stroke"} <= {
        name for element in root.iter() for name in element.get("class", "").split()
    }


def test_altair_takes_every_specification() -> None:
    for chart in charts_drawn().values():
        assert chart.altair.to_dict()["title"]["text"] == chart.specification["title"]["text"]


@pytest.mark.usefixtures("pictures")
def test_a_notebook_shows_a_chart() -> None:
    shown = charts_drawn()["asr"]._repr_mimebundle_()
    assert shown["image/svg+xml"].startswith("<svg ")
    assert shown["image/svg+xml"] in shown["text/html"], "an exported notebook holds it inline, with its description"
    assert shown["image/png"].startswith("iVBOR")
    assert AVERAGE in shown["text/plain"]


def test_a_figure_stays_beside_a_right_to_left_name() -> None:
    drawn = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 99 9"><text>الآمن 75.0 % and אב (1)</text></svg>'
    root = ET.fromstring(clean_svg(drawn, "x", "title", "what it shows"))
    assert root[-1].text == "\u2068الآمن\u2069 75.0 % and \u2068אב\u2069 (1)"


@pytest.mark.usefixtures("pictures")
def test_a_picture_that_is_kept_is_drawn_once_and_again_where_it_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = replace(next(iter(charts_drawn().values())), kept=kept_pictures(tmp_path))
    plain = replace(drawn, kept=NOTHING_KEPT)
    assert (drawn.svg, drawn.png) == (plain.svg, plain.png)
    asked = []
    monkeypatch.setattr("ssn_probe.report.charts.chart.drawn", asked.append)
    again = replace(drawn, kept=kept_pictures(tmp_path, writes=False))
    assert (again.svg, again.png) == (plain.svg, plain.png)
    assert not asked
    monkeypatch.undo()
    for path in (tmp_path / PICTURES).iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    assert replace(drawn, kept=kept_pictures(tmp_path)).svg == plain.svg
    assert kept_pictures(tmp_path / "nowhere") is NOTHING_KEPT
