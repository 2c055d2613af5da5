"""The one function that displays the package's values, whatever room they come from."""

from typing import Any

from ssn_probe.report.terminal.outline import declaration, outline
from ssn_probe.spec.decorator import RecipeFunction
from ssn_probe.spec.node import Node


def render(value: Any) -> Any:
    """A rich renderable of an expression, a declared recipe, a neuron set, an overlap or a delta file."""
    if isinstance(value, Node):
        return outline(value)
    if isinstance(value, RecipeFunction):
        return declaration(value)
    from ssn_probe.neurons import NeuronSet
    from ssn_probe.neurons.overlap import Overlap

    if isinstance(value, NeuronSet):
        from ssn_probe.report.terminal.result_card import neuron_table

        return neuron_table(value)
    if isinstance(value, Overlap):
        from ssn_probe.report.terminal.overlap_matrix import overlap_matrix

        return overlap_matrix(value)
    from ssn_probe.report.terminal.delta_tables import delta_card

    return delta_card(value)
