"""What a delta file must say of itself, checked as it is read: cards and tables then show what is there.

A delta file may come from anywhere. What it states about its tensors (neurons and parameters per site) must be what
they hold; what cannot be checked against them must at least have the form in which training writes it.
"""

import re
import sys
from collections.abc import Mapping
from typing import Any

from ssn_probe.spec import SITES
from ssn_probe.training.weights.adapter import Adapter, Factors
from ssn_probe.training.weights.trainable import Change

SHARES = ("percent", "percent_of_site")
MEASURES = ("asr", "invalid", "over_refusal", "utility")
DTYPES = ("float32", "bfloat16", "float16", "float64")
SHA256 = re.compile("[0-9a-f]{64}")
LONGEST = 300
"""Characters of a name that a card shows."""
WIDEST = 100
"""The interval of random sets to come may go beyond what a share can be: to about 12 either way, of two sets."""


def held(delta: Change) -> dict[str, tuple[int, int]]:
    """Neurons and parameters per site, in the order of the sites, then of `all`; adapters are no neuron's own."""
    if isinstance(delta, Adapter):
        counts = {site: (0, sum(part.parameters for part in delta.parts if part.site == site)) for site in SITES}
        return _with_all(counts)
    counts = {
        site: (
            sum(len(part.place.indices) for part in delta.parts if part.place.site == site and part.place.counts),
            sum(part.change.numel() for part in delta.parts if part.place.site == site),
        )
        for site in SITES
    }
    return _with_all(counts)


def _with_all(counts: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    sites = {site: both for site, both in counts.items() if both[1]}
    return sites | {"all": (sum(n for n, _ in sites.values()), sum(n for _, n in sites.values()))}


def check_stated(about: Any, delta: Change) -> None:
    """Raises ValueError, TypeError or KeyError unless the record is one that training writes, of these tensors."""
    lora = isinstance(delta, Adapter)
    modules = [part.module if isinstance(part, Factors) else part.place.module for part in delta.parts]
    if not modules or len(set(modules)) < len(modules):
        raise ValueError("it holds no change, or two of one matrix")
    if not lora and len({part.base.dtype for part in delta.parts}) > 1:
        raise ValueError("its base has weights of more than one precision")
    base, data = _mapping(about, "base"), _mapping(about, "data")
    if not SHA256.fullmatch(base["sha256"]) or (lora and base["dtype"] not in DTYPES):
        raise ValueError("it does not name its base and its precision")
    if about["method"] != ("lora" if lora else "expand") or not data["checked"]:
        raise ValueError("it does not say that its training data were checked")
    _check_training(about)
    _check_data(data)
    _check_parameters(about["parameters"], delta)
    if about.get("measured") is not None:
        _check_measured(_mapping(about, "measured"))


def _check_measured(measured: Mapping[str, Any]) -> None:
    """What a run measured: texts, known measures, shares, whole intervals, and no effect twice."""
    _check_texts(measured, ("run", "arm"))
    for row in measured["effects"]:
        _check_texts(row, ("language",))
        _check_count(row["n"], "responses")
        _check_rates(row, ("after", "low", "high"), ("before", "before_low", "before_high"))
        _check_interval(row)
    told = [(row["language"], row["measure"]) for row in measured["effects"]]
    if len(set(told)) < len(told):
        raise ValueError("it states an effect twice")
    for row in measured["controls"]:
        _check_texts(row, ("arm",))
        _check_rates(row, ("value",), ())
        if (row["low"], row["high"]) != (None, None):
            _check_interval(row)


def _check_interval(row: Mapping[str, Any]) -> None:
    low, high = row["low"], row["high"]
    if not (_number(low) and _number(high) and -WIDEST <= low <= high <= WIDEST):
        raise ValueError(f"it states an interval from {low!r:.40} to {high!r:.40}")


def _check_texts(row: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if not isinstance(row[name], str) or len(row[name]) > LONGEST:
            raise ValueError(f"it states {name} {row[name]!r:.40}")


def _check_rates(row: Mapping[str, Any], rates: tuple[str, ...], optional: tuple[str, ...]) -> None:
    if row["measure"] not in MEASURES:
        raise ValueError(f"it states the measure {row['measure']!r:.40}")
    for name in (*rates, *optional):
        missing = name in optional and row[name] is None
        if not missing and not (_number(row[name]) and 0 <= row[name] <= 1):
            raise ValueError(f"it states {name} {row[name]!r:.40}")


def _mapping(told: Any, name: str) -> Mapping[str, Any]:
    value = told[name]
    if not isinstance(value, Mapping):
        raise ValueError(f"its {name} are not stated as names and values")
    return value


def _check_training(about: Mapping[str, Any]) -> None:
    steps = _mapping(about, "steps")
    _mapping(about, "training")
    for name in ("done", "planned", "chosen"):
        _check_count(steps[name], f"{name} steps")
    loss = about.get("held_out_loss")
    if loss is not None and not all(_number(_mapping(about, "held_out_loss")[name]) for name in ("base", "chosen")):
        raise ValueError(f"it states the held-out loss {loss!r:.80}")
    if about.get("made_with") is not None:
        _mapping(about, "made_with")


def _check_data(data: Mapping[str, Any]) -> None:
    for name in ("name", "split", "judge"):
        _ = data[name]
    if not SHA256.fullmatch(data["prompts_sha256"]):
        raise ValueError("it does not name its prompts")
    rows = _mapping(data, "rows")
    for language in rows:
        for context, count in _mapping(rows, language).items():
            _check_count(count, f"{language} {context} rows")


def _check_parameters(rows: Any, delta: Change) -> None:
    stated = {row["site"]: (row["neurons"], row["parameters"]) for row in rows}
    if list(stated.items()) != list(held(delta).items()) or len(rows) != len(stated):
        raise ValueError("it states other neurons or parameters than it holds")
    for row in rows:
        for name in SHARES:
            if not _number(row[name]) or not 0 <= row[name] <= 100:
                raise ValueError(f"it states a share of {row[name]!r:.40} %")


def _check_count(value: Any, what: str) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"it states {value!r:.40} {what}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
