"""The shipped recipes, one research question per file: `from ssn_probe.recipes import suppress_ss`."""

from .amplify_ss import amplify_ss
from .expand_ss import expand_ss
from .identify_ms import identify_ms
from .overlap import overlap
from .patch_ss import patch_ss
from .suppress_ss import suppress_ss
from .transfer import transfer

__all__ = ["amplify_ss", "expand_ss", "identify_ms", "overlap", "patch_ss", "suppress_ss", "transfer"]
