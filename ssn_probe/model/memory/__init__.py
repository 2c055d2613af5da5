"""How much memory a study takes on its device, before it runs; see `estimate`."""

from ssn_probe.model.memory.estimate import CONTEXT, FRAGMENTATION, Footprint, Work, footprint
from ssn_probe.model.memory.shape import Shape, shape_of

__all__ = ["CONTEXT", "FRAGMENTATION", "Footprint", "Shape", "Work", "footprint", "shape_of"]
