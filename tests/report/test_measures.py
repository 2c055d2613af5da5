"""What was measured: the main table, and how what is the same everywhere becomes short without a figure less."""

from dataclasses import replace

import pytest
from arm_samples import RECIPE, compared, comparisons, findings, manifest, primary_test, row, table

from ssn_probe.report.document import Bullets, Folded, Section, Table
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.measure_tables import TITLES
from ssn_probe.report.sections.measures import asr_section, measures_section
from ssn_probe.spec import Recipe
from ssn_probe.study.arms import WEAKENED
from ssn_probe.study.findings import Findings

LANGUAGES = ("aa", "bb", "cc")
ARMS = {"baseline": "baseline", "ss": "tested", "ms": "tested"}


def rows(measure: str, **values: float | tuple[float, ...]) -> list[dict]:
    """A row per arm and language, and one of the average; one value for all, or one per language and the average."""
    return [
        row(arm, measure, ARMS[arm], language=language, **figures(value))
        for arm, given in values.items()
        for language, value in zip(
            (*LANGUAGES, "average"), given if isinstance(given, tuple) else [given] * 4, strict=True
        )
    ]


def figures(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value + 0.1, "delta": 0.1, "delta_low": 0.05, "delta_high": 0.2}


def study(*measured: dict, beside: list[dict] | None = None) -> Findings:
    return findings(summary=table(*measured), comparisons=comparisons(*(beside or [])))


def made(found: Findings, recipe: Recipe = RECIPE) -> tuple[Section, Section]:
    run = FinishedRun(recipe=recipe, manifest=manifest(), findings=found)
    lead, rest = asr_section(run), measures_section(run)
    assert lead is not None
    assert rest is not None
    return lead, rest


def first_table(section: Section) -> Table:
    return next(part for part in section.parts if isinstance(part, Table))


def folded(section: Section, title: str) -> tuple:
    return next(part.parts for part in section.parts if isinstance(part, Folded) and part.title.startswith(title))


ASR = rows("asr", baseline=(0.0, 0.2, 0.3, 0.25), ss=(0.0, 0.4, 0.5, 0.45), ms=(0.0, 0.6, 0.7, 0.65))


def test_the_primary_arm_leads_and_the_others_fold() -> None:
    lead, rest = made(study(*ASR, beside=[primary_test("ss", 0.05)]))
    main = first_table(lead)
    assert main.head == ("language", "baseline", "ss", "ss, exchanged labels", "change by ss, points")
    assert main.rows[1] == ("bb", "20.0 [20.0, 30.0]", "40.0 [40.0, 50.0]", "–", "+10.0 [+5.0, +20.0]")
    assert main.rows[-1][3] == "41.0 [35.0, 47.0], p = .050"
    (others,) = folded(rest, "The other arms: Attack success rate")
    assert others.head == ("language", "baseline", "ms")


def test_without_a_primary_arm_all_arms_lead_where_they_are_few() -> None:
    run = FinishedRun(recipe=replace(RECIPE, primary=None), manifest=manifest(), findings=study(*ASR))
    lead = asr_section(run)
    assert lead is not None
    assert first_table(lead).head == ("language", "baseline", "ss", "ms")
    rest = measures_section(run)
    assert rest is None or not any(isinstance(part, Folded) for part in rest.parts)


def test_a_measure_that_is_the_same_everywhere_is_a_sentence_with_its_figures() -> None:
    same = rows("invalid", baseline=0.0, ss=0.0, ms=0.0)
    beside = [compared("ss", measure="invalid", mean=0.0, low=0.0, high=0.2, p=None)]
    beside += [compared("ss", measure="invalid", mean=0.0, low=0.0, high=0.2, p=None, language="bb")]
    _, rest = made(study(*ASR, *same, beside=beside))
    (lines,) = (part.lines for part in rest.parts if isinstance(part, Bullets))
    assert (
        "Invalid responses in %: 0.0 [0.0, 10.0] in every language, untouched and under every arm; "
        "0.0 [0.0, 20.0] under compared sets." in lines
    )
    _, rest = made(study(*ASR, *rows("invalid", baseline=(0.0, 0.0, 0.0, 0.1), ss=(0.0, 0.0, 0.0, 0.1))))
    (lines,) = (part.lines for part in rest.parts if isinstance(part, Bullets))
    assert any("0.0 [0.0, 10.0] in every language, untouched and under every arm, 10.0 [" in line for line in lines)


def test_the_sentence_does_not_speak_for_what_was_not_measured() -> None:
    some = [one for one in rows("kl", ss=0.0, ms=0.0) if one["language"] != "cc"]
    _, rest = made(study(*ASR, *some))
    (lines,) = (part.lines for part in rest.parts if isinstance(part, Bullets))
    (line,) = (line for line in lines if line.startswith("KL"))
    assert line.endswith("0.0000 [0.0000, 0.1000] wherever it was measured, under every arm.")


def test_one_figure_that_differs_keeps_its_table() -> None:
    differs = rows("invalid", baseline=0.0, ss=(0.0, 0.0, 0.1, 0.0), ms=0.0)
    _, rest = made(study(*ASR, *differs))
    main, note = folded(rest, "Invalid responses")
    assert main.head == ("language", "baseline", "ss")
    assert [line[0] for line in main.rows] == ["aa (anchor: its SS is its MS)", "bb", "cc", "average without aa"]
    assert note == "ms: every figure is that of baseline."
    assert first_table(rest).rows[0][:3] == ("invalid responses, %", "0.0 [0.0, 10.0]", "0.0 [0.0, 10.0]")


@pytest.mark.parametrize(("measure", "first", "others"), [("kl", "ss", ("ms",)), ("utility", "baseline", ("ss", "ms"))])
def test_figures_that_all_arms_share_are_in_a_table_and_not_lost(
    measure: str, first: str, others: tuple[str, ...]
) -> None:
    """Each arm says that its figures are those of another: those stand somewhere."""
    varying = (0.1, 0.2, 0.3, 0.25)
    _, rest = made(study(*ASR, *rows(measure, **dict.fromkeys((first, *others), varying))))
    main, note = folded(rest, "KL" if measure == "kl" else "Utility")[:2]
    assert main.head == ("language", first)
    assert len(main.rows) == 4
    assert note == f"{'; '.join(others)}: every figure is that of {first}."


def test_languages_with_the_same_figures_share_a_row_but_not_with_anchor_and_average() -> None:
    _, rest = made(study(*ASR, *rows("utility", baseline=0.9, ss=(0.8, 0.9, 0.9, 0.9), ms=0.9)))
    main, _ = folded(rest, "Utility")
    assert [line[0] for line in main.rows] == ["aa (anchor: its SS is its MS)", "bb, cc", "average without aa"]


def test_the_figures_of_papers_are_a_sentence_only_where_they_are_those_of_asr() -> None:
    same = [one | {"measure": "asr_paper"} for one in ASR]
    _, rest = made(study(*ASR, *same))
    assert any(
        "every figure is that of the ASR" in line
        for part in rest.parts
        if isinstance(part, Bullets)
        for line in part.lines
    )
    other = [one | {"measure": "asr_paper", "high": one["high"] + (one["language"] == "cc")} for one in ASR]
    _, rest = made(study(*ASR, *other))
    assert folded(rest, "Not refused / judged")


def test_an_arm_that_repeats_what_led_needs_no_table() -> None:
    weaker = [one | {"role": WEAKENED} for one in ASR if one["arm"] == "ss"]
    _, rest = made(study(*(one for one in ASR if one["arm"] != "ms"), *weaker))
    (lines,) = (part.lines for part in rest.parts if isinstance(part, Bullets))
    assert lines[-1] == f"The other arms: {TITLES['asr']}. ss, without its top neuron: every figure is that of ss."


def test_what_was_asked_and_not_measured_is_said() -> None:
    _, rest = made(study(*ASR))
    (lines,) = (part.lines for part in rest.parts if isinstance(part, Bullets))
    assert "Invalid responses in %: not measured, for there is no data." in lines
