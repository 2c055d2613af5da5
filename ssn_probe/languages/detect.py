"""In which language is a text, and is it one at all?

A random or damaged model writes pieces of words, one piece for ever, or many scripts at once. What people write in any
language, code and numbers among it, must not be taken for that: every limit below was set on sentences, answers and
code, and lets a part of the noise through rather than lose an answer.
"""

from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from statistics import mean
from typing import Any

from ssn_probe.files import temporary_files
from ssn_probe.languages.scripts import letters_by_script, script_of, scripts_of

READ = 4_000
"""So many characters are looked at."""
LEAST_LETTERS = {"Han": 6, "Hangul": 8, "Hiragana": 8, "Katakana": 8}
"""Letters without which a language cannot be told; 20 in other scripts."""
CERTAIN = 0.9
"""Least probability at which a language counts as recognised."""
EXCLUDED = 0.01
"""Least probability at which a declared language remains possible."""
ODD = r"\p{Ll}\p{Lu}|\p{L}\d|\p{L}[^\p{L}\p{M}\p{N}\s.,:'’/_()=-]+\p{L}"
"""What few words of a text have inside: a capital letter, a digit or a sign after a letter."""
UNSPACED = "without blanks"
"""Scripts of East Asia, which mix with each other and stand beside Latin words without a blank."""
WINDOW = 5
"""Words among which a language is sought again, to see whether a text keeps it."""


def language_of(text: str, among: Iterable[str] | None = None) -> str | None:
    """The language of a text, of all or of those named; None if the text is too short, or two are about as likely."""
    likely = _ranked(text, among)
    return next((language for language, share in likely.items() if share >= CERTAIN), None)


def off_language(text: str, language: str) -> str | None:
    """Why a text is not in a language, as "in Cyrillic" or "in English"; None if it may be."""
    own, letters = scripts_of(language), letters_by_script(_prose(text))
    if not own or letters.total() < 2:
        return None
    main = next(iter(letters))
    if sum(letters[name] for name in own) < letters.total() / 2 and main not in own:
        return f"in {main} script"
    return _other_language(text, language)


def in_language(language: str) -> str:
    """What `off_language` says of a text in that language, as "in English"."""
    import langcodes

    return f"in {langcodes.get(_label(language)).display_name()}"


def _other_language(text: str, language: str) -> str | None:
    likely = _ranked(_prose(text), None)
    base = _label(language)
    best = next(iter(likely), None)
    if best is None or base not in _identifier().labels or likely[best] < CERTAIN or likely[base] > EXCLUDED:
        return None
    return in_language(best)


def _ranked(text: str, among: Iterable[str] | None) -> dict[str, float]:
    """Language as it is named in `among` → its probability, the most probable first; nothing for too short a text."""
    letters = letters_by_script(text[:READ])
    least = sum(count / LEAST_LETTERS.get(script, 20) for script, count in letters.items())
    if least < 1:
        return {}
    ranked = dict(_identifier().rank(text[:READ]))
    named = {name: name for name in ranked} if among is None else {_label(name): name for name in among}
    found = {named[code]: share for code, share in ranked.items() if code in named}
    total = sum(found.values()) or 1.0
    return {name: share / total for name, share in found.items()}


def _label(language: str) -> str:
    """What py3langid calls a language."""
    base = language.split("-")[0]
    return {"fil": "tl", "nb": "no"}.get(base, base)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    with temporary_files():  # where it writes its weights without compression
        return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _prose(text: str) -> str:
    """The text without blocks of code."""
    import regex

    return regex.sub(r"```.*?(```|\Z)", " ", text[:READ], flags=regex.DOTALL)


def is_gibberish(text: str) -> str | None:
    """Why a text is none, as "no letters" or "one piece repeated"; None if it may be one, in whatever language."""
    import regex

    shown = text.strip()[:READ].rstrip("\ufffd")  # a response may end within a character
    if not shown:
        return "empty"
    runs = regex.sub(r"([^\w\s])\1{3,}", r"\1", shown)  # lines of one sign in tables and below headings
    signs = len(regex.findall(r"\S", runs))
    letters = len(regex.findall(r"[\p{L}\p{M}\p{N}]", runs))
    if len(regex.findall(r"[\ufffd\p{Co}\p{Cn}\p{Cc}--\s]", shown, flags=regex.V1)) > 0.05 * signs:
        return "characters that are none"
    if not letters:
        return "no letters"
    if letters < 0.4 * signs:
        return "few letters among signs"
    return _loop(shown) or _mixture(shown) or _word_salad(shown)


def _loop(text: str) -> str | None:
    """From its first character on, the text is one piece again and again; numbers do not make pieces differ."""
    import regex

    same = regex.sub(r"\d+", "0", " ".join(text.lower().split()))
    words = regex.findall(r"[\p{L}\p{M}]+", same)[:30]
    if len(words) == 30 and len(set(words)) <= 6:
        return "a few words repeated"
    found = regex.match(r"(.{1,400}?)(?:\W*\1){4,}", same)
    loops = found and found.end() >= 0.8 * len(same) and any(map(str.isalpha, found[1]))
    return "one piece repeated" if loops and len(same) > 12 else None


def _mixture(text: str) -> str | None:
    """Letters of three scripts or more, which change within words or every few letters."""
    import regex

    runs = [[_kind(letter) for letter in run] for run in regex.findall(r"\p{L}+", regex.sub(r"\p{M}", "", text))]
    kinds = [kind for run in runs for kind in run]
    several = [kind for kind, count in Counter(kinds).items() if count >= 2]
    turns = sum(left != right for left, right in pairwise(kinds))
    glued = sum(len({*run} - {UNSPACED}) > 1 for run in runs)
    return "a mixture of scripts" if len(several) >= 3 and (glued >= 2 or turns > len(kinds) / 7) else None


def _kind(letter: str) -> str | None:
    script = script_of(letter)
    return UNSPACED if script in ("Han", "Hiragana", "Katakana", "Hangul", "Bopomofo", "Thai", "Lao") else script


def _word_salad(text: str) -> str | None:
    """Pieces of words in an alphabet: long, each another, hardly a short one, and no language that they keep."""
    import regex

    words = text.split()
    bare = regex.findall(r"[\p{L}\p{M}]+", text)
    if len(words) < 8 or not bare or "```" in text:
        return None
    if sum(bool(regex.search(ODD, word)) for word in words) > 0.6 * len(words):
        return "letters, digits and signs mixed"
    if not any(script_of(letter) in ("Latin", "Cyrillic", "Greek", "Armenian") for letter in text):
        return None
    short = sum(len(word) <= 3 for word in bare) / len(bare)
    distinct = len({word.lower() for word in bare}) / len(bare)
    if mean(map(len, bare)) < 6.6 or short > 0.25 or distinct < 0.9:
        return None
    return "pieces of words" if _keeps_language(words, text) < 0.62 else None


def _keeps_language(words: list[str], text: str) -> float:
    """Mean probability, in every few words of a text, of the two languages that are most probable for the whole."""
    rank = _identifier().rank
    likely = [language for language, _ in rank(text)[:2]]
    starts = range(0, max(len(words) - WINDOW // 2, 1), WINDOW)
    parts = [words[start : start + WINDOW] for start in starts]
    parts[-1] = words[starts[-1] :]
    return mean(sum(share for language, share in rank(" ".join(part)) if language in likely) for part in parts)
