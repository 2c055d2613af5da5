"""What a reader of the paper calls a set."""

from ssn_probe.spec.neuron_sets import LeaveOneOut, SafetyNeurons, Shared, UnionOf
from ssn_probe.spec.node import Node, walk


def set_label(expression: Node) -> str:
    """A set in words that a reader of the paper knows; empty for any other."""
    label = _label(expression)
    if any(isinstance(node, SafetyNeurons) and node.scored_by.reads_language for node in walk(expression)):
        for safety in ("monolingual safety neurons (MS)", "safety neurons (SS)"):
            label = label.replace(safety, "language neurons")
    return label


def _label(expression: Node) -> str:
    match expression:
        case SafetyNeurons():
            return "the monolingual safety neurons (MS)"
        case Shared(at_least=None, by="intersection"):
            return "the shared safety neurons (SS)"
        case UnionOf(neurons=Shared(at_least=None, by="intersection")):
            return "the shared safety neurons (SS) of any language"
        case LeaveOneOut(neurons=inner) if set_label(inner):
            return f"{set_label(inner)}, found without the language that is evaluated"
    return ""
