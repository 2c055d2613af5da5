"""The files in the pages under docs/extend/, executed as the command line executes them."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssn_probe.model.families import FAMILIES
from ssn_probe.spec.discovery import execute_file
from ssn_probe.spec.effect_registry import EFFECTS, SCORERS
from ssn_probe.spec.node import NODES
from ssn_probe.study.edits_of_arms import EDITS

PAGES = Path(__file__).parents[2] / "docs" / "extend"


@pytest.fixture
def extended(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Executes the file in a page, with some of its text replaced; what it registers is gone after the test."""
    registries = (EFFECTS, SCORERS, EDITS, NODES, FAMILIES)
    before = [dict(registry) for registry in registries]

    def extend(page: str, *changes: tuple[str, str]) -> Path:
        (code,) = re.findall(r"```python\n(.*?)```", (PAGES / page).read_text(encoding="utf-8"), re.DOTALL)
        for old, new in changes:
            assert old in code
            code = code.replace(old, new)
        # nnsight keeps what it compiled of a file's lines: a changed text needs a file of its own
        file = tmp_path / page.replace(".md", f"_{len(list(tmp_path.iterdir()))}.py")
        file.write_text(code, encoding="utf-8")
        execute_file(file)
        return file

    yield extend
    for registry, kept in zip(registries, before, strict=True):
        registry.clear()
        registry.update(kept)
