"""A finding has a meaning and a remedy; a check that breaks off is a finding; what is shown is literal text."""

from pathlib import Path

import pytest
from rich.console import Console

from ssn_probe.doctor import Check, examine_machine, machine, show
from ssn_probe.doctor.checks import failed, guarded, passed, warned
from ssn_probe.errors import ModelError


@pytest.mark.parametrize("status", ["warning", "failed"])
def test_what_is_not_well_has_a_meaning_and_a_remedy(status) -> None:
    with pytest.raises(ValueError, match="without a meaning and a remedy"):
        Check(name="disk", status=status, found="full", meaning="No room.")


def broken() -> Check:
    raise KeyError("no such key\nin this dictionary")


def test_an_unexpected_exception_is_a_failed_check_that_names_it() -> None:
    (check,) = guarded("disk", broken)
    assert (check.name, check.status) == ("disk", "failed")
    assert check.found.startswith("KeyError: ")
    assert check.found.endswith(f"(test_doctor_checks.py, line {broken.__code__.co_firstlineno + 1})")
    assert "not answered" in check.meaning
    assert "report this line" in check.remedy


def test_a_users_mistake_keeps_its_message_and_hint() -> None:
    def mistaken() -> Check:
        raise ModelError("There is no such model.", "Give another.")

    (check,) = guarded("model", mistaken)
    assert (check.status, check.found, check.remedy) == ("failed", "There is no such model.", "Give another.")
    assert "would stop" in check.meaning


def test_the_keyboard_interrupts_a_check() -> None:
    def interrupted() -> Check:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guarded("model", interrupted)


def test_the_other_checks_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "check_memory", broken)
    status = {check.name: check.status for check in examine_machine(tmp_path, device="cpu")}
    assert [name for name, found in status.items() if found == "failed"] == ["memory"]
    assert list(status)[-4:] == ["memory", "device", "hub", "results"]


# --- what is shown


def shown(*checks: Check) -> list[str]:
    console = Console(record=True, width=40, markup=False, emoji=False, highlight=False)
    show.show_checks(console, checks)
    return console.export_text().splitlines()


def test_a_line_for_each_check_and_two_more_where_it_is_not_well() -> None:
    long = "a remedy that is longer than the screen is wide, and stays one line to be copied"
    assert shown(
        passed("disk", "empty"), warned("hub", "off", "No hub.", long), failed("cpu", "-", "None.", "Buy.")
    ) == [
        "✓ disk           empty",
        "! hub            off",
        "    No hub.",
        f"    → {long}",
        "✗ cpu            -",
        "    None.",
        "    → Buy.",
    ]


def test_hostile_text_cannot_paint_the_terminal() -> None:
    hostile = "[red]x[/red] \x1b[31mpaint\x1b[0m :smile: \u202e\n✓ all is well"
    for line in shown(failed(hostile, hostile, hostile, hostile)):
        assert "[red]x[/red] paint :smile:  ✓ all is well" in line
        assert line.startswith(("✗", "    "))


@pytest.mark.parametrize(
    ("checks", "well", "words"),
    [
        ([passed("a", "b")], True, "1 checks, none failed. A model is examined with"),
        ([passed("a", "b"), warned("a", "b", "c", "d")], True, "2 checks, none failed, 1 warning."),
        ([warned("a", "b", "c", "d"), failed("a", "b", "c", "d")], False, "1 of 2 checks failed."),
    ],
)
def test_the_last_line_and_the_answer(
    checks: list[Check], well: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show, "examine_machine", lambda _out, device: checks)
    console = Console(record=True, width=200)
    assert show.show_doctor(console, out=tmp_path) is well
    assert console.export_text().splitlines()[-1].startswith(words)
