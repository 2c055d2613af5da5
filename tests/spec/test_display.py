"""One renderable for terminal and notebook: the same words in both, no hostile text, colours for either background."""

import re
import subprocess
import sys
from collections import Counter
from html import unescape
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from rich.console import Console, Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from stored import HOSTILE, renamed, stored_run

from ssn_probe import Preview, Prompts, Recipe, Result, SafetyNeurons, Shared, recipe
from ssn_probe.api.result import NeuronSets
from ssn_probe.neurons import neuron_set
from ssn_probe.neurons.overlap import Overlap, overlap_table
from ssn_probe.spec import Refusal
from ssn_probe.spec.display import literal
from ssn_probe.spec.rendering import COLOURS, as_html, as_text, bundle
from ssn_probe.study.forecast import Forecast
from ssn_probe.study.steps import READING, Row

MS = SafetyNeurons(Prompts("organism"))


@recipe
def question(model: str = "<b>organism</b>", top: float | None = None):
    """Is <script>alert(1)</script> [red]this[/red] safe?"""
    return Recipe(model=model, sets={"ms": MS})


def hostile_result(folder: Path) -> Result:
    run = stored_run(folder, answer=[HOSTILE, "second"], warnings=[HOSTILE])
    return Result(renamed(renamed(run, "bb", HOSTILE), "ss", f"arm {HOSTILE}"))


def hostile_preview() -> Preview:
    shown = Recipe(sets={"ms": MS}, question=HOSTILE)
    rows = (Row(label=HOSTILE, prompts=3, cost=READING),)
    return Preview(Forecast(recipe=shown, rows=rows, lines=(HOSTILE,)))


def everything(folder: Path) -> dict[str, object]:
    """One of each kind of value that shows itself, made of hostile text where it has any."""
    source = Prompts(HOSTILE, harmless=HOSTILE)
    neurons = neuron_set([(HOSTILE, 0, "ffn", 3, 0.5), ("bb", 1, "q", 2, None)])
    return {
        "result": hostile_result(folder),
        "preview": hostile_preview(),
        "recipe": Recipe(model=HOSTILE, sets={"ms": SafetyNeurons(source)}, question=HOSTILE),
        "expression": Shared(SafetyNeurons(source), anchor=HOSTILE) - SafetyNeurons(source).of(HOSTILE),
        "declared": question,
        "neurons": neurons,
        "sets": NeuronSets({HOSTILE: neurons}),
        "overlap": Overlap(overlap_table(neurons, {(0, "ffn"): 9, (1, "q"): 9}, HOSTILE), HOSTILE),
    }


TAGS = set(["section", "div", "strong", "table", "caption", "thead", "tbody", "tr", "th", "td", "br", "pre", "span"])
"""All that an HTML of ours is made of: nothing that runs, loads or links."""
KINDS = ("result", "preview", "recipe", "expression", "declared", "neurons", "sets", "overlap")


def printed(value: object, width: int = 100) -> str:
    """What `rich.print(value)` writes to a terminal, with rich's own defaults: markup and emoji are read."""
    console = Console(file=StringIO(), width=width, force_terminal=True, color_system="truecolor")
    console.print(value)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def characters(text: str) -> Counter[str]:
    """How often each character stands there, without blanks and the lines that a terminal draws."""
    return Counter(re.sub(r"[\s╭╮╰╯│─├└]", "", text))


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_text_is_text_and_terminal_and_notebook_show_the_same(kind: str, tmp_path: Path) -> None:
    value = everything(tmp_path)[kind]
    found = value._repr_mimebundle_()  # type: ignore[attr-defined]
    assert set(found) == {"text/plain", "text/html"}
    tags = set(re.findall(r"</?(\w+)", found["text/html"]))
    assert tags <= TAGS
    assert ("table" in tags) == (kind in ("result", "preview", "neurons", "sets", "overlap"))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e]", found["text/plain"])
    shown = " ".join(found["text/plain"].split())
    assert "<script>" in shown or kind in ("neurons", "sets", "overlap")
    assert "alert(1)" in "".join(shown.split()), "what is hostile is shown, not dropped"
    assert "\x1b[31m" not in printed(value), "nobody else paints the terminal"
    text = unescape(re.sub(r"<[^>]*>", "", found["text/html"]))
    assert characters(text) == characters(found["text/plain"]), "the same words, laid out by the page"
    terminal = re.sub(r"\x1b\[[0-9;]*m", "", printed(value))
    path = value.path.name if isinstance(value, Result) else "\n"
    lines = [line.rstrip() for line in terminal.splitlines() if path not in line]
    assert lines == [line for line in found["text/plain"].splitlines() if path not in line]
    assert kind not in ("result", "preview", "sets") or str(value) == found["text/plain"]


def test_a_table_is_a_table_with_its_heads_and_its_caption() -> None:
    inner = Table("", "stage", title="Title [x]")
    inner.add_column("n", justify="right", style="dim")
    inner.add_row("✓", "a <b>\nbelow", "1,000")
    html = as_html(Group(Padding(inner, (1, 0, 0, 0)), Panel(Text("words", style="bold"), title="Answer")))
    root = ElementTree.fromstring(f"<main>{html}</main>".replace("<br>", "<br/>"))
    assert [one.text for one in root.iter("caption")] == ["Title [x]"]
    assert [(one.text, one.get("scope")) for one in root.findall(".//thead//th")] == [
        (None, "col"),
        ("stage", "col"),
        ("n", "col"),
    ]
    (row,) = root.findall(".//tbody/tr")
    assert [(one.tag, one.get("scope"), "".join(one.itertext())) for one in row] == [
        ("td", None, "✓"),
        ("th", "row", "a <b>below"),
        ("td", None, "1,000"),
    ]
    assert "text-align:right" in (row[2].get("style") or "")
    assert row[2].find("span") is not None, "the column's style"
    assert "".join(root.find("section").itertext()) == "Answerwords"  # type: ignore[union-attr]


def test_the_plain_repr_of_an_expression_makes_it_again() -> None:
    expression = Shared(MS, at_least=3)
    names = {"Shared": Shared, "SafetyNeurons": SafetyNeurons, "Prompts": Prompts, "Refusal": Refusal}
    assert eval(repr(expression), names) == expression


def test_an_overlap_is_a_table_of_language_by_language() -> None:
    rows = [(language, 0, "q", index, None) for language, indices in OWN.items() for index in indices]
    frame = overlap_table(neuron_set(rows), {(0, "q"): 9}, "ms")
    shown = Overlap(frame.with_columns(expected_permuted=pl.Series([0.25, 1.0, 0.0])), "ms")
    lines = [line.split() for line in shown._repr_mimebundle_()["text/plain"].splitlines()[-4:]]
    assert lines == [
        ["language", "aa", "bb", "cc"],
        ["aa", "3", "2", "(0.2)", "0", "(1.0)"],
        ["bb", "67", "2", "0", "(0.0)"],
        ["cc", "0", "0", "1"],
    ]
    assert "(" not in Overlap(frame, "ms")._repr_mimebundle_()["text/plain"], "no null, no bracket"


OWN = {"aa": (1, 2, 3), "bb": (1, 2), "cc": (9,)}


def luminance(colour: tuple[int, int, int]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """WCAG 2's ratio: 1 for equal colours, 21 for black on white."""
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("style", [*sorted(set(COLOURS) - {"grey"}), "dim"])
@pytest.mark.parametrize("page", [(255, 255, 255), (17, 17, 17)], ids=["light", "dark"])
def test_every_colour_is_legible_on_light_and_on_dark(style: str, page: tuple[int, int, int]) -> None:
    (found,) = re.findall(r'"color: #(\w{6})', as_html(Text("text", style=style)))
    colour = (int(found[:2], 16), int(found[2:4], 16), int(found[4:], 16))
    assert contrast(colour, page) >= 3.9


def test_text_without_a_style_has_the_pages_colour() -> None:
    html = as_html(Text("text"))
    assert "color" not in html
    assert "background" not in html
    assert as_text(Text("a  \nb ")) == "a\nb"


@pytest.mark.parametrize("name", ["NO_COLOR", "COLUMNS", "TERM", "FORCE_COLOR"])
def test_the_surroundings_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bundle(literal("wide " * 30, "yellow"))
    monkeypatch.setenv(name, {"COLUMNS": "33", "TERM": "dumb"}.get(name, "1"))
    assert bundle(literal("wide " * 30, "yellow")) == before
    assert "color: " in before["text/html"]


def test_a_path_is_not_broken(tmp_path: Path) -> None:
    deep = tmp_path / ("folder" * 20)
    found = Result(stored_run(deep))._repr_mimebundle_()
    assert f"{deep}/report.md" in found["text/plain"]
    assert f"{deep}/report.md" in found["text/html"]


def test_polars_escapes_what_a_frame_holds() -> None:
    """Frames are shown by polars: `result.samples` in a notebook."""
    assert "<script>" not in pl.DataFrame({"response": [HOSTILE]})._repr_html_()


def test_nothing_is_imported_before_something_is_shown() -> None:
    heavy = "{'rich', 'polars', 'torch', 'IPython'}"
    code = f"import sys, ssn_probe; ssn_probe.run, ssn_probe.Result; assert not {heavy} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)
