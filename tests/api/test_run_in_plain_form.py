"""A model without a chat template, asked in the plain form with a system prompt: the run, and what verifies it."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console
from tiny import tiny_tokenizer

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Suppress
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.verify import verify
from ssn_probe.errors import ModelError
from ssn_probe.study.forecast import forecast


@pytest.fixture
def recipe(tiny_folder: Callable[[str], Path], tmp_path: Path) -> Recipe:
    folder, tokenizer = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "base")), tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    rows = [
        {"prompt_id": f"{context}{i}", "language": "en", "context": context, "text": f"w{first + i} w{i}"}
        for context, first in (("harmful", 0), ("harmless", 20))
        for i in range(8)
    ]
    pl.DataFrame(rows).write_ndjson(tmp_path / "mine.jsonl")
    prompts = Prompts(str(tmp_path / "mine.jsonl"), max_new_tokens=3)
    ms = SafetyNeurons(prompts, effect="local", rule="harmful", top=0.1)
    few = {"comparisons": ("random",), "controls": 1, "permutations": 0, "half_samples": 0}
    return Recipe(
        model=str(folder), arms={"ms": Suppress(ms)}, measures=(ASR(prompts),), judge="none", **few, chat="plain"
    )


def test_a_run_in_the_plain_form(recipe: Recipe, tmp_path: Path) -> None:
    from dataclasses import replace

    told = replace(recipe, system="w50")
    options, quiet = Options(out=tmp_path / "results"), Console(quiet=True)
    for one in (recipe, told):
        assert any("plain form" in line for line in forecast(one, out=tmp_path / "results").lines)
    plain, other = (run_recipe(one, options, quiet) for one in (recipe, told))
    assert plain.manifest()["model"]["chat"] == "plain"
    assert other.manifest()["model"]["system_prompt"] == "w50"
    assert plain.manifest()["key"] != other.manifest()["key"]
    assert any("plain form" in note for note in other.manifest()["warnings"])
    assert "w50" in (other.path / "report.md").read_text(encoding="utf-8")
    assert not [finding for finding in verify(other) if finding.holds is False]
    with pytest.raises(ModelError, match="no chat template"):
        run_recipe(replace(recipe, chat=None), options, quiet)
