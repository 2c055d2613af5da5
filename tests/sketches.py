"""Tests of whole studies draw no charts: vl-convert takes a tenth of a second for each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"><g fill="none"/></svg>'
REAL: dict[str, Callable[..., Any]] = {}


@contextmanager
def sketched() -> Iterator[None]:
    """Every chart is an empty picture."""
    from ssn_probe.report.charts import chart

    REAL.update(drawn=chart.drawn, painted=chart.painted, source_digest=chart.source_digest)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(chart, "drawn", lambda _: EMPTY)
        patched.setattr(chart, "painted", lambda _: b"\x89PNG")
        patched.setattr(chart, "source_digest", lambda: "sketches")  # none is kept for a picture
        yield


@contextmanager
def as_drawn() -> Iterator[None]:
    """Charts are drawn."""
    from ssn_probe.report.charts import chart

    with pytest.MonkeyPatch.context() as patched:
        for name, function in REAL.items():
            patched.setattr(chart, name, function)
        yield
