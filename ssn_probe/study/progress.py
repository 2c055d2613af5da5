"""Where a study reports what is done; who draws it is not the study's concern."""

from collections.abc import Callable, Mapping
from typing import Protocol

Advance = Callable[[int], None]
"""Called with the number of prompts that have just been done."""
Note = Callable[[str], None]
"""Called with how the work of a row goes, in a few words that replace those before."""


def no_note(_text: str) -> None:
    """The Note that nobody reads."""


def counted(note: Note, text: str, prompts: int) -> Advance:
    """Notes after every batch how many of so many prompts are done, and nothing any more when all are."""
    done = 0

    def advance(just: int) -> None:
        nonlocal done
        done += just
        note("" if done >= prompts else f"{text}, prompt {done} of {prompts}")

    note(f"{text}, {prompts} prompts")
    return advance


class Tracker(Protocol):
    """Where the runner reports what is done. A row is complete when its total has been reached."""

    def advance(self, label: str) -> Advance:
        """A function to call with the number of prompts that have just been done in the row `label`."""
        ...

    def settle(self, totals: Mapping[str, int]) -> None:
        """The true totals of some rows, now that they are known; a row of none is no row."""
        ...

    def note(self, label: str, text: str) -> None:
        """How the work of a row goes, in a few words that replace those before."""
        ...

    def say(self, text: str) -> None:
        """What a reader should know at once, beside the rows."""
        ...

    def beside(self, text: str) -> None:
        """What all rows wait for, in a few words that replace those before. Any thread may call this."""
        ...


class Silent:
    """Reports to nobody."""

    def advance(self, label: str) -> Advance:
        return lambda _done: None

    def settle(self, totals: Mapping[str, int]) -> None:
        pass

    def note(self, label: str, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def beside(self, text: str) -> None:
        pass
