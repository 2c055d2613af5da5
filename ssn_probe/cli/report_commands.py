"""`report`: the report of a past run, made again."""

from pathlib import Path

import click

from ssn_probe.cli.browser import open_in_browser
from ssn_probe.cli.options import OUT
from ssn_probe.cli.user_errors import UserCommand
from ssn_probe.text import plain


@click.command(cls=UserCommand, short_help="Make a run's page, report.md and charts again.")
@click.argument("reference", metavar="RUN")
@OUT
@click.option("--open", "opens", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--unredacted",
    is_flag=True,
    help="Only report-unredacted.html, with whole requests and responses. They may be harmful: not for others.",
)
def report(reference: str, out: Path, opens: bool, unredacted: bool) -> None:
    """Make the report of RUN (a name, part of a name, a path, or `latest`) again, from its folder.

    That is report.html, one page that needs no network, report.md, and the charts in plots/. A run that failed or was
    stopped gets a page, too, of what is there. Prompts of a set whose licence is not known, or whose owner sets
    conditions, are never written whole.
    """
    from ssn_probe.api.pages import write_pages
    from ssn_probe.runs import folder as results
    from ssn_probe.runs.integrity import warning

    run = results.find_run(reference, out)
    changed = warning(run)
    page = write_pages(run, unredacted=unredacted)
    if changed is not None:
        click.echo(f"Warning: {plain(changed)}", err=True)
    click.echo(f"Written to {plain(str(page))}")
    if opens:
        open_in_browser(page.absolute().as_uri())
