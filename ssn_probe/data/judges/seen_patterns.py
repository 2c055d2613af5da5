"""A regular expression that finds in `seen` texts what its author sees in it.

A pattern cannot be folded like a text: `？` would become a quantifier, `…` three wildcards, and a removed joiner would
leave its own `?` to the letter before it. So each character that `seen` changes, written out or as an escape such as
`\\u2019`, is replaced by an escaped literal or a group, and nothing else of the pattern is touched.
"""

import re
import unicodedata
from collections.abc import Iterator

from ssn_probe.data.sameness import seen, seen_character

LONGEST_RANGE = 32
"""A longer range in a class, as `[؀-ۿ]`, means a script or a block, not each of its characters."""
_ESCAPE = r"\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|N\{[^}]*\}|.)"
_TOKEN = re.compile(rf"{_ESCAPE}|\(\?P?[<=(]\w+[>)]|.", re.DOTALL)
"""An escape, the name of a group, or a character."""
_IN_CLASS = re.compile(rf"({_ESCAPE}|[^\\])(?:-({_ESCAPE}|[^\]\\]))?", re.DOTALL)
"""A character or an escape in a class, or a range of them."""
_CLASS = re.compile(rf"\[(\^?)(\]?(?:{_ESCAPE}|[^\]\\])*)\]", re.DOTALL)


def seen_pattern(pattern: str) -> str:
    """The pattern for `seen` texts; itself where it is ASCII and escapes nothing else. `re` must have accepted it."""
    return unicodedata.normalize("NFC", "".join(_parts(pattern)))


def _parts(pattern: str) -> Iterator[str]:
    start = 0
    while start < len(pattern):
        found = _CLASS.match(pattern, start) or _TOKEN.match(pattern, start)
        assert found is not None
        start = found.end()
        yield _class(found) if found.re is _CLASS else _literal(found[0])


def _literal(token: str) -> str:
    character = _character(token)
    if character is None or (shown := _shown(character)) == character:
        return token
    return _escaped(shown) if len(shown) == 1 else f"(?:{_escaped(shown)})"


def _class(found: re.Match[str]) -> str:
    """A class; one with a member that is seen as several characters, or as none, becomes a choice."""
    negated, inside = found[1], found[2]
    single, several = "", list[str]()
    for member in _IN_CLASS.finditer(inside):
        first, last = _character(member[1]), _character(member[2] or "")
        if member[2] is None:
            shown = first if first is None else _shown(first)
            same = shown == first
        elif first is not None and last is not None and 0 <= ord(last) - ord(first) < LONGEST_RANGE:
            single += member[0]
            range_ = map(chr, range(ord(first), ord(last) + 1))
            several += [shown for one in range_ if (shown := _shown(one)) != one]
            continue
        else:
            shown, same = None, True
        if same:
            single += member[0]
        else:
            several.append(shown or "")
    single += "".join(_escaped(one) for one in dict.fromkeys(several) if len(one) == 1)
    longer = sorted({one for one in several if len(one) != 1}, key=lambda one: (-len(one), one))
    return _choice(negated, single, longer)


def _choice(negated: str, single: str, longer: list[str]) -> str:
    one_of = f"[{negated}{single}]" if single else r"[\s\S]" if negated else ""
    choices = [_escaped(one) for one in longer if one]
    if negated:
        return f"(?:(?!{'|'.join(choices)}){one_of})" if choices else one_of
    if not longer:
        return one_of
    empty = [""] if "" in longer else []
    return f"(?:{'|'.join([*choices, *([one_of] if one_of else []), *empty])})"


def _escaped(text: str) -> str:
    return "".join(re.escape(one) if ord(one) < 128 else one for one in text)


def _shown(character: str) -> str:
    return seen(character) if seen_character(character) else ""


def _character(token: str) -> str | None:
    """The character beyond ASCII that a token stands for; None for all others."""
    if len(token) == 1:
        return token if ord(token) > 127 else None
    if len(token) < 2 or token[0] != "\\":
        return None
    if token[1] in "xuU":
        code = int(token[2:] or "0", 16)
        return chr(code) if 127 < code < 0x110000 and not 0xD800 <= code < 0xE000 else None
    if token[1] == "N" and len(token) > 2:
        found = unicodedata.lookup(token[3:-1])
        return found if len(found) == 1 and ord(found) > 127 else None
    return token[1] if ord(token[1]) > 127 else None
