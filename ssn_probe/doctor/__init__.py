"""Can this machine, and a model on it, do the work? Every problem is shown with what it means and what to do.

`examine_machine` looks at versions, processor, memory, device, the hub's cache and the results folder; it also works
where torch cannot be imported, and reports it. `examine_model` loads a model and checks what every result relies on:
that the neurons are where their family's row says, that silencing them in a trace equals zeroing their weights,
that padding, neighbours and what ran before change nothing, that the chat template contains the request once, and
that the effect of a neuron is larger than rounding errors. `examine_host` asks a host instead, and has it run the
smallest job. `show_doctor` shows what is found.
"""

from ssn_probe.doctor.checks import Check, Status
from ssn_probe.doctor.examine import examine_machine, examine_model
from ssn_probe.doctor.hosts import examine_host
from ssn_probe.doctor.show import show_doctor

__all__ = ["Check", "Status", "examine_host", "examine_machine", "examine_model", "show_doctor"]
