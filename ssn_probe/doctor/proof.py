"""A family that a user added is studied only once the doctor has passed it, on that very model."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssn_probe.doctor.examine import examine_family
from ssn_probe.errors import ModelError
from ssn_probe.files import write_json
from ssn_probe.limits import MANIFEST, read_limited
from ssn_probe.model.families import BUILT_IN
from ssn_probe.model.ranks import check_whole
from ssn_probe.model.subject import Subject
from ssn_probe.spec.node import digest


def require_proof(subject: Subject, root: Path) -> None:
    """Examines a model whose family was added with `register_family`, unless it has passed before.

    The proof is kept below `<root>/cache/proofs`, under the digest of the model's identity and the family's row.

    Raises:
        ModelError: a check of the doctor failed.
    """
    if subject.family in BUILT_IN:
        return
    what = {"model": subject.identity, "family": asdict(subject.family)}
    proof = root / "cache" / "proofs" / f"{digest(what)}.json"
    if _proves(proof, what):
        return
    if subject.calls is not None:
        raise ModelError(
            f"The family {subject.family.name!r} was added by you, and has not passed the doctor on this machine.",
            "Run a recipe on a model of this folder or name here, in the host's dtype, once: that examines the family. "
            "On a host the weights, which the checks compare with, cannot be read.",
        )
    check_whole(subject, f"The doctor's proof of the family {subject.family.name!r}")
    checks = {}
    for check in examine_family(subject):
        if check.status == "failed":
            raise ModelError(
                f"The row of the family {subject.family.name!r} does not describe {subject.name}: the doctor's check "
                f"“{check.name}” failed: {check.found}",
                f"{check.meaning} Correct the row; see docs/extend/family.md.",
            )
        checks[check.name] = check.found
    proof.parent.mkdir(parents=True, exist_ok=True)
    write_json(proof, what | {"checks": checks})


def _proves(proof: Path, what: dict[str, Any]) -> bool:
    """Is the proof there, and of this very model and row? A damaged one is made again."""
    try:
        found = json.loads(read_limited(proof, MANIFEST, ModelError))
        return bool(found.pop("checks")) and digest(found) == digest(what)
    except (ModelError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
