"""What a host says of itself, and that a host of another model is refused."""

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version

import pytest
from torch import Tensor

from ssn_probe.errors import ModelError, RemoteError
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.host_facts import check_host, host_facts

from .hosted import hosted


@pytest.mark.parametrize("where", ["here", "trusted", "sandbox"])
def test_facts(single: Callable[[str], Subject], where: str) -> None:
    subject = single("qwen3")
    facts = host_facts(subject if where == "here" else hosted(subject, sandbox=where == "sandbox"))
    trusted = where != "sandbox"
    assert (facts.gradients, facts.weights, facts.autocast) == (trusted, trusted, False)
    assert (facts.dtype, facts.device) == (subject.identity["dtype"], "cpu")
    assert facts.versions["torch"] == version("torch")
    assert facts.attention == ("sdpa" if trusted else None)
    assert (facts.generation is not None) is trusted
    # the sandbox of a GPU runs what a half-precision model computes under autocast, which a job cannot undo
    assert replace(facts, device="cuda", dtype="bfloat16").autocast is not trusted


def test_the_job_is_small_and_runs_once(single: Callable[[str], Subject]) -> None:
    subject = hosted(single("llama"))
    assert host_facts(subject) is host_facts(subject)
    [(_body, sent, received)] = subject.calls.jobs  # type: ignore[union-attr]
    assert max(sent, received) < 4000


@pytest.mark.parametrize("what", ["dtype", "attention"])
def test_a_host_of_another_model_is_refused(single: Callable[[str], Subject], what: str) -> None:
    subject = hosted(single("llama"))
    check_host(subject)
    other = replace(subject, identity=subject.identity | {what: "another"})
    with pytest.raises(RemoteError, match=f"with the {what} .*those of another"):
        check_host(other)


@pytest.mark.parametrize("sandbox", [False, True])
def test_rows_that_depend_on_each_other_are_refused(single: Callable[[str], Subject], sandbox: bool) -> None:
    subject = hosted(single("llama"), sandbox=sandbox)
    check_host(subject)

    def leak(_module: object, _inputs: object, output: Tensor) -> Tensor:
        return output + output.mean(0, keepdim=True)

    handle = single("llama").model._module.model.norm.register_forward_hook(leak)
    try:
        with pytest.raises(ModelError, match="beside a longer one than for the same prompt alone"):
            check_host(subject)
    finally:
        handle.remove()
