"""`compare`: two runs beside each other."""

from pathlib import Path

import click

from ssn_probe.cli.options import OUT
from ssn_probe.cli.user_errors import UserCommand


@click.command(cls=UserCommand, short_help="Compare two runs on the prompts that both answered.")
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@OUT
@click.option("--arm", "arms", multiple=True, metavar="A[=B]", help="Compare this arm (A of the first run with B).")
@click.option("--page", type=click.Path(path_type=Path), help="Write it as a page: FILE.html.")
@click.option("--export", "file", type=click.Path(path_type=Path), help="Write the table: FILE.csv or FILE.json.")
def compare(first: str, second: str, out: Path, arms: tuple[str, ...], page: Path | None, file: Path | None) -> None:
    """Show what is higher in the second RUN than in the first (a name, part of a name, a path, or `latest`).

    Compared are the untouched models, the primary arms, and the changes that arms make, per language, with paired 95 %
    intervals. Runs that do not pair are refused with the reason: other prompts, other judges, an unfinished run. All
    else in which the two differ is listed.
    """
    from ssn_probe.api.comparing import compare as compared
    from ssn_probe.report.terminal.command_output import console
    from ssn_probe.text import plain

    found = compared(first, second, arms=arms, out=out)
    console().print(found, crop=False)
    for path in (page, file):
        if path is not None:
            click.echo(f"Written to {plain(str(found.export(path)))}")
