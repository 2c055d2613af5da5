"""KL along answers and the perplexity of prompts equal those of full logits, read with plain hooks, text by text."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing.bodies import next_tokens
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.divergence import Reading, read_texts
from ssn_probe.tracing.edits import amplification, carrying, suppression
from ssn_probe.tracing.texts import Text

from . import plain
from .test_effects import PROMPTS, module_of

NEURONS = [(layer, site, index) for layer in range(2) for site in SITES for index in (1, 6)]
ANSWERS = [(20, 21, 22, 2), (30, 2), (7, 8, 9, 10, 11)]
TEXTS = [
    Text(prompt=tuple(prompt), answer=answer, own=(2, len(prompt) - 1))
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)
]


@torch.no_grad()
def log_probs(module, text: Text) -> Tensor:
    """log p of every next token after the prompt and answer: [position, vocabulary]."""
    return module(torch.tensor([[*text.prompt, *text.answer]]), use_cache=False).logits[0].log_softmax(-1)


def wanted(before: Sequence[Tensor], after: Sequence[Tensor]) -> dict[str, Tensor]:
    found: dict[str, list[Tensor]] = {"kl": [], "kl_first": [], "nll": []}
    for text, p, q in zip(TEXTS, before, after, strict=True):
        first = len(text.prompt) - 1
        along = [(p[at].exp() * (p[at] - q[at])).sum() for at in range(first, first + len(text.answer))]
        found["kl"].append(torch.stack(along).mean())
        found["kl_first"].append(along[0])
        own = [-q[at - 1, text.prompt[at]] for at in range(*text.own)]
        found["nll"].append(torch.stack(own).mean())
    return {name: torch.stack(values).float() for name, values in found.items()}


def assert_equal(reading: Reading, figures: dict[str, Tensor]) -> None:
    for name, values in figures.items():
        torch.testing.assert_close(getattr(reading, name), values, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_it_equals_full_logits_under_scaled_weights(subject: Subject, batch_size: int) -> None:
    module = module_of(subject)
    untouched = [log_probs(module, text) for text in TEXTS]
    before = read_texts(subject, TEXTS, batch_size=batch_size)
    assert_equal(before, wanted(untouched, untouched))
    assert before.kl.tolist() == before.kl_first.tolist() == [0, 0, 0]
    for edits, factor in ((suppression(NEURONS), 0.0), (amplification(NEURONS, 2.0), 2.0)):
        with plain.weights_scaled(module, NEURONS, factor):
            changed = [log_probs(module, text) for text in TEXTS]
        found = read_texts(subject, TEXTS, before=before.states, edits=edits, batch_size=batch_size)
        assert_equal(found, wanted(untouched, changed))
        assert found.kl.min() > 1e-3


def test_an_edit_that_changes_nothing_gives_no_kl(llama: Subject) -> None:
    before = read_texts(llama, TEXTS)
    found = read_texts(llama, TEXTS, before=before.states, edits=amplification(NEURONS, 1.0))
    assert found.kl.tolist() == [0, 0, 0]
    assert torch.equal(found.nll, before.nll)


def test_blocks_of_positions_do_not_matter(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_texts(llama, TEXTS)
    edits = suppression(NEURONS)
    whole = read_texts(llama, TEXTS, before=before.states, edits=edits)
    monkeypatch.setattr(next_tokens, "BLOCK", 1)
    one_by_one = read_texts(llama, TEXTS, before=before.states, edits=edits)
    for name in ("kl", "kl_first", "nll"):
        torch.testing.assert_close(getattr(one_by_one, name), getattr(whole, name), rtol=1e-5, atol=1e-8)


def test_another_runs_values_are_put_where_each_answer_token_is_predicted(llama: Subject) -> None:
    """One source stops after two tokens, one has more steps than the answer; each text alone, by hooks."""
    module, sources, most = module_of(llama), [*PROMPTS[1:], PROMPTS[0]], 4
    edits = carrying(NEURONS, "another")
    neurons = [(layer, site, index) for layer, site, indices, _ in edits for index in indices]
    carried = capture(llama, sources, neurons, max_new_tokens=most)
    carried = replace(carried, steps=torch.tensor([2, 4, 4]).minimum(carried.steps))
    untouched = [log_probs(module, text) for text in TEXTS]
    changed = []
    for text, values, steps in zip(TEXTS, carried.values, carried.steps, strict=True):
        with ExitStack() as stack:
            reach = min(int(steps), len(text.answer))
            stack.enter_context(plain.placed(module, neurons, values[:reach], len(text.prompt) - 1))
            changed.append(log_probs(module, text))
    before = read_texts(llama, TEXTS)
    found = read_texts(llama, TEXTS, before=before.states, edits=edits, carried=carried)
    assert_equal(found, wanted(untouched, changed))
    assert torch.equal(found.nll, before.nll), "nothing is carried to the prompt's own tokens"
    assert found.kl.min() > 1e-4


def test_prompts_without_a_predicted_token_have_no_perplexity(llama: Subject) -> None:
    texts = [TEXTS[0], Text(prompt=(7,), answer=(8,), own=(0, 1))]
    found = read_texts(llama, texts)
    assert found.nll.isnan().tolist() == [False, True]


def test_nan_is_an_error_that_names_layer_and_site(llama: Subject) -> None:
    before = read_texts(llama, TEXTS)
    edits = amplification([(1, "ffn", 3)], float("inf"))
    with pytest.raises(ModelError, match="NaN or Inf at site ffn of layer 1"):
        read_texts(llama, TEXTS, before=before.states, edits=edits)


def test_a_model_that_makes_its_logits_otherwise_is_refused(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Llama has no soft-cap, whatever its config says: KL of capped logits would be another number."""
    monkeypatch.setattr(module_of(llama).config, "final_logit_softcapping", 0.5, raising=False)
    with pytest.raises(ModelError, match="in an unknown way"):
        read_texts(llama, TEXTS)
