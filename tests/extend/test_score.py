"""The score of docs/extend/score.md: registered from outside, checked by the doctor, and run to the end."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pytest
import torch
from click.testing import CliRunner
from light_ndif import LightNDIF
from ssn_probe.recipes import suppress_ss
from tracing import plain

from ssn_probe import Ablation, Effect, FinalAblation, SafetyNeurons, preview, run
from ssn_probe.cli.commands import main
from ssn_probe.doctor.own_scores import READS, check_score, own_effects
from ssn_probe.doctor.probing import prompts
from ssn_probe.errors import ModelError, RecipeError
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.spec import EFFECTS, SITES
from ssn_probe.spec.node import from_json, to_json
from ssn_probe.tracing.effects import decode, score

PAGE = "score.md"
Extended = Callable[..., Path]


def test_what_the_page_computes(extended: Extended, llama: Subject) -> None:
    extended(PAGE)
    found, tokens = score(EFFECTS["loudness"](), llama, prompts(llama)), prompts(llama)
    neurons = [(1, site, 5) for site in SITES]
    for row, prompt in enumerate(tokens):
        wanted = plain.activations(llama.model._module, prompt, neurons).abs().mean(0)
        assert [float(decode(found, site)[row, 1, 5]) for site in SITES] == pytest.approx(wanted.tolist(), rel=2e-3)


@pytest.mark.slow
def test_suppress_ss_runs_with_it(extended: Extended, tmp_path: Path) -> None:
    extended(PAGE)
    recipe = suppress_ss(effect="loudness", controls=3, log_odds_label_sets=0)
    recipe = replace(recipe, permutations=99, half_samples=10)
    assert "loudness effects not estimated" in " ".join(str(preview(recipe, out=tmp_path, limit=20)).split())
    result = run(recipe, out=tmp_path, limit=20, progress=False)
    assert result.summary.filter(pl.col("arm") == "ss").height
    assert "a loud neuron may be one that nothing listens to" in (result.path / "report.md").read_text(encoding="utf-8")


def test_the_doctor_examines_it(extended: Extended, llama: Subject, tmp_path: Path) -> None:
    file = extended(PAGE)
    result = CliRunner().invoke(main, ["--extend", str(file), "doctor", "--model", "organism", "-o", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "✓ score loudness" in result.stdout
    extended(PAGE, (" * mask).sum(1) / mask.sum(1)", ").mean(1)"))
    (kind,) = own_effects()
    check = check_score(llama, kind)
    assert (check.status, "depend on which prompts share a batch" in check.meaning) == ("failed", True)
    extended(PAGE, ("torch.stack(layers, 1)", "torch.stack(layers[:1], 1)"))
    with pytest.raises(ModelError, match=r"site q are \(3, 1, 24\) and not \(3, 2, 24\)"):
        check_score(llama, *own_effects())


@pytest.mark.slow
@pytest.mark.ndif
def test_it_runs_on_a_host_with_or_without_trust(extended: Extended, ndif: LightNDIF) -> None:
    extended(PAGE)
    here, there = load_subject("organism"), load_subject(ndif.add("organism"), remote=ndif.host)
    tokens, effects = [[1, 5, 6, 7], [1, 3, 9]], (EFFECTS["loudness"](), Ablation(0.02))
    for trust in (nullcontext(), ndif.untrusted()):
        with trust:
            for effect in effects:
                candidates = [(0, "ffn", 1), (3, "o", 2)] if effect.screen else None
                reads = READS if effect.needs_openings else None
                wanted, found = (
                    score(effect, one, tokens, reads=reads, candidates=candidates) for one in (here, there)
                )
                assert all(torch.allclose(decode(found, site), decode(wanted, site), rtol=2e-3) for site in SITES)


def test_it_is_a_node_like_all_others(extended: Extended) -> None:
    extended(PAGE)
    node = SafetyNeurons(suppress_ss().measures[0].prompts, effect="loudness")
    assert from_json(to_json(node)) == node
    assert node.scored_by.label("organism") == "loudness effect of every neuron (organism)"
    assert (node.scored_by.passes(100), FinalAblation().passes(100)) == (1, 100)


def test_what_is_missing_or_taken_is_an_error(extended: Extended, llama: Subject, tmp_path: Path) -> None:
    extended(PAGE, ("@scores(Loudness)\n", ""))
    with pytest.raises(RecipeError, match="no function computes the effect 'loudness'"):
        score(EFFECTS["loudness"](), llama, prompts(llama))
    with pytest.raises(RecipeError, match="the name Patch belongs to ssn-probe"):

        @dataclass(frozen=True, eq=False)
        class Patch(Effect):
            pass

    for text, words in (("import nothing", "No module named 'nothing'"), (None, "there is no file")):
        file = tmp_path / "missing.py"
        if text is not None:
            file.write_text(text, encoding="utf-8")
        result = CliRunner().invoke(main, ["--extend", str(file if text else tmp_path / "no.py"), "list"])
        assert (result.exit_code, words in result.output) == (1, True), result.output
