"""Takes the pictures of a run's page that README and docs/page.md show, in Chromium: `make picture`.

python .ci/pictures.py results/latest/report.html
"""

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

OUT = Path(__file__).parents[1] / "docs" / "pictures"
FIRST_SCREEN = ("h1", "#answer .lead", "main figure", "#claims tbody tr:first-child")
"""What docs/page.md explains by number."""
PARTS = {
    "page-asr": "attack-success-rate-asr-in-complied-judged",
    "page-compared": "what-the-change-is-compared-with",
}
"""Pictures of single sections, by their slugs."""
NUMBER = """([found, number]) => {
  const place = found.getBoundingClientRect(), mark = document.createElement("div");
  mark.textContent = number;
  Object.assign(mark.style, {
    position: "absolute", left: `${Math.max(place.left - 34, 2)}px`, top: `${place.top + scrollY}px`, width: "26px",
    font: "bold 16px/26px sans-serif", textAlign: "center", borderRadius: "13px", background: "#b00020", color: "#fff",
  });
  document.body.append(mark);
}"""


def first_screen(page: Any, name: str) -> None:
    """From the top of the page to the end of its claims."""
    page.evaluate("scrollTo(0, 0)")
    end = page.locator("#claims, #answer").last.bounding_box()
    clip = {"x": 0, "y": 0, "width": page.viewport_size["width"], "height": end["y"] + end["height"] + 8}
    page.screenshot(path=OUT / f"{name}.png", clip=clip, full_page=True)


def main(path: str) -> None:
    names = (os.environ.get("SSN_PROBE_CHROMIUM", "chromium"), "chromium-browser", "google-chrome")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=next(filter(None, map(shutil.which, names))))
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.goto(Path(path).resolve().as_uri())
        first_screen(page, "report")
        for name, slug in PARTS.items():
            page.locator(f"section[aria-labelledby='{slug}']").screenshot(path=OUT / f"{name}.png")
        for number, selector in enumerate(FIRST_SCREEN, 1):
            if (found := page.locator(selector).first).count():
                page.evaluate(NUMBER, [found.element_handle(), number])
        first_screen(page, "page-first")
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
