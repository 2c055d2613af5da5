"""The closed form of Sparse Weight Editing, and the change that it makes of a model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_tokenizer
from training_case import copies, llama, merge, same, tiny_data

from ssn_probe.data.training_rows import SafetyData
from ssn_probe.errors import DataError, ModelError, RecipeError
from ssn_probe.spec.rendering import as_text
from ssn_probe.training.delta_file.file import delta_file, read_delta, write_delta
from ssn_probe.training.delta_file.record import check_record
from ssn_probe.training.export.merging import unmerge, written
from ssn_probe.training.export.model_card import model_card
from ssn_probe.training.sparse_edit import edited_rows, sparse_edit
from ssn_probe.training.weights.delta import Rounding

WEAK = {"rank": 3, "keep": 1.0, "ridge": 1e-2}
FFN = [(0, "ffn", 2), *((1, "ffn", index) for index in (0, 3, 7, 9))]


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def objective(change: torch.Tensor, x: Any, y: Any, z: Any, keep: float, ridge: float) -> float:
    size = torch.cat([x, z]).square().mean()
    missed = (x @ change.T - y).square().sum() / len(x) + keep * (z @ change.T).square().sum() / len(z)
    return float(missed + ridge * size * change.square().sum())


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_no_change_of_that_rank_is_better(rank: int) -> None:
    """Gradient descent on two factors finds none, from the solution or from elsewhere."""
    x, y, z = drawn(30, 6), drawn(30, 4, seed=1), drawn(20, 6, seed=2)
    found = edited_rows(x, y, z, rank=rank, keep=0.7, ridge=0.05)
    assert torch.linalg.matrix_rank(found) == rank
    least = objective(found, x, y, z, 0.7, 0.05)
    for seed in range(3):
        a, b = drawn(4, rank, seed=3 + seed).requires_grad_(), drawn(rank, 6, seed=9 + seed).requires_grad_()
        search = torch.optim.LBFGS([a, b], max_iter=300, line_search_fn="strong_wolfe")

        def closure(a: Any = a, b: Any = b, search: Any = search) -> Any:
            search.zero_grad()
            size = torch.cat([x, z]).square().mean()
            loss = (x @ (a @ b).T - y).square().sum() / 30 + 0.7 * (z @ (a @ b).T).square().sum() / 20
            loss = loss + 0.05 * size * (a @ b).square().sum()
            loss.backward()
            return loss

        search.step(closure)
        assert objective((a @ b).detach(), x, y, z, 0.7, 0.05) > least - 1e-7


def test_harmless_inputs_are_in_its_null_space_where_nothing_else_counts() -> None:
    x, y, z = drawn(3, 12), drawn(3, 4, seed=1), drawn(5, 12, seed=2)
    strict = edited_rows(x, y, z, rank=3, keep=1e6, ridge=1e-9)
    assert (z @ strict.T).abs().max() < 1e-4 < (z @ edited_rows(x, y, z, rank=3, keep=0.0, ridge=1e-9).T).abs().max()
    assert (x @ strict.T - y).abs().max() < 1e-3, "three inputs and five leave room for both"


def test_what_the_data_do_not_have_is_refused() -> None:
    x, y, z = drawn(2, 6), drawn(2, 4, seed=1), drawn(5, 6, seed=2)
    with pytest.raises(RecipeError, match="the edit has rank 2, and rank 3"):
        edited_rows(x, y, z, rank=3, keep=1.0, ridge=0.1)
    with pytest.raises(RecipeError, match="the edit has rank 0"):
        edited_rows(x, 0 * y, z, rank=1, keep=1.0, ridge=0.1)
    with pytest.raises(ModelError, match="not finite"):
        edited_rows(x * torch.nan, y, z, rank=1, keep=1.0, ridge=0.1)


def data(contexts: tuple[str, ...] = ("harmful", "harmless")) -> SafetyData:
    return tiny_data(contexts=contexts)


def edit(module: Any, rows: SafetyData | None = None, **changes: Any) -> Any:
    options = {"neurons": FFN, "anchor": "qaa"} | WEAK | changes
    return sparse_edit(module, tiny_tokenizer(), options.pop("neurons"), rows or data(), **options)


def test_rows_of_one_layer_change_and_are_taken_out(tmp_path: Path) -> None:
    module = llama()
    found, before = edit(module), copies(module)
    assert [part.module.rsplit(".", 1)[1] for part in found.delta.parts] == ["gate_proj", "up_proj"]
    assert {part.layer for part in found.delta.parts} == {1}, "the layer with most of the neurons"
    assert all(part.change.abs().max() > 0 for part in found.delta.parts)
    with written(module, found.delta):
        assert not same(before, module)
    assert same(before, module)
    file = delta_file(found, model="tiny/llama", revision=None, neurons="some")
    write_delta(tmp_path / "x.safetensors", file)
    again = read_delta(tmp_path / "x.safetensors")
    assert again.about["method"] == "sparse edit"
    merge(module, again)
    unmerge(module, again)
    assert same(before, module)


def test_its_card_and_its_file_say_that_nothing_was_trained() -> None:
    file = delta_file(edit(llama()), model="tiny/llama", revision=None, neurons="some")
    card, shown = model_card(file, Rounding(unmoved=0.0, error=0.0)), as_text(file)
    for text in (card, shown):
        assert "rank 3, keep 1.0, ridge 0.01, layer 1, anchor qaa" in text
        for word in ("steps 0", "0 of 0", "seed", "lr", "AdamW", "were trained"):
            assert word not in text
    assert "4 neurons were\nedited, without training, to refuse" in card
    with pytest.raises(ValueError, match="how its edit was computed"):
        check_record({**file.about, "edit": None}, file.delta)


@pytest.mark.parametrize(
    ("rows", "changes", "error", "message"),
    [
        (data(("harmful",)), {}, DataError, "no harmless prompts"),
        (data(), {"anchor": "qac"}, DataError, "no harmful prompt both in the anchor qac"),
        (data(), {"neurons": [(0, "q", 1)]}, RecipeError, "neurons at q"),
        (data(), {"neurons": []}, RecipeError, "is empty"),
        (data(), {"rank": 5}, RecipeError, "rank 4, and rank 5"),
    ],
)
def test_bad_input_is_named(rows: SafetyData, changes: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        edit(llama(), rows, **changes)


def test_rows_of_one_language_have_nothing_to_be_mapped_to() -> None:
    alone = replace(data(), examples=tuple(row for row in data().examples if row.language == "qaa"))
    with pytest.raises(DataError, match="and in another language"):
        edit(llama(), alone)
