"""Where prompt sets come from: the form of the source text decides who finds its files."""

from collections.abc import Callable
from importlib.resources import files

from ssn_probe.data.sources.local_files import SetFiles, local_files

SOURCES: list[tuple[Callable[[str], bool], Callable[[str], SetFiles]]] = [
    (lambda source: source == "organism", lambda _source: local_files(str(files("ssn_probe.organism") / "data"))),
    (lambda source: source == "lighthouses", lambda _source: local_files(str(files("ssn_probe.data.lighthouses")))),
    (lambda _source: True, local_files),
]
"""Whether a source has this form, and what finds its files; the first match counts."""


def find_files(source: str) -> SetFiles:
    """The files of the prompt set that a recipe names. Raises DataError where there are none."""
    return next(find(source) for matches, find in SOURCES if matches(source))
