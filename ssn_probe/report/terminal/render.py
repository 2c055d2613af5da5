"""The one function that displays the package's values, whatever room they come from."""

from typing import Any

from ssn_probe.report.terminal.outline import declaration, outline
from ssn_probe.spec.decorator import RecipeFunction
from ssn_probe.spec.node import Node


def render(value: Any) -> Any:
    """A rich renderable of an expression, a declared recipe, a neuron set or a delta file."""
    if isinstance(value, Node):
        return outline(value)
    if isinstance(value, RecipeFunction):
        return declaration(value)
    from ssn_probe.neurons import NeuronSet

    if isinstance(value, NeuronSet):
        from ssn_probe.report.terminal.result_card import neuron_table

        return neuron_table(value)
    from ssn_probe.report.terminal.delta_tables import delta_card

    return delta_card(value)
