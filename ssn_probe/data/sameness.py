"""When are two texts the same? When a reader sees the same, whatever the code points.

`seen` undoes what typography and input methods vary: the order and composition of marks (canonical equivalence, UAX
#15), typographic variants of a character (the compatibility mappings of UAX #15 for width, font, presentation form and
ligatures), characters without a glyph (Default_Ignorable_Code_Point, as the skeleton of UTS #39), and the spellings of
one quotation mark, dash, blank, Arabic yeh or kaf. Letter case, line breaks and every ASCII character stay, so that
patterns can be matched against it. `same_spelling` goes on for names: case (default caseless matching, Unicode 3.13),
runs of blanks, digits of other scripts, and the punctuation at the end. `same_words` is for prompts, of which one must
not choose the neurons that the other measures: punctuation anywhere but within numbers, quotation marks, hyphens,
bullets and emphasis make no other request, nor do letters of another script that look alike (UTS #39).

Kept apart is what says something else: superscripts and fractions (x² is not x2), circled and squared signs, vowel
points, letters with and without marks, signs (C, C# and C++; 5 and −5), and words written as one or as two. Joiners
(ZWJ, ZWNJ) are seen in some scripts, but never make another word, and texts that differ by them are common.
"""

import re
import unicodedata

TYPOGRAPHIC = frozenset(
    f"<{tag}>"
    for tag in (
        *("wide", "narrow", "small", "noBreak", "font", "compat"),
        *("initial", "medial", "final", "isolated", "vertical"),
    )
)
"""Compatibility mappings that vary a character; not `<super>`, `<sub>`, `<fraction>`, `<circle>` and `<square>`."""
ALIKE = {
    **dict.fromkeys("‘’‚‛′´ˈʹʻʼʽ‹›׳՚ꞌ＇", "'"),
    **dict.fromkeys("“”„‟″«»״〝〞〟＂", '"'),
    **dict.fromkeys("‐‑‒–—―−־֊᠆﹘﹣－", "-"),
    **dict.fromkeys("\x85\u2028\u2029", "\n"),
    "\u2800": " ",  # the Braille pattern without a dot
    "ی": "ي",  # Farsi yeh, keheh: the letters of Persian and Urdu keyboards, as Arabic ones write them
    "ک": "ك",
}
"""One spelling of what is written in several ways."""
UNSEEN = (
    *((0x00AD, 0x00AD), (0x034F, 0x034F), (0x061C, 0x061C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
    *((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF)),
    *((0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
    *((0x0640, 0x0640), (0x07FA, 0x07FA)),  # strokes that only lengthen a word
)
"""Default_Ignorable_Code_Point of Unicode, and the strokes (tatweel, lajanyalan): first and last code points."""
ENDS = ".!?…。｡！？؟۔।॥。՞։።፧ "
"""Marks that end a sentence."""
LOOK_ALIKE = str.maketrans("аеорсухѕіјһԁԛԝӏαοριν", "aeopcyxsijhdqwlaopiv")
"""Small letters of Cyrillic and Greek, and the Latin ones that they look like."""
UNSPACED = "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Characters of scripts that write no blanks between words, where a blank is punctuation."""


def seen_character(character: str) -> str:
    """The character as it is compared: itself, another, several, or nothing."""
    code = ord(character)
    if code < 128:
        return character
    if character in ALIKE:
        return ALIKE[character]
    if any(first <= code <= last for first, last in UNSEEN):
        return ""
    if unicodedata.category(character) == "Zs":
        return " "
    tag, *codes = unicodedata.decomposition(character).split() or ("",)
    if tag not in TYPOGRAPHIC:
        return character
    return "".join(map(seen_character, map(chr, (int(part, 16) for part in codes))))


class _Seen(dict[int, str]):
    """`seen_character` as a table for `str.translate`, filled as characters come."""

    def __missing__(self, code: int) -> str:
        self[code] = seen_character(chr(code))
        return self[code]


_SEEN = _Seen()
_DIGIT = re.compile(r"[^\D0-9]")


def seen(text: str) -> str:
    """The text in one spelling of what looks alike; letter case and line breaks stay."""
    return text if text.isascii() else unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).translate(_SEEN))


def same_spelling(text: str) -> str:
    """What two names have in common that are easily written for each other."""
    shown = seen(text)
    folded = shown.casefold()
    if folded != shown:
        folded = seen(folded)
    digits = _DIGIT.sub(lambda found: str(unicodedata.digit(found[0])), folded)
    blank = " ".join(digits.replace("`", "'").split())
    return blank.rstrip(ENDS) or blank


_BULLET = re.compile(r"^([-*•·▪◦#>]+|[0-9]{1,3}[.)]) ")
_ASCII_MARKS = re.compile(r"""["!?()\[\]{}*_]|-(?![0-9])|[,;:](?![0-9])|(?<![0-9])[,;:]|\.(?= )|(?<![^ ])'|'(?![^ ])""")
_BETWEEN = re.compile(f"(?<=[{UNSPACED}]) (?=[{UNSPACED}])")


class _Marks(dict[int, str]):
    """Punctuation beyond ASCII to blanks, as a table for `str.translate`, filled as characters come."""

    def __missing__(self, code: int) -> str:
        is_mark = code > 127 and unicodedata.category(chr(code)).startswith("P")
        self[code] = " " if is_mark else chr(code)
        return self[code]


_MARKS = _Marks()


def same_words(text: str) -> str:
    """What two prompts have in common that say the same in the same words."""
    spelled = same_spelling(text)
    words = _BULLET.sub("", spelled)
    if not words.isascii():
        words = words.translate(_MARKS).translate(LOOK_ALIKE)
    words = " ".join(_ASCII_MARKS.sub(" ", words).split())
    words = (words if words.isascii() else _BETWEEN.sub("", words)).rstrip(ENDS)
    return words or spelled
