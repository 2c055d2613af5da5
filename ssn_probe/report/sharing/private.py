"""What is not passed on: paths of this machine, its user's folders, the addresses of hosts."""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

PATH = re.compile(r"(?<![\w.:/<+=-])(?:~|[A-Za-z]:)?[/\\](?:[^\s/\\'\"`,;:)]+[/\\])+(?P<last>[^\s/\\'\"`,;:)]*)")
"""An absolute path of two parts or more within a text; not an address, nor what is within a longer word."""
WHOLE = re.compile(r"(?:~|[A-Za-z]:)?[/\\](?!/)[^\n]*")
"""A text that is an absolute path, which may have blanks in it."""
HOST = re.compile(r"https?://[^\s'\"`,;)]+")
LEFT_OUT = ("files", "sha256", "git", "command", "order", "remote")
"""Of a manifest: digests of files that are not shared as they were, and what describes this machine."""


def paths_in(value: Any) -> set[str]:
    """Every absolute path that is a value by itself: it is found again in sentences, whatever stands in it."""
    return {found for text in _texts(value) if WHOLE.fullmatch(found := _place(text))}


def without_paths(value: Any, known: Collection[str] = ()) -> Any:
    """A JSON value in which every absolute path is only its last part, and every address of a host is `HOST`."""
    if isinstance(value, Mapping):
        return {_clean(str(name), known): without_paths(one, known) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(one, known) for one in value]
    return _clean(value, known) if isinstance(value, str) else value


def shared_manifest(manifest: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    """What others get to know of how a run was made."""
    kept = {name: value for name, value in manifest.items() if name not in LEFT_OUT}
    return without_paths(kept | {"platform": str(manifest.get("platform", "")).partition("-")[0]}, known)


def _clean(text: str, known: Collection[str]) -> str:
    whole = {_place(text)} if WHOLE.fullmatch(_place(text)) else set()
    for path in sorted({*known, *whole}, key=len, reverse=True):
        text = text.replace(path, re.split(r"[/\\]", path.rstrip("/\\"))[-1])
    return HOST.sub("HOST", PATH.sub(lambda found: found["last"], text))


def _place(text: str) -> str:
    """The path of a judge's name, such as `file:PATH`; any other text as it is."""
    return text.partition(":")[2] if text.startswith(("file:", "python:")) else text


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for one in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(one)
