"""Data that cannot carry the statistics asked of them: a clear note in the report or an error, never a silent NaN."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from prompt_rows import organism_set
from rich.console import Console

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.runs.folder import RunFolder

LANGUAGES = ("qaa", "qab")


def few(path: Path, ids: int, card: Mapping[str, Any] | None = None, **columns: pl.Expr | None) -> Prompts:
    """The organism's prompts: `ids` a split and context, in two languages, with some columns changed; None empties."""
    frame = load_prompts(Prompts("organism", languages=LANGUAGES, limit=ids)).frame
    changed = {name: pl.lit(None, pl.String) if change is None else change for name, change in columns.items()}
    return organism_set(path / "data", frame.with_columns(**changed), languages=LANGUAGES, **(card or {}))


def run(prompts: Prompts, *, arms: bool = False, top: float = 0.02, **fields: Any) -> tuple[RunFolder, str, str]:
    """The run of a small recipe, its notes and its report."""
    ms = SafetyNeurons(prompts, effect="local", sites=("ffn", "o"), top=top)
    use = {"arms": {"ss": Suppress(ms)}, "measures": (ASR(prompts),), "primary": "ss"} if arms else {"sets": {"ms": ms}}
    small = {"controls": 0, "log_odds_label_sets": 0, "permutations": 99, "half_samples": 4}
    out = Path(prompts.source) / "out"
    found = run_recipe(Recipe(**(use | small | fields)), Options(out=out), Console(quiet=True))
    for table in sorted(found.path.glob("*.parquet")):
        for column in pl.read_parquet(table).select(pl.col(pl.Float64)).iter_columns():
            assert not column.is_nan().any(), (table.name, column.name)
    text = (found.path / "report.md").read_text(encoding="utf-8")
    assert "nan" not in text.lower().split()
    return found, "\n".join(found.manifest()["warnings"]), text


def test_too_few_prompts_for_a_permutation_test(tmp_path: Path) -> None:
    _, notes, text = run(few(tmp_path, 2, pair_id=None))
    assert "no valid null exists: too few prompts for a permutation test" in notes
    assert "no valid null exists: too few prompts" in text


def test_a_single_cluster(tmp_path: Path) -> None:
    _, notes, _ = run(few(tmp_path, 12, cluster=pl.col("split"), cluster_2=None, pair_id=None), arms=True)
    assert "no valid null exists" in notes
    assert "one cluster" in notes


def test_identical_prompts(tmp_path: Path) -> None:
    same = pl.col("text").first().over("split", "context", "language")
    _, notes, text = run(few(tmp_path, 12, text=same))
    assert "12 prompts" in notes
    assert "repeated prompts are no new evidence" in text.replace("\\", "")


def test_constant_scores(tmp_path: Path) -> None:
    """Harmful and harmless prompts are the same: no neuron differs, so none is chosen, and the error says so."""
    same = pl.col("text").first().over("split", "language")
    with pytest.raises((DataError, RecipeError), match="no neuron of qaa has a score above 0"):
        run(few(tmp_path, 12, text=pl.when(pl.col("split") == "identify").then(same).otherwise("text")))


def test_only_refusals_and_no_refusals_at_baseline(tmp_path: Path) -> None:
    """The anchor refuses everything; where the judge sees no refusal there is nothing left to break."""
    _, notes, _ = run(few(tmp_path / "all", 30), arms=True)
    assert "qaa" in notes
    assert "refuse" in notes
    never = {"refused": dict.fromkeys(LANGUAGES, "(?!)"), "complied": dict.fromkeys(LANGUAGES, ".*")}
    found, notes, _ = run(few(tmp_path / "none", 30, {"judge": {"kind": "patterns"} | never}), arms=True)
    summary = found.table("summary")
    assert summary.filter(arm="baseline", measure="asr")["value"].to_list() == [1.0] * 3
    assert "no refusal left to break" in notes


def test_topics_that_have_one_label_only(tmp_path: Path) -> None:
    _, notes, text = run(few(tmp_path, 12, topic=pl.col("context"), pair_id=None))
    assert "labels are exchanged within classes of length alone" in notes
    assert "What chance gives" in text


def test_a_shared_set_of_nothing_is_an_error_that_names_the_scores(tmp_path: Path) -> None:
    narrow = SafetyNeurons(few(tmp_path, 12), effect="local", sites=("q",), top=0.001, rule="paper")
    with pytest.raises(DataError):
        run_recipe(Recipe(sets={"ss": Shared(narrow)}), Options(out=tmp_path / "out"), Console(quiet=True))
