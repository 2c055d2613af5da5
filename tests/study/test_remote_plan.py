"""What a run says before it sends anything, and when it asks."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ssn_probe.errors import RemoteError
from ssn_probe.model.subject import Subject
from ssn_probe.remote.deployments import Deployment
from ssn_probe.runs.cache import NotCached
from ssn_probe.study.remote_plan import RemotePlan, must_be_confirmed, remote_plan
from ssn_probe.study.steps import READING, Cost, Step
from ssn_probe.study.workbench import Workbench


def step(label: str, prompts: int, done: bool = False, cost: Cost = READING) -> Step:
    def key() -> Mapping[str, Any]:
        return {}

    run: Callable[[], Any] = lambda: pytest.fail("a plan runs nothing")  # noqa: E731
    return Step(label=label, prompts=prompts, cost=cost, key=key, is_kept=lambda _key: done, run=run)


def plan_of(*steps: Step, batch_size: int | None = None) -> RemotePlan:
    subject = SimpleNamespace(
        name="some/model",
        host=SimpleNamespace(url="https://some.host"),
        deployment=Deployment(key="key", name="some/model", dtypes=("bfloat16",), running=2, timeout=600),
    )
    bench = cast(Workbench, SimpleNamespace(subject=subject, batch_size=batch_size))
    return remote_plan(bench, steps, mean_tokens=20)


def test_what_is_in_the_cache_is_not_sent() -> None:
    plan = plan_of(step("one", 100, done=True), step("two", 150), step("two", 250))
    assert (plan.prompts, plan.calls, plan.jobs) == (400, 3, 1)
    assert plan.bytes_of_job == 64 * 200 * 20 * 24


def test_many_calls_of_one_row_are_several_jobs() -> None:
    plan = plan_of(*[step("controls", 100)] * 130, step("effect", 2, cost=Cost(work="effect", passes=1001)))
    assert (plan.calls, plan.jobs) == (130 + 11, 3 + 1)
    assert plan_of(step("small batches", 100), batch_size=1).calls == 100


def test_it_names_the_host_and_how_much_is_sent() -> None:
    first, second = plan_of(*[step("controls", 100)] * 130).lines()
    assert (
        first == "Host: https://some.host runs some/model in bfloat16, revision main, 2 replicas; a job may take 600 s."
    )
    assert "13,000 prompts" in second
    assert "130 calls in 3 jobs, at most 4 at a time, each up to 6.1 MB" in second
    assert plan_of().lines() == [first, "Nothing has to be sent there: everything is in the cache."]


def test_few_jobs_are_sent_without_a_question_and_many_not_where_nobody_can_answer() -> None:
    few, many = plan_of(step("one", 100)), plan_of(*[step("controls", 100)] * 1000)
    assert not must_be_confirmed(few, can_ask=False)
    assert not must_be_confirmed(few, can_ask=True)
    assert must_be_confirmed(many, can_ask=True)
    with pytest.raises(RemoteError, match="16 jobs would be sent") as error:
        must_be_confirmed(many, can_ask=False)
    assert "--yes" in str(error.value.hint)


def test_what_a_plan_misses_is_looked_for_once() -> None:
    bench = Workbench(subject=cast(Subject, SimpleNamespace(calls=None, workers=None)), data={})
    asked: list[int] = []

    def missing() -> None:
        asked.append(1)
        raise NotCached({"method": "effects"})

    for _ in range(3):
        with pytest.raises(NotCached, match="effects"):
            bench.remember(("importance", 1), missing)
    assert len(asked) == 1
