"""What a run keeps of its trainings: delta files, adapters, histories, and what is stated of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.files import write_table
from ssn_probe.spec import Recipe, Trains
from ssn_probe.study.arms import Arm, ArmName
from ssn_probe.study.delta_effects import measured_of
from ssn_probe.study.resolve import evaluated
from ssn_probe.study.trained_arms import trained_for, training_label
from ssn_probe.study.trained_weights import stated, train
from ssn_probe.study.workbench import Workbench
from ssn_probe.text import listing, percent

MUCH = 0.2
"""The norm of what rounding adds to a change, relative to the change's, from which a run says so."""


@dataclass(frozen=True, kw_only=True)
class TrainedArm:
    """What is stated of a training of an arm, as its delta file has it; plain JSON values.

    `step`: the step of a learning curve. `without`: the language that this training left out.
    """

    arm: str
    step: int | None
    without: str | None
    method: str
    steps: Mapping[str, Any]
    held_out_loss: Mapping[str, float] | None
    parameters: Sequence[Mapping[str, Any]]
    data: Mapping[str, Any]

    @property
    def name(self) -> ArmName:
        """The arm of the summary that measures this training."""
        return ArmName(self.arm, step=self.step)

    @property
    def file(self) -> str:
        """The name of its files: `ss.at-8`, `ss.without-qab`. A recipe's names have no point before a letter."""
        step = "" if self.step is None else f".at-{self.step}"
        return f"{self.arm}{step}{'' if self.without is None else f'.without-{self.without}'}"


def write_deltas(
    bench: Workbench,
    recipe: Recipe,
    arms: Sequence[Arm],
    folder: Path,
    summary: pl.DataFrame,
    comparisons: pl.DataFrame,
) -> list[TrainedArm]:
    """Writes the change that every arm trained, with its measured effects, and the histories of the trainings."""
    found: list[TrainedArm] = []
    histories: dict[tuple[str, str | None], pl.DataFrame] = {}
    errors: dict[str, float] = {}
    languages = evaluated(recipe, bench.data)
    for arm in arms:
        for without, (node, find) in trained_for(bench, arm, languages).items():
            outcome = train(bench, node, find(), training_label(arm.name))
            file = stated(bench, node, arm.name, outcome.file(arm.step))
            if isinstance(arm.does, Trains):  # what was measured is the training, and nothing done after it
                mine = pl.lit(True) if without is None else pl.col("language") == without
                name, known = ArmName(arm.name, step=arm.step), {"run": folder.name, "anchor": bench.anchor}
                effects = measured_of(summary.filter(mine), comparisons.filter(mine), name, **known)
                file = replace(file, about={**file.about, "measured": effects})
            names = ("method", "steps", "held_out_loss", "parameters", "data")
            about = {name: file.about[name] for name in names}
            found.append(TrainedArm(arm=arm.name, step=arm.step, without=without, **about))
            _write(folder, found[-1].file, file)
            histories[arm.name, without] = outcome.history
            rounded = file.about.get("rounding") or {}  # which files of earlier releases do not have
            errors[arm.name] = max(errors.get(arm.name, 0.0), rounded.get("error", 0.0))
    _note_rounding(bench, errors)
    if histories:
        write_table(folder / "training.parquet", pl.concat(_named(*item) for item in histories.items()))
    return found


def _note_rounding(bench: Workbench, errors: Mapping[str, float]) -> None:
    """Notes the arms of whose trainings the measured weights, in half precision, have lost much: the largest loss."""
    lost = [f"{name} {percent(error, 0)}" for name, error in errors.items() if error >= MUCH]
    if lost:
        bench.warn(
            f"{bench.subject.identity['dtype']} rounds away much of what was trained: the weights that were measured "
            f"differ from those that were trained by up to these shares of the change's norm: {listing(lost)}. "
            "Held-out losses are those before rounding, and arms that lose more are at a disadvantage. --dtype float32 "
            "measures what was trained"
        )


def _named(name: tuple[str, str | None], history: pl.DataFrame) -> pl.DataFrame:
    arm, without = (pl.lit(value, pl.String) for value in name)
    return history.select(arm.alias("arm"), without.alias("without"), pl.all())


def _write(folder: Path, name: str, file: Any) -> None:
    """A delta file; of LoRA also the folder that peft loads."""
    from ssn_probe.training.delta_file.file import write_delta
    from ssn_probe.training.export.peft_folder import save_adapter
    from ssn_probe.training.weights.adapter import Adapter

    write_delta(folder / "deltas" / f"{name}.safetensors", file)
    if isinstance(file.delta, Adapter):
        save_adapter(folder / "adapters" / name, file)
