"""What is learned is the response and the end of the turn, whatever stands beside it in the batch."""

from typing import Any

import pytest
import torch
from tiny import tiny_tokenizer
from training_case import EOS, example, llama, quick, tiny_data

from ssn_probe.errors import DataError, ModelError
from ssn_probe.training.loop.loss import batch_of, encode_examples, end_of_turn, response_loss, response_tokens

CHATTY = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <unk> {% endfor %}"
"""A template whose turns end with a token that is not the tokenizer's own end token."""


def test_a_row_is_template_response_and_end() -> None:
    (row,) = encode_examples([example(0, text="w3 w4", target="w0 w5")], tiny_tokenizer(), EOS)
    assert row.prompt == (1, 3, 9, 10, 4)  # <s> <user> w3 w4 <model>
    assert row.response == (6, 11, 2)  # w0 w5 </s>


def test_the_turn_ends_with_the_end_token_of_the_template() -> None:
    tokenizer = tiny_tokenizer()
    assert end_of_turn(tokenizer, EOS) == 2  # this template ends no turn
    tokenizer.chat_template = CHATTY
    assert end_of_turn(tokenizer, (5,)) == 5
    assert end_of_turn(tokenizer, EOS) == 2
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no token that ends"):
        end_of_turn(tokenizer)


def test_a_batch_has_the_loss_of_its_rows_alone(double: Any) -> None:
    rows = encode_examples(tiny_data().examples, tiny_tokenizer(), EOS)
    assert len({len(row.prompt) for row in rows}) > 1
    assert len({len(row.response) for row in rows}) > 1
    with torch.no_grad():
        together = response_loss(double, batch_of(rows, 0, "cpu"))
        alone = sum(response_loss(double, batch_of([row], 0, "cpu")) for row in rows)
        by_hand = torch.zeros((), dtype=torch.float64)
        for row in rows:
            said = double(input_ids=torch.tensor([row.prompt + row.response])).logits[0].log_softmax(-1)
            by_hand -= sum(said[len(row.prompt) - 1 + i, token] for i, token in enumerate(row.response))
    assert torch.allclose(together, alone, atol=1e-9)  # type: ignore[arg-type]
    assert torch.allclose(together, by_hand, atol=1e-9)
    assert response_tokens(rows) == sum(len(row.response) for row in rows)


def test_labels_are_of_the_response_alone() -> None:
    rows = encode_examples([example(0, target="w0"), example(1, target="w0 w5")], tiny_tokenizer(), EOS)
    assert batch_of(rows, 0, "cpu").labels.tolist() == [[-100, 6, 2], [6, 11, 2]]


def test_rows_that_cannot_be_encoded() -> None:
    with pytest.raises(DataError, match=r"harmful-0 \(qaa\) has 6 tokens, but the model takes 4"):
        encode_examples([example(0, text="w3", target="w0")], tiny_tokenizer(), EOS, longest=4)
    with pytest.raises(DataError, match="no tokens"):
        encode_examples([example(0, target=" ")], tiny_tokenizer(), EOS)


def test_the_longest_row_is_the_models() -> None:
    with pytest.raises(DataError, match="the model takes 6"):
        quick(llama(max_position_embeddings=6))
