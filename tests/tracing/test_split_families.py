"""A model of every row of the table, split over two processes: the numbers of one process, or a refusal."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ranks import run_ranks
from tiny import tiny_config, write_tiny

import ssn_probe
from ssn_probe.errors import ModelError
from ssn_probe.model import ranks
from ssn_probe.model.families import FAMILIES as TABLE

from . import split_worker
from .test_effects import assert_close

PACKAGE = Path(ssn_probe.__file__).parents[1]
REFUSED = ("gemma3", "cohere", "mistral3")


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    folders = [write_tiny(tmp_path / family, family) for family in TABLE]
    out = tmp_path / "found.pt"
    worker = [split_worker.__file__, str(out), *map(str, folders)]
    (code, said), _ = run_ranks(worker, tmp_path, PYTHONPATH=str(PACKAGE))
    assert code == 0, said
    together: dict[str, Any] = torch.load(out)
    assert tuple(family for family, found in together.items() if isinstance(found, str)) == REFUSED
    for folder in folders:
        if folder.name in REFUSED:
            assert "cannot be split over 2 processes" in together[folder.name]
            continue
        alone, found = split_worker.found(folder), together[folder.name]
        assert isinstance(alone, dict)
        assert found.pop("responses") == alone.pop("responses"), folder.name
        for name, wanted in alone.items():
            assert_close(found[name], wanted, 1e-3)


def test_norms_with_weights_for_every_head_are_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "degree", lambda: 2)
    with pytest.raises(ModelError, match="norms on queries and keys have weights of their own for every head"):
        ranks.check_degree("a model", tiny_config("cohere"))
    ranks.check_degree("a model", tiny_config("cohere2"))
