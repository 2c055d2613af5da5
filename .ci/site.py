"""Builds the documentation site into build/site, or says what is wrong with it: `make docs`.

The pages are those of docs/, and a few that live where readers of the repository look for them. Links between them are
written for the repository, and rewritten here for the site.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from os.path import normpath, relpath
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGE, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
ELSEWHERE = {
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
    "ssn_probe/organism/natural/README.md": "organism-card.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"(?<=\]\()(?![a-z]+:)[^)#\s]+")
CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "link": "href",
    "object": "data",
    "use": "href",
}


def staged(path: str) -> str:
    """Where a file of the repository lies on the site."""
    return ELSEWHERE.get(path, path.removeprefix("docs/"))


def rewritten(path: str, text: str) -> str:
    """The page at `path` of the repository, with links as the site has them."""

    def link(found: re.Match[str]) -> str:
        target = normpath(Path(path).parent / found[0])
        if not target.startswith("docs/") and target not in ELSEWHERE:
            raise SystemExit(f"{path} links to {target}, which is no page of the site. Name the path without a link.")
        return relpath(staged(target), Path(staged(path)).parent)

    return LINK.sub(link, text)


def with_formulas(text: str) -> str:
    """Formulas between dollars as MathML, which browsers show without a script."""
    from latex2mathml.converter import convert

    def block(found: re.Match[str]) -> str:
        return f"\n\n<div>{convert(found[1], display='block')}</div>\n\n"

    def inline(found: re.Match[str]) -> str:
        return f"<span>{convert(found[1])}</span>"

    parts = CODE.split(text)
    parts[::2] = [re.sub(r"\$([^$]+)\$", inline, re.sub(r"\$\$([^$]+)\$\$", block, part)) for part in parts[::2]]
    return "".join(parts)


def stage() -> None:
    shutil.rmtree(STAGE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", STAGE, ignore=shutil.ignore_patterns("requirements.*"))
    pages = [str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))]
    for path in [*pages, *ELSEWHERE]:
        text = (ROOT / path).read_text(encoding="utf-8")
        (STAGE / staged(path)).write_text(with_formulas(rewritten(path, text)), encoding="utf-8")


class Loaded(HTMLParser):
    """The addresses that a page loads when it is opened, and not those that it links to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value for name, value in attrs if value and LOADS.get(tag) == name]


def bad_addresses(page: Path) -> Iterator[str]:
    """What a page loads from another host, which a reader may not reach, or from a file that is not there."""
    parser = Loaded()
    parser.feed(page.read_text(encoding="utf-8"))
    for address in parser.addresses:
        if re.match(r"(\w+:)?//", address) or not (page.parent / address.partition("#")[0]).exists():
            yield f"{page.name} loads {address}"


def bad_sheets(sheet: Path) -> Iterator[str]:
    text = sheet.read_text(encoding="utf-8")
    for address in re.findall(r"(?:url\(|@import )[\"']?((?:\w+:)?//[^\"')]+)", text):
        yield f"{sheet.name} loads {address}"


def not_in_nav() -> Iterator[str]:
    """Pages that the navigation names and that are not there, or the other way round."""
    named = set(re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    there = {staged(str(page.relative_to(ROOT))) for page in sorted((ROOT / "docs").rglob("*.md"))} | {
        *ELSEWHERE.values()
    }
    yield from (
        f"mkdocs.yml: {page} is named in nav and not there, or there and not named" for page in sorted(named ^ there)
    )


def main() -> int:
    stage()
    shutil.rmtree(SITE, ignore_errors=True)
    built = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=ROOT, capture_output=True, text=True
    )
    if built.returncode:
        print(built.stdout, built.stderr)
        return 1
    found = [*not_in_nav()]
    found += [bad for page in sorted(SITE.rglob("*.html")) if page.name != "404.html" for bad in bad_addresses(page)]
    found += [bad for sheet in sorted(SITE.rglob("*.css")) for bad in bad_sheets(sheet)]
    print("\n".join(found) or f"{SITE}/index.html")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
