"""Are the oldest versions that are to be tested the floors of pyproject.toml? Else a floor promises what cannot be had.

python .ci/floors.py oldest PINS
"""

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def unmet(requirements: list[str], pins: dict[str, Version]) -> list[str]:
    """The floors that the lowest versions installable together lie above; a floor of 3.6 holds for 3.6.1."""
    found = []
    for one in map(Requirement, requirements):
        floor = next((Version(part.version) for part in one.specifier if part.operator == ">="), None)
        lowest = pins.get(canonicalize_name(one.name))
        if floor is not None and lowest is not None and lowest.release[: len(floor.release)] != floor.release:
            found.append(f"{one.name}: the floor is {floor}, but the others need {lowest}")
    return found


def read_pins(path: Path) -> dict[str, Version]:
    lines = [line.partition(";")[0].strip() for line in path.read_text(encoding="utf-8").splitlines() if "==" in line]
    pairs = (line.split("==") for line in lines)
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def main(which: str, pins: str) -> int:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    found = unmet(project["dependencies"], read_pins(Path(pins))) if which == "oldest" else []
    print("\n".join(found), end="\n" if found else "")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
