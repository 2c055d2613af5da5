"""`compare` and `view`: two runs beside each other, and all runs of a folder."""

from pathlib import Path

import click

from ssn_probe.cli.browser import open_in_browser
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


@click.command(cls=UserCommand, short_help="Look at all runs of a folder in a browser.")
@OUT
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@click.option("--pages/--no-pages", default=True, help="Make the pages that runs lack.  [default: pages]")
@click.option("--serve", is_flag=True, help="Serve it on this machine: runs can be followed while they are running.")
@click.option("--port", type=click.IntRange(0, 65535), help="With --serve: this port.  [default: a free one]")
def view(out: Path, opens: bool, pages: bool, serve: bool, port: int | None) -> None:
    """Write one page of all runs, DIR/index.html, with a filter and each run's page a click away. It needs no network.

    With --serve nothing is written: the page, and those of runs, are served to this machine alone until Ctrl-C, and
    say of a run that is running what is done and what its answer is so far.
    """
    from ssn_probe.text import plain

    if port is not None and not serve:
        raise click.UsageError("--port says where to serve: give --serve, too.")
    if serve:
        _serve(out, port or 0, opens)
        return
    from ssn_probe.api.viewing import write_index

    page = write_index(out, pages=pages, say=lambda text: click.echo(plain(text)))
    click.echo(f"Written to {plain(str(page))}")
    if opens:
        open_in_browser(page.absolute().as_uri())


def _serve(out: Path, port: int, opens: bool) -> None:
    from time import sleep

    from ssn_probe.api.view_server import serving

    with serving(out, port) as address:
        click.echo(f"{address} until Ctrl-C")
        if opens:
            open_in_browser(address)
        try:
            while True:  # a signal may reach another thread, and this one looks for it only when it wakes
                sleep(0.2)
        except KeyboardInterrupt:
            click.echo("")
