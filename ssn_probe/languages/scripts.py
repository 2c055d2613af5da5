"""In which scripts a text is written, and in which ones a language is.

Scripts are called as Unicode calls them: `Latin`, `Han`, `Hangul`. Those of a language come from CLDR's likely subtags,
through `langcodes`, and from a few rows for languages that are written in several.
"""

from collections import Counter
from functools import lru_cache

NAMES = {
    **{"Latn": "Latin", "Cyrl": "Cyrillic", "Grek": "Greek", "Armn": "Armenian", "Geor": "Georgian", "Hebr": "Hebrew"},
    **{"Arab": "Arabic", "Ethi": "Ethiopic", "Deva": "Devanagari", "Beng": "Bengali", "Guru": "Gurmukhi"},
    **{"Gujr": "Gujarati", "Orya": "Oriya", "Taml": "Tamil", "Telu": "Telugu", "Knda": "Kannada", "Mlym": "Malayalam"},
    **{"Sinh": "Sinhala", "Thai": "Thai", "Laoo": "Lao", "Mymr": "Myanmar", "Khmr": "Khmer", "Tibt": "Tibetan"},
    **{"Mong": "Mongolian", "Hang": "Hangul", "Hani": "Han", "Hira": "Hiragana", "Kana": "Katakana"},
    **{"Thaa": "Thaana", "Syrc": "Syriac", "Cher": "Cherokee", "Tfng": "Tifinagh", "Nkoo": "Nko", "Bopo": "Bopomofo"},
}
"""ISO 15924 → Unicode."""
TOGETHER = {"Jpan": ("Hira", "Kana", "Hani"), "Kore": ("Hang", "Hani"), "Hans": ("Hani",), "Hant": ("Hani", "Bopo")}
"""Scripts that are mixtures of others."""
ALSO = {
    **dict.fromkeys(("az", "kk", "ky", "tg", "tk", "tt", "ug", "uz"), ("Latn", "Cyrl", "Arab")),
    **dict.fromkeys(("ha", "jv", "ku", "ms", "so", "sw", "wo"), ("Latn", "Arab")),
    **dict.fromkeys(("ks", "pa", "sd"), ("Arab", "Deva", "Guru")),
    **dict.fromkeys(("bs", "mn", "sr"), ("Latn", "Cyrl", "Mong")),
    "mni": ("Beng", "Latn"),
}
"""In what else a language is written than in its usual script."""


@lru_cache(maxsize=1_000)
def scripts_of(language: str) -> tuple[str, ...]:
    """The scripts that a language is written in, its usual one first; none if they are not known (qaa)."""
    import langcodes

    try:
        tag = langcodes.Language.get(language)
    except ValueError:  # langcodes raises it for what is no tag
        return ()
    usual = tag.maximize().script if tag.speaking_population() else tag.script  # unknown ones would be Latin
    also = ALSO.get(tag.language or "", ()) if tag.script is None else ()
    codes = dict.fromkeys(code for one in (usual, *also) if one for code in TOGETHER.get(one, (one,)))
    return tuple(NAMES[code] for code in codes if code in NAMES)


@lru_cache(maxsize=20_000)
def script_of(letter: str) -> str | None:
    """The script of one letter, `other` for one that few languages use; None for what is no letter."""
    import regex

    if not letter.isalpha():
        return None
    return next((name for name in NAMES.values() if regex.match(rf"\p{{Script={name}}}", letter)), "other")


def letters_by_script(text: str) -> Counter[str]:
    """How many letters of each script a text has, the most frequent first."""
    found = Counter(map(script_of, text))
    return Counter({name: count for name, count in found.most_common() if name is not None})


def scripts_in(text: str) -> dict[str, float]:
    """Script → share of the text's letters, the largest first."""
    letters = letters_by_script(text)
    return {name: count / letters.total() for name, count in letters.items()}
