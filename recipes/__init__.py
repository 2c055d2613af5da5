"""The shipped recipes, one research question per file: `from ssn_probe.recipes import suppress_ss`."""

from .after_expand import after_expand
from .amplify_ss import amplify_ss
from .dissociation import dissociation
from .expand_controls import expand_controls
from .expand_ss import expand_ss
from .identify_ms import identify_ms
from .leave_one_out import leave_one_out
from .overlap import overlap
from .patch_ss import patch_ss
from .reproduce_advbench_x import reproduce_advbench_x
from .reproduce_multijail import reproduce_multijail
from .suppress_ss import suppress_ss
from .transfer import transfer

__all__ = [
    "after_expand",
    "amplify_ss",
    "dissociation",
    "expand_controls",
    "expand_ss",
    "identify_ms",
    "leave_one_out",
    "overlap",
    "patch_ss",
    "reproduce_advbench_x",
    "reproduce_multijail",
    "suppress_ss",
    "transfer",
]
