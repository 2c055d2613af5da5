"""The manifest of a run: how it was made, how it ended, and what it found, as far as it is no table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from ssn_probe.files import write_json
from ssn_probe.spec.node import digest

SCHEMA_VERSION = 2
"""Of the whole run folder: raised when a table, a column or a field of the manifest gets another name or meaning."""
SEAL = "sha256"
"""The field of manifest.json that holds the digest of the others."""
REACHED_LATER = (
    *("error", "anchor", "sets", "evaluated", "tokens", "gates", "trained", "answer", "cache", "files", "judges"),
    *("judged", "remote", "refusals", "exchanged", "apart", "claims"),
)
"""Fields that are left out of the file until the run has reached them."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` records.

    `order`: the place of the run among those of its results folder, see `runs.folder.next_order`. `model`: the model's
    identity and the name it was asked for by. `neurons`: layers, and neurons per layer and site.
    `generation`: the tokens that end a response, and what of the checkpoint's generation config was overridden.
    `nodes`: the key of every named set. `sets`: neurons per set and language. `gates`: how the refusal log-odds was
    read in each language. `refusals`: how many prompts the untouched model refused. `exchanged`: how the labels of each
    contrast exchange; `apart`: what else than their label distinguishes its sides. `claims`: what was shown, see
    `report.claim`. `trained`: what is stated of every training. `cache`: measurements read and computed.
    `remote`: the host that ran the model, and how much travelled, see `remote.tally`.
    `judges`: the name and the identity's digest of every judge of responses, the contexts that it judged, its
    certificate, if there was one when the run began, and what it cost. `judged`: the same of judges that judged the
    responses again, with ASR and agreement.
    `files`: SHA-256 of every file of the folder. `seconds`: per stage. In the file, `sha256` is the digest of all the
    rest.
    """

    status: str = "running"
    recipe: str
    question: str
    key: str
    order: int = 0
    started: str
    ended: str | None = None
    arguments: Mapping[str, str]
    options: Mapping[str, Any]
    seed: int
    model: Mapping[str, Any]
    neurons: Mapping[str, Any]
    generation: Mapping[str, Any] = field(default_factory=dict)
    device: str
    data: Sequence[Mapping[str, Any]]
    judges: Sequence[Mapping[str, Any]] | None = None
    judged: Sequence[Mapping[str, Any]] | None = None
    nodes: Mapping[str, str]
    environment: Mapping[str, Any]
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    error: str | None = None
    anchor: str | None = None
    sets: Mapping[str, Mapping[str, int]] | None = None
    evaluated: Sequence[str] | None = None
    tokens: int | None = None
    gates: Sequence[Mapping[str, Any]] | None = None
    refusals: Sequence[Mapping[str, Any]] | None = None
    exchanged: Sequence[Mapping[str, Any]] | None = None
    apart: Sequence[str] | None = None
    trained: Sequence[Mapping[str, Any]] | None = None
    answer: Sequence[str] | None = None
    claims: Sequence[Mapping[str, Any]] | None = None
    cache: Mapping[str, int] | None = None
    remote: Mapping[str, Any] | None = None
    files: Mapping[str, str] | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Manifest":
        """The manifest that `to_json` wrote. Raises TypeError for an object that lacks a field."""
        known = {one.name for one in fields(cls)} - {"environment"}
        environment = {name: value for name, value in data.items() if name not in {*known, SEAL, "schema_version"}}
        return cls(environment=environment, **{name: value for name, value in data.items() if name in known})

    def to_json(self) -> dict[str, Any]:
        """The object that `manifest.json` holds; the environment's names are its own."""
        values = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "environment"}
        reached = self.sets is not None
        kept = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None or name not in REACHED_LATER or (name in ("anchor", "tokens") and reached)
        }
        return {"schema_version": SCHEMA_VERSION} | kept | dict(self.environment)


def sealed(data: Mapping[str, Any]) -> dict[str, Any]:
    """The object of a manifest with the SHA-256 of its canonical JSON, which a change by accident does not match."""
    return {**_unsealed(data), SEAL: digest(_unsealed(data))}


def is_intact(data: Mapping[str, Any]) -> bool | None:
    """Does a manifest match the digest of itself? None for one that has none, as those of earlier releases."""
    if SEAL not in data:
        return None
    try:
        return data[SEAL] == digest(_unsealed(data))
    except (ValueError, RecursionError):  # nothing that a run writes has no canonical JSON
        return False


def write_manifest(path: Path, data: Mapping[str, Any]) -> None:
    """Writes manifest.json with its own digest."""
    write_json(path, sealed(data))


def _unsealed(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name != SEAL}
