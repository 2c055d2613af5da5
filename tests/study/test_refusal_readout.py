"""Estimated openings separate the two sides, as short and as common as can be."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssn_probe.model.openings import Openings
from ssn_probe.study.refusal_readout import LONGEST, MOST, estimate_openings, union

Tokens = tuple[int, ...]
responses = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=LONGEST).map(tuple), max_size=12)


def begins(text: Tokens, opening: Tokens) -> bool:
    return text[: len(opening)] == opening


@settings(deadline=None, max_examples=200)
@given(responses, responses)
def test_openings_separate(refused: list[Tokens], complied: list[Tokens]) -> None:
    """No response of the other side begins with an opening; no opening begins with another, so probabilities add up."""
    refusal, compliant = estimate_openings(refused, complied)
    for openings, own, other in ((refusal, refused, complied), (compliant, complied, refused)):
        assert len(openings) == len(set(openings)) <= MOST
        for opening in openings:
            assert 1 <= len(opening) <= LONGEST
            assert any(begins(text, opening) for text in own)
            assert not any(begins(text, opening) for text in other)
            shorter = [opening[:length] for length in range(1, len(opening))]
            assert all(any(begins(text, prefix) for text in other) for prefix in shorter), "it could be shorter"
    every = [*refusal, *compliant]
    assert not any(begins(one, two) for i, one in enumerate(every) for j, two in enumerate(every) if i != j)


@settings(deadline=None, max_examples=200)
@given(responses, responses)
def test_the_commonest_openings_are_kept(refused: list[Tokens], complied: list[Tokens]) -> None:
    refusal, _ = estimate_openings(refused, complied)
    counts = Counter[Tokens]()
    for text in refused:
        for length in range(1, len(text) + 1):
            if not any(begins(other, text[:length]) for other in complied):
                counts[text[:length]] += 1
                break
    assert [counts[opening] for opening in refusal] == sorted(counts.values(), reverse=True)[:MOST]


@settings(deadline=None, max_examples=50)
@given(responses, responses)
def test_the_sides_are_treated_alike(refused: list[Tokens], complied: list[Tokens]) -> None:
    assert estimate_openings(refused, complied) == estimate_openings(complied, refused)[::-1]


@pytest.mark.parametrize(
    ("refused", "complied", "refusal", "compliant"),
    [
        ([(1, 2), (1, 3)], [(4, 5)], ((1,),), ((4,),)),
        ([(1, 2), (1, 3)], [(1, 5)], ((1, 2), (1, 3)), ((1, 5),)),
        ([(1, 2), (6, 2), (6, 3)], [(4,)], ((6,), (1,)), ((4,),)),
        ([(1, 2)], [(1, 2)], (), ()),
        ([(1, 2)], [(1, 2, 3)], (), ((1, 2, 3),)),
        ([(1, 2, 3, 4, 5)], [(1, 2, 3, 4, 6)], ((1, 2, 3, 4, 5),), ((1, 2, 3, 4, 6),)),
        ([], [(1,)], (), ((1,),)),
        ([], [], (), ()),
    ],
)
def test_worked_examples(
    refused: list[Tokens], complied: list[Tokens], refusal: tuple[Tokens, ...], compliant: tuple[Tokens, ...]
) -> None:
    assert estimate_openings(refused, complied) == (refusal, compliant)


def test_what_does_not_separate_within_five_tokens_is_dropped() -> None:
    assert estimate_openings([(1, 2, 3, 4, 5, 6), (9,)], [(1, 2, 3, 4, 5, 7)]) == (((9,),), ())


def test_at_most_eight_a_side() -> None:
    refused = [(token,) for token in range(12) for _ in range(12 - token)]
    assert estimate_openings(refused, [(99,)])[0] == tuple((token,) for token in range(8))


@settings(deadline=None, max_examples=200)
@given(responses, responses, responses, responses)
def test_with_the_anchors_no_response_begins_with_two_openings(
    refused: list[Tokens], complied: list[Tokens], anchor_refused: list[Tokens], anchor_complied: list[Tokens]
) -> None:
    """What refuses in the anchor may be how an answer begins here, and the responses here say which it is."""
    mine, anchors = (
        Openings(*estimate_openings(*sides)) for sides in ((refused, complied), (anchor_refused, anchor_complied))
    )
    both = union(mine, anchors)
    every = [*both.refusal, *both.compliant]
    assert not any(begins(one, two) for i, one in enumerate(every) for j, two in enumerate(every) if i != j)
    for own, of_anchor, joined in (
        (mine.refusal, anchors.refusal, both.refusal),
        (mine.compliant, anchors.compliant, both.compliant),
    ):
        assert joined[: len(own)] == own
        assert set(joined) <= {*own, *of_anchor}


def test_an_opening_that_refuses_in_one_language_and_complies_in_the_anchor_stays_on_one_side() -> None:
    mine, anchors = Openings(((1,), (2, 3)), ((4,),)), Openings(((4, 5), (6,)), ((1,), (2,), (7,)))
    assert union(mine, anchors) == Openings(((1,), (2, 3), (6,)), ((4,), (7,)))
