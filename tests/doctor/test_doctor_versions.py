"""Versions against the pins and the allowed ranges; imports that break."""

import importlib
from importlib import metadata
from shlex import quote

import pytest

from ssn_probe.doctor import versions
from ssn_probe.doctor.checks import Check


@pytest.fixture
def having(monkeypatch: pytest.MonkeyPatch):
    """Pretend that packages have the pinned versions, but for some; None: not installed."""
    real, pinned = metadata.version, versions.pins()

    def pretend(**other: str | None) -> None:
        changed = {**pinned, **other}

        def version(name: str) -> str:
            found = changed[name] if name in changed else real(name)
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(metadata, "version", version)

    return pretend


def by_name(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_the_pinned_environment_is_as_tested_and_allowed(having) -> None:
    having()
    found = by_name(versions.check_packages())
    assert list(found) == ["packages", "dependencies"]
    assert all(check.status == "ok" for check in found.values())
    direct = versions.required("ssn-probe")
    assert {"torch", "nnsight", "transformers", "polars"} <= direct.keys()
    assert found["packages"].found == f"{len(direct)} as tested"


def test_what_runs_is_pinned_and_what_only_develops_is_not_asked_for() -> None:
    runs = versions.runtime(versions.required("ssn-probe"))
    assert {"tokenizers", "huggingface-hub", "torch"} <= runs
    assert not runs & {"pytest", "ruff", "pyright", "hypothesis", "beartype"}
    assert {"tokenizers", "huggingface-hub", "torch", "pytest"} <= versions.pins().keys()


def test_another_version_than_the_tested_one_is_a_warning_with_both(having) -> None:
    pin = versions.pins()["torch"]
    having(torch="2.99.1", tokenizers="0.99.0")
    found = by_name(versions.check_packages())
    assert found["packages"].status == found["dependencies"].status == "warning"
    assert f"torch 2.99.1 (tested: {pin})" in found["packages"].found
    assert "tokenizers 0.99.0" in found["dependencies"].found
    assert "not tested" in found["packages"].meaning
    assert found["packages"].remedy.endswith(f"pip install -c {quote(str(versions.LOCK))} torch")
    assert versions.LOCK.is_file()


def test_the_build_of_the_tested_version_does_not_matter(having) -> None:
    having(torch=f"{versions.pins()['torch']}+cu130")
    assert by_name(versions.check_packages())["packages"].status == "ok"


def test_a_package_without_a_pin_is_not_taken_for_tested(having, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "pins", lambda: {"tokenizers": metadata.version("tokenizers")})
    others = versions.runtime(versions.required("ssn-probe")) - versions.required("ssn-probe").keys()
    check = by_name(versions.check_packages())["dependencies"]
    assert (check.status, check.found) == ("ok", f"1 as tested, {len(others) - 1} without a pin")


@pytest.mark.parametrize(
    ("name", "version", "found", "meaning"),
    [
        ("nnsight", "0.7.0", "0.7.0, outside ", "ssn-probe allows nnsight"),
        ("nnsight", "0.9.1", "0.9.1, outside ", "ssn-probe allows nnsight"),
        ("scipy", None, "not installed", "cannot work without scipy"),
    ],
)
def test_a_version_that_is_not_allowed_fails(having, name: str, version: str | None, found: str, meaning: str) -> None:
    having(**{name: version})
    check = by_name(versions.check_packages())[name]
    assert (check.status, check.found.startswith(found)) == ("failed", True)
    assert meaning in check.meaning
    assert check.remedy.endswith(f"pip install -c {quote(str(versions.LOCK))} {name}")


def test_ssn_probe_that_is_not_installed_fails(having) -> None:
    assert versions.check_ours().status == "ok"
    having(**{"ssn-probe": None})
    check = versions.check_ours()
    assert check.status == "failed"
    assert "not installed" in check.found
    assert "cannot be read" in check.meaning
    assert "pip install" in check.remedy


def test_python_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert versions.check_python().status == "ok"
    monkeypatch.setattr("platform.python_version", lambda: "3.9.7")
    check = versions.check_python()
    assert (check.status, "3.9.7" in check.found) == ("failed", True)
    assert "needs Python >=3.11" in check.meaning
    assert "environment" in check.remedy


def test_what_every_run_needs_can_be_imported() -> None:
    (check,) = versions.check_imports()
    assert (check.name, check.status) == ("imports", "ok")
    for name in versions.NEEDED:
        assert f"{name} {metadata.version(name)}" in check.found


@pytest.mark.parametrize("error", [ImportError("no torch"), OSError("libcudart.so.13: cannot open"), RuntimeError("x")])
def test_a_package_that_cannot_be_imported_fails_and_the_others_are_tried(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def importing(name: str):
        if name == "torch":
            raise error
        return real(name)

    monkeypatch.setattr(importlib, "import_module", importing)
    broken, rest = versions.check_imports()
    assert (broken.name, broken.status, rest.status) == ("import torch", "failed", "ok")
    assert f"{type(error).__name__}: {error}" in broken.found
    assert "no model can be" in broken.meaning
    assert "--force-reinstall torch" in broken.remedy
    assert "transformers" in rest.found
    assert "torch 2" not in rest.found
