"""The record of a delta file: what training writes is accepted, everything else is refused with its place."""

import copy
import json
from collections.abc import Mapping
from typing import Any

import pytest
from measured_record import MEASURED
from training_case import file_of, llama

from ssn_probe.training.delta_file.file import DeltaFile
from ssn_probe.training.delta_file.record import check_record

EFFECT, CONTROL = "measured.effects.0", "measured.controls.0"
GONE = "(left out)"


@pytest.fixture(scope="module")
def files() -> dict[str, DeltaFile]:
    return {"neurons": file_of(llama(), held_out=0.2), "lora": file_of(llama(), adapter="lora")}


def changed(about: Mapping[str, Any], place: str, value: Any) -> dict[str, Any]:
    """The record with a run's measurements, and another value at a place (GONE: none)."""
    record = copy.deepcopy(dict(about) | {"measured": MEASURED, "asked": {"system_prompt": "w3", "chat": "plain"}})
    *path, last = [int(name) if name.isdigit() else name for name in place.split(".")]
    inner: Any = record
    for name in path:
        inner = inner[name]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return record


def test_what_training_and_studies_write_is_accepted(files: dict[str, DeltaFile]) -> None:
    for file in files.values():
        check_record(file.about, file.delta)
        check_record({**file.about, "measured": MEASURED}, file.delta)
        old = {name: value for name, value in file.about.items() if name not in ("made_with", "held_out_loss")}
        check_record(json.loads(json.dumps(old | {"something": "new"})), file.delta)
    absent = dict.fromkeys(("before", "before_low", "before_high"))
    file = files["neurons"]
    check_record(changed(file.about, EFFECT, MEASURED["effects"][0] | absent), file.delta)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("base", []),
        ("base.sha256", 3),
        ("base.sha256", "abc"),
        ("asked", "politely"),
        ("asked.system_prompt", 3),
        ("asked.chat", "a" * 301),
        ("data.name", GONE),
        ("data.prompts_sha256", "<b>"),
        ("data.rows.qaa.harmful", -1),
        ("training", "fast"),
        ("steps", GONE),
        ("steps.done", GONE),
        ("steps.done", True),
        ("held_out_loss.base", "low"),
        ("held_out_loss.base", 10**400),
        ("made_with", ["torch"]),
        ("parameters", None),
        ("parameters.0.percent", 101.0),
        ("parameters.0.percent", "half"),
        ("parameters.0.percent", float("nan")),
        ("measured.run", None),
        ("measured.arm", "a" * 301),
        ("measured.effects", {"average": 1}),
        (f"{EFFECT}.n", True),
        (f"{EFFECT}.n", -1),
        (f"{EFFECT}.after", 1.1),
        (f"{EFFECT}.after", 10**400),
        (f"{EFFECT}.before", float("nan")),
        (f"{EFFECT}.measure", ["asr"]),
        (f"{EFFECT}.measure", "fame"),
        (f"{CONTROL}.value", float("nan")),
        (f"{CONTROL}.high", 10**308),
        (f"{CONTROL}.high", float("inf")),
        (f"{CONTROL}.low", "little"),
        (f"{CONTROL}.arm", "a" * 301),
    ],
    ids=str,
)
def test_values_that_training_does_not_write(files: dict[str, DeltaFile], place: str, value: Any) -> None:
    file = files["neurons"]
    with pytest.raises(ValueError, match=f"its record (lacks|is wrong at) {place}"):
        check_record(changed(file.about, place, value), file.delta)


@pytest.mark.parametrize(
    ("kind", "place", "value", "words"),
    [
        ("neurons", "method", "by hand", "training data were checked"),
        ("neurons", "data.checked", "", "training data were checked"),
        ("neurons", "parameters", [], "other neurons or parameters"),
        ("neurons", "parameters.0.neurons", 99, "other neurons or parameters"),
        ("neurons", f"{EFFECT}.low", 0.99, "no interval from 0.99"),
        ("neurons", f"{CONTROL}.low", None, "no interval from None"),
        ("neurons", f"{CONTROL}.low", 0.9, "no interval from 0.9"),
        ("neurons", "measured.effects.1", MEASURED["effects"][0], "an effect is stated twice"),
        ("lora", "base.dtype", "load", "the precision of its base"),
    ],
)
def test_records_that_contradict_themselves_or_the_tensors(
    files: dict[str, DeltaFile], kind: str, place: str, value: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        check_record(changed(files[kind].about, place, value), files[kind].delta)
