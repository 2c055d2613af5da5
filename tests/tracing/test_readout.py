"""The sequences that score a set of openings are as few as can be, and enough."""

import pytest

from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Openings
from ssn_probe.tracing.readout import forced


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
