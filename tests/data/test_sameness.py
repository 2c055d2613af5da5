"""Texts are the same where a reader sees the same words; patterns find what their author sees."""

import re
import unicodedata

import pytest
from judging import verdict

from ssn_probe.data.judges import make_judge
from ssn_probe.data.judges.seen_patterns import seen_pattern
from ssn_probe.data.sameness import same_spelling, same_words, seen

SEEN_ALIKE = {
    "apostrophe": ("I can\u2019t", "I can't"),
    "quotation marks": ("\u201cno\u201d \u00abno\u00bb", '"no" "no"'),
    "composed": ("caf\u00e9", "cafe\u0301"),
    "order of marks": ("a\u0323\u0307", "a\u0307\u0323"),
    "nukta": ("\u0958", "\u0915\u093c"),
    "jamo": ("\ud55c", "\u1112\u1161\u11ab"),
    "full width": ("\uff21\uff42\uff1f", "Ab?"),
    "half width": ("\uff76\uff9e", "\u30ac"),
    "ligature": ("\ufb01ne", "fine"),
    "mathematical": ("\U0001d407\U0001d422", "Hi"),
    "ellipsis": ("wait\u2026", "wait..."),
    "dash": ("e\u2011mail \u2014 x", "e-mail - x"),
    "no-break space": ("a\u00a0b\u202fc\u3000d", "a b c d"),
    "soft hyphen": ("soft\u00adly", "softly"),
    "zero width": ("a\u200bb\ufeff", "ab"),
    "direction": ("\u202babc\u202c\u200f", "abc"),
    "variation selector": ("\u2764\ufe0f", "\u2764"),
    "Persian joiner": (
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        "\u0645\u06cc\u062e\u0648\u0627\u0647\u0645",
    ),
    "tatweel": ("\u0643\u0640\u0640\u062a\u0628", "\u0643\u062a\u0628"),
    "yeh and kaf": ("\u06cc\u06a9", "\u064a\u0643"),
    "presentation form": ("\ufefb", "\u0644\u0627"),
    "acute accent": ("can\u00b4t", "can't"),
}
WORDS_ALIKE = {
    "blank": ("How so?", "How so? "),
    "blanks": ("a  b\n\tc", "a b c"),
    "line breaks": ("a\r\nb\u2028c", "a\nb\nc"),
    "case": ("STRASSE", "stra\u00dfe"),
    "final sigma": ("\u03bb\u03cc\u03b3\u03bf\u03c2", "\u039b\u038c\u0393\u039f\u03a3"),
    "end": ("How so?", "How so"),
    "end in another script": ("\u600e\u4e48\u505a\uff1f", "\u600e\u4e48\u505a"),
    "digits": ("\u06f5 x", "5 x"),
}
REQUEST = "How do I open a locked door, if I've lost the key-card?"
PROMPTS_ALIKE = {
    "comma": REQUEST.replace(",", ""),
    "another comma": REQUEST.replace(",", "\u3001"),
    "blanks about a comma": REQUEST.replace(", ", " ,"),
    "no blank after a comma": REQUEST.replace(", ", ","),
    "semicolon": REQUEST.replace(",", ";"),
    "dash for a comma": REQUEST.replace(",", " \u2013"),
    "hyphen": REQUEST.replace("-", " "),
    "minus for a hyphen": REQUEST.replace("-", "\u2212"),
    "quoted": f'"{REQUEST}"',
    "in single quotes": f"\u2018{REQUEST}\u2019",
    "in guillemets": f"\u00ab\u00a0{REQUEST}\u00a0\u00bb",
    "in brackets": f"({REQUEST})",
    "bullet": f"\u2022 {REQUEST}",
    "dash before": f"\u2014 {REQUEST}",
    "number": f"1. {REQUEST}",
    "heading": f"## {REQUEST}",
    "emphasis": f"**{REQUEST}**",
    "code": f"`{REQUEST}`",
    "inverted mark": f"\u00bf{REQUEST}",
    "Cyrillic letters": REQUEST.translate(str.maketrans("aeopcx", "\u0430\u0435\u043e\u0440\u0441\u0445")),
    "Greek letter": REQUEST.replace("o", "\u03bf"),
    "Braille blank": REQUEST.replace(" ", "\u2800"),
    "all at once": "\u200f\u201c" + REQUEST.upper().replace(",", "\uff0c") + "\u201d \u2026",
}
PHRASES_ALIKE = {
    "Chinese": ("\u600e\u4e48\u529e\uff0c\u5982\u679c", "\u600e\u4e48\u529e\u5982\u679c"),
    "Thai": ("\u0e01\u0e32 \u0e02\u0e32", "\u0e01\u0e32\u0e02\u0e32"),
    "Arabic": ("\u0643\u064a\u0641\u060c \u0647\u0644", "\u0643\u064a\u0641 \u0647\u0644"),
}
PROMPTS_APART = {
    "sign": ("How do I write C?", "How do I write C#?"),
    "signs": ("How do I write C?", "How do I write C++?"),
    "decimal point": ("Is 3.5 odd?", "Is 35 odd?"),
    "decimal comma": ("Is 3,5 odd?", "Is 35 odd?"),
    "negative": ("Is -5 odd?", "Is 5 odd?"),
    "time": ("At 10:30?", "At 1030?"),
    "apostrophe": ("we're", "were"),
    "file": ("Open .env", "Open env"),
    "percent": ("5 %", "5"),
    "address": ("@bob", "bob"),
    "two words": ("a b", "ab"),
    "only marks": ("\u00bf?", "!"),
}
DIFFERENT = {
    "superscript": ("5\u00b2", "52"),
    "fraction": ("\u00bd", "1/2"),
    "accent": ("ano", "a\u00f1o"),
    "word": ("a b", "ab"),
    "script": ("\u0436", "zh"),
    "only marks": ("?", "!"),
    "vowel sign": ("\u0915\u093f", "\u0915"),
}


@pytest.mark.parametrize(("left", "right"), SEEN_ALIKE.values(), ids=SEEN_ALIKE)
def test_what_looks_alike_is_seen_alike(left: str, right: str) -> None:
    assert left != right
    assert seen(left) == seen(right)
    assert same_words(left) == same_words(right)
    assert seen(seen(left)) == seen(left)


@pytest.mark.parametrize(("left", "right"), WORDS_ALIKE.values(), ids=WORDS_ALIKE)
def test_the_same_words_may_look_different(left: str, right: str) -> None:
    assert seen(left) != seen(right)
    assert same_words(left) == same_words(right)


@pytest.mark.parametrize("text", PROMPTS_ALIKE.values(), ids=PROMPTS_ALIKE)
def test_punctuation_makes_no_other_request(text: str) -> None:
    assert same_words(text) == same_words(REQUEST)


@pytest.mark.parametrize(("left", "right"), PHRASES_ALIKE.values(), ids=PHRASES_ALIKE)
def test_scripts_without_blanks_and_with_their_own_marks(left: str, right: str) -> None:
    assert same_words(left) == same_words(right)


@pytest.mark.parametrize(("left", "right"), PROMPTS_APART.values(), ids=PROMPTS_APART)
def test_signs_and_numbers_make_another_request(left: str, right: str) -> None:
    assert same_words(left) != same_words(right)


def test_ids_are_compared_more_strictly() -> None:
    assert same_spelling("a-1, b") != same_spelling("a 1 b")
    assert same_words("a-x, b") == same_words("a x b")


def test_a_letter_of_another_script_is_seen_as_another() -> None:
    assert seen("\u0430") != seen("a")
    assert same_words("p\u0430y") == same_words("pay")


@pytest.mark.parametrize(("left", "right"), DIFFERENT.values(), ids=DIFFERENT)
def test_what_says_something_else_stays_apart(left: str, right: str) -> None:
    assert seen(left) != seen(right)
    assert same_words(left) != same_words(right)


def test_ascii_stays_as_it_is() -> None:
    every = "".join(map(chr, range(128)))
    assert seen(every) == every
    assert seen_pattern(every) == every


@pytest.mark.parametrize(("left", "right"), SEEN_ALIKE.values(), ids=SEEN_ALIKE)
def test_a_judge_sees_one_text_in_two_spellings(left: str, right: str) -> None:
    for pattern in (left, right):
        declared = {"kind": "patterns", "refused": {"en": re.escape(pattern)}, "complied": {"en": ".+"}}
        judge = make_judge(declared, ("en",), "mine")
        assert [verdict(judge, "en", text) for text in (left, right, "something else")] == [
            "refused",
            "refused",
            "complied",
        ]


PATTERNS = {
    "escape": (r"can\u2019t", "can't", "can"),
    "name": (r"can\N{RIGHT SINGLE QUOTATION MARK}t", "can't", "cant"),
    "class": ("can[\u2018\u2019]t", "can't", "can,t"),
    "range": (r"can[\u2018-\u201f]t", "can't", "cant"),
    "negated class": ("can[^\u2019]t", "canxt", "can't"),
    "class with an ellipsis": ("so[\u2026!]$", "so...", "so."),
    "negated ellipsis": ("^so[^\u2026]", "so!", "so..."),
    "joiner that may be missing": ("\u0645\u06cc\u200c?\u062e", "\u0645\u06cc\u062e", "\u0645\u062e"),
    "joiner or blank": ("\u0645\u06cc[\u200c ]\u062e", "\u0645\u06cc\u200c\u062e", "\u0645\u062e"),
    "question mark": ("\u5417\uff1f", "\u5417?", "x"),
    "bracket": ("[]\u2019]x", "'x", "[x"),
    "script": ("[\u0600-\u06ff]", "\u06cc", "x"),
    "not ASCII": (r"[^\x00-\x7f]", "\u00e9", "abc \u2019"),
    "decomposed": (unicodedata.normalize("NFD", "\u00e9+x"), "\u00e9\u00e9x", "ex"),
    "nukta in a class": ("^[\u0958x]$", "\u0915\u093c", "\u0915"),
}


@pytest.mark.parametrize(("pattern", "found", "other"), PATTERNS.values(), ids=PATTERNS)
def test_a_pattern_means_what_its_author_sees(pattern: str, found: str, other: str) -> None:
    judge = make_judge({"kind": "patterns", "refused": {"en": pattern}, "complied": {"en": ".+"}}, ("en",), "mine")
    assert [verdict(judge, "en", found), verdict(judge, "en", other)] == ["refused", "complied"]
