"""`ssn-probe models`: every family of the two tables, what is studied of it or why it is refused."""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len

from ssn_probe.cli.commands import main
from ssn_probe.model.families import BUILT_IN, FAMILIES, register_family
from ssn_probe.model.refused_families import refused


@pytest.fixture
def mine() -> Iterator[None]:
    register_family("arcee", ffn_inputs=("mlp.up_proj",), examples=("arcee-ai/AFM-4.5B",))
    yield
    del FAMILIES["arcee"]


def models(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", *arguments], env={"COLUMNS": "80"})


def test_every_family_is_listed_in_eighty_columns(mine: None) -> None:
    result = models()
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert max(map(cell_len, lines)) <= 80
    firsts = [line.split()[0] for line in lines if line and not line.startswith(" ")]
    assert firsts[1 : 1 + len(FAMILIES)] == list(FAMILIES)
    for row in BUILT_IN:
        assert all(example in result.stdout for example in row.examples)
    words = {word.strip(",:.") for word in result.stdout.split()}
    assert words >= refused().keys()
    flat = " ".join(result.stdout.split())
    assert "added by you; an MLP without a gate" in flat
    assert "llama, qwen2, qwen3, mistral, gemma2 are also generated from by --engine vllm" in flat
    assert "its MLP is a mixture of experts: mixtral" in flat


def test_the_whole_reason_of_each() -> None:
    flat = " ".join(models("--refused").stdout.split())
    for name, reason in refused().items():
        assert f"{name}: {reason}" in flat


def test_as_json() -> None:
    found = json.loads(models("--json").stdout)
    assert found["refused"] == dict(refused())
    rows = {one["family"]: one for one in found["studied"]}
    assert list(rows) == list(FAMILIES)
    assert rows["phi3"]["models"] == list(FAMILIES["phi3"].examples)
    assert rows["olmo2"]["particulars"] == ["queries and keys normalised over all heads"]
    assert (rows["llama"]["vllm"], rows["olmo2"]["vllm"]) == (True, False)


def test_a_host_has_no_families() -> None:
    assert models("--json", "--host", "http://127.0.0.1:1").exit_code == 2


def test_no_name_is_in_two_rows() -> None:
    named = [example for row in BUILT_IN for example in row.examples]
    assert len(named) == len(set(named))
    assert all(example.count("/") == 1 for example in named)
