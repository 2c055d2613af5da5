"""What `ssn-probe clean` shows: what is left over with its size, what was removed, and what was left alone and why."""

from collections.abc import Iterable

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ssn_probe.runs.leftovers import Leftover, Survey
from ssn_probe.text import counted, plain, size


def show_leftovers(terminal: Console, result: Survey) -> None:
    """A row per file or folder that can go, and their size together."""
    for note in result.notes:
        terminal.print(Text(plain(note), style="yellow"), soft_wrap=True)
    if not result.found:
        terminal.print(Text(plain(f"Nothing is left over in {result.root}.")), soft_wrap=True)
        return
    table = Table("what", "where", box=None, pad_edge=False)
    table.add_column("size", justify="right")
    for one in result.found:
        cells = (one.what, str(one.path.relative_to(result.root)), size(one.size))
        table.add_row(*(Text(plain(cell)) for cell in cells))
    # A narrow terminal breaks the lines itself; rich would leave columns out.
    terminal.width = max(terminal.width, Measurement.get(terminal, terminal.options.update(width=10**4), table).maximum)
    terminal.print(table)
    total = sum(one.size for one in result.found)
    terminal.print(Text(f"{counted(len(result.found), 'item')}, {size(total)}.", style="bold"))


def show_removal(terminal: Console, removed: Iterable[tuple[Leftover, str]]) -> bool:
    """Removes, and shows what could not be; was everything removed?"""
    done, count, failed = 0, 0, False
    for one, why in removed:
        if why:
            failed = True
            terminal.print(Text(plain(f"{one.path} was not removed: {why}."), style="red"), soft_wrap=True)
        else:
            done, count = done + one.size, count + 1
    terminal.print(Text(f"Removed: {counted(count, 'item')}, {size(done)}."))
    return not failed
