"""Sections of the report that compare: tests per language, whose neurons matter for whom, counts against ASR."""

import polars as pl
import pytest
from arm_samples import EACH, EVERY, MEASURES, MS, RECIPE, findings, manifest, ran, samples, spelled

from ssn_probe.report.document import Folded, Part, Section, Table
from ssn_probe.report.finished import FinishedRun
from ssn_probe.report.markdown import as_markdown
from ssn_probe.report.sections.counts_and_asr import correlation_sentence, counts_against_asr, counts_sections
from ssn_probe.report.sections.primary_tests import primary_tests
from ssn_probe.report.sections.transfer_matrix import transfer_sections, transfers
from ssn_probe.spec import Amplify, Recipe, Shared, Suppress
from ssn_probe.stats import rank_correlation
from ssn_probe.study.summary import summarise


def tables(*parts: Part | Section | None) -> list[Table]:
    """The tables in these, folded ones too."""
    found = [[part] if isinstance(part, Table) else tables(*getattr(part, "parts", ())) for part in parts]
    return [table for own in found for table in own]


def lines(*parts: Part | Section | None) -> dict[str, tuple[str, ...]]:
    """Rows of tables by their first cell, and their heads."""
    rows = [row for table in tables(*parts) for row in (table.head, *table.rows)]
    return {row[0]: row[1:] for row in rows}


def of_primary(recipe: Recipe, summary: pl.DataFrame) -> Folded | None:
    return primary_tests(FinishedRun(recipe=recipe, manifest=manifest(), findings=findings(summary=summary)))


def test_the_tests_of_the_primary_arm() -> None:
    _, summary = ran({"ss": {"aa": "rrrrrrrr", "bb": "cccccccc", "cc": "rrrccccc"}}, "ss")
    folded = of_primary(RECIPE, summary)
    found = lines(folded)
    assert found["aa (anchor)"][1] == "–"
    assert found["bb"][0].startswith("+75.0 [")
    assert found["bb"][1] == ".062"
    assert found["cc"][1] == "1.000"
    assert found["average without aa"][1] == "–"
    (table,) = tables(folded)
    assert "over the 2 languages" in table.note
    assert "says nothing about other sets" in table.note


def test_a_change_larger_than_there_is_could_not_have_shown() -> None:
    _, summary = ran({"ss": {"bb": "cccccccc", "cc": "rrrccccc"}}, "ss")
    huge = summary.with_columns(pl.col("detectable") * 5)
    assert lines(of_primary(RECIPE, huge))["cc"][2].endswith("is more than any possible change")
    none = summary.with_columns(detectable=pl.lit(None, pl.Float64))
    assert lines(of_primary(RECIPE, none))["cc"][2] == "unknown: the difference has no spread"


def test_without_a_primary_arm_or_its_asr_there_are_no_tests() -> None:
    _, summary = ran({"ms of bb": {"bb": "cccccccc"}})
    assert of_primary(EACH, summary) is None
    assert of_primary(RECIPE, summary) is None


def test_whose_neurons_matter_for_whom() -> None:
    _, summary = ran(EVERY)
    found = lines(*transfer_sections(EACH, summary))
    assert found["silenced: neurons of"] == ("aa", "bb", "cc")
    assert [cell.split(" [")[0] for cell in found["aa"]] == ["+100.0", "+0.0", "+0.0"]
    assert [cell.split(" [")[0] for cell in found["bb"]] == ["+0.0", "+75.0", "+0.0"]
    assert found["baseline ASR, %"][2].startswith("50.0 [")
    assert found["aa"][1].endswith("]"), "an interval with every cell"


def test_a_cell_that_was_not_run_is_a_dash() -> None:
    _, summary = ran(EVERY | {"ms of bb": {"bb": "cccccccc"}})
    assert lines(*transfer_sections(EACH, summary))["bb"][::2] == ("–", "–")
    amplified = Recipe(arms={"ms": Amplify(MS.each(), by=2)}, measures=MEASURES)
    assert "changed: neurons of" in lines(*transfer_sections(amplified, summary))


def test_only_arms_that_ran_once_per_language_are_a_matrix() -> None:
    _, summary = ran({"ss": {"bb": "cccccccc"}, "ms": {"bb": "cccccccc"}}, "ss")
    assert transfers(summary) == {}
    assert transfer_sections(RECIPE, summary) == []


def baselines(**values: float) -> pl.DataFrame:
    rows = [{"language": one, "measure": "asr", "role": "baseline", "value": value} for one, value in values.items()]
    return pl.DataFrame(rows)


def test_counts_against_asr_leaves_the_anchor_and_the_average_out() -> None:
    summary = baselines(aa=0.0, bb=0.1, cc=0.2, dd=0.4, ee=0.3, average=0.25)
    sizes = {"aa": 90, "bb": 9, "cc": 7, "dd": 2, "ee": 4, "ff": 1}
    assert counts_against_asr(sizes, summary, "aa") == rank_correlation([9, 7, 2, 4], [0.1, 0.2, 0.4, 0.3])
    assert counts_against_asr(sizes, summary, None).n == 5


def test_the_coefficient_is_never_alone() -> None:
    words = correlation_sentence(rank_correlation([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5]))
    for part in ("ρ = +0.83", "95 % interval", "exact p = .058", "n = 6 languages", "only |ρ| ≥ 0.886 has p ≤ .05"):
        assert part in words
    assert "no ρ of 4 languages could have had p ≤ .05" in correlation_sentence(
        rank_correlation([1, 2, 3, 4], [2, 1, 4, 3])
    )
    assert "not computed" in correlation_sentence(rank_correlation([1, 1, 1], [2, 1, 4]))
    assert "no interval: n = 3" in correlation_sentence(rank_correlation([1, 2, 3], [2, 1, 4]))


def test_counts_are_told_for_sets_shared_with_an_anchor() -> None:
    _, summary = ran({"ss": {"bb": "cccccccc", "cc": "rrrccccc"}}, "ss")
    (section,) = counts_sections(RECIPE, manifest(), summary)
    assert lines(section)["bb"][0] == "3"
    assert "aa" not in lines(section)
    assert section.title == "Counts against ASR: ss"
    others = Recipe(sets={"k": Shared(MS, at_least=3)}, arms={"ms": Suppress(MS)}, measures=MEASURES)
    assert counts_sections(others, manifest(), summary) == []
    assert counts_sections(RECIPE, manifest(), summary.filter(pl.col("measure") != "asr")) == []


@pytest.mark.parametrize("language", ["*b*", "b|b", "<b>"])
def test_names_of_languages_are_literal(language: str) -> None:
    frame = samples("baseline", "baseline", {language: spelled("rrcc")})
    summary = summarise(frame, None, anchor="aa", primary=None)
    (section,) = counts_sections(RECIPE, manifest(sets={"ms": {}, "ss": {language: 3}}), summary)
    assert language in lines(section)
    assert f"| {language} |" not in as_markdown(section)
    assert "\\" in as_markdown(section)
