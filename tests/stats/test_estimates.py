"""Which interval a rate, a difference and an average get, what they are worth, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssn_probe.stats import Estimate, language_average, newcombe, paired_difference, rate, wilson


def found(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


def limits(estimate: Estimate | None) -> tuple[float, float]:
    return found(estimate).low, found(estimate).high


@pytest.mark.parametrize(("successes", "n"), [(9, 30), (12, 12)])
def test_single_prompt_clusters_get_wilson(successes: int, n: int) -> None:
    estimate = found(rate([True] * successes + [False] * (n - successes), [f"pair {i}" for i in range(n)]))
    assert (estimate.value, estimate.n, estimate.clusters, estimate.method) == (successes / n, n, n, "wilson")
    assert limits(estimate) == wilson(successes, n)
    assert not estimate.degenerate


def test_clusters_make_it_wider() -> None:
    clusters = np.repeat(np.arange(20), 5)
    successes = clusters % 2 == 0
    estimate = found(rate(successes, clusters))
    assert (estimate.value, estimate.n, estimate.clusters, estimate.method) == (0.5, 100, 20, "clusters")
    assert found(rate([1, 1, 1, 0], ["a", "a", "a", "b"])).value == 0.75, "the mean of prompts, not of clusters"
    low, high = wilson(50, 100)
    assert estimate.high - estimate.low > 2 * (high - low), "five copies of a prompt are no more than one"


@pytest.mark.parametrize(
    ("values", "clusters", "expected"),
    [
        ([0.0] * 40, [i // 5 for i in range(40)], wilson(0, 8)),
        ([1.0] * 40, [i // 5 for i in range(40)], wilson(8, 8)),
        ([1, 0, 1, 0], ["a"] * 4, wilson(0.5, 1)),
        ([1, 0, 1, 0, 1, 0], ["a", "a", "b", "b", "c", "c"], wilson(1.5, 3)),
        ([-3.5] * 4, [1, 2, 3, 4], (-3.5, -3.5)),
        ([0.43], [1], (0.43, 0.43)),
    ],
    ids=["all fail", "all succeed", "one cluster", "clusters that agree", "a constant beyond a rate", "nats of one"],
)
def test_a_degenerate_rate_is_wilson_on_the_clusters(values: list, clusters: list, expected: tuple) -> None:
    estimate = found(rate(values, clusters))
    assert (estimate.degenerate, estimate.method) == (True, "degenerate")
    assert (limits(estimate), estimate.value) == (pytest.approx(expected), np.mean(values))


def test_real_values_get_students_interval_even_one_prompt_a_cluster() -> None:
    values = np.random.default_rng(0).normal(3, 1, 100)
    estimate = found(rate(values, np.arange(100)))
    assert estimate.method == "clusters"
    half = 1.984 * values.std(ddof=1) / 10
    assert limits(estimate) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.005)


def test_paired_difference_of_single_prompts_is_newcombes() -> None:
    arm = [1] * 20 + [1] * 12 + [0] * 2 + [0] * 16
    baseline = [1] * 20 + [0] * 12 + [1] * 2 + [0] * 16
    estimate = found(paired_difference(arm, baseline, np.arange(50)))
    assert (estimate.value, estimate.n, estimate.method) == (pytest.approx(0.2), 50, "newcombe")
    assert limits(estimate) == pytest.approx(newcombe(20, 12, 2, 16))


def test_paired_difference_uses_the_pairing() -> None:
    """The same two rates: arms that agree prompt by prompt leave less doubt than arms that do not."""
    baseline = np.arange(60) % 2 == 0
    agreeing = baseline | (np.arange(60) < 12)
    crossed = np.roll(agreeing, 1)
    paired, unpaired = (found(paired_difference(arm, baseline, np.arange(60))) for arm in (agreeing, crossed))
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.high - paired.low < 0.6 * (unpaired.high - unpaired.low)


@pytest.mark.slow
def test_paired_difference_of_clusters_covers() -> None:
    """Suppression adds .3 to every concept's rate, and concepts differ: .95 of the intervals hold .3."""
    rng, covered, repeats = np.random.default_rng(11), 0, 400
    for _ in range(repeats):
        clusters = np.repeat(np.arange(25), rng.integers(1, 7, 25))
        before = rng.uniform(0, 0.6, 25)[clusters]
        chance = rng.random(len(clusters))
        estimate = paired_difference(
            chance < before + 0.3,
            np.where(rng.random(len(clusters)) < 0.5, chance, rng.random(len(clusters))) < before,
            clusters,
        )
        covered += limits(estimate)[0] <= 0.3 <= limits(estimate)[1]
    assert 0.915 <= covered / repeats <= 0.985


def test_degenerate_difference_is_newcombe_on_the_clusters() -> None:
    clusters = np.repeat(np.arange(10), 3)
    refused = np.tile([1.0, 0.0, 0.0], 10)
    for arm, baseline, value, table in (
        (np.ones(30), np.zeros(30), 1.0, (0, 10, 0, 0)),
        (refused, refused, 0.0, (10 / 3, 0, 0, 20 / 3)),
    ):
        estimate = found(paired_difference(arm, baseline, clusters))
        assert (estimate.value, estimate.degenerate) == (value, True)
        assert limits(estimate) == pytest.approx(newcombe(*table))


def test_difference_of_log_odds() -> None:
    rng = np.random.default_rng(2)
    baseline = rng.normal(0, 5, 80)
    estimate = found(paired_difference(baseline - 1 + rng.normal(0, 0.5, 80), baseline, np.arange(80)))
    assert estimate.method == "clusters"
    assert estimate.high - estimate.low < 0.3, "the spread between prompts must cancel"
    assert estimate.low < -1 < estimate.high
    unchanged = found(paired_difference(baseline, baseline, np.arange(80)))
    assert (unchanged.value, unchanged.low, unchanged.high, unchanged.degenerate) == (0.0, 0.0, 0.0, True)


def test_language_average_weighs_languages_alike() -> None:
    values = [1] * 30 + [0] * 10
    languages = ["qab"] * 30 + ["qac"] * 10
    clusters = [*range(30), *range(10)]
    estimate = found(language_average(values, clusters, languages))
    assert (estimate.value, estimate.n, estimate.clusters) == (0.5, 40, 30), "a pooled rate would be .75"


def test_language_average_of_one_language_is_the_rate() -> None:
    values, clusters = np.arange(30) % 3 == 0, np.arange(30)
    assert language_average(values, clusters, ["qab"] * 30) == rate(values, clusters)
    pairs = np.repeat(np.arange(15), 2)
    assert language_average(values, pairs, ["qab"] * 30) == rate(values, pairs)
    assert language_average(values, clusters, ["qab"] * 30, baseline=~values) == paired_difference(
        values, ~values, clusters
    )


def test_language_average_takes_a_prompt_in_all_languages_together() -> None:
    """Six translations that always agree are one prompt, six that are unrelated are six."""
    rng = np.random.default_rng(3)
    clusters, languages = np.tile(np.arange(40), 6), np.repeat(np.arange(6), 40)
    together = np.tile(rng.random(40) < 0.5, 6)
    apart = rng.random(240) < 0.5
    shared, unrelated = (np.ptp(limits(language_average(y, clusters, languages))) for y in (together, apart))
    assert shared == pytest.approx(np.ptp(wilson(together.sum() / 6, 40)), rel=0.15)
    assert shared / unrelated == pytest.approx(np.sqrt(6), rel=0.25)


def test_language_average_of_unrelated_prompts_is_no_pooled_wilson() -> None:
    """Without a shared cluster every row is independent, but two rates of .1 and .9 are not 40 draws at .5."""
    values = np.concatenate([np.arange(20) < 2, np.arange(20) < 18])
    estimate = found(language_average(values, np.arange(40), np.repeat(["qab", "qac"], 20)))
    low, high = wilson(20, 40)
    assert (estimate.value, estimate.method) == (0.5, "clusters")
    assert estimate.high - estimate.low < 0.75 * (high - low)


def test_language_average_of_differences() -> None:
    clusters, languages = np.tile(np.arange(20), 2), np.repeat(["qab", "qac"], 20)
    arm = np.concatenate([np.arange(20) < 16, np.arange(20) < 8])
    baseline = np.concatenate([np.arange(20) < 4, np.arange(20) < 4])
    estimate = found(language_average(arm, clusters, languages, baseline=baseline))
    assert estimate.value == pytest.approx((0.6 + 0.2) / 2)
    assert 0 < estimate.low < estimate.value < estimate.high
    nothing = found(language_average(np.zeros(40), clusters, languages, baseline=np.zeros(40)))
    assert nothing.degenerate
    assert limits(nothing) == pytest.approx(newcombe(0, 0, 0, 20))


def test_no_data_is_none() -> None:
    assert rate([], []) is None
    assert paired_difference([], [], []) is None
    assert language_average([], [], []) is None


@pytest.mark.parametrize(
    ("values", "clusters", "message"),
    [
        ([1, float("nan")], ["a", "b"], "leave out what was not measured"),
        ([1, float("inf")], ["a", "b"], "leave out what was not measured"),
        ([1, 0], ["a"], "one entry per prompt"),
        ([[1, 0]], ["a", "b"], "a row of finite numbers"),
        ([1, 0], ["a", None], "missing labels"),
        ([1, 0], [1.0, float("nan")], "missing labels"),
    ],
)
def test_what_is_not_data_is_refused(values: list, clusters: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rate(values, clusters)


def test_arms_of_other_lengths_and_odd_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="baseline has shape"):
        paired_difference([1, 0], [1], ["a", "b"])
    with pytest.raises(ValueError, match="languages has shape"):
        language_average([1, 0], ["a", "b"], ["qab"])
    with pytest.raises(ValueError, match="confidence must"):
        rate([1, 0, 1], ["a", "a", "b"], confidence=95)


SAMPLE = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 6)), min_size=1, max_size=30)


@settings(deadline=None)
@given(SAMPLE, st.randoms(use_true_random=False))
def test_order_and_names_of_clusters_do_not_matter(sample: list[tuple[bool, bool, int]], random) -> None:
    shuffled = random.sample(sample, len(sample))
    results = []
    for rows in (sample, shuffled):
        arm, baseline, clusters = (np.array(column) for column in zip(*rows, strict=True))
        names = [f"concept {label}" for label in clusters]
        results += [rate(arm, clusters), rate(arm, names)]
        results += [paired_difference(arm, baseline, clusters)]
    first, renamed, difference, *rest = (found(estimate) for estimate in results)
    for ours, other in zip((first, renamed, difference), rest, strict=True):
        assert (ours.low, ours.value, ours.high) == pytest.approx((other.low, other.value, other.high), abs=1e-9)
        assert ours.low <= ours.value <= ours.high
        assert ours.method == other.method
    assert limits(first) == pytest.approx(limits(renamed), abs=1e-9)
    assert 0 <= first.low <= first.high <= 1
    assert -1 - 1e-9 <= difference.low <= difference.high <= 1 + 1e-9


def test_more_confidence_is_wider() -> None:
    rng = np.random.default_rng(4)
    values, clusters = rng.normal(size=50), rng.integers(0, 12, 50)
    narrow, wide = (found(rate(values, clusters, confidence=level)) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


# ── crossed clusters ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_crossed_clusters_count_both_columns() -> None:
    """Every action on every object; the action decides one arm, the object the other."""
    action, thing = np.divmod(np.arange(96), 12)
    both = np.stack([action, thing], axis=1)
    by_action, by_thing = action % 2 == 0, thing % 3 == 0
    for outcome, column, levels in ((by_action, action, 8), (by_thing, thing, 12)):
        crossed, alone = found(rate(outcome, both)), found(rate(outcome, column))
        assert (crossed.clusters, crossed.crossed, crossed.method) == (8, (8, 12), "clusters")
        assert (alone.clusters, alone.crossed) == (levels, ())
        assert np.ptp(limits(crossed)) >= np.ptp(limits(alone)), "fewer degrees of freedom, the same variance"
        assert np.ptp(limits(crossed)) < 1.1 * np.ptp(limits(alone))
    either = by_action ^ by_thing
    assert np.ptp(limits(rate(either, both))) > np.ptp(limits(rate(either, np.arange(96))))


def test_labels_of_one_column_may_stand_alone() -> None:
    outcome, names = np.arange(30) % 4 == 0, np.array([f"a{i // 3}" for i in range(30)], dtype=object)
    assert rate(outcome, names) == rate(outcome, names[:, None])


def test_single_prompts_in_every_column_are_independent() -> None:
    outcome = np.arange(40) % 3 == 0
    alone = np.stack([np.arange(40), np.arange(40)[::-1]], axis=1)
    assert limits(rate(outcome, alone)) == wilson(outcome.sum(), 40)
    shared = alone.copy()
    shared[0, 1] = shared[1, 1]
    assert found(rate(outcome, shared)).method == "clusters"


def test_without_spread_the_fewest_clusters_count() -> None:
    action, thing = np.divmod(np.arange(60), 10)
    both = np.stack([action, thing], axis=1)
    estimate = found(rate(np.zeros(60), both))
    assert (estimate.degenerate, limits(estimate)) == (True, pytest.approx(wilson(0, 6)))
    languages = np.repeat([0, 1], [57, 3])
    assert limits(language_average(np.zeros(60), both, languages)) == pytest.approx(wilson(0, 1)), "one action in one"


@pytest.mark.parametrize("column", [0, 1])
def test_every_column_needs_its_labels(column: int) -> None:
    labels = np.array([["a", "b"], ["c", "d"], ["e", "f"]], dtype=object)
    labels[1, column] = None
    with pytest.raises(ValueError, match="missing labels"):
        rate([1, 0, 1], labels)
