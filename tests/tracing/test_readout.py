"""The sequences that score a set of openings are as few as can be, and enough."""

from collections.abc import Callable

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.context_length import sliding_window
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.bodies.refusal import trace_refusal_effects
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.readout import branched, branches_of, forced, forced_inputs, forced_on

OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (13, 16), (17,)))
PROMPTS = [[1, 2, 3, 4, 5], [6, 7], [9]]


def test_openings_of_one_token_need_the_prompt_alone() -> None:
    forcing = forced(Openings(((5,), (6,)), ((7,),)), 10)
    assert forcing.prefixes == ((),)
    assert forcing.kept == 1
    assert forcing.scoring["token"] == [5, 6, 7]
    assert forcing.scoring["position"] == [0, 0, 0]


def test_a_longer_prefix_serves_the_shorter_ones() -> None:
    forcing = forced(Openings(((5, 6, 7), (5, 8)), ((5, 6, 9), (3,), (4, 2))), 10)
    assert set(forcing.prefixes) == {(5, 6), (4,)}
    assert forcing.kept == 3


def test_every_token_is_read_where_it_is_predicted() -> None:
    openings = Openings(((5, 6, 7), (5, 8)), ((3,), (4, 2)))
    forcing = forced(openings, 10)
    scoring = forcing.scoring
    read: dict[int, list[int]] = {}
    for row, position, token, opening in zip(
        *(scoring[name] for name in ("row", "position", "token", "opening")), strict=True
    ):
        prefix = forcing.prefixes[row]
        step = position - (forcing.kept - 1 - len(prefix))  # tokens of the response that precede
        every = [*openings.refusal, *openings.compliant][opening]
        assert prefix[:step] == every[:step]
        read.setdefault(opening, []).append(token)
    assert [tuple(tokens) for tokens in read.values()] == [*openings.refusal, *openings.compliant]


def test_a_repeated_opening_counts_once() -> None:
    assert forced(Openings(((5,), (5,)), ((7,),)), 10).scoring["openings"] == 2


@pytest.mark.parametrize(
    ("openings", "problem"),
    [
        (Openings((), ((1,),)), "missing"),
        (Openings(((1,),), ((),)), "missing"),
        (Openings(((1,),), ((10,),)), "vocabulary of 10"),
    ],
)
def test_openings_that_cannot_be_scored_are_refused(openings: Openings, problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        forced(openings, 10)


def test_openings_are_branches_of_one_sequence() -> None:
    alone = forced(Openings(((5, 6, 7), (5, 8)), ((5, 6, 9), (3,), (4, 2), (5, 1, 2))), 10)
    whole = branched(alone)
    (tree,) = whole.prefixes
    texts = {tuple(tree[number] for number in branch) for branch in branches_of(whole.parents)}
    assert texts == {(5,), (5, 6), (5, 1), (4,)}
    assert whole.kept == 5
    assert [whole.scoring[name] for name in ("token", "opening")] == [
        alone.scoring[name] for name in ("token", "opening")
    ]


def test_one_branch_stays_what_it_is() -> None:
    forcing = forced(Openings(((5, 6, 7), (5, 8)), ((3,),)), 10)
    assert branched(forcing) is forcing


def test_branches_read_what_separate_sequences_read(subject: Subject) -> None:
    forcing = forced(OPENINGS, subject.vocabulary)
    whole, places = branched(forcing), places_of(subject)
    assert len(forcing.prefixes) > 1
    assert len(whole.prefixes) == 1
    window = sliding_window(subject.model._module.config)
    prompts = [prompt for prompt in PROMPTS if window is None or len(prompt) + 2 <= window[0]]
    found = [
        trace_refusal_effects(subject.model, forced_inputs(subject, prompts, one), places, one.scoring, 0.5, 0.05)
        for one in (forcing, whole)
    ]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-9, atol=1e-9)
    for site, (values, scale) in found[0][0].items():
        torch.testing.assert_close(
            values.double() * scale[..., None].double(),
            found[1][0][site][0].double() * found[1][0][site][1][..., None].double(),
            rtol=1e-3,
            atol=1e-3 * float(scale.max()),
        )


def test_a_window_that_the_prompts_reach_keeps_sequences_apart(tiny_subject: Callable[[str], Subject]) -> None:
    subject = tiny_subject("gemma2")
    window = sliding_window(subject.model._module.config)
    assert window is not None
    short, long = [[1] * 2], [[1] * window[0]]
    assert len(forced_on(subject, OPENINGS, short).prefixes) == 1
    assert len(forced_on(subject, OPENINGS, [*short, *long]).prefixes) == 2
