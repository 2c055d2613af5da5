"""The shipped harmless prompts: parallel, in their languages, no copies, and of use to any harmful set."""

from pathlib import Path

import polars as pl
import pytest

from ssn_probe.data.everyday import LANGUAGES
from ssn_probe.data.prompt_set import PromptSet, load_prompts
from ssn_probe.data.text_faults import misplaced, near_duplicates
from ssn_probe.errors import DataError
from ssn_probe.languages import is_gibberish
from ssn_probe.report.cautions_on_data import OF_PROMPTS
from ssn_probe.spec import Prompts, Recipe, SafetyNeurons
from ssn_probe.study.plan import make_plan


@pytest.fixture(scope="module")
def everyday() -> PromptSet:
    return load_prompts(Prompts("everyday"))


def test_it_is_parallel_over_topics_and_splits(everyday: PromptSet) -> None:
    assert everyday.languages == LANGUAGES
    assert everyday.license == "Apache-2.0"
    counts = everyday.frame.group_by("language", "context").len()
    assert set(counts.filter(context="harmless")["len"]) == {96}
    assert set(counts.filter(context="lookalike")["len"]) == {40}
    topics = everyday.frame.filter(context="harmless").group_by("topic", "split").len()
    assert topics["topic"].n_unique() == 8
    assert dict(topics.group_by("split").agg(pl.col("len").sum()).iter_rows()) == {
        split: count * 8 * len(LANGUAGES) for split, count in (("identify", 7), ("evaluate", 4), ("train", 1))
    }


def test_nothing_is_wrong_with_its_texts(everyday: PromptSet) -> None:
    assert [note for check in OF_PROMPTS for note in check(everyday)] == []
    assert misplaced(everyday) == ()
    assert near_duplicates(everyday) == {}
    assert [text for text in everyday.frame["text"] if is_gibberish(text)] == []


def harmful(folder: Path, languages: tuple[str, ...]) -> str:
    rows = [
        {"prompt_id": f"h{number}", "language": language, "context": "harmful", "text": f"{number} {word} paper boats"}
        for language, word in zip(languages, ("fold", "piega", "dobla"), strict=False)
        for number in range(12)
    ]
    pl.DataFrame(rows).write_csv(folder / "own.csv")
    return str(folder / "own.csv")


def test_it_is_the_harmless_half_of_any_set(tmp_path: Path) -> None:
    both = load_prompts(Prompts(harmful(tmp_path, ("en", "it")), harmless="everyday"))
    assert both.languages == ("en", "it")
    counts = dict(both.frame.filter(language="it").group_by("context").len().iter_rows())
    assert counts == {"harmful": 12, "harmless": 96, "lookalike": 40}


@pytest.mark.parametrize(
    ("languages", "said"),
    [
        (("en", "it"), "-T harmless=everyday (shipped)"),
        (("en", "qaa", "es"), "-T harmless=everyday -T languages=en,es (shipped)"),
        (("qaa",), "another set: -T harmless=mgsm"),
    ],
)
def test_a_set_without_harmless_prompts_is_told_which_there_are(
    tmp_path: Path, languages: tuple[str, ...], said: str
) -> None:
    recipe = Recipe(sets={"ms": SafetyNeurons(Prompts(harmful(tmp_path, languages)))})
    with pytest.raises(DataError, match="has no harmless prompts") as error:
        make_plan(recipe)
    assert said in (error.value.hint or "")


def test_languages_that_the_harmless_half_lacks_are_named_with_the_rest_to_paste(tmp_path: Path) -> None:
    node = Prompts(harmful(tmp_path, ("en", "qaa", "es")), harmless="everyday")
    with pytest.raises(DataError, match="has no harmless prompts to identify neurons with in qaa") as error:
        make_plan(Recipe(sets={"ms": SafetyNeurons(node)}))
    assert "-T languages=en,es" in (error.value.hint or "")
