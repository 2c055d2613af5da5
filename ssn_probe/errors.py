"""What can go wrong, as a tree: every mistake a user can make is one of these, with a hint that names the fix.

The command line prints `message` and `hint` and exits with 1; anything else is a bug in ssn-probe and shows a
traceback.
"""


class SSNProbeError(Exception):
    """A mistake with a remedy: `message` says what was given and what is allowed, `hint` what to do."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message if hint is None else f"{message}\n{hint}")
        self.message = message
        self.hint = hint


class RecipeError(SSNProbeError):
    """A recipe, a parameter or an expression that cannot be."""


class DataError(SSNProbeError):
    """A prompt set that is missing, malformed, empty or lacks a language or context."""


class ModelError(SSNProbeError):
    """A model that cannot be loaded, is of an unknown family, or computes NaN."""


class RemoteError(SSNProbeError):
    """A remote host that refuses, fails or cannot do what was asked."""


class JudgeError(SSNProbeError):
    """A judge that is missing or whose answer does not parse."""


class ResultError(SSNProbeError):
    """A results folder that cannot be read or written."""


def nearest(word: str, known: "list[str] | tuple[str, ...]") -> str:
    """'Did you mean …?' with the nearest known word, else the whole list."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
