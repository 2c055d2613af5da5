"""The exceptions of ssn-probe: a tree, in which every mistake of a user has a message and a hint that names the fix.

The command line prints `message` and `hint` and exits with 1. Any other exception is a bug in ssn-probe.
"""


class SSNProbeError(Exception):
    """A mistake that a user can fix: `message` says what is wrong, `hint` what to do."""

    def __init__(self, message: str, hint: str | None = None):
        super().__init__(message if hint is None else f"{message}\n{hint}")
        self.message = message
        self.hint = hint


class RecipeError(SSNProbeError):
    """A recipe, a parameter or an expression that is not valid."""


class DataError(SSNProbeError):
    """A prompt set or a neuron file that is missing or malformed, or lacks a language or context."""


class ModelError(SSNProbeError):
    """A model that cannot be loaded, has an unknown family, or computes NaN."""


class RemoteError(SSNProbeError):
    """A remote host that refuses a request or fails."""


class JudgeError(SSNProbeError):
    """A judge that is missing or malformed, or whose answer cannot be parsed."""


class ResultError(SSNProbeError):
    """A results folder or a file in it that cannot be read or written."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, or its class; where that line only announces a reason, the reason too."""
    lines = [line.strip() for line in str(error).strip().splitlines()]
    if not lines:
        return type(error).__name__
    if isinstance(error, KeyError) and " " not in lines[0]:  # its text is the key alone
        return f"there is no {lines[0]}"
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


def is_library_failure(error: BaseException) -> bool:
    """Is it an exception that a library raised for a file, a panic of one in Rust included, and no Ctrl-C or exit?

    `pyo3_runtime.PanicException` is no Exception, and no module exports it.
    """
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def nearest(word: str, known: "list[str] | tuple[str, ...]") -> str:
    """'Did you mean …?' with the nearest known word, or else the whole list."""
    import difflib

    close = difflib.get_close_matches(word, known, n=1)
    return f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
