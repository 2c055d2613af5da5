"""How every chart looks: colours, fonts and marks."""

import re

from ssn_probe.text import plain

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C564B", "#7B61A8")
"""Okabe and Ito's palette, which the colour-blind can tell apart, and two more; black is the untouched model."""
BLACK, MUTED = "#000000", "#9a9a9a"
CONFIG = {
    "background": "white",
    "font": "sans-serif",
    "padding": 12,
    "view": {"stroke": "#cccccc"},
    "axis": {"gridColor": "#eeeeee", "labelFontSize": 12, "titleFontSize": 13},
    "title": {"anchor": "start", "fontSize": 16, "subtitleFontSize": 12, "subtitleColor": "#444444", "offset": 12},
    "legend": {"labelFontSize": 12, "titleFontSize": 12, "labelLimit": 260, "symbolSize": 90},
}


def drawable(text: str) -> str:
    """Without what XML cannot hold: vl-convert aborts the whole process over it."""
    return re.sub("[\ufffe\uffff]", "", plain(text))
