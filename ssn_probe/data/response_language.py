"""Is a response in the language of its prompt?

A language that people speak is told by `languages.detect`: a response counts as in it unless it is certainly in
another, or no text at all. A language without a known script, such as the organism's (qaa), is told by its words: those
of its prompts and references.
"""

import re
from collections.abc import Callable, Mapping

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.sameness import seen
from ssn_probe.languages.detect import is_gibberish, off_language
from ssn_probe.languages.scripts import scripts_of

_WORD = re.compile(r"[^\W\d_]+")


def told(prompts: PromptSet) -> Callable[[str, str], bool]:
    """A function (response, language) → is it in that language?"""
    words = {language: _words(prompts, language) for language in prompts.languages}

    def is_in(response: str, language: str) -> bool:
        if not scripts_of(language):
            return by_words(response, language, words)
        return is_gibberish(response) is None and off_language(response, language) is None

    return is_in


def by_words(response: str, language: str, words: Mapping[str, frozenset[str]]) -> bool:
    """Are more than half of the known words of a response the language's? `words`: those of every language.

    A response without a known word is in none of them.
    """
    found = _WORD.findall(seen(response).lower())
    known = [word for word in found if any(word in own for own in words.values())]
    return sum(word in words[language] for word in known) > len(known) / 2


def _words(prompts: PromptSet, language: str) -> frozenset[str]:
    rows = prompts.frame.filter(language=language)
    texts = [*rows["text"], *rows["reference"].drop_nulls()]
    return frozenset(word for text in texts for word in _WORD.findall(seen(text).lower()))
