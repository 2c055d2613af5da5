"""What a host has, as /status of ndif 0.1.2 says it, and which deployment answers for a name."""

import json
from pathlib import Path
from typing import Any

import pytest
from ndif_stand_in import NAME, host_that_says, key, replica, status

from ssn_probe.errors import RemoteError
from ssn_probe.remote.deployments import Deployment, deployments, find_deployment, key_of, why_unfit
from ssn_probe.remote.host import Host


def listed(*entries: dict[str, Any], others: dict[str, Any] | None = None) -> list[Deployment]:
    with host_that_says(status(*entries, others=others)) as (url, _):
        return deployments(Host(url))


def found(*entries: dict[str, Any], name: str = NAME, others: dict[str, Any] | None = None) -> Deployment:
    with host_that_says(status(*entries, others=others)) as (url, _):
        return find_deployment(Host(url), name)


WARM = {"deployment_level": "WARM", "application_state": "RUNNING", "model_key": key(), "repo_id": NAME}


def test_a_replica_that_runs() -> None:
    one = found(replica(dtype="torch.bfloat16", config=json.dumps({"model_type": "llama"})))
    assert one == Deployment(
        key=key(), name=NAME, dtypes=("bfloat16",), running=1, timeout=3600.0, config={"model_type": "llama"}
    )


def test_replicas_of_one_model_are_one_deployment_in_its_best_state() -> None:
    dead = replica(application_state="UNHEALTHY", dtype="float32")
    one = found(dead, replica(execution_timeout_seconds=60), replica(application_state="DEPLOYING"), replica())
    assert (one.state, one.running, one.dtypes, one.timeout) == ("RUNNING", 2, ("bfloat16",), 60.0)


def test_the_revision_main_is_preferred_and_another_is_taken_alone() -> None:
    old, main = replica(model_key=key(revision="abc")), replica(model_key=key(revision="main"))
    assert found(old, main).revision == "main"
    assert found(old).revision == "abc"
    with pytest.raises(RemoteError, match="in the revisions abc, def, and none of them is main"):
        found(old, replica(model_key=key(revision="def")))


UNFIT = {
    "a pipeline for something else": ({"task": "fill-mask"}, {}, "for fill-mask"),
    "a key of vLLM": ({"wrapper": "nnsight.modeling.vllm.VLLM"}, {}, "as a VLLM"),
    "code of the repository": ({"trust_remote_code": True}, {}, "with code of its own repository"),
    "four bits": ({}, {"dtype": "nf4"}, r"with quantised weights \(nf4\)"),
    "a quantised checkpoint": ({}, {"config": '{"quantization_config": {}}'}, "with quantised weights"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_what_cannot_be_studied_says_why(what: str) -> None:
    parts, fields, said = UNFIT[what]
    with pytest.raises(RemoteError, match=f"has '{NAME}', but {said}"):
        found(replica(model_key=key(**parts), **fields))
    other = replica(model_key=key(**parts), **fields)
    if parts:  # beside one that can be studied it is no obstacle
        assert found(other, replica()).key == key()


STATES = {
    "being loaded": ([replica(application_state="DEPLOYING")], "is being loaded on", "Try again"),
    "being loaded, not yet described": ([{"application_state": "DEPLOYING"}], "is being loaded on", "Try again"),
    "in memory": ([WARM], "is kept in memory", "doctor --remote --model owner/model"),
    "failed": ([replica(application_state="UNHEALTHY")], "has failed there", "Ask those"),
    "a state of a later version": ([replica(application_state="HUNGRY")], "has failed there", "Ask those"),
}


@pytest.mark.parametrize("what", STATES)
def test_a_model_that_does_not_run(what: str) -> None:
    entries, said, hint = STATES[what]
    named = {f"r9:ModelActor:{key()}": one for one in entries}
    with pytest.raises(RemoteError, match=said) as error:
        found(others=named)
    assert hint in str(error.value.hint)


def test_a_model_on_disk() -> None:
    cold = {NAME: {"deployment_level": "COLD", "repo_id": NAME}}
    assert [(one.key, one.state) for one in listed(others=cold)] == [(key_of(NAME), "COLD")]
    with pytest.raises(RemoteError, match="is kept on disk"):
        found(others=cold)


def test_the_key_of_a_model_that_is_not_there_yet_is_the_one_nnsight_makes() -> None:
    assert key_of(NAME) == key()


def test_replicas_of_two_precisions_answer_for_nobody() -> None:
    with pytest.raises(RemoteError, match="in bfloat16 or float32, so that"):
        found(replica(), replica(dtype="float32"))


def test_what_is_not_hosted_names_what_is() -> None:
    with pytest.raises(RemoteError, match="does not host 'owner/modle'") as error:
        found(replica(), name="owner/modle")
    assert "Did you mean 'owner/model'?" in str(error.value.hint)
    assert "doctor --remote --model owner/modle" in str(error.value.hint)
    with pytest.raises(RemoteError) as error:
        found()
    assert "runs no model at the moment" in str(error.value.hint)


def test_a_folder_goes_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    for name in (str(folder), "model", "link", str(tmp_path / "link")):
        assert found(replica(str(folder)), name=name).name == str(folder)


DAMAGED: list[Any] = [
    None,
    [],
    "text",
    {},
    {"deployment_level": "HOT", "application_state": "RUNNING"},
    {"model_key": 5, "repo_id": ["x"]},
    {"model_key": "no key"},
    {"model_key": "a:{broken"},
    {"model_key": "a:[1]"},
    {"model_key": 'a:{"repo_id": 3}'},
    {"deployment_level": "COLD", "repo_id": None},
]


def test_damaged_entries_are_left_out() -> None:
    assert listed(*[one for one in DAMAGED if isinstance(one, dict)], replica()) == [found(replica())]
    with host_that_says({"/status": (200, {"deployments": {str(at): one for at, one in enumerate(DAMAGED)}})}) as (
        url,
        _,
    ):
        assert deployments(Host(url)) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"execution_timeout_seconds": "soon", "dtype": 16, "config": "{", "application_state": ["RUNNING"]},
        {"execution_timeout_seconds": -1, "dtype": None, "config": "[]", "application_state": None},
        {"execution_timeout_seconds": float("inf"), "config": "[" * 50_000, "deployment_level": {}},
        {"execution_timeout_seconds": True, "revision": 7, "task": {}},
    ],
)
def test_damaged_fields_are_not_believed(fields: dict[str, Any]) -> None:
    (one,) = listed(replica(**fields))
    assert (one.config, one.state in ("RUNNING", "UNHEALTHY")) == ({}, True)
    assert one.timeout in (None, 1.0)
    assert isinstance(one.dtype, str)


@pytest.mark.parametrize("answer", [{}, {"deployments": None}, {"deployments": []}])
def test_no_status_of_an_ndif(answer: Any) -> None:
    with host_that_says({"/status": (200, answer)}) as (url, _), pytest.raises(RemoteError, match="does not say what"):
        deployments(Host(url))


def test_everything_else_is_fit() -> None:
    assert [why_unfit(one) for one in listed(replica(dtype="float16"), WARM)] == [None]
