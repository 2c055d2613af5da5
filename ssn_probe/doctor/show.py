"""The doctor's findings on the terminal: one line for each, and two more for a problem."""

from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from ssn_probe.doctor.checks import Check
from ssn_probe.doctor.examine import examine_machine, examine_model
from ssn_probe.doctor.hosts import examine_host
from ssn_probe.model.asking import NO_WISH, Asking
from ssn_probe.text import plain

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "bold red")}
WIDTH = 14
"""Columns for the name of a check."""


def show_doctor(
    screen: Console,
    *,
    out: Path,
    model: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    remote: bool | str = False,
    asking: Asking = NO_WISH,
) -> bool:
    """Examine the machine or a host, and a model if one is named, showing what each finds. True if none failed."""
    if remote is not False:
        with screen.status(Text("Asking the host …")):
            done = show_checks(screen, examine_host(remote, model=model, dtype=dtype, asking=asking))
        screen.print(Text(conclusion(done, model, "--remote --model NAME")), soft_wrap=True)
        return not any(check.status == "failed" for check in done)
    done = show_checks(screen, examine_machine(out, device=device))
    if model is not None:
        with screen.status(Text(f"Examining {plain(model)} …")):
            done += show_checks(screen, examine_model(model, device=device, dtype=dtype, asking=asking))
    screen.print(Text(conclusion(done, model)), soft_wrap=True)
    return not any(check.status == "failed" for check in done)


def show_checks(screen: Console, checks: Iterable[Check]) -> list[Check]:
    """Show checks as they come, and return them."""
    done = []
    for check in checks:
        done.append(check)
        for line in lines(check):
            screen.print(line, soft_wrap=True)
    return done


def lines(check: Check) -> list[Text]:
    """The mark, the name and what was found; for a problem also what it means and what to do."""
    mark, style = MARKS[check.status]
    first = Text.assemble((mark, style), f" {plain(check.name):{WIDTH}} {plain(check.found)}")
    more = [] if check.status == "ok" else [check.meaning, f"→ {check.remedy}"]
    return [first, *(Text(f"    {plain(line)}") for line in more)]


def conclusion(done: list[Check], model: str | None, example: str = "--model organism") -> str:
    """How many checks there were and how they ended; the next step."""
    failures, warnings = (sum(check.status == one for check in done) for one in ("failed", "warning"))
    if failures:
        return f"{failures} of {len(done)} checks failed. Fix them before you trust a result."
    counted = f", {warnings} warning{'s' * (warnings > 1)}" if warnings else ""
    well = f"{len(done)} checks, none failed{counted}."
    return well if model is not None else f"{well} A model is examined with: ssn-probe doctor {example}"
