"""What the tests of `ssn-probe delta train` share: a folder with all that it takes, and the command itself."""

import json
from pathlib import Path
from typing import Any

import polars as pl
from click.testing import CliRunner, Result
from training_case import JUDGE, LANGUAGES, NEURONS, example

from ssn_probe.cli.commands import main

SETTINGS = {"lr": 1e-3, "batch": 5, "steps": 6, "held_out": 0.2, "evaluate_every": 3}
OPTIONS = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]


def write_data(folder: Path, **changes: Any) -> Path:
    """A prompt set of the tiny models, with responses to learn; `changes` go into every row to learn."""
    rows = []
    for split, number in (("identify", 2), ("train", 10)):
        for context in ("harmful", "harmless"):
            for language in LANGUAGES:
                for one in (example(count, language, context) for count in range(number)):
                    name = f"{split}-{one.cluster}"
                    row = {"prompt_id": name, "cluster": name, "split": split, "reference": one.target}
                    row |= {"language": language, "context": context, "text": one.text}
                    rows.append(row | (changes if split == "train" else {}))
    folder.mkdir(parents=True)
    pl.DataFrame(rows).unique(["prompt_id", "language"], maintain_order=True).write_ndjson(folder / "prompts.jsonl")
    card = {"name": "tiny", "anchor": "qaa", "languages": LANGUAGES, "judge": JUDGE, "max_new_tokens": 4}
    (folder / "dataset.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def write_neurons(path: Path, rows: Any = NEURONS, language: str = "*") -> Path:
    lines = [f"{language},{layer},{site},{index}" for layer, site, index in rows]
    path.write_text("\n".join(["language,layer,site,index", *lines, ""]), encoding="utf-8")
    return path


def prepare(folder: Path, model: Path) -> None:
    """Neurons, data and a model where `run` looks for them."""
    write_neurons(folder / "n.csv")
    write_data(folder / "data")
    (folder / "model").symlink_to(model)


def run(*more: object, neurons: str = "n.csv", model: str = "./model", data: str = "data", out: str = "d") -> Result:
    words = [neurons, "-m", model, "--data", data, "-o", out, "--dtype", "float32", *OPTIONS, *map(str, more)]
    return CliRunner().invoke(main, ["delta", "train", *words])


def done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def refused(result: Result, *words: str, code: int = 1) -> None:
    """One message with a remedy, and nothing written."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) == 2, result.stderr
    for word in words:
        assert word in result.stderr, result.stderr
    assert not Path("d").is_file()
