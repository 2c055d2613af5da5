"""Token ids are compared with the embedding, wherever they come from, before anything runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import SPECIAL, WORDS, tiny_tokenizer, write_tiny

from ssn_probe.data.training_rows import Example
from ssn_probe.errors import DataError, ModelError
from ssn_probe.model.chat import encode
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.model.token_ids import check_inside, usable_pad
from ssn_probe.tracing.generate import generate
from ssn_probe.tracing.responses import finish
from ssn_probe.training.loop.loss import encode_examples

SIZE = len(SPECIAL) + len(WORDS)


@pytest.fixture
def spoiled(tmp_path: Path) -> Callable[..., str]:
    """A tiny Llama whose tokenizer has tokens, and whose generation_config has fields, that were added later."""

    def write(tokens: dict[str, Any], **generation: Any) -> str:
        write_tiny(tmp_path, "llama")
        tokenizer = tiny_tokenizer()
        tokenizer.add_special_tokens({role: token for role, token in tokens.items() if role != "words"})
        tokenizer.add_tokens(tokens.get("words", []))
        tokenizer.save_pretrained(tmp_path)
        if generation:
            (tmp_path / "generation_config.json").write_text(json.dumps(generation), encoding="utf-8")
        return str(tmp_path)

    return write


@pytest.mark.parametrize("proposed", [None, SIZE, -1, True, "0"])
def test_an_unusable_pad_token_is_replaced_by_one_that_the_embedding_has(proposed: Any) -> None:
    assert usable_pad(proposed, (SIZE + 4, 3), SIZE) == 3
    assert usable_pad(proposed, (SIZE,), SIZE) == 0
    assert usable_pad(5, (3,), SIZE) == 5


def test_a_pad_token_outside_the_embedding_changes_no_number(spoiled: Callable[..., str]) -> None:
    subject, usual = load_subject(spoiled({"pad_token": "[PAD]"})), load_subject(str(spoiled({})))
    assert subject.tokenizer.pad_token_id == SIZE
    assert subject.pad_id == subject.identity["special_tokens"]["pad"] == 2
    rows = encode(usual, ["w1", "w1 w2 w3 w4", "w5 w6"])
    assert generate(subject, rows, max_new_tokens=4) == generate(usual, rows, max_new_tokens=4)


def test_a_prompt_with_a_token_outside_the_embedding(spoiled: Callable[..., str]) -> None:
    subject = load_subject(spoiled({"words": ["extra"]}))
    with pytest.raises(ModelError, match=r"Prompt 2 of 2 has the token 'extra' \(id 62\), .* ends at id 61") as caught:
        encode(subject, ["w1", "w2 extra w3"])
    assert "resizing the embedding" in str(caught.value.hint)


@pytest.mark.parametrize("token", [-1, SIZE, None])
def test_ids_of_any_kind_outside(token: Any) -> None:
    with pytest.raises(ModelError, match="ends at id 61"):
        check_inside([[1], [token] if token is None else [1, token, 3]], tiny_tokenizer(), SIZE)
    check_inside([[0, SIZE - 1], []], tiny_tokenizer(), SIZE)


@pytest.mark.parametrize("ends", [-1, [SIZE], [-1, SIZE + 3]])
def test_end_tokens_that_cannot_be_generated(spoiled: Callable[..., str], ends: Any) -> None:
    turns = load_subject(spoiled({}, eos_token_id=ends)).turns
    assert [one for one, _ in turns.outside] == (ends if isinstance(ends, list) else [ends])
    assert turns.ids[-1] == 2, "the tokenizer names one that can"


def test_one_end_token_within_the_embedding_is_enough(spoiled: Callable[..., str]) -> None:
    assert load_subject(spoiled({}, eos_token_id=[2, SIZE])).eos_ids == (2, SIZE)


@pytest.mark.parametrize(("text", "target"), [("w1 extra", "w2"), ("w1", "w2 extra")])
def test_rows_to_train_on(text: str, target: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["extra"])
    row = Example(prompt_id="p7", language="de", context="harmful", cluster="p7", text=text, target=target)
    with pytest.raises(DataError, match=r"p7 \(de\) has the token 'extra' \(id 62\)"):
        encode_examples([row], tokenizer, vocabulary=SIZE)
    assert encode_examples([row], tokenizer, vocabulary=SIZE + 1)


def test_generated_tokens_without_a_text_are_counted(llama: Subject) -> None:
    assert [(one.text, one.tokens, one.unwritten) for one in finish(llama, [[6, 300, 7, 2, 301], [6], [300]])] == [
        ("w0 w1", 4, 1),
        ("w0", 1, 0),
        ("", 1, 1),
    ]
