"""The shipped recipes, one research question per file: `from ssn_probe.recipes import suppress_ss`."""

from .identify_ms import identify_ms
from .overlap import overlap
from .suppress_ss import suppress_ss
from .transfer import transfer

__all__ = ["identify_ms", "overlap", "suppress_ss", "transfer"]
