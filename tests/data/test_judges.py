"""Verdicts: refused where the pattern is found, complied where the whole answer fits, invalid otherwise."""

from typing import Any

import pytest
from judging import verdict

from ssn_probe import Prompts
from ssn_probe.data.judges import make_judge, require_judge
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import JudgeError

DECLARED = {
    "kind": "patterns",
    "refused": {"en": r"\bsorry\b", "de": r"\bleider\b"},
    "complied": {"en": r"the answer is \w+", "de": r"die Antwort ist .+"},
}


@pytest.mark.parametrize(
    ("language", "response", "wanted"),
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
def test_verdicts(language: str, response: str, wanted: str) -> None:
    assert verdict(make_judge(DECLARED, ("en", "de"), "mine"), language, response) == wanted


def test_the_organisms_judge_knows_its_references() -> None:
    """Every expected answer of the embedded set is an answer in its own language and in no other."""
    prompts = load_prompts(Prompts("organism"))
    judge = make_judge(prompts.judge, prompts.languages, prompts.name)
    for language in prompts.languages:
        references = prompts.select("evaluate", "harmless", language)["reference"].drop_nulls().unique()
        assert len(references) > 0
        assert {verdict(judge, language, text) for text in references} == {"complied"}
        others = [other for other in prompts.languages if other != language]
        assert {verdict(judge, other, text) for other in others for text in references[:5]} == {"invalid"}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ({}, "unknown kind None"),
        ("mine", "unknown kind 'mine'"),
        ({"kind": "none", "argument": 5}, "argument"),
        (DECLARED | {"kind": "model"}, "unknown kind 'model'"),
        (DECLARED | {"refused": {}}, "no 'refused' pattern for 'en'"),
        (DECLARED | {"complied": {"en": "x"}}, "no 'complied' pattern for 'de'"),
        (DECLARED | {"refused": {"en": "(", "de": "x"}}, "'refused' pattern for 'en' is malformed"),
        (DECLARED | {"refused": {"en": 5, "de": "x"}}, "pattern for 'en'"),
        (DECLARED | {"refused": "sorry"}, "'refused'"),
        (DECLARED | {"refused": None}, "'refused'"),
        (["patterns"], "no JSON object"),
    ],
)
def test_a_judge_that_cannot_be_made_is_one_clear_error(declared: Any, message: str) -> None:
    with pytest.raises(JudgeError, match=message) as caught:
        make_judge(declared, ("en", "de"), "mine")
    assert "mine" in caught.value.message or "--judge" in caught.value.message
    assert caught.value.hint


def test_patterns_cannot_be_named_without_a_card() -> None:
    with pytest.raises(JudgeError, match="declared with its patterns"):
        make_judge("patterns", ("en",), "mine")


@pytest.mark.parametrize("declared", [None, "none", {"kind": "none"}])
def test_without_a_judge_every_response_is_unjudged(declared: Any) -> None:
    assert verdict(make_judge(declared, ("en",), "mine"), "en", "sorry") == "unjudged"
    with pytest.raises(JudgeError, match="mine has no judge, and it needs one") as caught:
        require_judge(declared, "mine", "it needs one")
    assert "--judge phrases" in (caught.value.hint or "")


def test_a_judge_may_know_more_languages_than_are_asked_for() -> None:
    assert verdict(make_judge(DECLARED, ("de",), "mine"), "de", "leider") == "refused"


def test_many_slow_responses_are_an_error_as_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.data.judges.patterns.PATIENCE_IN_ALL", 0.0)
    monkeypatch.setattr("ssn_probe.data.judges.patterns.PATIENCE_EACH", 1e-5)
    judge = make_judge({"kind": "patterns", "refused": {"en": "(a|a)+$"}, "complied": {"en": ".*"}}, ("en",), "mine")
    with pytest.raises(JudgeError, match=r"mine: the patterns took .* s for \d+ response"):
        [verdict(judge, "en", "a" * 14 + "!") for _ in range(1000)]
