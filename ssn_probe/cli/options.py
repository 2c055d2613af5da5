"""Options that several commands have, and what they mean together."""

from pathlib import Path
from typing import Any

import click


class Number(click.ParamType):
    """A number, or `auto` (None), such as of as many prompts as fit into memory."""

    name = "N|auto"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        if value is None or value == "auto":
            return None
        return click.IntRange(1)(value, param, ctx)


OUT = click.option(
    "-o", "out", type=click.Path(path_type=Path), default="results", show_default=True, help="Results folder."
)
DTYPE = click.option(
    "--dtype", default="auto", show_default=True, help="auto (as stored), float32, bfloat16, float16, float64."
)
DEVICE = click.option(
    "--device",
    default="auto",
    show_default=True,
    help="auto, cpu, cuda, cuda:1, …, or balanced: the layers over all GPUs and the processor (device_map).",
)
HOST = click.option(
    "--host", metavar="URL", help="With --remote: this host.  [default: NDIF_HOST, else https://api.ndif.us]"
)
SYSTEM = click.option("--system", metavar="TEXT", help="The system prompt.  [default: what the chat template writes]")
CHAT = click.option(
    "--chat",
    metavar="FORM",
    help="plain: ask a model without a chat template in a plain form.  [default: its template]",
)
REMOTE = click.option("--remote", is_flag=True, help="Use the model on an NDIF host, with the key of NDIF_API_KEY.")
STUDY = (
    click.option("-y", "--yes", is_flag=True, help="With --remote: do not ask before prompts are sent."),
    HOST,
    REMOTE,
    OUT,
    DTYPE,
    DEVICE,
    click.option("--batch-size", type=Number(), default="auto", show_default=True, help="Prompts per forward pass."),
    click.option(
        "--engine",
        default="transformers",
        show_default=True,
        metavar="NAME[:OPTION=VALUE,…]",
        help="What generates responses: transformers, or vllm for neurons that are silenced or scaled.",
    ),
    click.option(
        "--limit", type=click.IntRange(1), help="Use at most this many prompts per language, split and context."
    ),
    click.option("-T", "assignments", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the recipe."),
    click.option(
        "--judge",
        "judges",
        multiple=True,
        metavar="NAME[:ARGUMENT]",
        help="Who judges responses: phrases, qwen3guard, openai:MODEL, none, …; further ones judge afterwards.",
    ),
)


def study_options(command):
    """The options of `show` and `run`, last first. But for -T, only limit, dtype and engine can change a number."""
    for option in STUDY:
        command = option(command)
    return command


def place(remote: bool, host: str | None) -> bool | str:
    """Where the model runs: here (False), on the host that the settings name (True), or on the one named."""
    if host is not None and not remote:
        raise click.UsageError("--host says where to run remotely: give --remote, too.")
    return remote if host is None else host


def with_place(options: dict[str, Any]) -> dict[str, Any]:
    """The options with `remote` as the place, for `--remote` and `--host`."""
    remote = place(options["remote"], options["host"])
    if options["yes"] and remote is False:
        raise click.UsageError("--yes answers what --remote asks: give --remote, too.")
    return {name: value for name, value in options.items() if name != "host"} | {"remote": remote}
