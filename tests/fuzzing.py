"""What the fuzzing tests share: the one thing that may go wrong, hostile texts, and a small prompt set."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from prompt_rows import make_rows, write
from ssn_probe.recipes import amplify_ss, identify_ms, overlap, patch_ss, suppress_ss, transfer

from ssn_probe import Recipe
from ssn_probe.errors import SSNProbeError
from ssn_probe.spec.node import to_json
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.plan import limited, make_plan

SHIPPED = [amplify_ss, identify_ms, overlap, patch_ss, suppress_ss, transfer]
JUDGE = {"kind": "patterns", "refused": {"en": "sorry", "de": "leider"}, "complied": {"en": ".+", "de": ".+"}}

WORDS = """
* . .. / ~ = , 0 -1 1.0 1e400 nan inf -inf none true {} %s [bold] organism average en data* x.json ../../x
"""
NASTY = [
    *("", " ", "\0", "\ud800", "\udce9", "\x1b[31m", "\u202e", "\ufeff", "e\u0301", "١"),
    *("9" * 40, "9" * 4400, "a" * 300, "a" * 4600, "a/" * 2200, "https://localhost:1/x"),
    *WORDS.split(),
]
"""Texts that have broken programs before."""
texts = st.sampled_from(NASTY) | st.text(st.characters(), max_size=12)


numbers = st.integers(-(2**70), 2**70) | st.sampled_from([2**63 - 1, 2**63, 10**400, 1e308, 5e-324]) | st.floats()
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3))
"""Anything that JSON holds."""

words = texts.map(lambda text: text.encode(errors="replace").decode())  # polars holds no half characters
cells = st.none() | st.booleans() | st.integers(-9, 2**62) | st.floats() | words | st.binary(max_size=3)
cells |= (
    st.dates() | st.datetimes() | st.timedeltas() | st.lists(st.integers(0, 9)) | st.fixed_dictionaries({"a": words})
)
"""Anything that a table holds."""

PANIC = base64.b64decode(
    "UEFSMRUEFRQVJkwVBBUAAAAotS/9IApRAAABAAAAeAEAAAB5FQAVEhUkLBUEFRAVBhUGAAAotS/9IAlJAAACAAAABAEBAwIVDBk1AAYQGRgBYRUMFgQW"
    "YhaGASZIJggAGRwWSBVGFgAAABUCGSxIBHJvb3QVAgAVDCUCGAFhJQBMHAAAABYEGRwZHCbOARwVDBk1AAYQGRgBYRUMFgQWYhaRASZIJggAFsABFRQA"
    "FmIWBCYIFoYBFAAAGRwYDEFSUk9XOnNjaGVtYRiYAS8vLy8vMm9BQUFBRUFBQUE4di8vL3hRQUFBQUVBQUVBQUFBS0FBc0FDQUFLQUFRQStQLy8vd3dB"
    "QUFBSUFBZ0FBQUFFQUFFQUFBQUVBQUFBN1AvLy95d0FBQUFnQUFBQUdBQUFBQUVVQUFBUUFCSUFCQUFRQUJFQUNBQUFBQXdBQUFBQUFQei8vLzhFQUFR"
    "QUFRQUFBR0VBABhOUG9sYXJzIChweXRob24pIHZlcnNpb24gMi4xLjAgKGJ1aWxkIDdmOTAyYmQzZmZkMjdmZjgyZDE0Mjc4YTA5YTI5NWZmMmY3YWVk"
    "OTIpGRwcAAAAUgEAAFBBUjE="
)
"""A parquet file with one byte changed, at which polars 2.1 panics: the error is no `Exception`."""


def clear(attempt: Callable[[], Any]) -> Any:
    """The value, or None where there was one clear error; whatever else is raised is a bug and passes through."""
    try:
        return attempt()
    except SSNProbeError as error:
        raised = error
    assert raised.message.strip(), "an error must say what was wrong"
    assert raised.hint, f"an error must say what to do: {raised.message}"
    assert len(raised.message) < 20_000, f"an error must be short: {raised.message[:200]}"
    return None


def small_set(folder: Path) -> str:
    """A sound prompt set of two languages, with a judge."""
    return str(write(folder, make_rows(), name="prompts", anchor="en", judge=JUDGE))


def stored(value: Any) -> bytes:
    """What a run would write of a value."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def planned(made: Recipe) -> None:
    """All that happens to a recipe before a model is loaded."""
    made = limited(made, 2)
    plan = make_plan(made)
    assert len(resolved_key(made, {"name": "m"}, plan.data)) == 64
    stored(to_json(made))
