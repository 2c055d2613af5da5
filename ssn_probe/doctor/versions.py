"""The installed versions, compared with those tested (constraints.txt) and those allowed (pyproject.toml)."""

import importlib
import platform
import shlex
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from ssn_probe.doctor.checks import Check, failed, named, passed, warned

OURS = "ssn-probe"
LOCK = Path(__file__).parents[1] / "constraints.txt"
"""Exact pins of every package, runtime and development, with which the released tests passed."""

NEEDED = {
    "torch": "Tensor",
    "transformers": "AutoModelForCausalLM",
    "nnsight": "TransformersModel",
    "polars": "DataFrame",
}
"""The packages that every run imports, and for each a name whose use loads the whole package."""


def check_ours() -> Check:
    """Is ssn-probe installed, so that what it requires is known?"""
    version, folder = installed(OURS), LOCK.parent
    if version is not None:
        return passed(OURS, f"{version} in {folder}")
    meaning = "It runs from a folder without being installed, so its requirements cannot be read and compared."
    remedy = f"Install it: {pip_command(['-e', shlex.quote(str(folder.parent))])}"
    return failed(OURS, f"not installed; its code is in {folder}", meaning, remedy)


def check_python() -> Check:
    """Is this Python one that ssn-probe allows?"""
    from packaging.specifiers import SpecifierSet

    version, allowed = platform.python_version(), metadata.metadata(OURS)["Requires-Python"]
    found = f"{platform.python_implementation()} {version} on {platform.platform()}"
    if SpecifierSet(allowed).contains(version, prereleases=True):
        return passed("python", found)
    meaning = f"ssn-probe needs Python {allowed}; other versions are not tested."
    return failed("python", found, meaning, "Make an environment with such a Python, and install ssn-probe there.")


def check_packages() -> list[Check]:
    """Are the packages that ssn-probe needs installed, within the allowed ranges, and in the tested versions?

    Includes the requirements of requirements, but no development tools.
    """
    direct = required(OURS)
    outside = [check for name, allowed in direct.items() if (check := _outside(name, allowed)) is not None]
    settled = {check.name for check in outside}
    others = runtime(direct) - direct.keys()
    return [
        *outside,
        _as_tested("packages", [name for name in direct if name not in settled]),
        _as_tested("dependencies", sorted(others)),
    ]


def required(package: str) -> dict[str, str]:
    """The packages that a package requires here, without its extras, and the versions that it allows."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    wanted = [Requirement(line) for line in metadata.requires(package) or ()]
    here = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return {canonicalize_name(one.name): str(one.specifier) for one in here}


def runtime(names: Iterable[str]) -> set[str]:
    """These packages, those that they require, and so on, if they are installed."""
    found, ahead = set(), list(names)
    while ahead:
        name = ahead.pop()
        if name not in found and installed(name) is not None:
            found.add(name)
            ahead += required(name)
    return found


def installed(name: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def pins() -> Mapping[str, str]:
    """The tested version of every package that this Python and this system need."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    lines = (line.partition("#")[0].strip() for line in LOCK.read_text(encoding="utf-8").splitlines())
    pinned = [Requirement(line) for line in lines if line]
    here = [one for one in pinned if one.marker is None or one.marker.evaluate()]
    return {canonicalize_name(one.name): next(iter(one.specifier)).version for one in here}


def pip_command(names: Iterable[str]) -> str:
    """The command that installs the tested versions of these packages."""
    return f"python -m pip install -c {shlex.quote(str(LOCK))} {' '.join(names)}"


def _outside(name: str, allowed: str) -> Check | None:
    from packaging.specifiers import SpecifierSet

    version = installed(name)
    if version is None:
        meaning = f"ssn-probe cannot work without {name} ({allowed or 'any version'})."
        return failed(name, "not installed", meaning, f"Install it: {pip_command([name])}")
    if SpecifierSet(allowed).contains(version, prereleases=True):
        return None
    meaning = f"ssn-probe allows {name} {allowed} only; in other versions its interface or its numbers differ."
    return failed(name, f"{version}, outside {allowed}", meaning, f"Install the tested version: {pip_command([name])}")


def _as_tested(title: str, names: list[str]) -> Check:
    tested = pins()
    pinned = [name for name in names if name in tested]
    versions = ((name, installed(name), tested[name]) for name in pinned)
    other = [one for one in versions if one[1] is not None and _base(one[1]) != _base(one[2])]
    count = f"{len(pinned) - len(other)} as tested"
    if len(pinned) < len(
        names
    ):  # CUDA builds of torch require packages that its CPU build, used for the pins, does not
        count += f", {len(names) - len(pinned)} without a pin"
    if not other:
        return passed(title, count)
    listed = ", ".join(f"{name} {version} (tested: {pin})" for name, version, pin in other)
    meaning = "Allowed, but ssn-probe was not tested with these versions: numbers may differ from published ones."
    remedy = f"To install the tested versions: {pip_command(name for name, _, _ in other)}"
    return warned(title, f"{count}; not {listed}", meaning, remedy)


def _base(version: str) -> str:
    """A version without its build (+cpu, +cu130)."""
    from packaging.version import Version

    return Version(version).public


def check_imports() -> list[Check]:
    """Can the packages that every run needs be imported?"""
    works, broken = [], []
    for name, probe in NEEDED.items():
        try:
            getattr(importlib.import_module(name), probe)
        except Exception as error:  # of any type: a missing library gives an OSError
            meaning = f"{name} cannot be imported: no model can be examined or run."
            remedy = f"Install it again: {pip_command(['--force-reinstall', name])}"
            broken.append(failed(f"import {name}", named(error), meaning, remedy))
        else:
            works.append(f"{name} {installed(name)}")
    return [*broken, passed("imports", ", ".join(works))] if works else broken
