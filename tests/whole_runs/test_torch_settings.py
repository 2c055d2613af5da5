"""What a program has set of torch: coarser products have keys of their own; what holds for a thread changes nothing."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from polars.testing import assert_frame_equal
from rich.console import Console

from ssn_probe import Prompts, Recipe, SafetyNeurons
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.score_export import export_scores
from ssn_probe.api.verify import verify
from ssn_probe.model import coarse_products
from ssn_probe.runs.folder import RunFolder

PROMPTS = Prompts("organism", languages=("qaa", "qac"), limit=24)


def found(out: Path, effect: str = "local", rule: str = "harmful") -> RunFolder:
    neurons = SafetyNeurons(PROMPTS, effect=effect, rule=rule, top=0.01)
    recipe = Recipe(sets={"ms": neurons}, permutations=0, half_samples=2, name="found")
    return run_recipe(recipe, Options(out=out, processes=1), Console(quiet=True))


@pytest.mark.slow
def test_a_run_with_coarser_products_shares_nothing_with_others_and_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coarse_products, "_loses_digits", lambda _device, _setting: True)
    before = torch.get_float32_matmul_precision()
    plain = found(tmp_path)
    try:
        torch.set_float32_matmul_precision("medium")
        coarse, again = found(tmp_path), found(tmp_path)
        assert all(finding.holds for finding in verify(plain))
    finally:
        torch.set_float32_matmul_precision(before)
    assert coarse.manifest()["cache"].get("read", 0) == again.manifest()["cache"].get("computed", 0) == 0
    assert found(tmp_path).manifest()["cache"].get("computed", 0) == 0
    assert coarse.manifest()["model"]["float32_products"] == "bf16"
    assert "float32_products" not in plain.manifest()["model"]
    assert any("round products of float32 to bf16" in warning for warning in coarse.manifest()["warnings"])
    assert all(finding.holds for finding in verify(coarse)), "though torch is no longer set so"
    assert export_scores(coarse, tmp_path / "scores.parquet").is_file()


@contextmanager
def float16_by_default() -> Iterator[None]:
    torch.set_default_dtype(torch.float16)
    try:
        yield
        assert torch.get_default_dtype() == torch.float16
    finally:
        torch.set_default_dtype(torch.float32)


AROUND = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "float16": float16_by_default,
    "device": lambda: torch.device("meta"),
}


@pytest.mark.slow
@pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)
@pytest.mark.parametrize("effect", ["local", "refusal"])
def test_what_is_around_a_call_changes_no_number(
    tmp_path: Path, around: Callable[[], AbstractContextManager[Any]], effect: str
) -> None:
    alone = found(tmp_path / "alone", effect)
    with around():
        inside = found(tmp_path / "inside", effect)
    for table in ("neurons", "stability"):
        assert_frame_equal(inside.table(table), alone.table(table), check_exact=True)
