"""What a command does with an error: one message and a hint for a mistake, and a request to report for a bug."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from ssn_probe.errors import SSNProbeError


@contextlib.contextmanager
def user_errors(debug: bool) -> Iterator[None]:
    """A user's mistake is one message and a hint, exit 1; Ctrl-C says what is kept, exit 130; a bug says so, 70."""
    from ssn_probe.text import plain

    try:
        yield
    except SSNProbeError as error:
        if debug:
            raise
        click.echo(f"Error: {plain(error.message)}", err=True)
        if error.hint:
            click.echo(f"  {plain(error.hint)}", err=True)
        sys.exit(1)
    except KeyboardInterrupt as interrupt:
        if str(interrupt):
            click.echo(plain(str(interrupt)), err=True)
        click.echo("Interrupted. Run the same command again: no batch that was done is computed twice.", err=True)
        sys.exit(130)
    except click.exceptions.ClickException:
        raise
    except Exception as error:
        if debug:
            raise
        click.echo(f"Error: {type(error).__name__}: {plain(str(error))}", err=True)
        click.echo("  This is a bug in ssn-probe: please report it. The traceback: ssn-probe --debug …", err=True)
        sys.exit(70)


class UserCommand(click.Command):
    """A command whose errors are shown as a message and a hint."""

    def invoke(self, ctx: click.Context) -> Any:
        with user_errors(ctx.obj):
            return super().invoke(ctx)


def terminated(*_signal: object) -> None:
    """A scheduler's SIGTERM ends a run as Ctrl-C does: its folder says `interrupted` and keeps what was measured."""
    raise KeyboardInterrupt
