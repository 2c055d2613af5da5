"""What bad input gets at the command line: one error that names the fix, exit 1, and nothing half-written."""

import json
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from ssn_probe.cli.commands import main
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.runs.folder import runs
from ssn_probe.spec import Prompts


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def refused(result: Result, *words: str) -> None:
    """One message and one hint on two lines, exit 1, with these words."""
    assert result.exit_code == 1, result.output
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[0].startswith("Error: ")
    assert len(lines) == 2
    assert "Traceback" not in result.output
    for word in words:
        assert word in result.stderr


def data_folder(folder: Path, rows: pl.DataFrame) -> str:
    """A prompt set like the organism's, with other rows."""
    import shutil
    from importlib.resources import files

    folder.mkdir(parents=True)
    shutil.copy(str(files("ssn_probe.organism") / "data" / "dataset.json"), folder / "dataset.json")
    rows.drop("source").write_parquet(folder / "prompts.parquet")
    return str(folder)


@pytest.fixture(scope="module")
def organism() -> pl.DataFrame:
    return load_prompts(Prompts("organism", limit=20)).frame


CASES: Sequence[tuple[list[str], list[str]]] = [
    (["suppress_ss", "-T", "anchor=qah"], ["unknown language 'qah'", "Did you mean"]),
    (["suppress_ss", "-T", "data=nowhere"], ["no prompt set 'nowhere'", "prompts.parquet"]),
    (["suppress_ss", "-T", "model=./nowhere"], ["'./nowhere'", "config.json"]),
    (["suppress_ss", "--dtype", "float3"], ["Unknown dtype", "float32"]),
    (["suppress_ss", "--device", "tpu:9"], ["tpu:9", "cpu"]),
]


@pytest.mark.parametrize(("arguments", "words"), CASES, ids=lambda value: " ".join(value))
def test_a_wrong_argument(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    refused(command("run", *arguments, "-o", str(tmp_path / "results")), *words)
    assert runs(tmp_path / "results") == []


def test_an_unknown_site_in_a_recipe_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from ssn_probe import *\n@recipe\ndef mine(site: str = 'fnn'):\n    'Q?'\n"
        "    return Recipe(sets={'ms': SafetyNeurons(Prompts('organism'), sites=(site,))})\n",
        encoding="utf-8",
    )
    refused(command("run", str(file), "-o", str(tmp_path / "results")), "unknown site 'fnn'", "Did you mean 'ffn'?")


def test_a_recipe_file_with_a_syntax_error(tmp_path: Path) -> None:
    file = tmp_path / "broken.py"
    file.write_text("from ssn_probe import recipe\n@recipe\ndef broken(:\n", encoding="utf-8")
    refused(command("run", str(file), "-o", str(tmp_path / "results")), "broken.py, line 3")


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    refused(command("run", "suppress_ss", "-T", f"model={tmp_path}", "-o", str(tmp_path / "r")), "no config.json")


def test_an_unknown_family(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}), encoding="utf-8"
    )
    (tmp_path / "model.safetensors").write_bytes(b"")
    result = command("run", "suppress_ss", "-T", f"model={tmp_path}", "-o", str(tmp_path / "r"))
    refused(result, "'gpt2'", "llama, qwen2, qwen3, mistral, gemma2")


def test_an_empty_prompt_set(tmp_path: Path, organism: pl.DataFrame) -> None:
    data = data_folder(tmp_path / "data", organism.clear())
    refused(command("run", "suppress_ss", "-T", f"data={data}", "-o", str(tmp_path / "r")), "has no prompts")


def test_a_language_missing_from_one_context(tmp_path: Path, organism: pl.DataFrame) -> None:
    kept = organism.filter(~((pl.col("language") == "qac") & (pl.col("context") == "harmless")))
    data = data_folder(tmp_path / "data", kept)
    result = command("run", "suppress_ss", "-T", f"data={data}", "-o", str(tmp_path / "r"))
    refused(result, "no harmless prompts", "qac", "harmless=")


def test_data_without_a_judge(tmp_path: Path, organism: pl.DataFrame) -> None:
    data = data_folder(tmp_path / "data", organism)
    card = Path(data) / "dataset.json"
    card.write_text(
        json.dumps({k: v for k, v in json.loads(card.read_text(encoding="utf-8")).items() if k != "judge"}),
        encoding="utf-8",
    )
    refused(command("run", "suppress_ss", "-T", f"data={data}", "-o", str(tmp_path / "r")), "declares no judge")


def test_a_prompt_that_both_chooses_and_measures(tmp_path: Path, organism: pl.DataFrame) -> None:
    twice = organism.filter((pl.col("split") == "identify") & (pl.col("context") == "harmful")).head(7)
    moved = twice.with_columns(
        pl.lit("evaluate").alias("split"), (pl.col("prompt_id") + "-again").alias("prompt_id"), cluster=pl.lit("again")
    )
    data = data_folder(tmp_path / "data", pl.concat([organism, moved]))
    result = command("run", "suppress_ss", "-T", f"data={data}", "-o", str(tmp_path / "r"))
    refused(result, "both chooses neurons and measures them")


def test_a_set_that_comes_out_empty(tmp_path: Path) -> None:
    """Harmful and harmless prompts that are the same texts leave a difference of zero, and no neuron."""
    rows = load_prompts(Prompts("organism", limit=20, languages=("qaa", "qab"))).frame
    harmful = rows.filter((pl.col("split") == "identify") & (pl.col("context") == "harmful"))
    same = harmful.with_columns(context=pl.lit("harmless"), prompt_id=pl.col("prompt_id") + "-same")
    data = data_folder(tmp_path / "data", pl.concat([rows.filter(pl.col("context") == "lookalike"), harmful, same]))
    card = Path(data) / "dataset.json"
    card.write_text(
        json.dumps(json.loads(card.read_text(encoding="utf-8")) | {"languages": ["qaa", "qab"]}), encoding="utf-8"
    )
    result = command(
        *("run", "identify_ms", "-T", f"data={data}", "-T", "effect=local", "-T", "top=0.01", "-o", str(tmp_path / "r"))
    )
    refused(result, "no neuron of qaa", "top=0.01", "highest scores", "Raise top")
    (left,) = runs(tmp_path / "r")
    assert left.manifest()["status"] == "failed"


def test_nan_in_the_activations_names_layer_and_site(tmp_path: Path) -> None:
    import shutil
    from importlib.resources import files

    folder = tmp_path / "model"
    shutil.copytree(str(files("ssn_probe.organism") / "natural"), folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.up_proj.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    result = command("run", "identify_ms", "-T", f"model={folder}", "--limit", "4", "-o", str(tmp_path / "r"))
    refused(result, "layer 2", "ffn")


def test_a_results_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    refused(command("run", "suppress_ss", "-o", str(tmp_path / "file" / "results")), "cannot write", "-o DIR")


def test_a_prompt_id_given_twice(tmp_path: Path, organism: pl.DataFrame) -> None:
    data = data_folder(tmp_path / "data", pl.concat([organism, organism.head(1)]))
    result = command("run", "suppress_ss", "-T", f"data={data}", "-o", str(tmp_path / "r"))
    refused(result, "'identify-harmful-000' appears more than once in 'qaa'")


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = command("--debug", "run", "suppress_ss", "-T", "data=nowhere", "-o", str(tmp_path))
    assert type(result.exception).__name__ == "DataError"


@pytest.mark.slow
def test_sigterm_ends_a_run_as_ctrl_c_does(tmp_path: Path) -> None:
    """Every scheduler sends it; the manifest must not say `running` for ever."""
    import signal
    import subprocess
    import sys

    command = [sys.executable, "-m", "ssn_probe", "run", "suppress_ss", "--limit", "40", "-o", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        next(line for line in process.stdout if line.startswith("ms:"))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    (left,) = runs(tmp_path)
    assert left.manifest()["status"] == "interrupted"
    assert left.table("samples").height > 0
