"""Text for readers: hostile text made harmless (prompts, responses, names from files), and how numbers are written."""

import codecs
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TextIO

IN_ASCII = {
    **{
        "✓": "+",
        "✗": "x",
        "○": "o",
        "◐": "~",
        "−": "-",
        "–": "-",
        "—": "-",
        "·": ".",
        "…": "...",
        "→": "->",
        "←": "<-",
    },
    **{"×": "x", "≤": "<=", "≥": ">=", "±": "+-", "≈": "~", "Δ": "D", "²": "2", "━": "-", "╸": "-", "╺": "-", "•": "*"},
    **{chr(spinner): "." for spinner in range(0x2800, 0x2900)},
}
"""How our own marks are written where they cannot be shown; other characters become `\\u` escapes."""


def plain(text: str) -> str:
    """`text` on one line, without control characters, ANSI sequences and bidirectional overrides.

    Bytes of a path that are no text here (Python's surrogates) are shown as `\\xNN`.
    """
    text = re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", text)
    text = re.sub(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|[@-Z\\-_])", "", text)
    text = "".join(" " if one in "\n\t" or unicodedata.category(one) in ("Zl", "Zp") else one for one in text)
    return "".join(one for one in text if unicodedata.category(one) not in ("Cc", "Cf", "Co", "Cs"))


MARKS = 6
"""Combining marks that one character may carry: writing systems stack no more, and more would cover other lines."""
_UNSEEN = re.compile(r"(?P<joiner>(?<=[^\s\u200c\u200d])[\u200c\u200d](?=[^\s\u200c\u200d]))|[^ -~]")
"""Joiners between two characters belong to Persian, Indian languages and emoji; others, and floods of them, do not."""


def visible(text: str, most: int = 1_000, *, lines: bool = False) -> str:
    """`text` with everything that a page would not show, or would obey, written out, such as `\\u202e`.

    What is longer than `most` characters is cut, and says by how much. `lines`: line ends stay.
    """
    left, text = len(text) - most, text[:most]
    if not text.isascii() or not text.isprintable():
        text = _UNSEEN.sub(lambda found: found[0] if found["joiner"] else _seen(found[0], lines), _few_marks(text))
    return text if left <= 0 else f"{text}… ({counted(left, 'more character')})"


def _few_marks(text: str) -> str:
    """`text` with at most `MARKS` combining marks on a character, and how many more there were."""
    kept, marks = [], 0
    for one in f"{text} ":
        marks += 1 if unicodedata.category(one) in ("Mn", "Me") else -marks
        if not marks and len(kept) and (more := kept[-1][1] - MARKS) > 0:
            kept.append((f"… ({counted(more, 'more mark')})", 0))
        kept.append((one if marks <= MARKS else "", marks))
    return "".join(one for one, _ in kept[:-1])


def _seen(character: str, lines: bool) -> str:
    kind, code = unicodedata.category(character), ord(character)
    if character in "\n\t" or kind in ("Zl", "Zp"):
        return character if lines and character == "\n" else " "
    if kind not in ("Cc", "Cf", "Co", "Cs") and code & 0xFFFE != 0xFFFE:
        return character
    code -= 0xDC00 if 0xDC80 <= code <= 0xDCFF else 0  # a byte of a path that is no text here
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


_RIGHT_TO_LEFT = "\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff"
RIGHT_TO_LEFT = re.compile(rf"([{_RIGHT_TO_LEFT}](?:[^A-Za-z]*[{_RIGHT_TO_LEFT}])?)")
"""From the first to the last letter of right-to-left text, up to the next Latin letter."""


def isolated(text: str) -> str:
    """Text, where no element can isolate it: numbers and signs beside right-to-left words stay where they are."""
    return RIGHT_TO_LEFT.sub("\u2068\\1\u2069", text)


def markdown(text: str) -> str:
    """`text` as literal text in a markdown paragraph or table cell; four leading blanks would make it code."""
    return re.sub(r"^([-+=]|\d{1,9}(?=[.)]))", _at_the_start, markdown_cell(text))


def markdown_cell(text: str) -> str:
    """`text` as literal text in a cell of a markdown table, where no list and no heading begins."""
    return re.sub(r"([\\`*_{}\[\]#|<>~&$])", r"\\\1", plain(text).lstrip())


def _at_the_start(found: re.Match[str]) -> str:
    """A dash, plus or equals sign, or a number before a dot, begins a list or a heading at the start of a paragraph."""
    mark = found[1]
    return f"\\{mark}" if mark in "-+=" else f"&#{ord(mark[0])};{mark[1:]}"


def percent(value: float, digits: int = 1) -> str:
    """A share as a percentage: 0.257 → `25.7 %`."""
    return f"{100 * value:.{digits}f} %"


def signed(value: float, digits: int) -> str:
    """A difference with its sign and so many decimals; of what rounds to zero, the sign says on which side it is.

    A zero that was turned round is no negative one, nor is one that equal averages left by rounding.
    """
    return f"{0.0 if abs(value) < 1e-10 else value:+.{digits}f}"


def points(value: float) -> str:
    """A difference of shares in percentage points, signed: 0.257 → `+25.7`."""
    return signed(100 * value, 1)


def points_interval(low: float, high: float) -> str:
    """The ends of an interval in percentage points: `+14.9 to +19.3`."""
    return f"{points(low)} to {points(high)}"


def change_in_points(value: float, low: float, high: float) -> str:
    """A difference of shares with its interval: `+17.1 points, 95 % interval +14.9 to +19.3`."""
    return f"{points(value)} points, 95 % interval {points_interval(low, high)}"


def probability(p: float) -> str:
    """A p-value with three decimals, and no leading zero: `.048`."""
    return "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def p_equals(p: float) -> str:
    """A p-value in a sentence: `p = .048`, `p < .001`."""
    return f"p {probability(p)}" if p < 0.001 else f"p = {probability(p)}"


def counted(count: int, noun: str) -> str:
    """A number of things: `1 language`, `1,200 languages`; the plural takes an s."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes for a reader: `41 MB`, `0.4 MB`, `16.4 GB`, `31 kB`."""
    if count >= 1e9:
        return f"{count / 1e9:,.1f} GB"
    if count < 5e4:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:,.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


def listing(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def capitalised(words: str) -> str:
    """The words with a capital letter."""
    return words[:1].upper() + words[1:]


def uncapitalised(words: str) -> str:
    """The words with a small letter, to go on within a sentence."""
    return words[:1].lower() + words[1:]


def make_printable(streams: Iterable[TextIO | None]) -> None:
    """Streams that write whatever their encoding lacks in ASCII, rather than raise UnicodeEncodeError."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper) and not stream.encoding.lower().startswith("utf"):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding=PLAIN_ASCII if ascii_only else None, errors="in_ascii")


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    written = (IN_ASCII.get(character, character) for character in lacking)
    return "".join(written).encode("ascii", "backslashreplace").decode("ascii"), error.end


def _plain_ascii(name: str) -> codecs.CodecInfo | None:
    """ASCII by another name: click writes UTF-8 to a stream whose encoding it knows as ASCII."""
    if name != PLAIN_ASCII:
        return None
    known = codecs.lookup("ascii")
    coders = {"incrementalencoder": known.incrementalencoder, "incrementaldecoder": known.incrementaldecoder}
    return codecs.CodecInfo(known.encode, known.decode, name=PLAIN_ASCII, **coders)


PLAIN_ASCII = "ascii_without_marks"
codecs.register_error("in_ascii", _in_ascii)
codecs.register(_plain_ascii)
