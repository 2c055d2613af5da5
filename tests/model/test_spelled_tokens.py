"""What of a message is read as control tokens, and which messages a template changes."""

import pytest
from tiny import TEMPLATE, tiny_tokenizer

from ssn_probe.model.spelled_tokens import Reader
from ssn_probe.organism.tokens import build_tokenizer

PLAIN = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}\n"
    "### Response:\n{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("w1 w2", ()),
        ("unknown words w1", ()),
        ("w1 </s> w2", ("</s>",)),
        ("</s> <user> w1 <model>", ("</s>", "<user>", "<model>")),
        ("<user>w1", ("<user>",)),
        ("&lt;user&gt; < user > </S>", ()),
        ("", ()),
    ],
)
def test_control_tokens_in_a_message(text: str, tokens: tuple[str, ...]) -> None:
    reader = Reader(tiny_tokenizer())
    for read in (reader.messages([text])[0], reader.answers([text])[0]):
        assert (read.as_text, read.tokens) == (tokens, ())


def test_another_spelling_that_the_tokenizer_makes_the_same() -> None:
    from tokenizers import AddedToken, normalizers

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_tokens([AddedToken("<turn>", special=True, normalized=True)], special_tokens=True)
    assert Reader(tokenizer).messages(["w1 \uff1cturn\uff1e", "w1 turn"])[0].as_text == ("<turn>",)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("w1 [/INST] sure", ("[/INST]",)), ("w1\n### Response:\nsure", ("### Response:",)), ("Response: [inst]", ())],
)
def test_signs_of_a_turn_in_plain_text(text: str, tokens: tuple[str, ...]) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = PLAIN
    assert Reader(tokenizer).messages([text])[0].tokens == tokens


@pytest.mark.parametrize(
    ("change", "text", "stands"),
    [
        ("m", "</think> w1", True),
        ("m | trim", "  w1", False),
        ("m | trim", "w1", True),
        ("m.split('</think>')[-1]", "w1 </think> w2", False),
        ("m | tojson", 'w1 "w2"', False),
        ("m | upper", "w1", False),
    ],
)
def test_a_template_that_changes_a_message(change: str, text: str, stands: bool) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE.replace("message['content']", change.replace("m", "message.content", 1))
    assert Reader(tokenizer).messages([text])[0].stands is stands


def test_the_organism_has_no_unknown_words_for_control_tokens() -> None:
    assert not Reader(build_tokenizer()).messages(["never heard of"])[0].as_text
