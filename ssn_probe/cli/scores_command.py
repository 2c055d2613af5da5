"""`scores`: the effect of every neuron on every prompt of a past run, as a file."""

import sys
from pathlib import Path

import click

from ssn_probe.cli.options import OUT
from ssn_probe.cli.user_errors import UserCommand
from ssn_probe.text import plain


@click.command(cls=UserCommand, short_help="Write every neuron's effect on every prompt of a run as parquet.")
@click.argument("reference", metavar="RUN")
@click.argument("file", metavar="FILE.parquet", type=click.Path(path_type=Path))
@click.option("--set", "name", help="The set that these effects chose.  [default: the only one]")
@click.option("--language", "languages", multiple=True, help="Only this language; repeatable.")
@click.option("--context", "contexts", multiple=True, help="Only harmful, or only harmless prompts.")
@OUT
def scores(
    reference: str, file: Path, name: str | None, languages: tuple[str, ...], contexts: tuple[str, ...], out: Path
) -> None:
    """Write the effects that chose the neurons of RUN (a name, part of a name, a path, or `latest`) to FILE.parquet.

    One row per neuron and prompt, about five bytes each: language, context, prompt_id, layer, site, index, effect. They
    are read from the cache of the results folder, batch by batch; nothing is measured.
    """
    from ssn_probe.api.score_export import export_scores
    from ssn_probe.runs.folder import find_run

    run = find_run(reference, out)
    try:
        export_scores(run, file, name=name, languages=languages, contexts=contexts)
    except KeyboardInterrupt:
        click.echo("Interrupted. Nothing was written: the same command begins again.", err=True)
        sys.exit(130)
    click.echo(f"Written to {plain(str(file))}")
