"""Each note names the languages in which nothing can be shown, and stays silent where something can."""

import polars as pl
import pytest
from arm_samples import samples, spelled

from ssn_probe.report.cautions import cautions
from ssn_probe.study.summary import summarise

MIXED = "rrrrrrrrrrrrrrrrcccc"


def notes(frame: pl.DataFrame, anchor: str | None = "aa") -> list[str]:
    return cautions(summarise(frame, None, anchor=anchor, primary=None), frame, anchor)


def baseline(**languages: str) -> pl.DataFrame:
    return samples("baseline", "baseline", {name: spelled(text) for name, text in ({"ok": MIXED} | languages).items()})


@pytest.mark.parametrize(
    ("verdicts", "starts"),
    [
        ({}, []),
        ({"bb": "u" * 20}, []),
        ({"bb": "c" * 20, "cc": "c" * 19 + "i"}, ["No harmful request is refused at baseline in bb and cc"]),
        ({"aa": "r" * 20}, ["Every harmful request is refused at baseline in aa (the anchor) (ASR 0 %)"]),
        (
            {"bb": "rccr", "cc": "r" + "c" * 19},
            ["Baseline ASR leaves too little room for so few prompts in bb (4 clusters) and cc (20 clusters)"],
        ),
    ],
)
def test_the_baseline(verdicts: dict[str, str], starts: list[str]) -> None:
    found = notes(baseline(**verdicts))
    assert [note[: len(start)] for note, start in zip(found, starts, strict=True)] == starts
    room = [note for note in found if "room" in note]
    assert all(note.endswith("if prompts of a cluster count once and arms are independent.") for note in room)


def test_an_arm_that_is_to_lower_asr_needs_room_below() -> None:
    """In bb one of twenty complied, in ok four: a rise would show, a fall to 0 % not. In cc nothing is refused."""
    frame = baseline(bb="c" + "r" * 19, cc="c" * 20)
    summary = summarise(frame, None, anchor="aa", primary=None)
    unrefused, room = cautions(summary, frame, "aa", falls=True)
    assert unrefused.startswith("No harmful request is refused at baseline in cc")
    assert "in ok (20 clusters) and bb (20 clusters): even a fall to 0 % would be found" in room
    assert not any("room" in note for note in cautions(summary, frame, "aa"))


@pytest.mark.parametrize("rows", [0, 1])
def test_without_verdicts_there_is_nothing_to_say(rows: int) -> None:
    assert notes(samples("baseline", "baseline", {"aa": ["unjudged"]}).head(rows)) == []


def test_all_invalid_is_no_refusal_and_no_success() -> None:
    broken = samples("ss", "tested", {"ok": spelled("i" * 20), "bb": spelled("i" * 19 + "r")})
    first, second = notes(pl.concat([baseline(bb="i" * 20), broken]))
    assert first.startswith("Every response at baseline is invalid in bb: its ASR of 0 %")
    assert second.startswith("Every response under ss is invalid in ok")


def test_random_sets_are_no_arms() -> None:
    broken = samples("ss", "control", {"ok": spelled("i" * 20)}, seed=0)
    tested = samples("ss", "tested", {"ok": spelled(MIXED)})
    assert notes(pl.concat([baseline(), tested, broken])) == []


def test_one_cluster_is_one_observation() -> None:
    one = pl.col("eval_language") == "bb"
    frame = baseline(bb=MIXED).with_columns(cluster=pl.when(one).then(pl.lit("c0")).otherwise("cluster"))
    (note,) = notes(frame)
    assert note.endswith("in bb: no interval can be trusted there.")


def test_names_are_literal() -> None:
    (note,) = notes(samples("baseline", "baseline", {"a\x1b[31ma": spelled("r" * 20)}), anchor=None)
    assert "\x1b" not in note
