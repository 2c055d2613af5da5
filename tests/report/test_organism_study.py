"""A study over organisms in words: only accepted organisms with a test count, and the model is the unit."""

from typing import Any

import polars as pl

from ssn_probe.report.organism_study import HEADER, study_cells, study_page, study_sentences
from ssn_probe.study.organism_rows import COLUMNS


def rows(*differences: float, **values: Any) -> pl.DataFrame:
    made = [
        {
            "seed": seed,
            "accepted": True,
            "baseline": 0.4,
            "value": 0.6 + difference,
            "label_sets": 0.6,
            "neurons": 8.25,
            "label_neurons": 4.0,
            "difference": difference,
            "difference_low": difference - 0.1,
            "difference_high": difference + 0.1,
            "p": 0.05 if difference > 0.1 else 0.35,
            "p_log_odds": 0.012,
            "holds": difference > 0.1,
        }
        | values
        for seed, difference in enumerate(differences)
    ]
    return pl.DataFrame(made, schema=COLUMNS)


def test_cells() -> None:
    (cells,) = study_cells(rows(0.2))
    assert len(cells) == len(HEADER)
    tested = ["+20.0 [+10.0 to +30.0]", ".050", ".012"]
    assert cells == ["0", "yes", "40.0", "80.0", "60.0", "8.2 (4.0)", *tested, "–", "–", "–", "–"]


def test_only_accepted_organisms_with_a_test_count() -> None:
    odd = [rows(0.3, seed=7, accepted=False), rows(0.3, seed=8, holds=None, p=None)]
    first, mean, untested = study_sentences(pl.concat([rows(0.2, 0.0, 0.1, -0.1), *odd]))
    assert "in 1 of 4 accepted organisms: 25 %, exact 95 % interval 1 % to 81 %" in first
    assert "+5.0 points, 95 % interval -15.5 to +25.5 over 4 organisms" in mean.replace("−", "-")
    assert untested.startswith("1 accepted organism had no valid test")
    assert study_sentences(rows(0.2, accepted=False)) == ["No accepted organism has a test yet."]


def test_the_page_has_every_organism() -> None:
    page = study_page("2 organisms", "Recipe suppress_ss -T top=0.01", rows(0.2, 0.0))
    assert page.startswith("# 2 organisms\n\nRecipe suppress\\_ss -T top=0.01\n\n| seed |")
    assert page.count("| yes |") == 2
    assert "- The arm does more than sets found with exchanged labels" in page
