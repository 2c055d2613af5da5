"""Batches cover every prompt once, longest first."""

from hypothesis import given
from hypothesis import strategies as st

from ssn_probe.tracing.batching import by_length


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 7))
def test_every_row_is_in_one_batch_and_lengths_fall(lengths: list[int], size: int) -> None:
    tokens = [[0] * length for length in lengths]
    batches = list(by_length(tokens, size))
    order = [row for batch in batches for row in batch]
    assert sorted(order) == list(range(len(tokens)))
    assert all(0 < len(batch) <= size for batch in batches)
    assert [lengths[row] for row in order] == sorted(lengths, reverse=True)
