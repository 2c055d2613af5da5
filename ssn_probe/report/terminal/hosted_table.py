"""The models of a host as a table: which of them run, and which can be studied."""

from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ssn_probe.model.hosted import why_unsupported
from ssn_probe.remote.deployments import STATES, Deployment
from ssn_probe.text import counted, plain


def show_hosted(terminal: Console, address: str, found: Sequence[Deployment]) -> None:
    """A row per deployment, in the order given, and below it what to do next."""
    if not found:
        terminal.print(Text(plain(f"{address} has no model at the moment.")), soft_wrap=True)
        return
    table = Table("model", "state", "dtype", "revision", "can be studied", box=None, pad_edge=False)
    for one in found:
        reason = why_unsupported(one)
        state = f"{STATES[one.state]}" + (f" ({one.running} replicas)" if one.running > 1 else "")
        yes = f"yes ({one.config['model_type']})" if one.config.get("model_type") else "yes, if its family is supported"
        cells = (one.name, state, ", ".join(one.dtypes) or "–", one.revision or "main", reason or yes)
        table.add_row(*(Text(plain(cell), style="dim" if reason else "") for cell in cells))
    # A narrow terminal breaks the lines itself; rich would leave columns out.
    terminal.width = max(terminal.width, Measurement.get(terminal, terminal.options.update(width=10**4), table).maximum)
    terminal.print(table)
    fit = sum(why_unsupported(one) is None for one in found)
    terminal.print(Text(plain(f"{counted(len(found), 'model')} on {address}; {fit} can be studied.")), soft_wrap=True)
