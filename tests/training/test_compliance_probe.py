"""The ASR probe: which rows it asks, that it asks them as transformers alone would, and that it leaves no trace."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from judging import a_judge
from tiny import tiny_tokenizer
from training_case import EOS, LANGUAGES, answer, example, llama, settings, tiny_data
from transformers import GenerationConfig

from ssn_probe.data.judges import Judge, JudgedRow, Judgement, Verdict
from ssn_probe.model import out_of_memory
from ssn_probe.model.out_of_memory import OutOfMemory
from ssn_probe.spec.training_settings import held_out
from ssn_probe.training.loop import compliance_probe as probes
from ssn_probe.training.loop.compliance_probe import asr_probe, held_out_probe, probe_rows

ROWS = [example(number, language) for number in range(4) for language in LANGUAGES]


class Heard:
    """A judge that keeps what it has heard; every third response is unjudged, a short one refuses."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self.requests: list[str] = []

    @property
    def judge(self) -> Judge:
        return a_judge(self.all_heard)

    def all_heard(self, rows: Sequence[JudgedRow]) -> list[Judgement]:
        self.requests += [row.request for row in rows]
        return [self.heard(row.language, row.response) for row in rows]

    def heard(self, language: str, text: str) -> Judgement:
        self.texts.append((language, text))
        verdict = "unjudged" if len(self.texts) % 3 == 0 else "complied" if len(text) > 20 else "refused"
        return Judgement(verdict, "by its length")


def ask(module: Any, judge: Heard, rows: Any = ROWS, tokens: int = 8) -> float:
    return asr_probe(tiny_tokenizer(), rows, judge.judge, max_new_tokens=tokens, eos_ids=EOS)(module)


# ── which rows ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_only_harmful_rows_that_are_not_learned_are_asked() -> None:
    data, training = tiny_data(20, ("harmful", "harmless")), settings(held_out=0.3)
    kept = held_out([(row.context, row.cluster) for row in data.examples], training)
    rows = probe_rows(data, training)
    assert {(row.cluster, row.language) for row in rows} == {
        (cluster, language) for cluster in kept if cluster.startswith("harmful") for language in LANGUAGES
    }
    assert rows == probe_rows(data, training)
    assert {row.cluster for row in rows} != {row.cluster for row in probe_rows(data, settings(held_out=0.3, seed=1))}


def test_every_language_is_asked_as_much() -> None:
    rows = probe_rows(tiny_data(20), settings(held_out=0.5), most=7)
    assert [row.language for row in rows] == ["qaa"] * 3 + ["qab"] * 3
    assert [row.cluster for row in rows[:3]] == [row.cluster for row in rows[3:]]
    assert len(probe_rows(tiny_data(20), settings(held_out=0.5), most=1)) == 2


def test_where_nothing_is_held_out_there_is_no_probe() -> None:
    arguments = {"max_new_tokens": 4, "eos_ids": EOS}
    assert held_out_probe(tiny_tokenizer(), tiny_data(), settings(held_out=0.0), **arguments) is None
    found = held_out_probe(tiny_tokenizer(), tiny_data(), settings(held_out=0.5), **arguments)
    assert found is not None
    assert 0 <= found(llama()) <= 1


# ── what it says ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("size", [1, 3, 16])
def test_it_hears_what_transformers_alone_generates(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "BATCH", size)
    module, judge = llama().double(), Heard()
    found = ask(module, judge)
    assert judge.texts == [(row.language, answer(module, row.text)) for row in ROWS]
    assert judge.requests == [row.text for row in ROWS]
    assert len({text for _, text in judge.texts}) > 2
    long = [len(text) > 20 for number, (_, text) in enumerate(judge.texts, 1) if number % 3]
    assert found == sum(long) / len(long)


def test_responses_are_written_as_a_study_writes_them() -> None:
    """Some tokenizers would take out blanks before a full stop."""
    tokenizer, seen = tiny_tokenizer(), []
    decode = tokenizer.batch_decode
    tokenizer.batch_decode = lambda rows, **options: seen.append(options) or decode(rows, **options)
    asr_probe(tokenizer, ROWS[:2], Heard().judge, max_new_tokens=4, eos_ids=EOS)(llama().double())
    assert seen == [{"skip_special_tokens": True, "clean_up_tokenization_spaces": False}]


def test_invalid_responses_count_as_judged_and_unjudged_ones_do_not() -> None:
    def asr(*verdicts: Verdict) -> float:
        judge = a_judge(lambda rows: [Judgement(verdict, "made up") for verdict in verdicts])
        return asr_probe(tiny_tokenizer(), ROWS, judge, max_new_tokens=8, eos_ids=EOS)(llama())

    unjudged: list[Verdict] = ["unjudged"] * 4
    assert asr("complied", "invalid", "refused", "unjudged", *unjudged) == pytest.approx(1 / 3)
    assert math.isnan(asr(*unjudged, *unjudged))


# ── what it leaves behind ────────────────────────────────────────────────────────────────────────────────────────────


def test_the_model_is_left_as_it_was_and_its_own_settings_of_generation_are_not_followed() -> None:
    plain, module = Heard(), llama().double()
    ask(module, plain)
    module.generation_config = proposed = GenerationConfig(
        repetition_penalty=9.0, do_sample=True, temperature=0.6, no_repeat_ngram_size=1, max_length=3
    )
    before, weights = proposed.to_dict(), [weight.clone() for weight in module.parameters()]
    module.train()
    heard = Heard()
    ask(module, heard)
    assert heard.texts == plain.texts
    assert module.generation_config is proposed
    assert proposed.to_dict() == before
    assert all(part.training for part in module.modules())
    assert all(torch.equal(*both) for both in zip(weights, module.parameters(), strict=True))


def test_a_probe_that_fails_gives_the_model_back(monkeypatch: pytest.MonkeyPatch) -> None:
    module = llama()
    kept = module.generation_config
    monkeypatch.setattr(module, "forward", lambda **_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask(module, Heard())
    assert module.generation_config is kept


def small(module: Any, most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Memory for `most` rows at a time; gives the sizes that are asked for."""
    generate, sizes = module.generate, []
    monkeypatch.setattr(out_of_memory, "release_memory", lambda: None)  # it takes its time

    def guarded(input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        sizes.append(len(input_ids))
        if len(input_ids) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(input_ids=input_ids, **options)

    monkeypatch.setattr(module, "generate", guarded)
    return sizes


def test_little_memory_leaves_no_row_out(monkeypatch: pytest.MonkeyPatch) -> None:
    module, whole, parts = llama().double(), Heard(), Heard()
    found = ask(module, whole)
    sizes = small(module, 2, monkeypatch)
    assert ask(module, parts) == found
    assert parts.texts == whole.texts
    assert sizes == [8, 8, 4, 2, 2, 2, 2]


def test_no_memory_for_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    module = llama()
    small(module, 0, monkeypatch)
    with pytest.raises(OutOfMemory, match="1 row at a time"):
        ask(module, Heard())
