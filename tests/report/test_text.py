"""Hostile text is literal wherever it is shown: the terminal, rich, markdown and the tables in it."""

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ssn_probe.text import MARKS, listing, markdown, percent, plain, points, probability, signed, visible

quick = settings(deadline=None, max_examples=200)
ESC, BEL = "\x1b", "\x07"
HOSTILE = "\x1b\x07\x9b\x00\r\n\t\u202e\u2066\u2069\u200b\u2028\u2029\ufeff[]()<>&|*_`~#$!\\/:;=+-.0123abcmK {}\"'"
texts = st.text(st.sampled_from(HOSTILE), max_size=25) | st.text(max_size=25)
RENDERER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("naïve 中文 हिन्दी العربية 😀", "naïve 中文 हिन्दी العربية 😀"),
        (f"{ESC}[31mred{ESC}[0m", "red"),
        (f"{ESC}[38;5;196mred{ESC}[K", "red"),
        (f"{ESC}]0;title{BEL}x", "x"),
        (f"{ESC}]8;;https://evil{ESC}\\link{ESC}]8;;{ESC}\\", "link"),
        (f"a{ESC}c{ESC}Mb", "acb"),
        ("one\ntwo\tthree", "one two three"),
        ("over\rwritten", "overwritten"),
        ("a\x00b\x07c\x08d\x7fe", "abcde"),
        ("\x9b31mred", "31mred"),
        ("\u202eesrever\u202c", "esrever"),
        ("\u2066isolated\u2069", "isolated"),
        ("zero\u200bwidth\ufeff", "zerowidth"),
        ("private\ue000use", "privateuse"),
        ("[bold]markup[/bold]", "[bold]markup[/bold]"),
        ("", ""),
    ],
)
def test_plain(text: str, shown: str) -> None:
    assert plain(text) == shown


@quick
@given(texts)
def test_plain_text_is_one_line_of_visible_characters(text: str) -> None:
    shown = plain(text)
    assert len(shown.splitlines()) <= 1
    assert not [one for one in shown if unicodedata.category(one) in ("Cc", "Cf", "Co", "Cs")]
    assert plain(shown) == shown


@quick
@given(st.text(st.characters(categories=("L", "N", "P", "S", "Zs"))))
def test_plain_leaves_ordinary_text_as_it_is(text: str) -> None:
    assert plain(text) == text


def squeezed(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def as_html(text: str) -> str:
    """What a renderer writes for text without any meaning."""
    return squeezed(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")


TRICKS = [
    "a | b",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](https://evil/p.png)",
    "[x](javascript:alert(1))",
    "&lt;b&gt;",
    "**bold** _it_ ~~no~~ `code` $x$",
    "<https://evil>",
    "# title",
    "> quote",
    "```",
    "a\\|b",
    "\\",
    "line\n\n# title\n\n| a |\n| - |\n",
]


def assert_literal(text: str) -> None:
    """Inside a sentence, at the start of a paragraph and in the cell of a table."""
    assert squeezed(RENDERER.render(f"It said {markdown(text)}.")) == f"<p>{as_html(f'It said {plain(text)}.')}</p>"
    expected = f"<p>{as_html(plain(text))}</p>" if squeezed(plain(text)) else ""
    assert squeezed(RENDERER.render(markdown(text))) == expected
    table = f"| head | b |\n| --- | --- |\n| {markdown(text)} | last |\n"
    cells = re.findall(r"<td>(.*?)</td>", RENDERER.render(table), re.S)
    assert [squeezed(cell) for cell in cells] == [as_html(plain(text)), "last"]


@quick
@given(texts)
def test_markdown_of_any_text_is_literal(text: str) -> None:
    assert_literal(text)


@pytest.mark.parametrize("text", TRICKS)
def test_markdown_of_known_tricks_is_literal(text: str) -> None:
    assert_literal(text)


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (markdown("$x$"), r"\$x\$"),
        (percent(0.257), "25.7 %"),
        (percent(0.257, 0), "26 %"),
        (percent(1), "100.0 %"),
        (percent(0.00123, 2), "0.12 %"),
        (points(0.257), "+25.7"),
        (points(-0.05), "-5.0"),
        (points(0.0), "+0.0"),
        (points(-0.0), "+0.0"),
        (points(0.1 + 0.2 - 0.3 - 1e-16), "+0.0"),
        (points(-1e-16), "+0.0"),
        (points(-0.0004), "-0.0"),
        (signed(-1e-17, 2), "+0.00"),
        (signed(-0.001, 2), "-0.00"),
        (signed(1.5, 4), "+1.5000"),
        (probability(0.0476), ".048"),
        (probability(0.0005), "< .001"),
        (probability(0.001), ".001"),
        (probability(1.0), "1.000"),
        (listing(["a"]), "a"),
        (listing(["a", "b"]), "a and b"),
        (listing(["a", "b", "c"]), "a, b and c"),
    ],
)
def test_figures(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            "naïve 中文 हिन्दी العربية 😀 👩\u200d👧 می\u200cخواهم ကျွှုံ့",
            "naïve 中文 हिन्दी العربية 😀 👩\u200d👧 می\u200cخواهم ကျွှုံ့",
        ),
        ("a\0b\x1b[31mc\x9b", r"a\x00b\x1b[31mc\x9b"),
        ("\u202eesrever\u202c\u2066", r"\u202eesrever\u202c\u2066"),
        ("zero\u200bwidth\u200d\u200dx\ufeff", r"zero\u200bwidth\u200d\u200dx\ufeff"),
        ("\ud800 \udcff \ue000 \U000e0041 \uffff", r"\ud800 \xff \ue000 \U000e0041 \uffff"),
        ("one\ntwo\tthree\u2028four", "one two three four"),
        ("z" + "\u0301" * 100 + "!", "z" + "\u0301" * MARKS + "… (94 more marks)!"),
    ],
)
def test_what_is_unseen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert visible("x" * 1_000_000) == "x" * 1000 + "… (999,000 more characters)"
    assert visible("a\nb", lines=True) == "a\nb"


@quick
@given(texts)
def test_visible_text_can_be_written_and_holds_no_control(text: str) -> None:
    kinds = {unicodedata.category(one) for one in visible(text).replace("\u200c", "").replace("\u200d", "")}
    visible(text).encode("utf-8")
    assert not kinds & {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
