"""One code for a language, however it is called: `jw`, `jav`, `jav_Latn` and `Javanese` are all `jv`.

The codes are those of BCP 47 and CLDR, from `langcodes`: two letters where a language has them, a macrolanguage for its
main language (`cmn` is `zh`, `arb` is `ar`), and the script only where it is not the usual one (`zh-Hant`, `sr-Latn`).
Regions are left out: `pt-BR` is `pt`.
"""

import re
from functools import lru_cache

NAME = re.compile(r"[^\W\d_][\w .,'’()/-]{0,60}")
"""What may be a code or a name; other texts, null characters among them, can crash the search for a name."""
SPECIAL = ("und", "mul", "mis", "zxx")
"""Codes for no language, or for several."""
SAME_SCRIPT = {"Hang": "Kore", "Hani": "Hans", "Hira": "Jpan", "Kana": "Jpan", "Hrkt": "Jpan"}
"""Part of how a language is written → the whole of it."""
HABITS = {"sp": "es", "jp": "ja", "cn": "zh", "vn": "vi", "gr": "el", "cz": "cs", "dk": "da"}
"""What data sets write for a language, mostly a country, and what is no language's code."""


@lru_cache(maxsize=10_000)
def language_code(name: str) -> str | None:
    """The code of the language that a code, an alias or a name stands for; None if it is no language.

    Names are English ones or the language's own, and only of languages that CLDR knows speakers of: `label` is a
    column, although somewhere a language is called Label.
    """
    import langcodes

    tag = name.strip().replace("_", "-")
    if not NAME.fullmatch(name.strip()) or tag.casefold().startswith("x-"):  # x is for private use
        return None
    tag = HABITS.get(tag.casefold(), tag)
    try:
        return _canonical(tag) if langcodes.tag_is_valid(tag) else _of_name(tag.replace("-", " "))
    except (LookupError, ValueError):  # langcodes raises both for what is no tag
        return None


def _canonical(tag: str) -> str | None:
    from langcodes import Language, standardize_tag

    found = Language.get(standardize_tag(tag, macro=True))
    language, script = found.language, found.maximize().script
    if language is None or language in SPECIAL:
        return None
    usual = Language.get(language).maximize().script
    return language if SAME_SCRIPT.get(script or "", script) == usual else f"{language}-{script}"


def _of_name(name: str) -> str | None:
    import langcodes

    if len(name) < 3 and name.isascii():
        return None
    try:
        found = langcodes.find(name, "en")
    except LookupError:
        found = langcodes.find(name)
        if found.autonym().casefold() != name.casefold():  # `id` and `meta` are words of some other language
            return None
    code = _canonical(found.to_tag())
    return code if code and langcodes.get(code).speaking_population() else None
