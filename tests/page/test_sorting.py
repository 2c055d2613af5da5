"""Tables sort by a click or a key: figures by size, whatever stands beside them, and what was not measured last."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from browsing import Visit

from ssn_probe.report.document import Table, section
from ssn_probe.report.page.content import Content
from ssn_probe.report.page.page import as_html

pytestmark = pytest.mark.page
Opened = Callable[..., AbstractContextManager[Visit]]
FIGURES = {
    "share": ("26.5 [20.9, 33.0]", "–", "100.0 [67.6, 100.0]", "3.0 [0.0, 9.9]"),
    "change": ("−1.5 [−2.0, −1.1]", "+12.0 [3.0, 14.0]", "-20.1 [-30.0, -1.0]", "–"),
    "count": ("1,200", "20", "–", "3"),
    "p": ("< .001", ".048", "1.000", "–"),
}
SIZES = {
    "share": (26.5, None, 100, 3),
    "change": (-1.5, 12, -20.1, None),
    "count": (1200, 20, None, 3),
    "p": (0.001, 0.048, 1, None),
}
CELLS = "column => [...document.querySelectorAll('tbody tr')].map(row => row.cells[column].textContent.trim())"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rows = tuple(zip(("bn", "af", "sw", "en"), *FIGURES.values(), strict=True))
    return written(tmp_path / "table.html", Table(("language", *FIGURES), rows))


def written(path: Path, table: Table) -> Path:
    known = {"question": "Sorted?", "facts": (), "status": "done", "key": "0" * 64, "version": "0.1.0"}
    path.write_text(as_html(Content(**known, sections=(section("Figures", table),))), encoding="utf-8")
    return path


@pytest.mark.parametrize("column", FIGURES)
def test_figures_sort_by_size_both_ways(table: Path, visit: Opened, column: str) -> None:
    place = 1 + list(FIGURES).index(column)
    size = dict(zip(FIGURES[column], SIZES[column], strict=True))
    upward = sorted((cell for cell in size if size[cell] is not None), key=lambda cell: size[cell] or 0)
    (dash,) = (cell for cell in size if size[cell] is None)
    with visit(table) as seen:
        head = seen.page.locator("thead th").nth(place)
        for order, cells in (("ascending", upward), ("descending", upward[::-1]), ("ascending", upward)):
            head.locator("button").click()
            assert head.get_attribute("aria-sort") == order
            assert seen.page.evaluate(CELLS, place) == [*cells, dash]
        assert seen.page.locator("[aria-sort]").count() == 1


def test_words_sort_by_keyboard(table: Path, visit: Opened) -> None:
    with visit(table) as seen:
        seen.page.locator("thead button").first.focus()
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate(CELLS, 0) == ["af", "bn", "en", "sw"]
        seen.page.keyboard.press("Space")
        assert seen.page.evaluate(CELLS, 0) == ["sw", "en", "bn", "af"]
        seen.page.keyboard.press("Tab")
        seen.page.keyboard.press("Enter")
        assert seen.page.evaluate(CELLS, 1)[0] == "3.0 [0.0, 9.9]"
        assert seen.page.locator("[aria-sort]").count() == 1


def test_the_average_stays_below_what_it_averages(tmp_path: Path, visit: Opened) -> None:
    rows = (("bn", "3.0"), ("sw", "1.0"), ("average without en", "2.0"))
    with visit(written(tmp_path / "average.html", Table(("language", "share"), rows))) as seen:
        for order in (["1.0", "3.0", "2.0"], ["3.0", "1.0", "2.0"]):
            seen.page.locator("thead button").last.click()
            assert seen.page.evaluate(CELLS, 1) == order


def test_every_table_of_a_large_study_sorts(page_of: Callable[[str], Path], visit: Opened) -> None:
    with visit(page_of("large")) as seen:
        seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        tables = seen.page.locator("table:has(thead button)")
        assert tables.count() >= 2
        for place in range(tables.count()):
            table = tables.nth(place)
            before = sorted(table.locator("tbody tr").all_inner_texts())
            table.locator("thead button").last.click()
            assert table.locator("thead [aria-sort='ascending']").count() == 1
            assert sorted(table.locator("tbody tr").all_inner_texts()) == before
            last = [cell.strip() for cell in table.locator("tbody tr:not(.total) > :last-child").all_inner_texts()]
            found = [float(one[0]) for one in map(re.compile(r"^[−-]?\d+(\.\d+)?(?= \[)").match, last) if one]
            assert found == sorted(found)
        assert seen.said == []
