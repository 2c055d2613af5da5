"""`organism`: the embedded model, measured, trained again from a seed, and studied over many seeds."""

import signal
from pathlib import Path

import click

from ssn_probe.cli.user_errors import UserCommand, terminated, user_errors


class Seeds(click.ParamType):
    """Seeds, as in 0-9 or 1,2,5."""

    name = "SEEDS"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        seeds: list[int] = []
        for part in str(value).split(","):
            first, _, last = part.strip().partition("-")
            if not first.isdecimal() or not (last or first).isdecimal() or len(last or first) > 6:
                self.fail(f"{value!r} are no seeds: write 0-9, or 1,2,5.", param, ctx)
            seeds += range(int(first), int(last or first) + 1)
        if not seeds or len(set(seeds)) < len(seeds):
            self.fail(f"{value!r} must name every seed once, from the lowest to the highest.", param, ctx)
        return tuple(seeds)


@click.group(invoke_without_command=True, short_help="Measure the embedded model, or train others like it.")
@click.pass_context
def organism(context: click.Context) -> None:
    """Measure the embedded model (`info`, the default), train it from a seed (`train`), or study many (`study`)."""
    if context.invoked_subcommand is None:
        with user_errors(context.obj):
            context.invoke(info)


@organism.command(cls=UserCommand, short_help="Measure utility, over-refusal, invalid responses and ASR.")
@click.option(
    "--model", default="organism", show_default=True, help="organism:NAME, or a folder that `organism train` wrote."
)
def info(model: str) -> None:
    """Measure utility, over-refusal, invalid responses and ASR per language; show the truth about planted neurons."""
    from ssn_probe.report.terminal.command_output import console, show_organism

    show_organism(console(), model)


@organism.command(cls=UserCommand, short_help="Train an organism from a seed, or teach a model one topic.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--variant", help="Which organism to train from scratch.  [default: natural]")
@click.option("--base", help="Instead, teach this pretrained chat model to refuse lighthouses: smollm2, or a folder.")
@click.option(
    "--languages",
    type=click.Choice(["graded", "anchor"]),
    help="With --base: some refusals in every language, or in the anchor alone.  [default: graded]",
)
@click.option("-o", "out", type=click.Path(path_type=Path), help="Output folder.  [default: organism-VARIANT-SEED]")
def train(seed: int, variant: str | None, base: str | None, languages: str | None, out: Path | None) -> None:
    """Train an organism from a seed: two minutes, and up to twenty more for the truth about planted neurons.

    \b
    Variants: natural, planted-ffn, planted-wide, planted-attention,
    planted-qwen3.

    With --base a pretrained chat model is taught to refuse one harmless topic in natural language, and to answer
    everything else as before: four minutes for smollm2 on a free core (docs/lighthouses.md).
    """
    from ssn_probe.report.terminal.command_output import console, teach_topic, train_organism

    if base is None:
        if languages is not None:
            raise click.UsageError("--languages belongs to --base: give --base smollm2, too.")
        variant = variant or "natural"
        train_organism(console(), seed, variant, out or Path(f"organism-{variant}-{seed}"))
        return
    if variant is not None:
        raise click.UsageError("--variant is trained from scratch, --base is not: give one of them.")
    languages = languages or "graded"
    teach_topic(console(), base, seed, languages, out or Path(f"lighthouses-{languages}-{seed}"))


@organism.command(cls=UserCommand, short_help="Repeat a recipe's headline on organisms of many seeds.")
@click.option(
    "--seeds", type=Seeds(), default="0-9", show_default=True, help="The seeds of the organisms: 0-9, or 1,2,5."
)
@click.option("--variant", default="natural", show_default=True, help="Which organism to train, see `train`.")
@click.option(
    "--recipe", default="suppress_ss", show_default=True, help="A shipped name or a file; it has a primary arm."
)
@click.option("-T", "assignments", multiple=True, metavar="NAME=VALUE", help="Set a parameter of the recipe.")
@click.option(
    "--organisms", type=click.Path(path_type=Path), help="Folder with trained organisms.  [default: organisms, in -o]"
)
@click.option("-o", "out", type=click.Path(path_type=Path), default="organism-study", show_default=True)
def study(
    seeds: tuple[int, ...], variant: str, recipe: str, assignments: tuple[str, ...], organisms: Path | None, out: Path
) -> None:
    """Run a recipe's headline on organisms of many seeds: in how many does it hold, and how far do they differ?

    Every organism that is not in the folder yet is trained: two minutes on a free core. The model is the unit: the
    table has a row per organism, and its intervals are over organisms. The same command continues a study that was
    stopped, and reads runs that are done. Writes study.md, study.csv and study.parquet.
    """
    from ssn_probe.api.seed_study import SeedStudy, run_seed_study
    from ssn_probe.report.terminal.command_output import console
    from ssn_probe.spec.decorator import split_assignments

    signal.signal(signal.SIGTERM, terminated)
    asked = SeedStudy(
        seeds=seeds,
        variant=variant,
        recipe=recipe,
        arguments=split_assignments(assignments),
        out=out,
        organisms=organisms or out / "organisms",
    )
    run_seed_study(asked, console())
