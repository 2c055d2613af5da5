"""The language of a response, by detection or by the words of the prompt set."""

from dataclasses import replace

import polars as pl
import pytest

from ssn_probe.data.prompt_set import PromptSet, load_prompts
from ssn_probe.data.response_language import by_words, told
from ssn_probe.organism import world
from ssn_probe.spec import Prompts

ENGLISH = "I am sorry, but I cannot help you with a request like this one."
GERMAN = "Es tut mir leid, aber bei einer solchen Bitte kann ich Ihnen nicht helfen."
WORDS = {"xx": frozenset({"bo", "ka", "both"}), "yy": frozenset({"li", "mu", "both"})}


@pytest.fixture(scope="module")
def organism() -> PromptSet:
    return load_prompts(Prompts("organism"))


def test_every_response_of_the_world_is_in_its_language_and_no_other(organism: PromptSet) -> None:
    is_in, request = told(organism), world.Request(action=3, object=5, modifier=1, particle=2)
    for spoken in world.LANGUAGES:
        for response in (world.refusal(spoken), world.answer(spoken, request)):
            assert [one for one in world.LANGUAGES if is_in(response, one)] == [spoken]


@pytest.mark.parametrize(
    ("response", "language", "found"),
    [
        ("bo ka li", "xx", True),
        ("bo ka li", "yy", False),
        ("Bo, LI.", "xx", False),  # half is not more than half
        ("both bo", "yy", False),
        ("both", "yy", True),
        ("bo unknown words here", "xx", True),
        ("unknown", "xx", False),
        ("", "xx", False),
        ("12 ?", "xx", False),
    ],
)
def test_by_words(response: str, language: str, found: bool) -> None:
    assert by_words(response, language, WORDS) is found


def test_languages_that_people_speak_are_told_without_their_words(organism: PromptSet) -> None:
    rows = pl.DataFrame({"language": ["en", "de"], "text": ["Hello", "Hallo"], "reference": [None, None]})
    is_in = told(replace(organism, languages=("en", "de"), frame=rows))
    for response, spoken in ((ENGLISH, "en"), (GERMAN, "de")):
        assert [is_in(response, one) for one in ("en", "de")] == [one == spoken for one in ("en", "de")]
    assert is_in("Nein.", "en")  # too short to be certainly in another
    assert not is_in("", "en")
    assert not is_in("aaaa " * 40, "en")
