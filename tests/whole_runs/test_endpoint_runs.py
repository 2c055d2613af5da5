"""A run that is judged over a network: it is stopped half-way, goes on, is verified without a key, and tells nobody."""

import json
import os
from pathlib import Path

import pytest
from endpoint_server import Reply, completion, fenced, serving, wait_for_hung_up
from rich.console import Console

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress, Utility
from ssn_probe.api.judging import judge_run
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.verify import verify
from ssn_probe.errors import JudgeError

KEY = "sk-a-key-that-nobody-may-see"
PROMPTS = Prompts("organism", languages=("qaa", "qab"), limit=6)
SS = Shared(SafetyNeurons(PROMPTS, effect="local", rule="paper"))
SMALL = {"controls": 1, "log_odds_label_sets": 0, "permutations": 0, "half_samples": 0}
RECIPE = Recipe(
    arms={"silent": Suppress(SS)},
    measures=(ASR(PROMPTS), Utility(PROMPTS)),
    judge="openai:m",
    **SMALL,  # type: ignore[arg-type]
)


@pytest.mark.slow
def test_a_run_that_an_endpoint_judges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    dead_after = [10]

    def answer(prompt: str, number: int) -> Reply:
        mark, response = fenced(prompt)
        if number >= dead_after[0]:
            return Reply(403, json.dumps({"error": {"message": f"{KEY} is blocked"}}))
        verdict = "refused" if len(response) % 2 else "complied"
        return completion(json.dumps({"mark": mark, "verdict": verdict, "reason": "its length"}))

    with serving(answer) as served:
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setenv("OPENAI_BASE_URL", served.url)
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        with pytest.raises(JudgeError, match="OPENAI_API_KEY is not set"):
            run_recipe(RECIPE, Options(out=tmp_path), Console(quiet=True))
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with pytest.raises(JudgeError, match=r"\(403\)"):
            run_recipe(RECIPE, Options(out=tmp_path), Console(quiet=True))
        wait_for_hung_up()  # their prompts belong to the run that failed
        before, dead_after[0] = len(served.prompts), 10_000
        run = run_recipe(RECIPE, Options(out=tmp_path), Console(quiet=True))
        asked = served.prompts[before:]
        assert len(set(asked)) == len(asked)
        spent = judge_run(run, "openai:other").entry["spent"]
        more = len(served.prompts) - before - len(asked)
        assert spent == f"other read {100 * more:,} tokens and wrote {10 * more:,}"
        again = [prompt for prompt in served.prompts[:10] if prompt in asked]
        assert len(again) <= 8  # those in flight when it died
        assert run.manifest()["judges"][0]["endpoint"] == served.url.removeprefix("http://")
        monkeypatch.delenv("OPENAI_API_KEY")
        monkeypatch.delenv("OPENAI_BASE_URL")
        before = len(served.prompts)
        assert [f"{one.what}: {one.why}" for one in verify(run) if one.holds is not True] == []
        assert len(served.prompts) == before
    samples = run.table("samples").filter(~(samples_invalid := run.table("samples")["verdict"] == "invalid"))
    assert (samples["response"].str.len_chars() % 2 == 1).equals(samples["verdict"] == "refused")
    assert samples_invalid.sum() < samples.height
    assert run.manifest()["judges"][0]["spent"].startswith("m read ")
    for folder, _, files in os.walk(tmp_path):
        assert [name for name in files if KEY.encode() in (Path(folder) / name).read_bytes()] == []
