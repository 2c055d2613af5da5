"""The page: what is foreign is text in it, what is redacted is not in it, and only its own style and script act."""

import ast
import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from arm_samples import RECIPE, samples, spelled
from pages import ATTACKS

from ssn_probe.report import report_sections
from ssn_probe.report.document import Bullets, Folded, Picture, Table, section
from ssn_probe.report.page.content import Content
from ssn_probe.report.page.page import as_html, numeric_columns
from ssn_probe.report.page.sample_responses import BEGINNING, sample_responses
from ssn_probe.report.rerun_command import Rerun

PLAIN = Content(question="What happens?", facts=("ss",), status="done", key="0" * 64, version="0.1.0")
BLOCKS = {"html", "head", "meta", "title", "style", "body", "a", "header", "p", "span", "h1", "main", "section", "div"}
BLOCKS |= {"h2", "details", "summary", "figure", "table", "caption", "thead", "tbody", "tr", "th", "td", "nav", "ul"}
BLOCKS |= {"br", "li", "pre", "code", "footer", "script", "bdi", "strong"}
POLICY = r"default-src 'none'; style-src '(.+?)'; script-src '(.+?)'; img-src 'none'; base-uri 'none'; "


class Read(HTMLParser):
    """What a browser finds: tags, attributes, and what is in a style or script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.own: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] in (["style"], ["script"]) and data.strip():
            self.own.append(data)


def full(text: str) -> Content:
    """A page with a text in every place that there is."""
    table = Table((text, text), ((text, text), (text, "1")), text)
    parts = (text, Bullets((text,)), table, Picture(text), Folded(text, (text, table)))
    claim = {"claim": text, "verdict": "not shown", "figures": text, "why": text, "primary": True}
    said = answers(text, baseline={"aa": "rc"}, ss={"aa": "cc"})
    return replace(
        PLAIN,
        **{"question": text, "facts": (text,), "key": text, "version": text, "beside_status": text, "status": "failed"},
        answer=(text,) * 5,
        claims=(claim,),
        sections=(section(text, *parts),),
        samples=sample_responses(RECIPE, said, text, {("p0", "aa"): text}),
        rerun=Rerun(where=text, command=text),
        unredacted=True,
    )


def answers(says: str | None = None, **arms: dict[str, str]) -> pl.DataFrame:
    """Responses by arm and language, as letters; `baseline` is one of the arms."""
    frames = [
        samples(arm, "baseline" if arm == "baseline" else "tested", {code: spelled(row) for code, row in rows.items()})
        for arm, rows in arms.items()
    ]
    said = pl.concat_str(pl.lit("the answer of "), "arm", pl.lit(" to "), "prompt_id", pl.lit(" and more" * 20))
    return pl.concat(frames).with_columns(response=said if says is None else pl.lit(says))


@pytest.mark.parametrize("text", ATTACKS, ids=range(len(ATTACKS)))
def test_foreign_text_is_text_wherever_it_stands(text: str) -> None:
    page = as_html(full(text))
    page.encode("utf-8")
    found = Read(page)
    assert set(found.tags) <= BLOCKS
    assert not [name for name, _ in found.attributes if name.startswith("on") or name in ("style", "src", "srcset")]
    ids = {value for name, value in found.attributes if name == "id"}
    assert {value for name, value in found.attributes if name == "href"} <= {f"#{one}" for one in ids}
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u200b\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]", page)
    assert len(page) < 250_000


def test_the_policy_allows_the_own_style_and_script_alone() -> None:
    found = Read(as_html(PLAIN))
    policy = next(value for name, value in found.attributes if name == "content" and "default-src" in value)
    digests = [f"sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}" for one in found.own]
    assert re.match(POLICY, policy).groups() == tuple(digests)  # type: ignore[union-attr]


def test_a_page_is_the_same_every_time_and_whatever_the_order_of_rows() -> None:
    rows = answers(baseline={"aa": "rrcirc" * 3}, ss={"aa": "ccrurc" * 3})
    pages = [
        as_html(replace(PLAIN, samples=sample_responses(RECIPE, each, "")))
        for each in (rows, rows, rows.sample(fraction=1, shuffle=True, seed=3))
    ]
    assert pages[0] == pages[1] == pages[2]


def test_the_same_prompts_under_every_arm_with_every_verdict_of_each() -> None:
    found = sample_responses(RECIPE, answers(baseline={"aa": "rrrrrrrrrc"}, ss={"aa": "rrrrrriurr"}), "")
    assert found is not None
    (asked,) = found.languages.values()
    assert [one.prompt for one in asked] == ["p0", "p1", "p6", "p7", "p9"]
    assert all([response.arm for response in one.responses] == ["baseline", "ss"] for one in asked)


def test_only_the_beginning_of_a_response_and_no_request_is_written_unless_asked() -> None:
    rows = answers(baseline={"aa": "rc"}, ss={"aa": "cr"})
    texts = {("p0", "aa"): "a harmful request"}
    redacted = as_html(replace(PLAIN, samples=sample_responses(RECIPE, rows, "")))
    whole = as_html(replace(PLAIN, samples=sample_responses(RECIPE, rows, "", texts), unredacted=True))
    assert "the answer of ss to p0 and more" in redacted
    assert max(map(len, re.findall("the answer of [^<]*", redacted))) == BEGINNING + 1
    assert "a harmful request" not in redacted
    assert "Not for others" not in redacted
    assert "<summary>The request</summary>" in whole
    assert "a harmful request" in whole
    assert "Not for others" in whole
    assert whole.count(" and more" * 20) == 4


def test_a_dissociation_stands_beside_its_answer_and_not_the_asr_that_it_says_not_to_read() -> None:
    assert replace(PLAIN, drawn={"asr": "<svg/>", "dissociation": "<svg/>"}).lead == "dissociation"
    assert replace(PLAIN, drawn={"neurons": "<svg/>", "asr": "<svg/>"}).lead == "asr"


def test_figures_are_told_from_words() -> None:
    rows = (("qaa", "0.0 [0.0, 19.4]", "−0.3", "a"), ("qab", "–", "< .001", "1"))
    assert list(numeric_columns(Table(("", "", "", ""), rows))) == [False, True, True, False]


def test_right_to_left_words_are_isolated_in_a_sentence() -> None:
    page = as_html(replace(PLAIN, answer=("ASR of אבג דה (3 %) and x",)))
    assert "ASR of <bdi>אבג דה</bdi> (3 %) and x" in page


def titles() -> set[str]:
    """How the title of every section of a report begins: what is given to `section`, up to what a run fills in."""
    found = set()
    for path in Path(report_sections.__file__).parent.rglob("*.py"):
        if path.stem in NOT_OF_A_RUN:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "section":
                first = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
                found |= {first.value} if isinstance(first, ast.Constant) else set()
    return found


NOT_OF_A_RUN = ("compared_runs", "content", "dataset_card", "live_run", "markdown", "organism_study")
"""Of two runs, of a run that has not ended, of a card; `markdown` gives the question and the answer."""


def test_the_guide_to_the_page_names_every_section() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "page.md").read_text(encoding="utf-8")
    named = [row.split("|")[1].strip() for row in guide.splitlines() if row.startswith("| ")]
    described = {"What the change is compared with"}  # has a heading of its own
    known = {title.partition(":")[0].strip() for title in titles()}
    assert len(known) > 15
    assert sorted(known - described - {name.partition(":")[0] for name in named}) == []
