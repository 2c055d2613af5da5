"""Small prompt sets as rows, written to disk and loaded."""

import json
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe import Prompts
from ssn_probe.data.prompt_set import PromptSet, load_prompts

Row = dict[str, Any]
LANGUAGES = ("en", "de")


def make_rows(languages: Iterable[str] = LANGUAGES, count: int = 3, **fixed: Any) -> list[Row]:
    """`count` parallel prompts per context and split, every field given."""
    return [
        {
            "prompt_id": f"{split}-{context}-{number}",
            "language": language,
            "context": context,
            "text": f"{language} {split} {context} {number}",
            "split": split,
            "cluster": f"{split}-{number}",
            "pair_id": None,
            "topic": "topic",
            "reference": f"answer {number}" if context == "harmless" else None,
        }
        | fixed
        for split in ("identify", "evaluate")
        for context in ("harmful", "harmless", "lookalike")
        for number in range(count)
        for language in languages
    ]


def write(folder: Path, rows: list[Row], suffix: str = ".jsonl", name: str = "prompts", **card: Any) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{name}{suffix}"
    if suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    else:
        frame = pl.DataFrame(rows, infer_schema_length=None)
        frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path)
    if card:
        (folder / "dataset.json").write_text(json.dumps(card, ensure_ascii=False), encoding="utf-8")
    return folder


def load(source: Path | str, **options: Any) -> PromptSet:
    return load_prompts(Prompts(str(source), **options))


def organism_set(folder: Path, frame: pl.DataFrame, **card: Any) -> Prompts:
    """Rows such as the organism's as a prompt set of their own, with its card but for some fields; None removes one."""
    folder.mkdir(parents=True, exist_ok=True)
    frame.drop("source").write_parquet(folder / "prompts.parquet")
    declared = json.loads((files("ssn_probe.organism") / "data" / "dataset.json").read_text("utf-8"))
    declared |= {"cluster": None} | card  # the frame's columns are called cluster and cluster_2
    kept = {name: value for name, value in declared.items() if value is not None}
    (folder / "dataset.json").write_text(json.dumps(kept), encoding="utf-8")
    return Prompts(str(folder))
