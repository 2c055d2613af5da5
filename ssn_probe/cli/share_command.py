"""`share`: a run as a data set."""

from pathlib import Path

import click

from ssn_probe.cli.options import OUT
from ssn_probe.cli.user_errors import UserCommand
from ssn_probe.text import plain


@click.command(cls=UserCommand, short_help="Write a run as a data set: a folder, or a repository on the hub.")
@click.argument("reference", metavar="RUN")
@click.option("--to", required=True, metavar="FOLDER|hub:OWNER/NAME", help="An empty folder, or a name on the hub.")
@click.option("--with-text", is_flag=True, help="With whole responses, also to harmful requests: they may be harmful.")
@click.option("--public", is_flag=True, help="On the hub: for everybody to see, not private.")
@click.option("-y", "--yes", is_flag=True, help="Upload; without it, only say what would be.")
@OUT
def share(reference: str, to: str, with_text: bool, public: bool, yes: bool, out: Path) -> None:
    """Write RUN (a name, part of a name, a path, or `latest`) as a data set that `datasets` loads.

    It holds tables, recipe, page, charts, a card and Croissant metadata; no prompt, no response to a harmful request,
    no path and no host. Responses are written whole only with --with-text, and only where the licence of the prompts
    is known and their owner sets no conditions.
    """
    from ssn_probe.api.sharing import share as write
    from ssn_probe.runs.folder import find_run
    from ssn_probe.runs.integrity import warning

    run = find_run(reference, out)
    if (changed := warning(run)) is not None:
        click.echo(f"Warning: {plain(changed)}", err=True)
    made = write(run, to, with_text=with_text, public=public, yes=yes)
    for line in made.what:
        click.echo(plain(line))
    click.echo(f"Written to {plain(made.where)}")
