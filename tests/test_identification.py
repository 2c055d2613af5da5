"""The yardstick of identification: rows, costs, table, and that what is there is not measured again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pytest
import torch

from benchmarks.identification import harness, organisms, own, rows, table
from benchmarks.identification.counting import counted, per_prompt
from benchmarks.identification.page import filled
from benchmarks.identification.picture import picture
from benchmarks.identification.rows import Organism, open_organism, row_of
from ssn_probe.errors import RecipeError, ResultError
from ssn_probe.organism.ground_truth import CARRIER
from ssn_probe.spec.effect_registry import Effect, Refusal, named_effect
from ssn_probe.tracing.effect_store import mean
from ssn_probe.tracing.effects import score


@pytest.fixture(scope="module")
def organism() -> Organism:
    return open_organism("planted-ffn", "organism:planted-ffn", prompts=2, judged=3)


def blank(organism: Organism) -> dict[Any, np.ndarray]:
    subject = organism.subject
    return {site: np.zeros((subject.n_layers, subject.widths[site])) for site in rows.SITES}


def true_scores(organism: Organism, question: str) -> dict[Any, np.ndarray]:
    scores = blank(organism)
    for layer, site, index, value in organism.truth.members(question, CARRIER).iter_rows():
        scores[site][layer, index] = 1 + value
    return scores


def test_the_truth_has_a_perfect_row(organism: Organism) -> None:
    row = row_of(true_scores(organism, "harmful"), organism, silence=False)
    assert [row[name] for name in ("AP H", "precision H", "recall H", "mass H")] == pytest.approx([1.0] * 4)
    assert row["brakes H"] == 0
    assert row["carriers H"] == organism.truth.members("harmful", CARRIER).height


def test_silencing_the_truth_ends_refusal_and_spares_the_rest(organism: Organism) -> None:
    row = row_of(true_scores(organism, "harmful"), organism)
    before = rows.behaviour(organism)
    assert row["found"] == 1.0
    assert row["ASR anchor"] == 1.0 > (before["ASR anchor"] or 0.0)
    assert row["utility"] == before["utility"]


def test_noise_has_the_precision_of_chance(organism: Organism) -> None:
    draw = np.random.default_rng(0)
    found = [
        row_of({site: draw.random(one.shape) for site, one in blank(organism).items()}, organism, silence=False)
        for _ in range(20)
    ]
    mean = np.mean([row["AP D"] or 0 for row in found])
    assert mean == pytest.approx(found[0]["chance D"], abs=0.02)


def test_the_worst_ranking_finds_nothing(organism: Organism) -> None:
    worst = {site: -one for site, one in true_scores(organism, "difference").items()}
    row = row_of(worst, organism, silence=False)
    assert row["precision D"] == row["mass D"] == 0.0


def test_equal_scores_tell_nothing(organism: Organism) -> None:
    row = row_of(blank(organism), organism, silence=False)
    assert row["AP H"] == pytest.approx(row["chance H"])


def test_rankings_of_languages_are_averaged(organism: Organism) -> None:
    good, flat = true_scores(organism, "harmful"), blank(organism)
    both = row_of({"qaa": good, "qab": flat}, organism, silence=False)
    alone = row_of(flat, organism, silence=False)
    assert both["AP H"] == pytest.approx((1 + (alone["AP H"] or 0)) / 2)


def test_scores_of_one_site_leave_the_other_last(organism: Organism) -> None:
    scores = {"ffn": true_scores(organism, "harmful")["ffn"] - 5}
    assert all(site == "ffn" for _, site, _ in rows.highest(rows._checked(scores, "*", organism), 100))


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({"ffn": np.zeros((4, 3))}, "not \\(4, 512\\)"),
        ({"ffn": np.full((4, 512), np.nan)}, "NaN"),
        ({"ffn": np.full((4, 512), np.inf)}, "infinity"),
        ({"up": np.zeros((4, 512))}, "are of"),
        ({}, "are of"),
        ({"xx": {"ffn": np.zeros((4, 512))}}, "name 'xx'"),
    ],
)
def test_scores_that_are_none_are_an_error(organism: Organism, scores: Any, words: str) -> None:
    with pytest.raises(ResultError, match=words):
        row_of(scores, organism)


def test_a_model_without_truth_is_an_error() -> None:
    with pytest.raises(ResultError, match="no ground truth"):
        open_organism("natural", "organism")


def test_passes_are_counted(organism: Organism) -> None:
    given = organism.given
    with counted(given) as forward:
        for language in given.reads:
            given.run(language, "harmful")
    assert per_prompt(forward, given) == pytest.approx(0.5)
    assert own.effects_of(given, "refusal:1").cost == pytest.approx(3, rel=0.01)


def test_the_attribution_of_both_programs_is_the_same(organism: Organism) -> None:
    known = harness.methods()
    names = ("attribution to zero, h − b", "refusal:1, h − b")
    one, two = (cast(Any, known[name].scored(organism.given, {})[0]) for name in names)
    for site in rows.SITES:
        assert torch.allclose(one[site], two[site], atol=2e-3 * float(one[site].abs().max()))


def test_the_paper_s_rule_puts_the_harmless_top_last() -> None:
    h, b = torch.tensor([[3.0, 2, 1]]), torch.tensor([[5.0, 1, 0]])
    assert own.paper(h, b).argmin() == 0
    assert own.both(h, b).tolist() == [[0.5, 1.5, 1.0]]


def test_a_row_that_is_there_is_read(organism: Organism, tmp_path: Path) -> None:
    calls = []

    def method(given: Any, memory: dict) -> Any:
        calls.append(1)
        return blank(organism), 1.0

    def made(prompts: int, effect: Effect | None) -> list:
        known = {"m": harness.Method(scored=method, effect=effect)}
        return list(harness.rows(organism, known, tmp_path, {"prompts": prompts}))

    known = {"m": harness.Method(scored=method)}
    assert not list(harness.rows(organism, known, tmp_path, {"prompts": 2}, kept=True))
    assert made(2, None) == made(2, None)
    assert made(2, None) == list(harness.rows(organism, known, tmp_path, {"prompts": 2}, kept=True))
    assert len(calls) == 1
    made(3, None)
    assert len(calls) == 2
    for effect in (named_effect("refusal"), named_effect("refusal:1")):
        made(2, effect)
        made(2, effect)
    assert len(calls) == 4


def test_a_row_of_another_version_of_its_effect_is_not_read(organism: Organism, monkeypatch: Any) -> None:
    def file() -> Path:
        return harness._file(Path(), organism, "refusal, h", named_effect("refusal"), {})

    before = file()
    monkeypatch.setattr(Refusal, "version", Refusal.version + 1)
    assert file() != before


def test_ablating_every_neuron_is_the_effect_ablation(organism: Organism) -> None:
    language = next(iter(organism.given.reads))
    tokens = {(language, side): organism.given.tokens[language, side][:1] for side in ("harmful", "harmless")}
    few = replace(organism.given, reads={language: organism.given.reads[language]}, tokens=tokens, sites=("o",))
    found = own.effects_of(few, "ablation:1").means()
    both = [row for side in tokens.values() for row in side]
    scores = score(named_effect("ablation:1"), few.subject, both, reads=few.reads[language], sites=few.sites)
    for row, side in enumerate(found[language]):
        wanted = mean(scores, "o", [row]).double()
        assert torch.allclose(side["o"], wanted, atol=2**-10 * float(wanted.abs().max()))  # kept in half precision


def test_the_method_of_a_file_is_found() -> None:
    assert harness.function_at("benchmarks.identification.own:paper") is own.paper
    with pytest.raises(RecipeError, match="no method"):
        harness.function_at("nowhere:rank")


def test_exchanged_labels_swap_pairs(organism: Organism) -> None:
    effects = own.effects_of(organism.given, "refusal:1")
    before, after, none = (effects.means(one) for one in ([True, True], [False, False], None))
    for language, (h, b) in before.items():
        for site in rows.SITES:
            assert torch.equal(h[site], after[language][1][site])
            assert torch.equal(b[site], none[language][0][site])
    half = effects.means([True, False])["qaa"]
    total = [one[0]["ffn"] + one[1]["ffn"] for one in (half, before["qaa"])]
    assert torch.allclose(total[0], total[1], atol=1e-6)
    assert not torch.allclose(half[0]["ffn"], before["qaa"][0]["ffn"])


def test_a_row_says_what_exchanged_labels_find(organism: Organism) -> None:
    good, blind = true_scores(organism, "harmful"), blank(organism)
    row = rows.exchanged_row([good, blind], organism)
    assert row["mass H exchanged"] == pytest.approx((1 + (row_of(blind, organism, silence=False)["mass H"] or 0)) / 2)


def test_organisms_are_balanced_and_apart() -> None:
    test = organisms.TEST
    assert len({one.seed for one in test}) == len({one.name for one in test}) == 10
    assert [one.architecture for one in test] == ["llama", "qwen3"] * 5
    shipped = [json.loads((Path(one) / "card.json").read_text("utf-8")) for one in organisms.development().values()]
    assert not {one["seed"] for one in shipped} & {one.seed for one in test}


def test_table_and_picture() -> None:
    frame = pl.DataFrame(
        {
            "organism": ["a", "b", "a", "b", "a", "b"],
            "method": ["good", "good", "bad", "bad", table.UNTOUCHED, table.UNTOUCHED],
            "AP D": [0.9, 0.8, 0.5, 0.5, None, None],
            "AP H": [0.9, 0.8, 0.5, 0.5, None, None],
            "ASR": [0.5, 0.5, 0.5, 0.5, 1.0, 1.0],
        }
    )
    found = table.summary(frame)
    row = found.row(by_predicate=(pl.col("method") == "bad") & (pl.col("column") == "AP D"), named=True)
    assert row["against"] == "good"
    assert row["gap"] == pytest.approx(-0.35)
    assert row["gap_low"] == pytest.approx(-0.35 - 12.706 * 0.05, abs=1e-3)
    text = table.markdown(found)
    assert text.index("| good |") < text.index("| bad |") < text.index(table.UNTOUCHED)
    assert picture(found).title.endswith("D: good")


def made_rows() -> pl.DataFrame:
    """Six organisms; the rule both is .1 better than the default for H and as good for D."""
    names = {"refusal, h − b": (0.9, 0.6), "refusal, 2h − b": (0.9, 0.7), "NeST": (0.2, 0.1), "Σ |up|": (0.3, 0.3)}
    rest = {"mass D": 0.5, "mass H": 0.5, "mass D exchanged": 0.1, "mass H exchanged": 0.1, "found exchanged": 0.25}
    rest |= {"found": 0.75, "ASR": 0.8, "ASR exchanged": 0.3, "utility": 1.0, "passes": 6.0}
    return pl.DataFrame(
        [
            {"organism": f"o{number}", "method": name, "AP D": d + number / 100, "AP H": h, **rest}
            for number in range(6)
            for name, (d, h) in names.items()
        ]
    )


def test_the_blocks_of_the_page_are_made_from_rows() -> None:
    text = "Before\n<!-- table -->\nold\n<!-- end -->\nbetween <!-- differences --><!-- end -->"
    text += "\n<!-- exchanged --><!-- end -->"
    page = filled(text, made_rows(), [f"o{number}" for number in range(6)])
    assert "old" not in page
    assert page.startswith("Before\n<!-- table -->\n| method |")
    assert "between" in page
    assert "| **refusal, h − b** | 6 | 0.93 [0.91, 0.94] | 0.60 [0.60, 0.60] | 0.50 |" in page
    assert "| refusal, 2h − b less refusal, h − b | 6 | +0.00 [+0.00, +0.00] | +0.10 [+0.10, +0.10] |" in page
    assert r"| refusal, h − b less Σ \|up\|, of others the best by AP D and AP H and AP | 6 |" in page
    assert "| later organisms: refusal, 2h − b less refusal, h − b | 1 |" in page
    assert "0.80; 0.30; +0.50 [+0.50, +0.50]" in page
    assert "less that of 2h − b, paired: +0.00 [+0.00, +0.00], n = 6." in page
    assert filled(page, made_rows(), []) != page
    with pytest.raises(ValueError, match="0 blocks 'table'"):
        filled("nothing", made_rows(), [])


def test_one_organism_has_no_interval() -> None:
    middle, low, high = table.interval([0.5])
    assert middle == 0.5
    assert np.isnan([low, high]).all()


@pytest.mark.slow
def test_an_organism_of_own_numbers_is_trained(tmp_path: Path) -> None:
    from ssn_probe.organism.curriculum import Stage
    from ssn_probe.organism.make import train
    from ssn_probe.organism.variants import PLANTED

    stage = Stage(steps=2, batch=8, rate=1e-3, warmup=1, decay=0.0)
    variant = organisms.Planting(7, "qwen3", 2, 2).variant
    card = train(
        7, tmp_path, variant=replace(variant, curriculum=replace(PLANTED, pretrain=stage, safety=stage)), pairs=2
    )
    assert card["variant"] == "own"
    assert card["planted_per_layer"] == {"ffn": 2, "o": 2}
    assert (tmp_path / "truth.parquet").is_file()
