"""How every chart looks: one colour per role of an arm and per language everywhere, fonts, and text that can be drawn.

Colours of an SVG are presentation attributes, and every element that has one of `CLASSES` also has the class
`NAME-fill` or `NAME-stroke`: `ink` (text, axes, the untouched model), `muted` (subtitles, labels of axes), `grid`,
`paper` (the background, white) and `c0` to `c12` (data). A page overrides them for a dark background:
`.chart .ink-fill {fill: #eee}`, `.chart .ink-stroke {stroke: #eee}`. Cells of a map have colours of their own, and
their text is `ON_LIGHT` or `ON_DARK`, which have no class.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssn_probe.spec import Recipe
from ssn_probe.study.arms import BASELINE, WEAKENED
from ssn_probe.study.comparisons import COMPARISONS
from ssn_probe.text import plain

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7B61A8")
"""Okabe and Ito's palette, which the colour-blind can tell apart, and two more."""
MORE = ("#882255", "#117733", "#999933", "#332288", "#AA4499")
"""Of Tol's muted palette, for arms: none of them is a comparison's."""
INK, MUTED, GRID, PAPER = "#111111", "#595959", "#e4e4e4", "#ffffff"
ON_LIGHT, ON_DARK = "#000001", "#fffffe"
CLASSES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {
    colour: f"c{place}" for place, colour in enumerate((*COLOURS, *MORE))
}
TESTED_COLOUR = COLOURS[0]
BESIDE = dict(zip((*COMPARISONS, WEAKENED), COLOURS[1:], strict=False))
"""The colour of every comparison, and of the set without its top neuron."""
DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [1, 3])
MOST_NAME = 40
LEFT_TO_RIGHT = "\u200e"
"""A mark that is not seen: without it, a number after a name in Arabic or Hebrew would stand before it."""
WIDTH = 720
"""Of a whole chart."""
TITLE_WIDTH = 84
"""Characters in a line of a title."""
CONFIG: Mapping[str, Any] = {
    "background": PAPER,
    "font": "sans-serif",
    "padding": 12,
    "view": {"stroke": None},
    "axis": {
        "gridColor": GRID,
        "domainColor": MUTED,
        "tickColor": MUTED,
        "labelColor": INK,
        "titleColor": INK,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    },
    "title": {
        "anchor": "start",
        "frame": "bounds",
        "color": INK,
        "fontSize": 15,
        "subtitleColor": MUTED,
        "subtitleFontSize": 12,
        "subtitlePadding": 5,
        "lineHeight": 19,
        "subtitleLineHeight": 16,
        "offset": 12,
    },
    "text": {"fontSize": 12, "color": INK},
    "legend": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 200,
        "symbolSize": 90,
        "labelColor": INK,
        "titleColor": INK,
    },
}


def arm_colours(recipe: Recipe) -> dict[str, str]:
    """The colour of the untouched model and of every arm: the tested one is blue, the others follow the recipe."""
    others = [name for name in recipe.arms if name != recipe.primary]
    colours = {BASELINE: INK}
    if recipe.primary is not None:
        colours[recipe.primary] = TESTED_COLOUR
    palette = MORE if recipe.primary is not None else (TESTED_COLOUR, *MORE)
    return colours | {name: palette[place % len(palette)] for place, name in enumerate(others)}


def language_marks(languages: Iterable[str]) -> dict[str, tuple[str, Sequence[int]]]:
    """The colour and the dash of every language, by sorted order: with more languages than colours, dashes differ."""
    known = sorted(set(languages))
    return {
        language: (COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)])
        for place, language in enumerate(known)
    }


def drawable(text: str, most: int = MOST_NAME) -> str:
    """A name as it can be drawn: on one line, of at most so many characters, with two marks on each.

    Without what XML cannot hold: vl-convert aborts the whole process over it.
    """
    known = re.sub("[\ufffe\uffff]", "", plain(text[: 20 * most]))
    kept: list[str] = []
    for one in known:
        if not unicodedata.combining(one) or not all(map(unicodedata.combining, kept[-2:])):
            kept.append(one)
    shown = "".join(kept) if len(kept) <= most else f"{''.join(kept[: most - 1])}…"
    rightwards = any(unicodedata.bidirectional(one) in ("R", "AL") for one in shown)
    return f"{shown}{LEFT_TO_RIGHT}" if rightwards else shown
