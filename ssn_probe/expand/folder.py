"""A merged model as an ordinary Hugging Face folder, which loads without ssn-probe.

Beside weights, configuration and tokenizer stand a model card, which says what was trained on what and what came of
it, and `expand/delta.safetensors`, with which `unmerge` gives the base back.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ssn_probe.errors import ModelError, ResultError
from ssn_probe.expand.delta import Rounding, rounding
from ssn_probe.expand.file import DeltaFile, write_delta
from ssn_probe.expand.merge import applied
from ssn_probe.results import disk_errors
from ssn_probe.text import markdown, plain

DELTA = "expand/delta.safetensors"
GENERATION = "generation_config.json"
CARRIED = (GENERATION, "openings.json")
"""Files of the base's folder that belong to the merged model as they are."""
NO_CONTROLS = "None were measured. Training as many random neurons can lower ASR as much: read nothing into it."
DTYPES = ("float32", "bfloat16", "float16", "float64")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was measured, for the card: markdown that is taken as it is. An empty text is said to be missing.

    `effects`: ASR, invalid, over-refusal and utility per language before and after. `controls`: the same budget spent
    otherwise, such as on as many random neurons.
    """

    effects: str = ""
    controls: str = ""


def save_merged(
    folder: Path,
    module: Any,
    tokenizer: Any,
    file: DeltaFile,
    *,
    measured: Measured | None = None,
    source: Path | None = None,
    dtype: str | None = None,
) -> None:
    """Writes the merged model; `module` is the base, and is as it was afterwards, bit for bit.

    Args:
        folder: the new folder; it must not exist, or be empty.
        module: the base, loaded.
        tokenizer: its tokenizer.
        file: the delta.
        measured: what to say on the card.
        source: the base's folder, for its generation settings; without it, those of the loaded module are written.
        dtype: of the written weights; None for the base's. In bfloat16 small changes can round away, and the card
            says how much; `"float32"` keeps them.

    Raises:
        ModelError: another base, or an unknown dtype.
        ResultError: a folder that has something in it, or a disk that cannot be written.
    """
    check_free(folder)
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"Unknown dtype {dtype!r}.", f"Known: {', '.join(DTYPES)}.")
    wanted = getattr(torch, dtype) if dtype else module.dtype
    with new_folder(folder) as temporary:
        with _in_dtype(module, wanted), applied(module, file):
            save_plain(temporary, module, tokenizer, source)
        write_delta(temporary / DELTA, file)
        card = model_card(file, measured or Measured(), rounding(file.delta, wanted))
        (temporary / "README.md").write_text(card, encoding="utf-8")


def check_free(folder: Path) -> None:
    """Raises ResultError unless the folder can be made anew: nothing is ever written over."""
    with disk_errors(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ResultError(f"{folder} is there already.", "Choose another folder, or remove it.")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, which takes its name at the end: it is whole, or not there.

    Raises ResultError for a folder that has something in it, and for what a disk can say.
    """
    check_free(folder)
    whole = Path(os.path.abspath(folder))
    temporary = whole.with_name(f".{whole.name}.{os.getpid()}.tmp")
    with disk_errors(folder):
        try:
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.rglob("*.safetensors"):
                file.chmod(0o644)  # safetensors writes files that only their owner can read
            os.replace(temporary, whole)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def save_plain(folder: Path, module: Any, tokenizer: Any, source: Path | None) -> None:
    """Weights, configuration and tokenizer as transformers reads them, and what is carried over from `source`."""
    kept = module.generation_config
    try:
        if source is not None and (source / GENERATION).is_file():
            # Carried over as it is: transformers would refuse to write settings that it reads, such as a temperature
            # without sampling.
            module.generation_config = type(kept)()
        module.save_pretrained(folder)
    finally:
        module.generation_config = kept
    tokenizer.save_pretrained(folder)
    _carry(source, folder)


@contextmanager
def _in_dtype(module: Any, dtype: torch.dtype) -> Iterator[None]:
    """Inside, the weights are in a dtype that holds them exactly."""
    before = module.dtype
    if torch.promote_types(before, dtype) != dtype:
        raise ModelError(f"{dtype} does not hold {before} weights exactly.", "Leave dtype out, or give a wider one.")
    if before == dtype:
        yield
        return
    cast(module, dtype)
    try:
        yield
    finally:
        cast(module, before)


def cast(module: Any, dtype: torch.dtype) -> None:
    """The weights alone: buffers such as rotary frequencies keep the precision that they were computed in."""
    for weight in module.parameters():
        weight.data = weight.data.to(dtype)


def _carry(source: Path | None, folder: Path) -> None:
    for name in CARRIED:
        if source is not None and (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def model_card(file: DeltaFile, measured: Measured, cost: Rounding) -> str:
    """The card, in markdown: base, neurons, data and their check, settings, parameters, controls, effects."""
    about = file.about
    base, data, steps = about["base"], about["data"], about["steps"]
    name = markdown(str(base.get("name")))
    revision = f", revision {markdown(str(base['revision']))}" if base.get("revision") else ""
    total = about["parameters"][-1]
    training = {key: value for key, value in about["training"].items() if key not in ("kind", "version")}
    return f"""---
base_model: {_yaml(base.get("name"))}
tags: [safety, multilingual, ssn-probe]
---

# {name}, expanded

{name}{revision} (weights SHA-256 `{base["sha256"]}`), of which {total["neurons"]:,} neurons were trained to refuse
harmful requests, and nothing else was changed. Made with [ssn-probe](https://arxiv.org/abs/2602.01283); loads as any
model of its family. `{DELTA}` holds the change and the weights before it.

## Neurons

{markdown(str(about.get("neurons")))}: {total["parameters"]:,} parameters, {total["percent"]:.3f} % of the model's.

{_table(("site", "neurons", "parameters", "% of the model", "% of the site"), _parameter_rows(about["parameters"]))}
## Data

{markdown(str(data["name"]))}, split {markdown(str(data["split"]))} (prompts SHA-256 `{data["prompts_sha256"]}`). Every
response was checked by the judge {markdown(str(data["judge"]))} before training: {markdown(str(data["checked"]))}.

{_table(("language", "context", "rows"), _data_rows(data["rows"]))}
## Training

{steps["done"]} of {steps["planned"]} steps, the delta of step {steps["chosen"]}. AdamW without weight decay on float32
deltas, base frozen, loss on the response. Settings: {_settings(training)}.

Writing the change into these weights left {100 * cost.unmoved:.1f} % of the changed weights where they were, and added
an error of {100 * cost.error:.1f} % of the change's norm.

## Controls

{measured.controls or NO_CONTROLS}

## Effects

{measured.effects or "None were measured."}
"""


def _yaml(name: Any) -> str:
    return '"' + plain(str(name)).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows)) + "\n"


def _parameter_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    return [
        [
            str(row["site"]),
            f"{row['neurons']:,}",
            f"{row['parameters']:,}",
            f"{row['percent']:.4f}",
            f"{row['percent_of_site']:.3f}",
        ]
        for row in rows
    ]


def _data_rows(rows: Mapping[str, Mapping[str, int]]) -> list[list[str]]:
    return [
        [markdown(language), context, f"{count:,}"]
        for language, contexts in rows.items()
        for context, count in contexts.items()
    ]


def _settings(training: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {'none' if value is None else value}" for name, value in training.items())
