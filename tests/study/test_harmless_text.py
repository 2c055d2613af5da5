"""KL and perplexity in a study: which words are the prompt's own, whose text it is, and how they are summarised."""

import math
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import polars as pl
import pytest
from studies import bench_for, text_of

from ssn_probe import ASR, Amplify, Perplexity, Prompts, Recipe, SafetyNeurons, Suppress, Utility
from ssn_probe.errors import RecipeError
from ssn_probe.model.subject import load_subject
from ssn_probe.study.harmless_text import Figures, own_words, reading
from ssn_probe.study.measurements import Change
from ssn_probe.study.resolve import harmless_text
from ssn_probe.study.summary import summarise
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.edits import suppression
from ssn_probe.tracing.texts import Text

PROMPTS, OTHERS = (Prompts("organism", languages=("qaa", "qab"), limit=count) for count in (4, 3))
MS = SafetyNeurons(PROMPTS, effect="local")


def recipe(**changes) -> Recipe:
    return Recipe(**({"arms": {"ms": Suppress(MS)}, "measures": (ASR(PROMPTS),), "controls": 1} | changes))


def test_the_template_is_no_part_of_the_words() -> None:
    frames = [[1, 3, 50, 4, 5], [1, 3, 60, 4, 5]]
    assert own_words([1, 3, 7, 8, 9, 4, 5], frames) == (2, 5)
    assert own_words([1, 3, 50, 8, 60, 4, 5], frames) == (2, 5), "a word that one of the probes has"
    assert own_words([1, 3, 4, 5], frames) == (2, 2)


def test_whose_text_is_read() -> None:
    def read(*measures, **changes):
        study = recipe(measures=measures, **changes)
        bench = bench_for(study)
        found = harmless_text(study, bench.data)
        return next((node for node, prompts in bench.data.items() if prompts is found), None)

    assert read(ASR(PROMPTS)) == PROMPTS
    assert read(ASR(PROMPTS), Utility(OTHERS)) == OTHERS
    assert read(Perplexity(OTHERS), Utility(PROMPTS)) == OTHERS
    assert read(ASR(PROMPTS), arms={}, sets={"ms": MS}) is None
    with pytest.raises(RecipeError, match="the only measure is Perplexity"):
        recipe(measures=(Perplexity(PROMPTS),))


def test_a_study_reads_every_arm_and_its_random_sets() -> None:
    study = recipe(arms={"ms": Suppress(MS), "same": Amplify(MS, by=1.0000001)}, label_sets=1, log_odds_label_sets=0)
    found = text_of(bench_for(study, load_subject("organism")), study)
    largest = {key: float(rows["kl"].to_numpy().max()) for key, rows in found.group_by("arm", "role")}
    assert largest["baseline", "baseline"] == 0
    assert largest["same", "tested"] < 1e-7 < largest["ms", "tested"]
    roles = found.filter(arm="ms")["role"].unique().sort().to_list()
    assert [role for role in roles if role != "labels"] == ["random", "tested", "without top neuron"]
    assert found.filter(pl.col("kl_first") > 0).height


def test_texts_that_other_work_has_read_meanwhile_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps read the same texts at once, such as those of equal sets: the one that waited has its prompts done."""
    bench, texts, none = bench_for(recipe()), [Text(prompt=(1, 2), answer=(3,), own=(0, 2))], np.zeros(1)
    found, done = Figures(kl=none, kl_first=none, nll=none), list[int]()

    def others_were_first(bench: Workbench, key: tuple) -> AbstractContextManager[None]:
        if key[1][0] == "changed text":
            bench.memory[key[1]] = found
        return nullcontext()

    change = Change(edits=suppression([(0, "ffn", 1)]), does=Suppress(MS))
    monkeypatch.setattr(Workbench, "alone", others_were_first)
    assert reading(bench, bench, texts, change, done.append) is found
    assert done == [1]


def text_table(before: float) -> pl.DataFrame:
    rows = [
        {"arm": arm, "role": role, "prompt_id": f"{number}", "cluster": f"{number}", "kl": kl, "log_perplexity": nats}
        for arm, role, shift in (("baseline", "baseline", 0.0), ("x", "tested", 0.5))
        for number, (kl, nats) in enumerate([(shift, before + shift), (2 * shift, before + 1 + shift)])
    ]
    same = {"eval_language": "en", "set_language": None, "seed": None, "step": None, "vocabulary": 100}
    frame = pl.DataFrame([row | same for row in rows])
    return frame.with_columns(pl.col("set_language").cast(pl.String), pl.col("seed", "step").cast(pl.Int64))


def test_perplexity_is_averaged_as_logs_and_its_change_is_relative() -> None:
    texts = ("context", "verdict", "role", "arm", "set_language", "eval_language", "prompt_id", "cluster")
    schema = dict.fromkeys(texts, pl.String) | {"correct": pl.Boolean, "step": pl.Int64, "seed": pl.Int64}
    none = pl.DataFrame(schema=schema)
    found = summarise(none, None, text_table(1.0), anchor=None, primary="x").filter(language="average")
    rows = {(row["measure"], row["arm"]): row for row in found.iter_rows(named=True)}
    assert rows["perplexity", "baseline"]["value"] == pytest.approx(math.exp(1.5))
    assert rows["perplexity", "x"]["value"] == pytest.approx(math.exp(2))
    assert rows["perplexity", "x"]["delta"] == pytest.approx(math.exp(0.5) - 1)
    assert rows["kl", "x"]["value"] == rows["kl", "x"]["delta"] == pytest.approx(0.75)
    assert ("kl", "baseline") not in rows, "it is 0 by definition"
    assert rows["kl", "x"]["p_mcnemar"] is None
    worse = summarise(none, None, text_table(5.0), anchor=None, primary="x")
    assert set(worse["measure"]) == {"kl"}, "5.5 nats are worse than chance among 100 tokens"
