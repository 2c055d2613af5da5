"""A plan names what a run reads, and looking at it fetches no guard model."""

from dataclasses import replace
from pathlib import Path

import pytest
from judging import a_judge
from prompt_rows import load, make_rows, write

from ssn_probe import ASR, NeuronFile, Prompts, Recipe, Suppress
from ssn_probe.study import forecast
from ssn_probe.study.ingredients import ingredients
from ssn_probe.study.plan import Plan


def test_sets_licences_splits_and_judges_are_named_once(tmp_path: Path) -> None:
    write(tmp_path / "own", make_rows(), anchor="en", license="CC0-1.0", judge={"kind": "phrases"})
    prompts = Prompts(str(tmp_path / "own"))
    recipe = Recipe(arms={"x": Suppress(NeuronFile("a.csv"))}, measures=(ASR(prompts),))
    data = {prompts: load(tmp_path / "own"), Prompts("everyday"): load("everyday", languages=("en",))}
    first, second, *judges = ingredients(Plan(recipe=recipe, data=data))
    assert first.startswith("Prompts: own (licence CC0-1.0); in en and de: harmful 3 identify, 3 evaluate, 0 train")
    assert second.startswith("Prompts: everyday (licence Apache-2.0); in en: harmless 56 identify, 32 evaluate")
    assert judges == ["Judge: phrases (smoke test).", "Judge: none, so there is no ASR."]


def test_languages_that_differ_in_number_are_counted_apart(tmp_path: Path) -> None:
    few = {"identify-harmful-0", "identify-harmful-1"}
    rows = [row for row in make_rows() if row["language"] == "en" or row["prompt_id"] not in few]
    path = write(tmp_path / "own", rows)
    recipe = Recipe(arms={"x": Suppress(NeuronFile("a.csv"))}, measures=(ASR(Prompts(str(path))),))
    first, _ = ingredients(Plan(recipe=recipe, data={Prompts(str(path)): load(path)}))
    assert "in en and de: harmful 1 to 3 identify, 3 evaluate, 0 train; harmless 3 identify" in first


@pytest.mark.parametrize(("identity", "judged"), [({}, True), ({"model": "owner/guard"}, False)])
def test_a_guard_that_is_not_here_is_not_asked_by_a_plan(
    identity: dict[str, str], judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = replace(a_judge(lambda rows: []), identity={"kind": "made up"} | identity)
    monkeypatch.setattr(forecast, "make_judge", lambda *_given, **_how: judge)
    assert forecast._is_judged_here(load("organism")) == judged


@pytest.mark.parametrize(("levels", "begins"), [([1], "1 cluster of"), ([20], "20 clusters of"), ([1, 2], "1 × 2 ")])
def test_one_cluster_is_no_plural(levels: list[int], begins: str) -> None:
    assert forecast._detectable(levels, 2, falls=False).startswith(begins)
