"""A manifest as it is read back: whoever wrote the file, a field that is there is of its kind.

Fields that only other releases have are let through unseen, and one that is missing is an error when it is asked for:
a run of any release can be listed.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ssn_probe.errors import ResultError

Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(allow_inf_nan=False, ge=0, le=1e12)]


class Checked(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())


class Asked(Checked):
    batch_size: Count | None = None
    limit: Count | None = None
    dtype: str = "auto"


class Base(Checked):
    name: str


class Neurons(Checked):
    layers: Count
    per_layer: dict[str, Count]


class Source(Checked):
    sha256: str


class Certificate(Checked):
    """A judge against people: how often it said what of responses that they labelled, per language."""

    judge: str
    sha256: str
    data: Base
    languages: dict[str, dict[str, Count]]


class JudgedBy(Checked):
    name: str
    sha256: str
    contexts: list[str] = []
    certificate: Certificate | None = None


class JudgedAgain(JudgedBy):
    judge: str
    folder: str
    asr: list[dict[str, Any]]
    agreement: list[dict[str, Any]]


class Claimed(Checked):
    """A claim and its verdict."""

    claim: str
    verdict: Literal["shown", "not shown", "not testable"]
    figures: str = ""
    why: str = ""
    primary: bool = False


class Expanded(Checked):
    """What schema version 1 stated of a training."""

    row: str


class Fields(Checked):
    """The fields of a manifest that some reader uses; every one may be missing."""

    status: str = ""
    recipe: str = ""
    question: str = ""
    key: str = ""
    order: Count = 0
    started: str = ""
    ended: str | None = None
    arguments: dict[str, str] = {}
    options: Asked = Asked()
    seed: int = 0
    model: Base = Base(name="")
    neurons: Neurons = Neurons(layers=0, per_layer={})
    generation: dict[str, Any] = {}
    device: str = ""
    data: list[Source] = []
    judges: list[JudgedBy] = []
    judged: list[JudgedAgain] = []
    nodes: dict[str, str] = {}
    packages: dict[str, str] = {}
    python: str = ""
    platform: str = ""
    seconds: dict[str, Seconds] = {}
    warnings: list[str] = []
    error: str | None = None
    anchor: str | None = None
    sets: dict[str, dict[str, Count]] = {}
    evaluated: list[str] = []
    answer: list[str] = []
    claims: list[Claimed] = []
    refusals: list[dict[str, Any]] = []
    exchanged: list[dict[str, Any]] = []
    apart: list[str] = []
    cache: dict[str, Count] = {}
    files: dict[str, str] = {}
    sha256: str = ""
    expanded: dict[str, Expanded] | None = None


class Recorded(dict[str, Any]):
    """The fields of a manifest by name. Raises ResultError for one that it does not have."""

    def __missing__(self, name: str) -> Any:
        raise ResultError(
            f"the manifest records no {name}", "Is the run unfinished, or its manifest damaged? Run the recipe again."
        )


def recorded(data: dict[str, Any]) -> Recorded:
    """The object of a manifest.json. Raises ResultError where a field is of another kind than a run writes."""
    try:
        Fields.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        reason = f"the manifest is damaged at {where[:80]!r}: {first['msg'][:200]}"
        raise ResultError(reason, "Run the recipe again: what it measured is kept.") from error
    return Recorded(data)
