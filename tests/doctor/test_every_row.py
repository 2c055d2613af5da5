"""A row of the table is refused as soon as one of its properties is wrong; and a layer of every kind is looked at."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import EVERY_FAMILY, write_tiny

from ssn_probe.doctor.examine import examine_family
from ssn_probe.doctor.probing import chosen_layers
from ssn_probe.model.families import BUILT_IN, Family
from ssn_probe.model.subject import Subject, load_subject

WRONG: Mapping[str, Callable[[Family], Any]] = {
    "head_norms": lambda row: None,
    "norm_eps": lambda row: "weight_decay",
    "norm_over": lambda row: "head" if row.norm_over == "all heads" else "all heads",
    "norm_centred": lambda row: not row.norm_centred,
    "rotation": lambda row: "pairs" if row.rotation != "pairs" else "halves",
    "rotates_if": lambda row: (),
    "query_growth": lambda row: False,
    "score_cap": lambda row: None,
    "ffn_inputs": lambda row: row.ffn_inputs[:1] if row.ffn_inputs[1:] else (row.modules["o"][0],),
    "fused": lambda row: {path: parts[::-1] for path, parts in row.fused.items()},
}
"""Property → a wrong one in place of a row's."""
OF_NORMS = ("norm_eps", "norm_over", "norm_centred")
OF_ALL = ("rotation", "ffn_inputs")


def at_work(row: Family) -> list[str]:
    """The properties of a row that decide a number: its own, those of its norms, and those that every model has."""
    own = [name for name in WRONG if getattr(row, name) != getattr(Family(name=row.name), name)]
    own = own if any(site in parts for parts in row.fused.values() for site in "qkv") else [*{*own} - {"fused"}]
    norms = OF_NORMS if row.norm_over == "head" else OF_NORMS[:2]
    return sorted({*own, *OF_ALL, *(norms if row.head_norms else ())})


@pytest.mark.parametrize(
    ("subject", "name"), [(row.name, name) for row in BUILT_IN for name in at_work(row)], indirect=["subject"]
)
def test_a_wrong_property_is_found(subject: Subject, name: str) -> None:
    """Gate and up, of which both rows are trained, may change places."""
    wrong = replace(subject.family, **{name: WRONG[name](subject.family)})
    refused = (check for check in examine_family(replace(subject, family=wrong)) if check.status == "failed")
    assert next(refused).name.startswith(("site", "local effects", "rows of ffn", "tracing"))


def test_head_norms_are_where_the_config_has_them(tmp_path: Path) -> None:
    """Command R has the module type, and only the larger model its norms."""
    subject = load_subject(str(write_tiny(tmp_path, "cohere", use_qk_norm=False)))
    assert all(check.status == "ok" for check in examine_family(subject))
    wrong = replace(subject, family=replace(subject.family, norm_switch=None))
    assert any("no module 'self_attn.q_norm'" in check.found for check in examine_family(wrong))


def test_a_gate_in_one_module_with_what_it_gates_is_not_forgotten(tiny_subject: Callable[[str], Subject]) -> None:
    subject = tiny_subject("glm")
    checks = examine_family(replace(subject, family=replace(subject.family, fused={})))
    assert [check.name for check in checks if check.status == "failed"] == ["rows of ffn"]


def test_a_layer_of_every_kind_is_looked_at(tmp_path: Path) -> None:
    """In Gemma-3 every sixth layer has no window, and neither the first nor the last nor the middle one is such."""
    kinds = ["sliding_attention"] * 9
    kinds[5] = "full_attention"
    subject = load_subject(str(write_tiny(tmp_path, "gemma3_text", num_hidden_layers=9, layer_types=kinds)))
    assert chosen_layers(subject) == [0, 4, 5, 8]
    found = {check.name: check.found for check in examine_family(subject)}
    assert "a window of 4 tokens in 8 of 9 layers" in found["row"]
    assert "queries and keys normalised over each head" in found["row"]
    assert "in layers 0, 4, 5, 8" in found["proved"]


@pytest.mark.parametrize(
    "dtype", ["bfloat16", *(pytest.param(one, marks=pytest.mark.slow) for one in ("float32", "float16"))]
)
@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_a_row_is_proved_in_every_precision(tiny_folder: Callable[[str], Path], family: str, dtype: str) -> None:
    """In half precision the response to a prompt may depend on its batch, which is a warning."""
    checks = list(examine_family(load_subject(str(tiny_folder(family)), dtype=dtype)))
    assert [check for check in checks if check.status == "failed"] == []
    assert checks[-1].name == "proved"
    assert f"in {dtype}, in layers 0, 1" in checks[-1].found
