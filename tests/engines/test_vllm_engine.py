"""The engine's side of vLLM: what it asks of another process, what it refuses, and that it ends what it started."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from click.testing import CliRunner
from tiny import FAMILIES

import ssn_probe
from ssn_probe import MeanOf, Prompts, SafetyNeurons, Suppress
from ssn_probe.cli.commands import main
from ssn_probe.engines import vllm_engine
from ssn_probe.engines.vllm_engine import Vllm, engine_for, find_engine, folded
from ssn_probe.errors import ModelError, RecipeError
from ssn_probe.model.families import FAMILIES as TABLE
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.measurements import UNCHANGED, log_odds_inputs, response_inputs
from ssn_probe.study.plan import make_plan
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.edits import amplification, carrying, setting, suppression
from ssn_probe.tracing.generate import greedy_tokens

HERE = Prompts("organism")
PROMPTS = [[1, 2, 3], [4, 5], [6], [7, 8, 9, 10], [3]]
STAND_IN = """
import json, sys, time
if sys.argv[1:] == ["--versions"]:
    print(json.dumps({"vllm": "9.9", "torch": "8.8"}))
    sys.exit()
batches = 0
for line in sys.stdin:
    request = json.loads(line)
    if "model" in request:
        answer = {"ready": True}
    elif request["max_new_tokens"] == 3:
        answer = {"error": "ValueError: the prompt is too long"}
    elif request["max_new_tokens"] == 5:
        print("out of luck", file=sys.stderr)
        sys.exit(1)
    elif request["max_new_tokens"] == 6:
        time.sleep(600)
    else:
        batches += 1
        answer = {"finite": request["max_new_tokens"] != 4, "ids": [[batches, len(row)] for row in request["prompts"]]}
    print(json.dumps(answer), flush=True)
"""
"""A worker that answers with the number of the batch and the length of the prompt."""


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Subject):
    """An engine whose worker only says what it was asked."""
    script = tmp_path / "worker.py"
    script.write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setattr(vllm_engine, "WORKER", script)
    monkeypatch.setattr(vllm_engine, "PATIENCE", 2.0)
    monkeypatch.setenv(vllm_engine.PYTHON, sys.executable)
    settings = find_engine("vllm:max_num_seqs=2,devices=0+1,enforce_eager=true")
    assert settings is not None
    made = Vllm(settings, llama)
    yield made
    made.close()


def children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def test_batches_are_fixed_and_the_process_ends(engine: Vllm, llama: Subject) -> None:
    before = children()
    assert engine.identity == {
        "name": "vllm",
        "version": vllm_engine.VERSION,
        "packages": {"vllm": "9.9", "torch": "8.8"},
        "options": {"enforce_eager": True, "max_num_seqs": 2},
    }
    assert children() == before  # nothing runs before something is to be generated
    made = greedy_tokens(llama, PROMPTS, max_new_tokens=7, engine=engine, batch_size=500)
    assert made == [[1, 3], [2, 2], [2, 1], [1, 4], [3, 1]]
    assert len(children()) == len(before) + 1
    engine.close()
    assert children() == before


@pytest.mark.parametrize(
    ("tokens", "words"), [(3, "the prompt is too long"), (4, "NaN or Inf"), (5, "ended by itself.*out of luck")]
)
def test_a_failure_is_one_clear_error(engine: Vllm, llama: Subject, tokens: int, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        greedy_tokens(llama, PROMPTS, max_new_tokens=tokens, engine=engine)


def test_ctrl_c_ends_a_process_that_is_busy(engine: Vllm, llama: Subject) -> None:
    before = children()

    def press(*_: object) -> None:
        raise KeyboardInterrupt

    ours = signal.signal(signal.SIGALRM, press)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(KeyboardInterrupt):
            greedy_tokens(llama, PROMPTS, max_new_tokens=6, engine=engine)
    finally:
        signal.signal(signal.SIGALRM, ours)
    engine.close()
    assert children() == before


def test_only_zero_and_a_factor_can_be_folded() -> None:
    neurons = [(0, "ffn", 3), (0, "ffn", 1), (1, "q", 0)]
    assert folded(suppression(neurons)) == [(0, "ffn", (1, 3), 0.0), (1, "q", (0,), 0.0)]
    assert folded(amplification(neurons, 1.5)) == [(0, "ffn", (1, 3), 1.5), (1, "q", (0,), 1.5)]
    means = {site: torch.ones(2, 4) for site in ("ffn", "q")}
    for edits in (suppression(neurons, means), carrying(neurons, "en"), setting(neurons, 0.5)):
        with pytest.raises(ModelError, match="cannot be folded"):
            folded(edits)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("vlm", "no engine 'vlm'"),
        ("transformers:x=1", "has no options"),
        ("vllm:tensor_parallel=2", "no option 'tensor_parallel'"),
        ("vllm:max_num_seqs=many", "a whole number"),
        ("vllm:enforce_eager=1", "true or false"),
    ],
)
def test_an_engine_that_is_not_there(text: str, words: str) -> None:
    with pytest.raises(RecipeError) as error:
        find_engine(text)
    assert words in str(error.value)


def test_transformers_is_no_engine_of_its_own() -> None:
    assert find_engine("transformers") is None


def test_without_vllm_the_command_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vllm_engine.PYTHON, str(tmp_path / "python"))
    made = CliRunner().invoke(main, ["run", "suppress_ss", "--engine", "vllm", "-o", str(tmp_path)])
    assert made.exit_code == 1
    assert "cannot be run to look for vLLM" in made.output
    assert vllm_engine.PYTHON in made.output
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("patch_ss", "Patch: it carries activations over"),
        ("expand_ss", "Expand: it trains weights"),
        (Suppress(SafetyNeurons(HERE), to=MeanOf(HERE)), "MeanOf: it sets neurons to their means"),
    ],
)
def test_arms_that_cannot_be_folded_are_refused(engine: Vllm, tmp_path: Path, what: str | Suppress, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        ssn_probe.preview(what, model="organism", engine="vllm", time=False, out=tmp_path)


@pytest.mark.parametrize("family", TABLE)
def test_a_family_on_which_it_is_not_proved_is_refused(engine: Vllm, llama: Subject, family: str) -> None:
    """`test_with_vllm` proves it on the others."""
    subject = replace(llama, family=TABLE[family])
    assert engine_for(None, subject) is None
    if family in FAMILIES:
        assert isinstance(engine_for(engine.settings, subject), Vllm)
        return
    with pytest.raises(ModelError, match=f"not proved .* of the family '{family}'"):
        engine_for(engine.settings, subject)


def test_vllm_and_a_host_exclude_each_other(engine: Vllm, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="Leave out one of the two"):
        ssn_probe.preview(
            "suppress_ss", doses=None, engine="vllm", remote="http://127.0.0.1:1", time=False, out=tmp_path
        )


def test_vllm_and_a_model_that_is_spread_exclude_each_other(engine: Vllm, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="has a model of its own"):
        ssn_probe.preview("suppress_ss", doses=None, engine="vllm", device="balanced", time=False, out=tmp_path)


def test_the_engine_is_part_of_the_key_of_responses_alone(engine: Vllm, tmp_path: Path) -> None:
    plan = make_plan(find_recipe("suppress_ss", {}))
    prompts = next(iter(plan.data.values()))
    bench = Workbench(subject=load_subject("organism", weights=False), data=plan.data)
    other = replace(bench, engine=engine)
    rows = prompts.frame.head(2)
    without, with_it = (response_inputs(each, prompts, rows, UNCHANGED) for each in (bench, other))
    assert "engine" not in without
    assert with_it == without | {"engine": engine.identity}
    reads = Openings(refusal=((0,),), compliant=((1,),))
    assert log_odds_inputs(other, rows, UNCHANGED, reads) == log_odds_inputs(bench, rows, UNCHANGED, reads)
