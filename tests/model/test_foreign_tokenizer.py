"""A tokenizer of another model is refused where that is certain, and noted where it may also be right."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import TEMPLATE, tiny_tokenizer

from ssn_probe.errors import ModelError
from ssn_probe.model.foreign_tokenizer import vocabulary_notes
from ssn_probe.model.subject import Subject, load_subject


@pytest.fixture
def folder(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama, which has 62 tokens, as its tokenizer has."""
    return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))


def give_tokenizer(folder: Path, words: int) -> None:
    """A word-level tokenizer of so many tokens."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1} | {f"v{n}": n for n in range(2, words)}, "v2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    other = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="v2")
    other.chat_template = TEMPLATE
    other.save_pretrained(folder)


@pytest.mark.parametrize("weights", [True, False])
def test_a_larger_vocabulary_is_refused(folder: Path, weights: bool) -> None:
    give_tokenizer(folder, 63)
    with pytest.raises(ModelError, match=r"has 63 tokens, and the model has a vocabulary of 62 \(vocab_size") as error:
        load_subject(str(folder), weights=weights)
    assert "another model's" in str(error.value.hint)


@pytest.mark.parametrize(("words", "noted"), [(62, False), (56, False), (55, True), (20, True)])
def test_a_vocabulary_smaller_by_much_is_noted(folder: Path, words: int, noted: bool) -> None:
    give_tokenizer(folder, words)
    notes = load_subject(str(folder), weights=False).template_notes
    assert [f"has {words} tokens" in note for note in notes] == [True] * noted


def test_a_token_that_was_added_without_a_row_is_no_other_vocabulary(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    assert load_subject(str(folder), weights=False).template_notes == ()


def chat_ml(folder: Path, *added: str) -> Subject:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|> {{ message['content'] }} <|im_end|> {% endfor %}<|im_start|> <model>"
    )
    if added:
        tokenizer.add_tokens(list(added), special_tokens=True)
    tokenizer.save_pretrained(folder)
    return load_subject(str(folder), weights=False)


def test_a_control_token_that_is_none_is_noted(folder: Path) -> None:
    start, end = chat_ml(folder).template_notes
    assert "writes <|im_start|>, which the tokenizer reads as an unknown token" in start
    assert "writes <|im_end|>, which" in end
    (note,) = chat_ml(folder, "<|im_end|>").template_notes
    assert "<|im_start|>" in note


def test_one_that_is_split_into_pieces_is_noted() -> None:
    from transformers import AutoTokenizer

    from ssn_probe.model.loading import locate

    tokenizer = AutoTokenizer.from_pretrained(locate("organism"))
    assert list(vocabulary_notes(tokenizer, len(tokenizer))) == []
    tokenizer.chat_template = "{% for message in messages %}<start_of_turn> {{ message['content'] }}{% endfor %}"
    (note,) = vocabulary_notes(tokenizer, len(tokenizer))
    assert "writes <start_of_turn>, which the tokenizer reads as" in note
