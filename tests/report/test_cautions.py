"""Each note names the languages in which nothing can be shown, and stays silent where something can."""

import polars as pl
import pytest
from arm_samples import samples, spelled

from ssn_probe.report.cautions import cautions
from ssn_probe.study.summary import summarise

MIXED = "rrrrrrrrrrrrrrrrcccc"


def notes(frame: pl.DataFrame, anchor: str | None = "aa") -> list[str]:
    return cautions(summarise(frame, None, anchor=anchor, primary=None, seed=0), frame, anchor)


def baseline(**languages: str) -> pl.DataFrame:
    return samples("baseline", "baseline", {name: spelled(text) for name, text in ({"ok": MIXED} | languages).items()})


def test_all_is_well() -> None:
    assert notes(baseline()) == []


def test_nothing_is_left_to_break() -> None:
    (note,) = notes(baseline(bb="c" * 20, cc="c" * 19 + "i"))
    assert note.startswith("No harmful request is refused at baseline in bb and cc")


def test_nothing_is_left_to_restore() -> None:
    (note,) = notes(baseline(aa="r" * 20))
    assert note.startswith("Every harmful request is refused at baseline in aa (the anchor) (ASR 0 %)")


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


def test_too_little_room_for_any_rise() -> None:
    (note,) = notes(baseline(bb="rccr", cc="r" + "c" * 19))
    assert note.startswith(
        "Baseline ASR leaves too little room for so few prompts in bb (4 clusters) and cc (20 clusters)"
    )


def test_unjudged_responses_are_no_verdicts() -> None:
    assert notes(baseline(bb="u" * 20)) == []


def test_names_are_literal() -> None:
    (note,) = notes(samples("baseline", "baseline", {"a\x1b[31ma": spelled("r" * 20)}), anchor=None)
    assert "\x1b" not in note


@pytest.mark.parametrize("verdicts", [{}, {"aa": ["unjudged"]}])
def test_without_verdicts_there_is_nothing_to_say(verdicts: dict[str, list[str]]) -> None:
    frame = samples("baseline", "baseline", verdicts or {"aa": ["refused"]}).head(len(verdicts))
    assert notes(frame) == []
