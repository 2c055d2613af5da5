"""A page, opened in the user's browser."""

import click


def open_in_browser(address: str) -> None:
    """Opens a file's or a server's address; says so where no browser can be started."""
    if click.launch(address):
        click.echo("No browser could be started: open the page by hand.", err=True)
