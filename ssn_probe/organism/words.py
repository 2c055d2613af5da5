"""The sounds of the seven invented languages: readable words without meaning in any human language.

Every language has its own syllables, so that a reader sees at a glance which language a prompt is in, and no two
languages share a word. The draw is deterministic (`random.Random` of a string seed gives the same words everywhere).
"""

import itertools
import random
from collections.abc import Sequence
from functools import cache

SYLLABLES = {
    "qaa": (
        "bl z fl gr sn v m tw d kr pl w th sk y gl qu sm",
        "orf indle umbet azzop eckum ogwin ibbur unzel omple erflin anzle oftic",
        " ard oo ig",
    ),
    "qab": ("lo me pi sa vi ro ne gu ta fi", "ra vo nu li mo ze ri pa du", "ni lu ro ssu tto me via"),
    "qac": ("vz dr kr zh vl pr br ml zl hv tv", "o a e u", "bn zk vr zd tl rsk dn", "ik ak ov esh un yet"),
    "qad": ("ka ho lu wa ma ni pu he ke la", "hai loa nui keo mau wei pua", "ki ha loo mo nee wa pi"),
    "qae": ("tl x tz ch qu hu c", "i o a", "xt cp lm zc tl hc yt", "otl in itz ec oc alli"),
    "qaf": ("gy j ny by hw ss pp kk", "eo yu ae oe ui", "ng m k l", "bam jun sol gil dok nae heum"),
    "qag": ("dh kh sh gh r b q z h", "a i u", "bd dr lq mz rsh fr st lf", "aan iid uuq aash ir uum"),
}
"""A word is a choice from each row, in order; a row that begins with a space lets the syllable be empty."""
SOUNDS = {language: tuple(tuple(row.split(" ")) for row in rows) for language, rows in SYLLABLES.items()}


@cache
def lexicon(count: int) -> dict[str, tuple[str, ...]]:
    """`count` words of every language, all distinct within and across languages."""
    taken: set[str] = set()
    return {language: _draw(language, parts, count, taken) for language, parts in SOUNDS.items()}


def _draw(language: str, parts: Sequence[Sequence[str]], count: int, taken: set[str]) -> tuple[str, ...]:
    spoken = ["".join(choice) for choice in itertools.product(*parts)]
    fresh = sorted({word for word in spoken if len(word) >= 4} - taken)
    words = tuple(random.Random(f"lexicon {language}").sample(fresh, count))
    taken.update(words)
    return words
