"""What a host's sandbox says of weights is asked once, and kept for later runs."""

from pathlib import Path

import polars as pl
from tracing.hosted import hosted

from ssn_probe import Prompts, Recipe, SafetyNeurons
from ssn_probe.model.subject import load_subject
from ssn_probe.runs.cache import Cache
from ssn_probe.study.importance import importance
from ssn_probe.study.plan import make_plan
from ssn_probe.study.workbench import Workbench


def found(root: Path, limit: int) -> tuple[pl.DataFrame, list[str]]:
    """The importance by way of a sandbox, and the bodies that it ran."""
    node = SafetyNeurons(Prompts("organism", languages=("qaa",), limit=limit), effect="local", sites=("o", "ffn"))
    there = hosted(load_subject("organism"), sandbox=True)
    data = make_plan(Recipe(sets={"ms": node})).data
    table = importance(Workbench(subject=there, data=data, anchor="qaa", cache=Cache(root=root)), node)
    return table, [name for name, _, _ in there.calls.jobs]  # type: ignore[union-attr]


def test_weights_in_a_sandbox_are_measured_once_for_all_runs(tmp_path: Path) -> None:
    asked = [found(tmp_path, limit)[1] for limit in (2, 4, 4)]
    assert [names.count("trace_weights") for names in asked] == [1, 0, 0]
    assert not asked[2]  # all of it is kept, so the host is not asked at all


def test_kept_weights_give_the_same_effects(tmp_path: Path) -> None:
    found(tmp_path / "before", 2)
    kept, asked = found(tmp_path / "before", 4), found(tmp_path / "anew", 4)
    assert kept[0].equals(asked[0])
    assert "trace_weights" not in kept[1]
