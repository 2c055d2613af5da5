"""Is this machine, and a model on it, fit for the work? Each answer that is not yes says what it means and what to do.

`examine_machine` looks at versions, processor, memory, device, the hub's cache and the results folder; it works where
torch cannot be imported, and says so. `examine_model` loads a model and tries on it what every result rests on: that
the neurons are where the anatomy says, that silencing them in a trace equals zeroing their weights, that padding
changes nothing, that the chat template asks once, and that rounding does not drown a neuron. `show_doctor` shows both.
"""

from ssn_probe.doctor.checks import Check, Status
from ssn_probe.doctor.examine import examine_machine, examine_model
from ssn_probe.doctor.show import show_doctor

__all__ = ["Check", "Status", "examine_machine", "examine_model", "show_doctor"]
