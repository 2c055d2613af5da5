"""LMEval in a study: whose neurons apply, what is said before the model runs, and a whole run that is found again."""

import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from ssn_probe.recipes import suppress_ss
from task_files import write_tasks

from ssn_probe import ASR, LMEval, Prompts, Recipe, Result, SafetyNeurons, Suppress
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.verify import verify
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.study import lm_eval_tasks
from ssn_probe.study.lm_eval_tasks import check_tasks, task_language

PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=4)
ARMS: dict[str, Any] = {"ms": Suppress(SafetyNeurons(PROMPTS, effect="local", top=0.1))}


def study(*tasks: str, **changes: Any) -> Recipe:
    numbers: dict[str, Any] = {"controls": 1, "log_odds_label_sets": 0, "permutations": 0, "half_samples": 0}
    measures = (ASR(PROMPTS), LMEval(tasks, **changes))
    return Recipe(name="tasks", arms=ARMS, measures=measures, primary="ms", **numbers)


def test_the_language_of_a_task() -> None:
    known = ("en", "bn", "zh", "qab")
    named = LMEval(("mmlu", "mgsm_direct_bn", "x_zho", "folder/mine_qab.yaml", "gsm8k_cot"), languages={"mmlu": "zh"})
    found = [task_language(named, task, known, "en") for task in named.tasks]
    assert found == ["zh", "bn", "zh", "qab", "en"]
    assert task_language(named, "other_fr", known, None) == "en", "without an anchor, the first language"


def test_fields_are_checked() -> None:
    wrong: tuple[dict[str, Any], ...] = ({"tasks": ()}, {"tasks": ("a", "a")}, {"tasks": ("a",), "limit": 0})
    for fields in wrong:
        with pytest.raises(RecipeError):
            LMEval(**fields)
    with pytest.raises(RecipeError, match="which are not among the tasks"):
        LMEval(("a",), languages={"b": "en"})
    with pytest.raises(RecipeError, match="the only measure is LMEval"):
        Recipe(arms=ARMS, measures=(LMEval(("a",)),))


def test_every_recipe_takes_tasks() -> None:
    made = suppress_ss.from_text({"tasks": "mmlu,mgsm_direct_bn", "task_limit": "5"})
    assert made.measures[-1] == LMEval(("mmlu", "mgsm_direct_bn"), limit=5)
    with pytest.raises(RecipeError, match="task_limit is given without tasks"):
        suppress_ss.from_text({"task_limit": "5"})


def test_what_is_missing_is_said_before_the_model_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose, *_ = write_tasks(tmp_path, monkeypatch)
    check_tasks(study(choose))
    with pytest.raises(RecipeError, match=r"lm-eval has no task 'gone\.yaml'"):
        check_tasks(study("gone.yaml"))
    (tmp_path / "data.json").unlink()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "empty")
    with pytest.raises(DataError, match=r"or its data cannot be loaded: .*data\.json"):
        check_tasks(study(choose))
    lm_eval_tasks._manager.cache_clear()
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(DataError, match="LMEval needs lm-eval") as caught:
        check_tasks(study(choose))
    assert caught.value.hint == "pip install 'ssn-probe[lm-eval]'"


@pytest.mark.slow
def test_a_run_measures_tasks_last_and_finds_them_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tuple(organism_words())
    choose, _, reply = write_tasks(tmp_path, monkeypatch, words)
    recipe = study(choose, reply, limit=5, languages={reply: "qaa"})
    run = run_recipe(recipe, Options(out=tmp_path / "out"), Console(quiet=True))
    scores = run.table("lm_eval")
    assert set(scores.select("task", "eval_language").rows()) == {("choose_qab", "qab"), ("reply_qab", "qaa")}
    assert set(scores.filter(arm="ms")["set_language"]) == {"qab", "qaa"}
    assert set(scores["n"]) == {5}
    assert set(scores["arm"]) == {"baseline", "ms"}
    assert r"| choose\_qab | acc | qab | 5 |" in (run.path / "report.md").read_text("utf-8")
    side = next(line for line in run.manifest()["answer"] if line.startswith("Side effects"))
    assert "choose_qab acc" in side
    assert all(finding.holds is not False for finding in verify(run))
    exported = Result(run).export(tmp_path / "tasks.md", "lm_eval").read_text("utf-8")
    assert "| task | metric | language | documents | baseline | ms |" in exported
    assert pl.read_csv(Result(run).export(tmp_path / "tasks.csv", "lm_eval")).height == scores.height
    assert r"\begin{tabular}{lllrrr}" in Result(run).export(tmp_path / "tasks.tex", "lm_eval").read_text("utf-8")
    monkeypatch.setattr(lm_eval_tasks, "_run", None)  # nothing is asked of the model again
    again = run_recipe(recipe, Options(out=tmp_path / "out"), Console(quiet=True))
    assert again.table("lm_eval").equals(scores)


def organism_words() -> list[str]:
    from ssn_probe.data.prompt_set import load_prompts

    texts = load_prompts(PROMPTS).frame.filter(language="qab")["text"]
    return sorted({word for text in texts for word in text.split()})[:40]
