"""What a report is made of: a recipe, how it was run, and what it found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssn_probe.spec import Recipe
from ssn_probe.study.findings import Findings


@dataclass(frozen=True, kw_only=True, eq=False)
class FinishedRun:
    """`manifest`: what `manifest.json` holds."""

    recipe: Recipe
    manifest: Mapping[str, Any]
    findings: Findings
