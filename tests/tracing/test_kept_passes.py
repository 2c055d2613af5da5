"""What lies below a set's first neuron is kept of the untouched model, and changes no number."""

import pickle
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from tiny import EVERY_FAMILY, slow_but_for

from ssn_probe.model.openings import Direction, Openings
from ssn_probe.model.subject import Subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.tracing import kept_passes
from ssn_probe.tracing.batching import BatchSize, Memory, fitted
from ssn_probe.tracing.bodies import below as bodies
from ssn_probe.tracing.carried import Carried
from ssn_probe.tracing.divergence import read_texts
from ssn_probe.tracing.edits import Edits, amplification, carrying, suppression
from ssn_probe.tracing.effects import refusal_log_odds
from ssn_probe.tracing.generate import greedy_tokens
from ssn_probe.tracing.kept_passes import Kept, value_of
from ssn_probe.tracing.texts import Text

PROMPTS = [[1, 3, 9, 11, 4], [1, 3, 7, 12, 13, 4], [1, 3, 9, 4], [1, 3, 7, 14, 4], [1, 3, 7, 4]]
"""With two beginnings of three tokens."""
SHORT, OTHERS = [[1, 3, 7, 8], [1, 3, 9]], [[1, 3, 5, 9], [2, 4, 6]]
"""Within the windows of tiny models, with a beginning in common and without."""
OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (13, 16), (17,)))
DIRECTION = Direction(tuple((torch.arange(24) % 5 - 2).tolist()))
FFN_FIRST = [(0, "ffn", 1), (0, "ffn", 7), (1, "q", 3), (1, "o", 4), (1, "ffn", 2)]
FFN_LAST = [(1, "ffn", 1), (1, "ffn", 7)]
LAST = [(1, "v", 2), (1, "ffn", 1)]
FAMILIES = ("llama", "gemma2")
every_family = pytest.mark.parametrize("subject", slow_but_for(FAMILIES, EVERY_FAMILY), indirect=True)


@pytest.fixture(autouse=True)
def small_things_are_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.tracing.shared_start.WORTH", 1)
    kept_passes.STORES.clear()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Layer and `closed` of every pass that was run to be kept."""
    found, real = [], bodies.trace_below

    def trace_below(model, inputs, places, layer, closed, generating):
        found.append((layer, closed))
        return real(model, inputs, places, layer, closed, generating)

    monkeypatch.setattr(bodies, "trace_below", trace_below)
    return found


def changes(subject: Subject) -> list[Edits]:
    means: dict[Site, torch.Tensor] = {
        site: torch.full((subject.n_layers, subject.widths[site]), 0.3) for site in SITES
    }
    return [suppression(FFN_FIRST, means), amplification(FFN_LAST, 1.5), suppression(FFN_LAST), suppression(LAST)]


def kept_and_whole(
    measure: Callable[[], list[torch.Tensor]], passes: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The numbers are those of whole passes, within the rounding of single precision, which is what is returned."""
    found = measure()
    assert set(passes) == {(0, True), (1, True), (1, False)}
    passes.clear()
    monkeypatch.setattr(kept_passes, "LEAST", 2.0)
    for one, wanted in zip(found, measure(), strict=True):
        torch.testing.assert_close(one, wanted, atol=1e-6, rtol=1e-6, equal_nan=True)
    assert passes == []


@every_family
def test_log_odds_are_those_of_whole_passes(
    subject: Subject, passes: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure() -> list[torch.Tensor]:
        return [
            refusal_log_odds(subject, prompts, reads, edits=edits, batch_size=batch)
            for prompts, reads, batch in ((PROMPTS, OPENINGS, 4), (SHORT, DIRECTION, 64), (OTHERS, DIRECTION, 64))
            for edits in changes(subject)
        ]

    kept_and_whole(measure, passes, monkeypatch)


@every_family
def test_responses_and_their_log_odds_are_those_of_whole_passes(
    subject: Subject, passes: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of prompts with a beginning in common and without; some neurons are folded into the weights meanwhile."""

    def measure() -> list[torch.Tensor]:
        found = []
        for prompts, longest in ((PROMPTS, 3), ([[1, 3], [1, 9]], 2), ([[1, 3], [2, 4]], 2)):
            for edits in (suppression(FFN_FIRST), *changes(subject)):
                odds, new = Memory(), Memory()
                how = {"readings": [(DIRECTION, odds)], "shelf": new, "batch_size": 4, "max_new_tokens": longest}
                greedy_tokens(subject, prompts, edits=edits, **how)
                found += [part.get(name) for one, name in ((odds, "log_odds"), (new, "ids")) for part in one.parts()]
        return found

    kept_and_whole(measure, passes, monkeypatch)


@every_family
def test_texts_read_as_in_whole_passes(
    subject: Subject, passes: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [
        Text(prompt=tuple(row), answer=(20, 21)[: 1 + len(row) % 2], own=(2, len(row) - 1)) for row in (*SHORT, *OTHERS)
    ]

    def measure() -> list[torch.Tensor]:
        found = []
        for some in (texts[:2], texts):
            states = read_texts(subject, some).states
            for edits in changes(subject):
                reading = read_texts(subject, some, before=states, edits=edits)
                found += [reading.kl, reading.kl_first, reading.nll]
        return found

    kept_and_whole(measure, passes, monkeypatch)


def test_the_second_set_runs_no_pass_below(llama: Subject, passes: list[tuple[int, bool]]) -> None:
    for neurons in (FFN_FIRST, [(0, "ffn", 3)], FFN_LAST, LAST, [(1, "k", 0)], FFN_LAST):
        refusal_log_odds(llama, PROMPTS, DIRECTION, edits=suppression(neurons))
    assert passes == [(0, True), (1, True), (1, False)]


def test_other_prompts_and_other_weights_have_their_own(llama: Subject, passes: list[tuple[int, bool]]) -> None:
    def odds() -> torch.Tensor:
        return refusal_log_odds(llama, PROMPTS, DIRECTION, edits=suppression(FFN_LAST))

    before, weight = odds(), llama.model._module.model.layers[0].mlp.up_proj.weight
    refusal_log_odds(llama, PROMPTS[::-1], DIRECTION, edits=suppression(FFN_LAST))
    assert len(passes) == 2
    with torch.no_grad():
        old = weight[3].clone()
        weight[3] = 2 * old
        assert not torch.allclose(odds(), before)
        weight[3] = old
    assert torch.equal(odds(), before)
    assert len(passes) == 4


@pytest.mark.parametrize(
    "edits", [(), suppression([(0, "q", 1), (1, "ffn", 2)]), carrying(FFN_LAST, "another"), suppression([(0, "o", 1)])]
)
def test_where_nothing_would_be_saved_all_runs(llama: Subject, passes: list[tuple[int, bool]], edits: Edits) -> None:
    values = Carried(values=torch.zeros(5, 1, 2, dtype=torch.float64), steps=torch.ones(5).long())
    carried = values if edits and edits[0][3][0] == "carry" else None
    refusal_log_odds(llama, PROMPTS, DIRECTION, edits=edits, carried=carried)
    assert passes == []


def test_no_more_is_kept_than_may_be(
    llama: Subject, passes: list[tuple[int, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def odds(neurons: list) -> torch.Tensor:
        return refusal_log_odds(llama, PROMPTS, DIRECTION, edits=suppression(neurons))

    odds(FFN_FIRST)
    ((size, stages),) = kept_passes.STORES[llama].values()
    tensors = [part for stage in stages for part in stage.values() if torch.is_tensor(part)]
    tensors += [part for stage in stages for pair in stage["cache"] for part in pair]
    assert size == sum(part.untyped_storage().nbytes() for part in tensors)
    odds(FFN_LAST)
    most = max(size for size, _ in kept_passes.STORES[llama].values())
    monkeypatch.setattr(kept_passes, "KEPT", most)
    for neurons in (LAST, FFN_LAST, FFN_LAST, FFN_FIRST):
        odds(neurons)
        assert sum(size for size, _ in kept_passes.STORES[llama].values()) <= most
    assert passes == [(0, True), (1, True), (1, False), (1, True), (0, True)]
    monkeypatch.setattr(kept_passes, "KEPT", 1)
    with kept_passes.forgotten(llama):
        odds(LAST)
        assert len(passes) == 5
    assert llama not in kept_passes.STORES


def test_what_travels_is_how_it_is_computed(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each process finds its own by what the inputs are."""
    asked: list[Kept] = []
    real = value_of
    monkeypatch.setattr(
        "ssn_probe.tracing.execution.value_of", lambda subject, kept: (asked.append(kept), real(subject, kept))[1]
    )
    refusal_log_odds(llama, PROMPTS, DIRECTION, edits=suppression(FFN_LAST))
    message = pickle.dumps(asked[0])
    assert len(message) < 10_000
    assert value_of(llama, pickle.loads(message)) is value_of(llama, asked[0])


@pytest.mark.parametrize(("auto", "room", "tried"), [(True, 8, [8, 8]), (False, 8, [8, 8]), (True, 2, [8, 8, 4, 2])])
def test_what_is_kept_is_given_back_before_a_batch_gets_smaller(
    llama: Subject, auto: bool, room: int, tried: list[int]
) -> None:
    """Once: a batch keeps its own again, and what does not fit beside it does not fit."""
    found: list[int] = []
    kept_passes.STORES[llama] = OrderedDict(earlier=(1, None))

    def attempt(together: int) -> int:
        found.append(together)
        others = kept_passes.STORES.get(llama)
        kept_passes.STORES[llama] = OrderedDict(own=(1, None))
        if (others and "earlier" in others) or together > room:
            raise MemoryError
        return together

    size = BatchSize(8, auto=auto)
    assert fitted(size, attempt) == size.size == tried[-1]
    assert found == tried
