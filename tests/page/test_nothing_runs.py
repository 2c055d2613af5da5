"""A page asks for nothing, and nothing of what a model, a recipe or a file wrote runs in it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from browsing import Visit

pytestmark = pytest.mark.page
Opened = Callable[..., AbstractContextManager[Visit]]
ACTIVE = "img, iframe, object, embed, link, base, form[action], audio, video, source, foreignObject, animate, set"
HANDLERS = """() => [...document.querySelectorAll("*")].flatMap(element => [...element.attributes])
  .filter(one => /^on/i.test(one.name) || /^\\s*(javascript|data|vbscript):/i.test(one.value)).map(one => one.name)"""
LINKS = """() => [...document.querySelectorAll("[href]")].map(one => one.getAttribute("href"))"""
INJECTED = """() => new Promise(done => {
  const refused = [];
  document.addEventListener("securitypolicyviolation", event => refused.push(event.effectiveDirective));
  const add = (name, more) => document.body.append(Object.assign(document.createElement(name), more));
  add("script", {textContent: "window.planted = 1"});
  add("style", {textContent: "h1 { color: rgb(1, 2, 3) !important }"});
  add("img", {src: "data:image/png;base64,iVBORw0KGgo="});
  add("iframe", {srcdoc: "<p>framed"});
  document.querySelector("h1").setAttribute("onclick", "window.planted = 1");
  document.querySelector("h1").click();
  fetch("https://example.org/").catch(() => setTimeout(() => done([...new Set(refused)].sort()), 100));
})"""


def test_a_page_asks_for_itself_alone(report: Path, visit: Opened) -> None:
    with visit(report) as seen:
        seen.page.mouse.move(200, 200)
        seen.page.wait_for_timeout(100)
        assert seen.requests == [report.as_uri()]
        assert seen.said == []
        assert seen.opened == []
        assert seen.page.url == report.as_uri()
        assert seen.page.evaluate("window.planted === undefined")
        assert len(seen.page.frames) == 1


def test_nothing_active_is_in_it(report: Path, visit: Opened) -> None:
    with visit(report) as seen:
        assert seen.page.locator(f"{ACTIVE}, [src], [srcset]").count() == 0
        assert seen.page.evaluate(HANDLERS) == []
        own = {f"#{one}" for one in seen.page.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")}
        beside = {path.relative_to(report.parent).as_posix() for path in report.parent.rglob("*")}
        assert {link for link in seen.page.evaluate(LINKS) if link not in own | beside} == set()
        assert seen.page.locator("head script, head style, body script").count() <= 2
        assert seen.page.locator("body style").count() == 0


def test_its_policy_is_enforced(page_of: Callable[[str], Path], visit: Opened) -> None:
    with visit(page_of("hostile")) as seen:
        refused = seen.page.evaluate(INJECTED)
        assert {"script-src-elem", "style-src-elem", "img-src", "script-src-attr", "connect-src"} <= set(refused)
        assert seen.page.evaluate("window.planted === undefined")
        assert seen.page.evaluate("getComputedStyle(document.querySelector('h1')).color") != "rgb(1, 2, 3)"
        assert seen.requests == [page_of("hostile").as_uri()]


def test_what_was_written_is_shown_as_text(page_of: Callable[[str], Path], visit: Opened) -> None:
    with visit(page_of("hostile")) as seen:
        shown = seen.page.locator("main").evaluate("main => main.textContent")
        for attack in ("<script>window.planted = 1</script>", "<svg onload", "{{7*7}}", "{% for x"):
            assert attack in shown
        assert not {"\0", "\x1b", "\u202e", "\u2066", "\u200b"} & set(shown)


def test_a_page_is_small(report: Path) -> None:
    assert report.stat().st_size < 3_000_000
