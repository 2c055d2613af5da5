"""The pins, their hashes and the ranges of pyproject.toml agree, and what guards them can fail."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(name: str) -> dict[str, tuple[str, list[str]]]:
    """package → its requirement, and what follows it on the lines that it continues on."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    parts = [re.split(r"\s+(?=--)", line.strip()) for line in lines]
    return {canonicalize_name(Requirement(first).name): (first, rest) for first, *rest in parts}


PINS, HASHED = entries("ssn_probe/constraints.txt"), entries("lock.txt")


def version(name: str) -> Version:
    (only,) = Requirement(PINS[name][0]).specifier
    assert only.operator == "=="
    return Version(only.version)


def test_the_lock_has_every_pin_but_torchs() -> None:
    assert {name: line for name, (line, _) in PINS.items() if name != "torch"} == {
        name: line for name, (line, _) in HASHED.items()
    }


def test_every_line_of_the_lock_has_hashes_and_nothing_else() -> None:
    for name, (_, rest) in HASHED.items():
        assert rest, name
        assert all(HASH.fullmatch(part) for part in rest), name


def test_builds_of_torch_are_not_pinned() -> None:
    assert not [name for name in PINS if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("group", ["runtime", "dev", "build"])
def test_every_direct_dependency_is_pinned_within_its_range(group: str) -> None:
    lines = {
        "runtime": PROJECT["project"]["dependencies"],
        "dev": PROJECT["project"]["optional-dependencies"]["dev"],
        "build": PROJECT["build-system"]["requires"],
    }
    for one in map(Requirement, lines[group]):
        assert version(canonicalize_name(one.name)) in one.specifier, one.name


def test_a_pin_serves_every_python() -> None:
    """Two versions of a package would be two sets of numbers; names that recur would hide it."""
    text = (ROOT / "ssn_probe" / "constraints.txt").read_text(encoding="utf-8")
    names = re.findall(r"^([\w.-]+)==", text, re.MULTILINE)
    assert len(names) == len(set(names)) == len(PINS)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / ".ci" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOUND = {"name": "numpy", "version": "2.4.6", "vulns": []}
UNKNOWN = {"name": "scipy", "skip_reason": "Dependency not found"}
BAD = {"name": "rich", "version": "15.0.0", "vulns": [{"id": "PYSEC-2026-1"}]}


@pytest.mark.parametrize(
    ("packages", "says", "status"),
    [
        ([SOUND, UNKNOWN], "1 of 2 pinned packages were audited: no known", 0),
        ([SOUND, BAD], "rich 15.0.0: PYSEC-2026-1", 1),
        ([UNKNOWN, UNKNOWN], "skipped: the vulnerability service knows none of the 2", 0),
        (None, "skipped: no vulnerability service could be asked (no route)", 0),
    ],
)
def test_only_a_vulnerability_fails_the_audit(packages: list[dict] | None, says: str, status: int) -> None:
    output = "" if packages is None else json.dumps({"dependencies": packages, "fixes": []})
    sentence, found = script("audit").judge(output, "Traceback\nno route\n")
    assert says in sentence
    assert found == status


def test_a_floor_below_what_can_be_installed_is_found() -> None:
    lowest = {"safetensors": Version("0.8.0"), "numpy": Version("2.0.0"), "click": Version("8.4.2")}
    found = script("floors").unmet(["safetensors>=0.6,<1", "numpy>=2,<3", "click>=8.4.2,<9", "packaging>=24"], lowest)
    assert found == ["safetensors: the floor is 0.6, but the others need 0.8.0"]


def test_every_package_is_packed() -> None:
    """A folder of modules that the list lacks would be missing from the wheel, and from no test in a checkout."""
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "ssn_probe").rglob("*.py")}
    packed = set(PROJECT["tool"]["setuptools"]["packages"]) - {"ssn_probe.recipes"}
    assert packed == {".".join(folder.parts) for folder in folders}
