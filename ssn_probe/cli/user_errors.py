"""What a command does with an error: one message and a hint for a mistake, and a request to report for a bug."""

import contextlib
import shlex
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


class RecipeCommand(UserCommand):
    """A command that takes a recipe; a parameter of the recipe that was given without -T is told how it is given."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name.lstrip("-").replace("-", "_")
            if not _is_parameter(name):
                raise
            value = _value_after(given, error.option_name)
            raise click.UsageError(
                f"No such option '{error.option_name}'. {_with_t(f'{name}={value}')}", ctx
            ) from error
        except click.UsageError as error:
            flags = {
                name
                for one in self.params
                if getattr(one, "is_flag", False)
                for name in (*one.opts, *one.secondary_opts)
            }
            words = [word for word in given if word not in flags]
            meant = list(_assignments(words)) if "unexpected extra argument" in error.format_message() else []
            if not meant:
                raise
            raise click.UsageError(f"{error.format_message()}. {_with_t(*meant)}", ctx) from error


def _with_t(*assignments: str) -> str:
    from ssn_probe.text import plain

    return f"Parameters of a recipe follow -T: {plain(' '.join(f'-T {shlex.quote(one)}' for one in assignments))}"


def _is_parameter(name: str) -> bool:
    """Of a shipped recipe."""
    from ssn_probe.spec.discovery import list_recipes

    return any(name == parameter for listing in list_recipes() for parameter, *_ in listing.parameters)


def _assignments(args: list[str]) -> Iterator[str]:
    """What among arguments was meant for -T: `top=0.1` without it, and `-T top 0.1`."""
    for before, text, after in zip(["", *args], args, [*args[1:], ""], strict=False):
        if before == "-T" and text.isidentifier() and after and not after.startswith("-"):
            yield f"{text}={after}"
        elif not before.startswith("-") and text.partition("=")[0].isidentifier() and "=" in text:
            yield text


def _value_after(args: list[str], option: str) -> str:
    """What stands behind an option, after a blank or an equals sign."""
    for place, text in enumerate(args):
        if text.startswith(f"{option}="):
            return text.removeprefix(f"{option}=")
        if text == option and args[place + 1 :]:
            return args[place + 1]
    return "VALUE"


def terminated(*_signal: object) -> None:
    """A scheduler's SIGTERM ends a run as Ctrl-C does: its folder says `interrupted` and keeps what was measured."""
    raise KeyboardInterrupt
