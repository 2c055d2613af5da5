"""Silence, weaker doses and the harmless mean of one set are one line and one table, in the order of the dose."""

from arm_samples import MEASURES, findings, row, table

from ssn_probe.report.answer import answer_lines
from ssn_probe.report.charts import dose_chart
from ssn_probe.report.document import Picture, Table
from ssn_probe.report.doses import dose_groups, dose_label, dose_of
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.sections.dose_table import doses_section
from ssn_probe.spec import (
    Amplify,
    Expand,
    Intervention,
    MeanOf,
    Prompts,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Training,
)

MS = SafetyNeurons(Prompts("organism"))
SS = Shared(MS)
ARMS: dict[str, Intervention] = {
    "ms": Suppress(MS),
    "to mean": Suppress(SS, to=MeanOf(Prompts("organism"))),
    "half": Amplify(SS, by=0.5),
    "none": Suppress(SS),
}
RECIPE = Recipe(arms=ARMS, measures=MEASURES, primary="none")


def test_silence_is_the_dose_nothing_and_a_mean_stands_last() -> None:
    assert dose_groups(RECIPE) == [["none", "half", "to mean"]]
    assert [dose_label(ARMS[arm]) for arm in ("none", "half", "to mean")] == ["×0", "×0.5", "harmless mean"]
    assert dose_label(ARMS["none"], 1.0) == "×1"
    assert dose_of(ARMS["none"]) == 0


def test_one_set_silenced_alone_has_no_doses() -> None:
    assert dose_groups(Recipe(arms={"ms": Suppress(MS), "ss": Suppress(SS)}, measures=MEASURES)) == []


def test_the_table_has_every_dose_with_its_costs() -> None:
    values = {"none": (0.6, 0.002), "half": (0.5, 0.0008), "to mean": (0.55, 0.003)}
    rows = [row(arm, value=asr) for arm, (asr, _) in values.items()]
    rows += [row(arm, "kl", value=kl, low=kl - 0.001, high=2 * kl) for arm, (_, kl) in values.items()]
    summary = table(row("baseline", role="baseline", value=0.4, low=0.3, high=0.5), row("ms", value=0.9), *rows)
    section = doses_section(RECIPE, summary, "aa")
    assert section is not None
    picture, grid, _ = section.parts
    assert isinstance(grid, Table)
    assert picture == Picture("doses")
    assert grid.head == ("activation", "ASR, %", "KL on harmless text")
    assert [cells[0] for cells in grid.rows] == [
        "×0 (none, the primary arm)",
        "×0.5 (half)",
        "×1: the untouched model",
        "harmless mean (to mean)",
    ]
    assert grid.rows[0][2] == "0.0020 [0.0010, 0.0040]"
    assert grid.rows[1][2] == "0.0008 [0.0000, 0.0016]"
    assert grid.rows[2][1:] == ("40.0 [30.0, 50.0]", "–")


def test_the_untouched_model_stands_beside_one_languages_neurons_in_the_languages_of_their_average() -> None:
    """The average of bb's neurons leaves out bb, so that of the untouched model would be over other languages."""
    arms: dict[str, Intervention] = {"none": Suppress(MS.of("bb")), "half": Amplify(MS.of("bb"), by=0.5)}
    before = {"aa": 0.0, "bb": 0.9, "cc": 0.2, "dd": 0.1}
    rows = [row("baseline", role="baseline", value=0.4)]
    rows += [row("baseline", role="baseline", language=language, value=value) for language, value in before.items()]
    for arm in arms:
        rows += [row(arm, language=language, set_language="bb", value=0.5) for language in (*before, "average")]
    recipe, summary = Recipe(arms=arms, measures=MEASURES), table(*rows)
    section = doses_section(recipe, summary, "aa")
    assert section is not None
    assert isinstance(section.parts[1], Table)
    assert section.parts[1].rows[-1] == ("×1: the untouched model", "15.0")
    run = FinishedRun(recipe=recipe, manifest={}, findings=findings(summary=summary))
    assert "ASR by dose, %: ×0 50.0, ×0.5 50.0, ×1 15.0 (none is tested)." in answer_lines(run)
    chart = dose_chart.draw(run)
    assert chart is not None
    assert "×1, untouched 15.0 %" in chart.description


def test_trainings_have_learning_curves_instead() -> None:
    arms: dict[str, Intervention] = {
        f"{steps} steps": Expand(SS.union(), Prompts("organism"), training=Training(steps=steps)) for steps in (8, 20)
    }
    recipe = Recipe(arms=arms, measures=MEASURES)
    assert dose_groups(recipe) == [["8 steps", "20 steps"]]
    assert doses_section(recipe, table(*(row(arm) for arm in arms)), "aa") is None
