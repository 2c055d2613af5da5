"""Texts in other scripts and languages, near-copies, and texts that stand in several splits."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import polars as pl
import pytest
from sentences import SENTENCES

from ssn_probe.data import text_faults
from ssn_probe.data.prompt_set import PromptSet, load_prompts
from ssn_probe.data.same_texts import joined_by_text
from ssn_probe.data.text_faults import across_splits, misplaced, near_duplicates, unlike_translations
from ssn_probe.errors import DataError
from ssn_probe.report.cautions_on_data import OF_PROMPTS
from ssn_probe.spec import Prompts, Recipe, SafetyNeurons
from ssn_probe.study.plan import make_plan

KO, EN, IT = SENTENCES["ko"], SENTENCES["en"], SENTENCES["it"]


def prompt_set(folder: Path, texts: dict[str, Sequence[str]], **columns: list[str]) -> PromptSet:
    """A set whose texts of a language are those given, harmful, with ids in their order."""
    rows = [
        {"prompt_id": f"p{number}", "language": language, "context": "harmful", "text": text}
        | {name: values[number] for name, values in columns.items()}
        for language, of_language in texts.items()
        for number, text in enumerate(of_language)
    ]
    pl.DataFrame(rows).write_parquet(folder / "prompts.parquet")
    return load_prompts(Prompts(str(folder)))


def notes(prompts: PromptSet) -> str:
    return "\n".join(note for check in OF_PROMPTS for note in check(prompts))


def test_other_scripts_and_english_are_counted(tmp_path: Path) -> None:
    prompts = prompt_set(tmp_path, {"en": EN, "ko": [*KO[:4], *EN[4:]], "it": [IT[0], EN[1], *IT[2:]]})
    told = notes(prompts)
    assert "2 of 6 texts of 'ko' are in Latin script (p4, p5)" in told
    assert "1 of 6 texts of 'it' is in English (p1)" in told


def test_columns_that_were_exchanged_are_told(tmp_path: Path) -> None:
    found = misplaced(prompt_set(tmp_path, {"en": EN, "it": SENTENCES["de"], "de": IT}))
    assert {(one.language, one.reason) for one in found} == {("it", "in German"), ("de", "in Italian")}


def test_close_relatives_and_unknown_languages_raise_no_alarm(tmp_path: Path) -> None:
    whole = {language: texts for language, texts in SENTENCES.items() if len(texts) == 6} | {"qaa": EN}
    prompts = prompt_set(tmp_path, {language: texts for language, texts in whole.items() if language != "es"})
    assert misplaced(prompts) == ()


def test_english_is_told_where_no_column_is_and_another_language_in_its_column(tmp_path: Path) -> None:
    alone = prompt_set(tmp_path, {"no": EN})
    assert [(one.reason, one.is_whole_column) for one in misplaced(alone)] == [("in English", True)]
    assert "1 of 6 texts of 'en' is in Italian (p0)" in notes(prompt_set(tmp_path, {"en": [IT[0], *EN[1:]]}))


def test_a_column_in_another_script_is_an_error_that_names_the_rest(tmp_path: Path) -> None:
    prompt_set(tmp_path, {"en": EN, "ko": [*EN[:5], "No."]})
    recipe = Recipe(sets={"ms": SafetyNeurons(Prompts(str(tmp_path)))})
    with pytest.raises(DataError, match="6 of 6 texts of 'ko' are in Latin script") as error:
        make_plan(recipe)
    assert "-T languages=en" in (error.value.hint or "")


def test_a_good_harmless_half_does_not_hide_a_bad_column(tmp_path: Path) -> None:
    prompt_set(tmp_path, {"en": EN, "th": EN})
    recipe = Recipe(sets={"ms": SafetyNeurons(Prompts(str(tmp_path), harmless="everyday"))})
    with pytest.raises(DataError, match="6 of 6 texts of 'th' are in Latin script"):
        make_plan(recipe)


def test_texts_that_differ_in_a_few_letters_are_nearly_the_same(tmp_path: Path) -> None:
    text = "How do I fold a large paper boat that can float on water for an hour?"
    texts = [text, text.replace("an hour", "one hour"), text.upper() + " ", "What is a paper boat?", *EN]
    prompts = prompt_set(tmp_path, {"en": texts, "qaa": texts})
    assert near_duplicates(prompts) == {"en": [("p0", "p1")]}
    assert "nearly those of another prompt (en 1; first p0 and p1)" in notes(prompts)


def test_near_copies_are_found_whatever_their_number(tmp_path: Path) -> None:
    random = Random(0)
    texts = ["".join(random.choices("abcdefghij klmnopq rstuvwxyz ", k=120)) for _ in range(300)]
    copies = [text[:60] + "0" + text[61:] for text in texts]
    pairs = near_duplicates(prompt_set(tmp_path, {"en": [*texts, *copies]}))["en"]
    assert {(f"p{number}", f"p{number + 300}") for number in range(300)} == set(pairs)


def test_equal_texts_across_splits_languages_and_cases_are_told(tmp_path: Path) -> None:
    texts = {"en": ["Fold it", "fold it!", "Cut it"], "it": ["Piegala", "Tagliala", "Fold it"]}
    split = {"split": ["identify", "evaluate", "train"]}
    prompts = prompt_set(tmp_path, texts, **split)
    assert across_splits(prompts)["ids"].to_list() == [["p0", "p1", "p2"]]
    assert "1 text stands in several splits (evaluate and identify and train 1; first p0, p1, p2)" in notes(prompts)


def test_equal_texts_are_joined_where_no_split_is_declared() -> None:
    rows = {"prompt_id": ["a", "b", "c", "d"], "text": ["Fold it", "FOLD it.", "Cut it", "Glue it"]}
    assert joined_by_text(pl.DataFrame(rows))["cluster"].to_list() == ["a", "a", "c", "d"]
    chained = pl.DataFrame(rows | {"cluster": [None, "x", "x", None]})
    assert joined_by_text(chained)["cluster"].to_list() == ["a", "a", "a", "d"]
    declared = pl.DataFrame(rows | {"split": ["train", "evaluate", None, None]})
    assert joined_by_text(declared).equals(declared)


def test_languages_in_another_order_are_told_by_lengths(tmp_path: Path) -> None:
    everyday = load_prompts(Prompts("everyday"))
    assert unlike_translations(everyday) == {}
    texts = {one: everyday.select("identify", "harmless", one)["text"].to_list() for one in ("en", "it", "zh")}
    texts["qaa"] = texts["it"][::-1]
    texts["it"] = Random(1).sample(texts["it"], len(texts["it"]))
    prompts = prompt_set(tmp_path, {one: [*found, *map(str.upper, found)] for one, found in texts.items()})
    assert list(unlike_translations(prompts)) == ["it"]
    assert "between languages (it r = " in notes(prompts)


def test_no_language_is_named_where_none_has_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """To look up names takes a quarter of a second, which a run of the organism has no use for."""

    def named(language: str) -> str:
        raise AssertionError(language)

    monkeypatch.setattr(text_faults, "in_language", named)
    organism = load_prompts(Prompts("organism"))
    assert not list(text_faults._misplaced(organism))
    with pytest.raises(AssertionError, match="en"):
        list(text_faults._misplaced(load_prompts(Prompts("everyday"))))
