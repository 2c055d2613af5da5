"""What is in a report and what is not, from tables alone."""

import html
import re
from dataclasses import replace

import polars as pl
from arm_samples import EACH, EVERY, MS, RECIPE, findings, manifest, ran
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ssn_probe.report.charts.chart import Chart
from ssn_probe.report.document import Bullets, Folded, Picture, Section, Table, folded_if_large
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.markdown import as_markdown, report
from ssn_probe.report.measure_tables import TITLES
from ssn_probe.report.report_sections import sections_of
from ssn_probe.spec import Recipe, Shared
from ssn_probe.stats.nulls.exchangeability import Exchangeability
from ssn_probe.study.robustness import Robustness
from ssn_probe.text import plain

NEURONS = pl.DataFrame({"set": ["ms", "ss"], "language": ["bb", "bb"], "site": ["ffn", "ffn"]})


MANIFEST = manifest() | {
    "neurons": {"layers": 2, "per_layer": {"ffn": 50}},
    "answer": ["An answer."],
    "warnings": [],
    "key": "k" * 20,
    "model": {"name": "organism", "family": "llama", "dtype": "float32", "attention": "sdpa", "digest": "d"},
    **{"data": [], "packages": {}, "python": "3", "platform": "x", "device": "cpu", "seconds": {}},
}


def written(recipe: Recipe, summary: pl.DataFrame | None) -> str:
    found = findings(neurons=NEURONS, summary=summary)
    return report(FinishedRun(recipe=recipe, manifest=MANIFEST, findings=found))


def test_a_section_is_there_where_it_has_something_to_say() -> None:
    transfer, unmeasured = written(EACH, ran(EVERY)[1]), written(RECIPE, None)
    assert "## Whose neurons matter for whom: ms" in transfer
    assert "## Where the neurons are" in unmeasured
    assert "## Counts" not in transfer
    assert "Tests: " not in transfer + unmeasured


def test_a_recipe_without_a_question_has_no_line_for_it() -> None:
    summary = ran({"ss": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrccccc"}}, "ss")[1]
    assert written(RECIPE, summary).startswith("An answer.\n\n## Attack success rate")
    assert written(replace(RECIPE, question="Why?"), summary).startswith("An answer.\n\n*Why?*\n\n## ")


FIGURES = st.text(st.sampled_from("0123456789.,-+→ []()%p=<"), max_size=20)
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


@settings(deadline=None, max_examples=150)
@given(st.text(max_size=25) | st.text("<>|*_`[]()!#\\&$~-+=:/\"' a1.\n", max_size=25) | FIGURES)
@example("<script>alert(1)</script>")
@example("</summary></details><img src=x onerror=alert(1)>")
@example("[1](2)")
@example("![x](https://evil/p.png)")
def test_any_text_is_literal_wherever_it_stands(text: str) -> None:
    chart = Chart(name="x", title=text, description=f"a{text}", specification={})
    folded = Folded(f"f{text}", (Table((f"h{text}", text), ((text, text),), f"n{text}"), Bullets((f"b{text}",))))
    whole = Section(f"t{text}", (f"p{text}", Picture("asr"), folded))
    found = RENDERER.render(as_markdown(whole, {"asr": chart}))
    shown = html.escape(" ".join(plain(text).split()), quote=False).replace('"', "&quot;")
    tags = ["h2", "/h2", "p", "/p", "p", "img", "/p", "details", "summary", "/summary", "table", "thead", "tr"]
    tags += ["th", "/th", "th", "/th", "/tr", "/thead", "tbody", "tr", "td", "/td", "td", "/td", "/tr", "/tbody"]
    tags += ["/table", "p", "/p", "ul", "li", "/li", "/ul", "/details"]
    assert re.findall(r"<(/?\w+)", found) == tags
    assert re.findall(r'src="([^"]*)"', found) == ["plots/asr.svg"]
    cells = re.findall(r"<t[dh]>(.*?)</t[dh]>", found, re.DOTALL)
    assert [" ".join(cell.split()) for cell in cells[1:]] == [shown] * 3


def test_a_chart_stands_where_the_run_has_one() -> None:
    chart = Chart(name="x", title="", description="Two bars", specification={})
    assert as_markdown(Section("t", (Picture("asr"),)), {"asr": chart}) == "## t\n\n![Two bars](plots/asr.svg)\n"
    assert as_markdown(Section("t", (Picture("asr"), "p"))) == "## t\n\np\n"


def test_what_a_recipe_is_about_leads() -> None:
    exchanged = Robustness(exchangeability=(Exchangeability(sets=("ms",), prompts=10, impossible="none exchange"),))
    found = findings(neurons=NEURONS, robustness=exchanged)
    alone = Recipe(sets={"ms": MS, "ss": Shared(MS)})
    titles = [one.title for one in sections_of(FinishedRun(recipe=alone, manifest=MANIFEST, findings=found))]
    assert titles.index("Where the neurons are") < titles.index("What chance gives: sizes under exchanged labels")
    summary = ran({"ss": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrccccc"}}, "ss")[1]
    armed = FinishedRun(recipe=RECIPE, manifest=MANIFEST, findings=replace(found, summary=summary))
    titles = [one.title for one in sections_of(armed)]
    assert titles[0] == TITLES["asr"]
    assert titles.index("Where the neurons are") > titles.index("What chance gives: sizes under exchanged labels")
    assert titles[-1] == "How it was made"


def test_a_table_folds_where_it_cannot_be_read_at_once() -> None:
    def made(columns: int, rows: int) -> Table:
        return Table(tuple("abcdefghij"[:columns]), (tuple("0123456789"[:columns]),) * rows)

    for columns, rows in ((7, 12), (8, 3), (2, 1)):
        assert folded_if_large("t", made(columns, rows)) == made(columns, rows)
    for columns, rows in ((7, 13), (8, 4), (9, 1)):
        assert folded_if_large("t", made(columns, rows)) == Folded("t", (made(columns, rows),))
