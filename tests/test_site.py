"""The documentation names pages and files that are there; what guards the built site can fail."""

import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType

import pytest

import ssn_probe

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_builder", ROOT / ".ci" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pages(site: ModuleType) -> list[str]:
    return [*site.ELSEWHERE, *(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))]


def test_links_between_pages_lead_to_files(site: ModuleType) -> None:
    for path in pages(site):
        text = (ROOT / path).read_text(encoding="utf-8")
        site.rewritten(path, text)  # or SystemExit: the site has no such page
        links = [found[0] for found in site.LINK.finditer(text)]
        assert [link for link in links if not ((ROOT / path).parent / link).exists()] == [], path


def test_the_navigation_has_every_page(site: ModuleType) -> None:
    assert list(site.not_in_nav()) == []


def test_the_reference_has_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: ssn_probe\.(\w+)$", page, re.MULTILINE)) == sorted(ssn_probe.__all__)
    undocumented = [name for name in ssn_probe.__all__ if not inspect.getdoc(getattr(ssn_probe, name))]
    assert undocumented == []


def test_formulas_are_markup_and_code_is_left(site: ModuleType) -> None:
    pytest.importorskip("latex2mathml", reason="`make docs` installs it")
    found = site.with_formulas("$x$ and `$y$`\n```\n$STUDY $SMALL\n```\n$$z$$\n")
    assert found.count("<math") == 2
    assert "`$y$`" in found
    assert "$STUDY $SMALL" in found


def test_links_are_written_for_the_repository_and_read_on_the_site(site: ModuleType) -> None:
    assert site.rewritten("README.md", "[a](docs/vllm.md#b)") == "[a](vllm.md#b)"
    assert site.rewritten("docs/extend/score.md", "[a](../../benchmarks/README.md)") == "[a](../benchmarks.md)"
    assert site.rewritten("benchmarks/README.md", "[a](https://ndif.us)") == "[a](https://ndif.us)"
    with pytest.raises(SystemExit, match="no page of the site"):
        site.rewritten("docs/vllm.md", "[a](../LICENSE)")


def test_what_a_page_loads_is_beside_it(site: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "here.css").write_text("a { background: url(//host/b.png) }", encoding="utf-8")
    page = tmp_path / "page.html"
    page.write_text(
        '<link href="here.css"><a href="https://host"><img src="none.png"><script src="//host/a.js"></script>',
        encoding="utf-8",
    )
    assert list(site.bad_addresses(page)) == ["page.html loads none.png", "page.html loads //host/a.js"]
    assert list(site.bad_sheets(tmp_path / "here.css")) == ["here.css loads //host/b.png"]
