"""What a host says of itself, and that a host of another model is refused."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import pytest

from ssn_probe.errors import RemoteError
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.host_facts import check_host, host_facts

from .hosted import hosted


@pytest.mark.parametrize("where", ["here", "trusted", "sandbox"])
def test_facts(tiny_subject: Callable[[str], Subject], where: str) -> None:
    subject = tiny_subject("qwen3")
    facts = host_facts(subject if where == "here" else hosted(subject, sandbox=where == "sandbox"))
    trusted = where != "sandbox"
    assert (facts.gradients, facts.weights, facts.autocast) == (trusted, trusted, False)
    assert (facts.dtype, facts.device) == (subject.identity["dtype"], "cpu")
    assert facts.versions["torch"] == version("torch")
    assert facts.attention == ("sdpa" if trusted else None)
    assert (facts.generation is not None) is trusted
    # the sandbox of a GPU runs what a half-precision model computes under autocast, which a job cannot undo
    assert replace(facts, device="cuda", dtype="bfloat16").autocast is not trusted


def test_the_job_is_small_and_runs_once(tiny_subject: Callable[[str], Subject]) -> None:
    subject = hosted(tiny_subject("llama"))
    assert host_facts(subject) is host_facts(subject)
    [(_body, sent, received)] = subject.calls.jobs  # type: ignore[union-attr]
    assert max(sent, received) < 4000


@pytest.mark.parametrize("what", ["dtype", "attention"])
def test_a_host_of_another_model_is_refused(tiny_subject: Callable[[str], Subject], what: str) -> None:
    subject = hosted(tiny_subject("llama"))
    check_host(subject)
    other = replace(subject, identity=subject.identity | {what: "another"})
    with pytest.raises(RemoteError, match=f"with the {what} .*those of another"):
        check_host(other)
