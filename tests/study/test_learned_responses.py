"""A training whose data have no responses learns the untouched model's own, as far as its judge calls them right."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import polars as pl
import pytest
from paper_files import write_harmless, write_judge, write_multijail
from studies import bench_for
from tiny import tiny_tokenizer

from ssn_probe import ASR, Expand, NeuronFile, Prompts, Recipe, SafetyNeurons, Training
from ssn_probe.data.training_rows import Example
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.model.chat import encode
from ssn_probe.model.subject import Subject
from ssn_probe.runs.cache import Cache
from ssn_probe.spec.node import to_json
from ssn_probe.study.learned_responses import answer_steps
from ssn_probe.study.plan import make_plan
from ssn_probe.study.trained_weights import data_of
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.generate import generate
from ssn_probe.training.loop.loss import encode_examples

LANGUAGES = ("en", "zh", "bn")
BOTH = ("harmful", "harmless")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    folder = tmp_path_factory.mktemp("files")
    data = f"multijail:{write_multijail(folder)}"
    return {"data": data, "harmless": str(write_harmless(folder)), "judge": write_judge(folder)}


def study(files: Mapping[str, str], data: str | None = None, judge: str | None = None, **how: Any) -> Recipe:
    prompts = Prompts(data or files["data"], harmless=files["harmless"], languages=LANGUAGES, max_new_tokens=6)
    neurons = SafetyNeurons(prompts, effect="local").of("en")
    arm = Expand(neurons, prompts, training=Training(steps=2), **how)
    quiet: dict[str, Any] = {"comparisons": (), "log_odds_label_sets": 0}
    return Recipe(arms={"x": arm}, measures=(ASR(prompts),), judge=judge or files["judge"], **quiet)


def learned(recipe: Recipe, subject: Subject) -> tuple[Workbench, tuple[Example, ...]]:
    bench = bench_for(recipe, subject)
    return bench, data_of(bench, arm_of(recipe)).examples


def arm_of(recipe: Recipe) -> Expand:
    [arm] = recipe.arms.values()
    assert isinstance(arm, Expand)
    return arm


def said(bench: Workbench, context: str, language: str) -> dict[str, tuple[str, bool]]:
    """What the model says to the train prompts: asked by itself, without steps, cache and tables."""
    [prompts] = set(bench.data.values())
    rows = prompts.select("train", context, language)
    found = generate(bench.subject, encode(bench.subject, list(rows["text"])), max_new_tokens=6)
    ends = [(one.text, one.finish_reason == "stop") for one in found]
    return dict(zip(rows["prompt_id"], ends, strict=True))


def fitting(bench: Workbench, context: str, language: str) -> dict[str, tuple[str, bool]]:
    """The same, of the right verdict."""
    found = said(bench, context, language).items()
    return {name: one for name, one in found if refused(one[0]) == (context == "harmful")}


def refused(text: str) -> bool:
    """As the judge says."""
    return crc32(text.encode()) % 2 == 1


def taught(rows: tuple[Example, ...], context: str, language: str) -> dict[str, tuple[str, bool]]:
    return {row.prompt_id: (row.target, row.ends) for row in rows if (row.context, row.language) == (context, language)}


def test_the_anchors_refusals_are_learned_in_every_language(files: Mapping[str, str], llama: Subject) -> None:
    recipe = study(files, contexts=("harmful",))
    bench, rows = learned(recipe, llama)
    own = fitting(bench, "harmful", "en")
    assert own
    assert all(taught(rows, "harmful", language) == own for language in LANGUAGES)
    assert any(f"judged refused: {len(own)} of 14 in every language" in note for note in bench.warnings)
    assert data_of(bench, arm_of(recipe)).describe()["responses"] == {"harmful": "anchor"}


def test_own_refusals_and_own_answers_in_each_language(files: Mapping[str, str], llama: Subject) -> None:
    bench, rows = learned(study(files, references="own"), llama)
    for context in BOTH:
        for language in LANGUAGES:
            assert taught(rows, context, language) == fitting(bench, context, language)


def test_columns_come_first_and_are_asked_for_by_name(files: Mapping[str, str], llama: Subject, tmp_path: Path) -> None:
    table = pl.read_csv(files["data"].partition(":")[2])
    texts = [text for n in range(1000) if refused(text := f"No {n}.")][: table.height]
    table = table.with_columns(pl.Series(f"reference_{one}", texts) for one in LANGUAGES)
    table.write_csv(tmp_path / "with.csv")
    bench, rows = learned(study(files, data=f"multijail:{tmp_path / 'with.csv'}"), llama)
    for language in LANGUAGES:
        assert {text for text, _ in taught(rows, "harmful", language).values()} <= set(texts)
        assert taught(rows, "harmless", language) == fitting(bench, "harmless", language)
    with pytest.raises(DataError, match="have no response") as caught:
        make_plan(study(files, references="columns"))
    assert "references='anchor' or 'own'" in (caught.value.hint or "")


def test_too_few_refusals_are_one_error(files: Mapping[str, str], llama: Subject, tmp_path: Path) -> None:
    file = tmp_path / "judge.py"
    file.write_text("def none(rows):\n    return ['complied'] * len(rows)\n", encoding="utf-8")
    judge = f"python:{file}@none"
    for references, said_to_do in ((None, "take references='own'"), ("own", "references='anchor'")):
        with pytest.raises(DataError, match=r"0 of 14 in every language have one .* and 5 are the least") as caught:
            learned(study(files, judge=judge, references=references, contexts=("harmful",)), llama)
        assert said_to_do in (caught.value.hint or "")
    file.write_text("def none(rows):\n    return ['refused'] * len(rows)\n", encoding="utf-8")
    with pytest.raises(DataError, match="of the harmless train prompts, 0 of") as caught:
        learned(study(files, judge=judge), llama)
    assert "-T answers=false" in (caught.value.hint or "")


def test_too_few_are_found_before_other_arms_are_measured(
    files: Mapping[str, str], llama: Subject, tmp_path: Path
) -> None:
    few = study(files)
    prompts = replace(few.measures[0].prompts, limit=4)
    arm = replace(arm_of(few), data=prompts, contexts=("harmful",))
    with pytest.raises(DataError, match=r"too few harmful train prompts, .*4 in en, 4 in zh and 4 in bn, and 5 are"):
        make_plan(replace(few, arms={"x": arm}, measures=(ASR(prompts),)))
    file = tmp_path / "judge.py"
    file.write_text("def none(rows):\n    return ['complied'] * len(rows)\n", encoding="utf-8")
    recipe = study(files, judge=f"python:{file}@none", contexts=("harmful",))
    make_plan(recipe)
    [step] = answer_steps(bench_for(recipe, llama), [arm_of(recipe)])
    with pytest.raises(DataError, match=r"too few responses to learn in en: .* 0 of 14 in en have one .*in en, judged"):
        step.run()


def test_a_refusal_of_the_anchor_that_refuses_nothing_elsewhere_is_left_out(
    files: Mapping[str, str], llama: Subject, tmp_path: Path
) -> None:
    file = tmp_path / "judge.py"
    file.write_text(
        "def in_en(rows):\n    return ['refused' if row.language == 'en' else 'invalid' for row in rows]\n",
        encoding="utf-8",
    )
    with pytest.raises(DataError, match="14 of 14 in en, 0 of 14 in zh and 0 of 14 in bn"):
        learned(study(files, judge=f"python:{file}@in_en", contexts=("harmful",)), llama)


def test_the_answers_are_steps_of_the_plan_and_made_once(
    files: Mapping[str, str], llama: Subject, tmp_path: Path
) -> None:
    recipe = study(files, contexts=("harmful",))
    cached = replace(bench_for(recipe, llama), cache=Cache(root=tmp_path))
    [step] = answer_steps(cached, [arm_of(recipe), arm_of(recipe)])
    assert (step.label, step.prompts) == ("own responses to learn (multijail)", 14)
    assert not step.is_done()
    step.run()
    later = replace(bench_for(recipe, llama), cache=Cache(root=tmp_path, compute=False))
    assert next(iter(answer_steps(later, [arm_of(recipe)]))).is_done()


def test_what_names_no_response_keeps_its_key(files: Mapping[str, str]) -> None:
    arm = Expand(NeuronFile("a.csv"), Prompts("organism"))
    assert "references" not in to_json(arm)
    assert replace(arm, references="own") != arm
    with pytest.raises(RecipeError, match="unknown references 'owns'"):
        replace(arm, references="owns")
    with pytest.raises(RecipeError, match="at names steps of a training whose rows the model makes"):
        make_plan(replace(study(files), arms={"x": replace(arm_of(study(files)), training=Training(), at=(1,))}))


def test_a_response_that_was_cut_teaches_no_end() -> None:
    row = Example(prompt_id="a", language="en", context="harmful", cluster="a", text="w1", target="w2 w3")
    whole, cut = encode_examples([row, replace(row, ends=False)], tiny_tokenizer(), (2,))
    assert whole.response == (*cut.response, 2)
    assert len(cut.response) == 2
