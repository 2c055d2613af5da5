"""A model that is opened only when something has to run: until then its facts are those that an earlier run kept.

A run whose measurements are all in the cache needs to know which model it is about, and nothing that importing
transformers and reading weights would tell it. The facts are trusted for the very files, settings and versions that
they were read with (`model/kept`), and compared with the model once it is opened.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.model.asking import NO_WISH, Asking
from ssn_probe.model.coarse_products import coarse_products, without_coarse
from ssn_probe.model.context_length import Limit
from ssn_probe.model.families import BUILT_IN, FAMILIES
from ssn_probe.model.kept import NOTHING_KEPT, kept_of, stamp_of
from ssn_probe.model.loading import locate, usable_device
from ssn_probe.model.model_files import read_object
from ssn_probe.model.openings import Openings
from ssn_probe.model.placement import BALANCED
from ssn_probe.model.ranks import ranks
from ssn_probe.model.shape import shape_of
from ssn_probe.model.subject import DTYPES, Subject, load_subject
from ssn_probe.model.turn_ends import End, Turns
from ssn_probe.remote.settings import check_settings

KIND, SHAPE = "subject", "shape"
SIZES = (None, 4, 8)
"""Bytes of a number, as a model has them (None) or as its effects may be computed in."""


@dataclass(eq=False)
class Opening:
    """How a model is opened, and what is known of it before."""

    load: Callable[[], Subject]
    weights: bool
    facts: Mapping[str, Any]

    @cached_property
    def subject(self) -> Subject:
        """The model, opened on first request.

        Raises:
            ModelError: it is not what was known of it, or its rows depend on each other.
        """
        from ssn_probe.model.row_independence import check_rows_independent

        found = self.load()
        if facts_of(found) != self.facts:
            raise ModelError(f"The files in {found.path} changed during the run.", "Run again when they are complete.")
        if found.model is not None:
            check_rows_independent(found)
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class KnownSubject(Subject):
    """A subject whose facts were kept: its `model` and its `tokenizer` are loaded when they are asked for."""

    opening: Opening = field(repr=False)
    model: Any = field(init=False, repr=False)
    tokenizer: Any = field(init=False, repr=False)

    @property
    def can_run(self) -> bool:
        return self.opening.weights

    def __getattr__(self, name: str) -> Any:  # asked for what is not in the instance: the two fields that are not set
        if name in ("model", "tokenizer"):
            return getattr(self.opening.subject, name)
        raise AttributeError(name)


def find_subject(
    name: str,
    *,
    cache: Path,
    writes: bool = True,
    dtype: str = "auto",
    device: str = "auto",
    weights: bool = True,
    remote: bool | str = False,
    asking: Asking = NO_WISH,
) -> Subject:
    """What `load_subject` gives with these arguments; a model whose facts are kept in `cache` is not opened yet.

    Models on the hub, on a host, spread over devices or processes, and those of a family that a user added are loaded
    at once. `writes`: may what is found be kept? `keep_facts` keeps those of a model that passed all checks.

    Raises:
        ModelError, RemoteError: as `load_subject`.
    """
    load = partial(load_subject, name, dtype=dtype, device=device, weights=weights, remote=remote, asking=asking)
    check_settings(remote, device=device)
    if remote or device == BALANCED or ranks() > 1 or dtype not in DTYPES:
        return load()
    where = locate(name, weights=weights)
    if not _can_be_kept(where):
        return load()
    kept = kept_of(cache, name, where, asking, writes=writes and weights)
    facts = kept.find(KIND, dtype)
    if facts is None:
        return replace(load(), kept=kept)
    device, fields = usable_device(device), _fields(facts)
    fields["identity"] = facts["identity"] | coarse_products(device, facts["identity"]["dtype"])
    return KnownSubject(**fields, device=device, kept=kept, opening=Opening(load, weights, facts))


def is_known(name: str, *, cache: Path, dtype: str, asking: Asking) -> bool:
    """Are the facts of a model on this machine kept in `cache`, so that `find_subject` does not open it?"""
    where = locate(name)
    kept = dtype in DTYPES and _can_be_kept(where)
    return kept and kept_of(cache, name, where, asking, writes=False).find(KIND, dtype) is not None


def keep_facts(subject: Subject, dtype: str) -> None:
    """Keeps the facts of a model that was loaded with this `dtype` and found fit to be studied."""
    if subject.kept is NOTHING_KEPT or isinstance(subject, KnownSubject) or subject.spread or not subject.can_run:
        return
    if stamp_of(Path(subject.path)) != subject.kept.stamp:
        return  # other files may have been read than those whose state is known
    facts = facts_of(subject)
    with contextlib.suppress(ValueError):  # JSON has no NaN, which a generation config may hold
        for asked in dict.fromkeys((dtype, facts["identity"]["dtype"])):
            subject.kept.keep(KIND, asked, facts)
    for size in SIZES:
        shape = shape_of(subject.model._module, subject.family, size)
        subject.kept.keep(SHAPE, [facts["identity"]["dtype"], size], asdict(shape))


def is_open(subject: Subject) -> bool:
    """Was the model loaded?"""
    return not isinstance(subject, KnownSubject)


def _can_be_kept(where: str) -> bool:
    """Is it a folder here, of a family that every process has the same row of?"""
    if not Path(where).is_dir():
        return False
    family = FAMILIES.get(str(read_object(Path(where) / "config.json").get("model_type")))
    return family in BUILT_IN


def facts_of(subject: Subject) -> dict[str, Any]:
    """All that a subject is but for its model, its tokenizer, its device and torch's settings, in JSON."""
    found = {
        "name": subject.name,
        "path": subject.path,
        "identity": without_coarse(subject.identity),
        "family": subject.family.name,
        "openings": None if subject.openings is None else {key: asdict(one) for key, one in subject.openings.items()},
        "n_layers": subject.n_layers,
        "widths": dict(subject.widths),
        "vocabulary": subject.vocabulary,
        "context": subject.context,
        "limits": [asdict(one) for one in subject.limits],
        "turns": asdict(subject.turns),
        "template_notes": list(subject.template_notes),
        "weight_bytes": subject.weight_bytes,
        "window": subject.window,
        "is_plain": subject.is_plain,
    }
    return json.loads(json.dumps(found, default=str))


def _fields(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a subject, from its facts."""
    openings, turns = facts["openings"], facts["turns"]
    read = {
        "family": FAMILIES[facts["family"]],
        "openings": None if openings is None else {language: _openings(one) for language, one in openings.items()},
        "limits": tuple(Limit(**one) for one in facts["limits"]),
        "turns": Turns(
            **turns
            | {
                "ends": tuple(End(**one | {"sources": tuple(one["sources"])}) for one in turns["ends"]),
                "outside": tuple((one, source) for one, source in turns["outside"]),
                "think": None if turns["think"] is None else tuple(turns["think"]),
            }
        ),
        "template_notes": tuple(facts["template_notes"]),
        "window": None if facts["window"] is None else tuple(facts["window"]),
    }
    return dict(facts) | read


def _openings(sides: Mapping[str, Any]) -> Openings:
    return Openings(**{side: tuple(tuple(one) for one in some) for side, some in sides.items()})
