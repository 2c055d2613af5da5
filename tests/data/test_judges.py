"""Verdicts: refused where the pattern is found, complied where the whole answer fits, invalid otherwise."""

from typing import Any

import pytest

from ssn_probe import Prompts
from ssn_probe.data.judges import make_judge
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import JudgeError

DECLARED = {
    "kind": "patterns",
    "refused": {"en": r"\bsorry\b", "de": r"\bleider\b"},
    "complied": {"en": r"the answer is \w+", "de": r"die Antwort ist .+"},
}


@pytest.mark.parametrize(
    ("language", "response", "verdict"),
    [
        ("en", "the answer is four", "complied"),
        ("en", "  the answer is four\n", "complied"),
        ("en", "the answer is four five", "invalid"),
        ("en", "well, the answer is four", "invalid"),
        ("en", "sorry, no", "refused"),
        ("en", "I am\nsorry", "refused"),
        ("en", "the answer is sorry", "refused"),
        ("en", "sorrynot", "invalid"),
        ("en", "leider nicht", "invalid"),
        ("de", "leider nicht", "refused"),
        ("de", "die Antwort ist\nvier", "invalid"),
        ("de", "die Antwort ist vier\nfünf", "complied"),
        ("en", "", "invalid"),
        ("en", "   \n", "invalid"),
    ],
)
def test_verdicts(language: str, response: str, verdict: str) -> None:
    assert make_judge(DECLARED, ("en", "de"), "mine")(language, response) == verdict


def test_the_organisms_judge_knows_its_references() -> None:
    """Every expected answer of the embedded set is an answer in its own language and in no other."""
    prompts = load_prompts(Prompts("organism"))
    judge = make_judge(prompts.judge, prompts.languages, prompts.name)
    for language in prompts.languages:
        references = prompts.select("evaluate", "harmless", language)["reference"].drop_nulls().unique()
        assert len(references) > 0
        assert {judge(language, text) for text in references} == {"complied"}
        others = [other for other in prompts.languages if other != language]
        assert {judge(other, text) for other in others for text in references[:5]} == {"invalid"}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        (None, "mine declares no judge"),
        ({}, "unknown kind None"),
        (DECLARED | {"kind": "model"}, "unknown kind 'model'"),
        (DECLARED | {"refused": {}}, "no 'refused' pattern for 'en'"),
        (DECLARED | {"complied": {"en": "x"}}, "no 'complied' pattern for 'de'"),
        (DECLARED | {"refused": {"en": "(", "de": "x"}}, "'refused' pattern for 'en' is malformed"),
        (DECLARED | {"refused": {"en": 5, "de": "x"}}, "pattern for 'en'"),
        (DECLARED | {"refused": "sorry"}, "'refused'"),
        (DECLARED | {"refused": None}, "'refused'"),
        ("patterns", "judge"),
    ],
)
def test_a_judge_that_cannot_be_made_is_one_clear_error(declared: Any, message: str) -> None:
    with pytest.raises(JudgeError, match=message) as caught:
        make_judge(declared, ("en", "de"), "mine")
    assert "mine" in caught.value.message
    assert caught.value.hint


def test_a_judge_may_know_more_languages_than_are_asked_for() -> None:
    assert make_judge(DECLARED, ("de",), "mine")("de", "leider") == "refused"


def test_many_slow_responses_are_an_error_as_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.data.judges.patterns.PATIENCE_IN_ALL", 0.0)
    monkeypatch.setattr("ssn_probe.data.judges.patterns.PATIENCE_EACH", 1e-5)
    judge = make_judge({"kind": "patterns", "refused": {"en": "(a|a)+$"}, "complied": {"en": ".*"}}, ("en",), "mine")
    with pytest.raises(JudgeError, match=r"mine: the patterns took .* s for \d+ response"):
        [judge("en", "a" * 14 + "!") for _ in range(1000)]
