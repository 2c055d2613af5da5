"""What bad input gets at the command line: one error that names the fix, exit 1, and nothing half-written."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result
from prompt_rows import organism_set
from safetensors.torch import load_file, save_file

from ssn_probe.cli.commands import main
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.model.loading import locate
from ssn_probe.runs.folder import runs
from ssn_probe.spec import Prompts


def refused(result: Result, *words: str) -> None:
    """One message and one hint on two lines, exit 1, with these words."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[0].startswith("Error: ")
    assert len(lines) == 2
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


def run(out: Path, *arguments: str, recipe: str = "suppress_ss") -> Result:
    return CliRunner().invoke(main, ["run", recipe, *arguments, "-o", str(out / "results")])


@pytest.fixture(scope="module")
def organism() -> pl.DataFrame:
    return load_prompts(Prompts("organism", limit=20)).frame


CASES: Sequence[tuple[list[str], list[str]]] = [
    (["-T", "anchor=qah"], ["unknown language 'qah'", "Did you mean"]),
    (["-T", "data=nowhere"], ["no prompt set 'nowhere'", "prompts.parquet"]),
    (["-T", f"model={'x' * 300}"], ["There is no model folder"]),
    (["-T", "model=./nowhere"], ["'./nowhere'", "config.json"]),
    (["--dtype", "float3"], ["Unknown dtype", "float32"]),
    (["--device", "tpu:9"], ["tpu:9", "cpu"]),
]


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=lambda value: " ".join(value))
def test_a_wrong_argument(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    refused(run(tmp_path, *arguments), *words)
    assert runs(tmp_path / "results") == []


FILES = {
    "unknown site": (
        "from ssn_probe import *\n@recipe\ndef mine(site: str = 'fnn'):\n    'Q?'\n"
        "    return Recipe(sets={'ms': SafetyNeurons(Prompts('organism'), sites=(site,))})\n",
        ["unknown site 'fnn'", "Did you mean 'ffn'?"],
    ),
    "syntax error": ("from ssn_probe import recipe\n@recipe\ndef mine(:\n", ["mine.py, line 3"]),
}


@pytest.mark.parametrize(("text", "words"), FILES.values(), ids=FILES)
def test_a_recipe_file(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    refused(run(tmp_path, recipe=str(tmp_path / "mine.py")), *words)


def test_a_model_folder(tmp_path: Path) -> None:
    refused(run(tmp_path, "-T", f"model={tmp_path}"), "no config.json")
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"")
    refused(run(tmp_path, "-T", f"model={tmp_path}"), "'gpt2'", "llama, qwen2, qwen3, mistral, gemma2")


def both(rows: pl.DataFrame) -> pl.DataFrame:
    """Prompts that choose neurons are among those that measure them."""
    twice = rows.filter((pl.col("split") == "identify") & (pl.col("context") == "harmful")).head(7)
    moved = twice.with_columns(pl.col("prompt_id") + "-again", split=pl.lit("evaluate"), cluster=pl.lit("again"))
    return pl.concat([rows, moved])


ROWS: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], list[str]]] = {
    "none": (lambda rows: rows.clear(), ["has no prompts"]),
    "a language missing from one context": (
        lambda rows: rows.filter((pl.col("language") != "qac") | (pl.col("context") != "harmless")),
        ["no harmless prompts", "qac", "harmless="],
    ),
    "in two splits": (both, ["both chooses neurons and measures them"]),
}


@pytest.mark.parametrize(("change", "words"), ROWS.values(), ids=ROWS)
def test_rows(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], words: list[str], organism: pl.DataFrame
) -> None:
    data = organism_set(tmp_path / "data", change(organism))
    refused(run(tmp_path, "-T", f"data={data.source}"), *words)


def test_data_without_a_judge(tmp_path: Path, organism: pl.DataFrame) -> None:
    data = organism_set(tmp_path / "data", organism, judge=None)
    training = run(tmp_path, "-T", f"data={data.source}", recipe="expand_ss")
    refused(training, "has no judge", "responses to learn", "--judge phrases")
    refused(run(tmp_path, "--judge", "phrase"), "unknown kind 'phrase'", "Did you mean 'phrases'?")


def test_a_set_that_comes_out_empty(tmp_path: Path) -> None:
    """Harmful and harmless prompts that are the same texts leave a difference of zero, and no neuron."""
    rows = load_prompts(Prompts("organism", limit=20, languages=("qaa", "qab"))).frame
    harmful = rows.filter((pl.col("split") == "identify") & (pl.col("context") == "harmful"))
    same = harmful.with_columns(context=pl.lit("harmless"), prompt_id=pl.col("prompt_id") + "-same")
    mixed = pl.concat([rows.filter(pl.col("context") == "lookalike"), harmful, same])
    data = organism_set(tmp_path / "data", mixed, languages=["qaa", "qab"])
    result = run(tmp_path, "-T", f"data={data.source}", "-T", "effect=local", "-T", "top=0.01", recipe="identify_ms")
    refused(result, "no neuron of qaa", "whatever top is", "highest scores", "rule='harmful'")
    (left,) = runs(tmp_path / "results")
    assert left.manifest()["status"] == "failed"


def test_nan_in_the_activations_names_layer_and_site(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(locate("organism"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"][:] = 3e38  # finite, and its products are not
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refused(run(tmp_path, "-T", f"model={folder}", "--limit", "40", recipe="identify_ms"), "layer 2", "ffn")


def test_a_results_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    refused(run(tmp_path / "file"), "cannot write", "-o DIR")


@pytest.mark.slow
def test_sigterm_ends_a_run_as_ctrl_c_does(tmp_path: Path) -> None:
    """Every scheduler sends it; the manifest must not say `running` for ever."""
    command = [sys.executable, "-m", "ssn_probe", "run", "suppress_ss", "--limit", "40", "-o", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("ms:"))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    (left,) = runs(tmp_path)
    assert left.manifest()["status"] == "interrupted"
    assert left.table("samples").height > 0
