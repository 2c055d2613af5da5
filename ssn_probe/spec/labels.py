"""What a reader of the paper calls a set."""

from ssn_probe.spec.neuron_sets import LeaveOneOut, SafetyNeurons, Shared, UnionOf
from ssn_probe.spec.node import Node


def called(expression: Node) -> str:
    """A set in words that a reader of the paper knows; empty for any other."""
    match expression:
        case SafetyNeurons():
            return "the monolingual safety neurons (MS)"
        case Shared(at_least=None, by="intersection"):
            return "the shared safety neurons (SS)"
        case UnionOf(neurons=Shared(at_least=None, by="intersection")):
            return "the shared safety neurons (SS) of any language"
        case LeaveOneOut(neurons=inner) if called(inner):
            return f"{called(inner)}, found without the language that is evaluated"
    return ""
