"""The record of a delta file, `about`, checked as it is read: a file may come from anywhere, and cards show its record.

What the record states about the tensors (neurons and parameters per site) must be what they hold; everything else must
at least have the form in which training writes it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ssn_probe.training.delta_file.stated_measures import Measure
from ssn_probe.training.weights.adapter import Adapter
from ssn_probe.training.weights.parameter_counts import weights_by_site
from ssn_probe.training.weights.trainable import Change

EDIT = "sparse edit"
"""The method of a change that is computed and not trained."""
DTYPES = ("float32", "bfloat16", "float16", "float64")
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(ge=0, le=100)]
Bound = Annotated[float, Field(ge=-100, le=100)]
"""The interval of further random sets may go beyond what a share can be: to about 12 either way, of two sets."""
Name = Annotated[str, Field(max_length=300)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Checked(BaseModel):
    """Values of the declared types alone, and finite; further entries are ignored."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class Base(Checked):
    sha256: Digest
    dtype: Any = None
    config: dict[str, Any] | None = None


class Data(Checked):
    name: Any
    split: Any
    judge: Any
    checked: Any
    prompts_sha256: Digest
    rows: dict[str, dict[str, Count]]


class Steps(Checked):
    done: Count
    planned: Count
    chosen: Count


class HeldOutLoss(Checked):
    base: float
    chosen: float


class SiteParameters(Checked):
    site: str
    neurons: Count
    parameters: Count
    percent: Percent
    percent_of_site: Percent


class Interval(Checked):
    """Two bounds in their order, or neither."""

    low: Bound | None
    high: Bound | None

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if (self.low is None) != (self.high is None) or (self.low or 0) > (self.high or 0):
            raise ValueError(f"there is no interval from {self.low} to {self.high}")
        return self


class Effect(Interval):
    language: Name
    measure: Measure
    n: Count
    before: Share | None
    before_low: Share | None
    before_high: Share | None
    after: Share
    low: Share
    high: Share


class Control(Interval):
    arm: Name
    measure: Measure
    value: Share


class Measured(Checked):
    run: Name
    arm: Name
    effects: list[Effect]
    controls: list[Control]

    @model_validator(mode="after")
    def distinct(self) -> Self:
        if len({(row.language, row.measure) for row in self.effects}) < len(self.effects):
            raise ValueError("an effect is stated twice")
        return self


class Asked(Checked):
    system_prompt: str | None = None
    chat: Name | None = None


class Record(Checked):
    base: Base
    asked: Asked | None = None
    method: Any
    data: Data
    training: dict[str, Any]
    edit: dict[str, Any] | None = None
    steps: Steps
    held_out_loss: HeldOutLoss | None = None
    parameters: list[SiteParameters]
    measured: Measured | None = None
    made_with: dict[str, Any] | None = None


def check_record(about: Any, change: Change) -> None:
    """Raises ValueError unless the record is one that training writes, of these tensors."""
    names = [part.name for part in change.parts]
    if not names or len(set(names)) < len(names):
        raise ValueError("it has no change, or two of one matrix")
    try:
        record = Record.model_validate(about)
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    if record.method not in _methods(change) or not record.data.checked:
        raise ValueError("its record does not say that its training data were checked")
    if record.method == EDIT and record.edit is None:
        raise ValueError("its record does not say how its edit was computed")
    if isinstance(change, Adapter):
        if record.base.dtype not in DTYPES:
            raise ValueError("its record does not name the precision of its base")
    elif len({part.base.dtype for part in change.parts}) > 1:
        raise ValueError("its base has weights of more than one precision")
    stated = [(row.site, (row.neurons, row.parameters)) for row in record.parameters]
    if stated != list(weights_by_site(change).items()):
        raise ValueError("its record states other neurons or parameters than its tensors have")


def settings_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """What the record states of how the change was made: the settings of its training, or of its edit."""
    settings = about["edit" if about["method"] == EDIT else "training"].items()
    return {name: "none" if value is None else value for name, value in settings if name not in ("kind", "version")}


def _methods(change: Change) -> tuple[str, ...]:
    """By which methods such tensors are made."""
    if isinstance(change, Adapter):
        return ("lora",)
    tied = {part.clusters is not None for part in change.parts}
    if len(tied) > 1:
        raise ValueError("only some of its neurons share their changes")
    return ("nest",) if tied == {True} else ("expand", EDIT)


def _first(error: ValidationError) -> str:
    """The first thing that is wrong: where, what, and the value."""
    found = error.errors(include_url=False)[0]
    where = ".".join(map(str, found["loc"])) or "all of it"
    if found["type"] == "missing":
        return f"its record lacks {where}"
    reason = found["msg"].removeprefix("Value error, ")
    return f"its record is wrong at {where}: {reason} (found {found['input']!r:.40})"
