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
from ssn_probe.model.subject import Subject
from ssn_probe.report.sections.task_scores import top_scores
from ssn_probe.study import lm_eval_tasks
from ssn_probe.study.lm_eval_tasks import check_tasks, task_language
from ssn_probe.study.measurements import UNCHANGED
from ssn_probe.study.workbench import Workbench

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
    with pytest.raises(DataError, match=r"or its data cannot be loaded: .*data\.json") as caught:
        check_tasks(study(choose))
    assert "is there a network" in str(caught.value.hint)
    lm_eval_tasks._manager.cache_clear()
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(DataError, match="LMEval needs lm-eval") as caught:
        check_tasks(study(choose))
    assert caught.value.hint == "pip install 'ssn-probe[lm-eval]'"


@pytest.mark.parametrize("lacks", ["documents", "split", "field"])
def test_what_a_task_lacks_is_not_said_to_be_the_network(
    lacks: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose, *_ = write_tasks(tmp_path, monkeypatch)
    other = {
        "documents": "process_docs: !function ask.none\n",
        "split": "test_split: test\n",
        "field": "doc_to_text: '{{x}}'\n",
    }
    (tmp_path / "ask.py").write_text("def none(documents):\n    return documents.select([])\n", "utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"include: {Path(choose).name}\n{other[lacks]}", "utf-8")
    with pytest.raises(DataError, match="or its data cannot be loaded") as caught:
        check_tasks(study(str(mine)))
    assert str(caught.value.hint).startswith("Does its data have documents, and the splits and fields")


def test_data_in_a_folder_without_a_slash_are_part_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of a format is no folder, even where there is one."""
    monkeypatch.chdir(tmp_path)
    for folder, other in (("mine", True), ("json", False)):
        Path(folder).mkdir()
        task = Path(f"{folder}.yaml")
        task.write_text(f"dataset_path: {folder}\n", "utf-8")
        before = lm_eval_tasks._definition(str(task))
        (Path(folder) / "train.json").write_text("{}\n", "utf-8")
        assert (lm_eval_tasks._definition(str(task)) != before) == other


def test_a_mean_has_its_standard_error(llama: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    choose, *_ = write_tasks(tmp_path, monkeypatch)
    with Path(choose).open("a", encoding="utf-8") as file:
        file.write("    aggregation: median\n")  # of acc_norm, for whose error lm-eval would start processes
    bench = Workbench(subject=llama, data={}, anchor=None)
    found = lm_eval_tasks.scores(bench, LMEval((choose,)), choose, UNCHANGED, lambda _: None)
    mean, middle = found.iter_rows(named=True)
    assert (mean["metric"], middle["metric"]) == ("acc", "acc_norm")
    assert 0 < mean["value"] < 1
    assert mean["stderr"] == pytest.approx((mean["value"] * (1 - mean["value"]) / (mean["n"] - 1)) ** 0.5)
    assert middle["stderr"] is None


def test_a_task_is_what_its_files_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed text, an included file, a function, or local data: none finds the scores of before."""
    choose, *_ = write_tasks(tmp_path, monkeypatch)
    parts = tmp_path / "parts"
    parts.mkdir()
    files = [tmp_path / "data.json", tmp_path / "ask.py", parts / "one.json", Path(choose), tmp_path / "mine.yaml"]
    files[1].write_text("def text(document): return document\n", "utf-8")
    files[2].write_text("{}\n", "utf-8")
    data = f"dataset_path: {parts}/\ndataset_kwargs:\n  data_files:\n    train: ['{parts}/*.json']\n"
    files[-1].write_text(f"include: {Path(choose).name}\ndoc_to_text: !function ask.text\n{data}", "utf-8")
    known = [lm_eval_tasks._definition(str(files[-1]))]
    for file in files:
        file.write_text(f"{file.read_text('utf-8')}\n", "utf-8")
        known.append(lm_eval_tasks._definition(str(files[-1])))
    assert len({str(one) for one in known}) == len(files) + 1
    files[1].unlink()  # functions of a package have no file beside the task
    lm_eval_tasks._definition(str(files[-1]))
    files[3].unlink()
    with pytest.raises(DataError, match=r"cannot read the lm-eval task .*mine\.yaml.* No such file"):
        lm_eval_tasks._definition(str(files[-1]))


def test_a_group_without_a_score_hides_none_of_its_tasks() -> None:
    """Such as `openllm`: what it is made of is what was asked for. mmlu has a score, and its parts are not shown."""
    score = {"acc,none": 0.5, "acc_stderr,none": 0.1, "sample_len": 4}
    groups = {"openllm": ["mmlu", "arc"], "mmlu": ["science"], "science": ["physics"]}
    results = {"openllm": {"alias": "openllm"}, "science": {"alias": "science"}}
    results |= {task: score for task in ("mmlu", "arc", "physics")}
    found = lm_eval_tasks._table({"results": results, "group_subtasks": groups, "n-shot": {}})
    assert dict(found.select("task", "part_of").iter_rows()) == {"mmlu": None, "arc": None, "physics": "mmlu"}
    assert set(top_scores(found)["task"]) == {"mmlu", "arc"}


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
    assert r"| choose\_qab | acc | qab | 5 | 0 |" in (run.path / "report.md").read_text("utf-8")
    side = next(line for line in run.manifest()["answer"] if line.startswith("Side effects"))
    assert "choose_qab acc" in side
    assert all(finding.holds is not False for finding in verify(run))
    exported = Result(run).export(tmp_path / "tasks.md", "lm_eval").read_text("utf-8")
    assert "| task | metric | language | documents | examples | baseline | ms |" in exported
    assert pl.read_csv(Result(run).export(tmp_path / "tasks.csv", "lm_eval")).height == scores.height
    assert r"\begin{tabular}{lllrrrr}" in Result(run).export(tmp_path / "tasks.tex", "lm_eval").read_text("utf-8")
    monkeypatch.setattr(lm_eval_tasks, "_run", None)  # nothing is asked of the model again
    again = run_recipe(recipe, Options(out=tmp_path / "out"), Console(quiet=True))
    assert again.table("lm_eval").equals(scores)


def organism_words() -> list[str]:
    from ssn_probe.data.prompt_set import load_prompts

    texts = load_prompts(PROMPTS).frame.filter(language="qab")["text"]
    return sorted({word for text in texts for word in text.split()})[:40]
