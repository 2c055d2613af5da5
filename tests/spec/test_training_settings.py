"""How fast each step learns, which rows it sees, and settings that make no sense."""

from typing import Any

import pytest

from ssn_probe.errors import RecipeError
from ssn_probe.spec.training_settings import Schedule, Training, held_out


def test_a_linear_warm_up_then_down_to_zero() -> None:
    schedule = Schedule(settings=Training(lr=1e-2, batch=2, epochs=2, warmup=0.2), rows=10)
    assert (schedule.per_epoch, schedule.total) == (5, 10)
    rates = [schedule.rate(step) for step in range(10)]
    assert rates == pytest.approx([0.005, 0.01, *(0.01 * left / 8 for left in range(8, 0, -1))])


def test_a_constant_rate_after_the_warm_up() -> None:
    schedule = Schedule(settings=Training(steps=4, warmup=0.5, schedule="constant", lr=0.1), rows=3)
    assert [schedule.rate(step) for step in range(4)] == pytest.approx([0.05, 0.1, 0.1, 0.1])


def test_an_epoch_sees_every_row_once_in_an_order_of_its_own() -> None:
    schedule = Schedule(settings=Training(batch=4, epochs=2), rows=10)
    first, second = ([n for step in steps for n in schedule.batch(step)] for steps in (range(3), range(3, 6)))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [len(schedule.batch(step)) for step in range(3)] == [4, 4, 2]
    assert schedule.batch(1) == Schedule(settings=Training(batch=4, epochs=2), rows=10).batch(1)
    assert schedule.batch(0) != Schedule(settings=Training(batch=4, epochs=2, seed=1), rows=10).batch(0)


def test_held_out_clusters_are_a_share_of_every_context() -> None:
    rows = [(context, f"{context}{n}") for context in ("harmful", "harmless") for n in range(20)]
    chosen = held_out(rows * 3, Training(held_out=0.1))
    assert len(chosen) == 4
    assert sum(cluster.startswith("harmful") for cluster in chosen) == 2
    assert held_out(rows, Training(held_out=0.1)) == chosen
    assert held_out(rows, Training(held_out=0.0)) == set()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"lr": 0.0}, "learning rate is 0"),
        ({"lr": -1e-4}, "above 0"),
        ({"lr": float("nan")}, "finite"),
        ({"lr": "fast"}, "lr"),
        ({"clip": 0.0}, "gradient norm"),
        ({"batch": 0}, "batch is 0"),
        ({"epochs": -1}, "epochs is -1"),
        ({"steps": 0}, "steps is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"held_out": 1.0}, "held_out is 1"),
        ({"warmup": -0.1}, "warmup is -0.1"),
        ({"schedule": "linaer"}, "'linear'"),
    ],
)
def test_settings_that_make_no_sense(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Training(**wrong)
