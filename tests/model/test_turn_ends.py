"""A response ends with every token that any source names, and what the checkpoint asked for beside is told."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import tiny_tokenizer
from transformers import GenerationConfig

from ssn_probe.errors import ModelError
from ssn_probe.model.turn_ends import Turns, requests, settle_generation, up_to_end

ASK = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<user> {{ m.content }} {% else %}"
TELL = "{% endif %}{% endfor %}{% if add_generation_prompt %}<model>{% endif %}"
ANSWER = "<model> {{ m.content }}"


def settled(where: Path, template: str, asked: Any = 2, eos: str | None = "</s>") -> Turns:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template, tokenizer.eos_token = template, eos
    module = SimpleNamespace(
        generation_config=GenerationConfig(eos_token_id=asked),
        get_input_embeddings=lambda: SimpleNamespace(weight=torch.zeros(62, 1)),
    )
    turns = settle_generation(str(where), module, tokenizer)
    assert module.generation_config.eos_token_id == (list(turns.ids) or None)
    return turns


TEMPLATES = {
    "the tokenizer's end": (ANSWER + "</s>", 2),
    "another token": (ANSWER + "<unk>", 5),
    "after a blank, before others": (ANSWER + " <unk>\n</s>", 5),
    "the next turn's first token": (ANSWER, 3),
    "left out after the last": (ANSWER + "{% if not loop.last %}<unk>{% endif %}", 5),
    "otherwise after the last": (ANSWER + "{% if loop.last %}<unk>{% else %}</s>{% endif %}", 5),
    "plain text": (ANSWER + "\n\nw1", None),
    "a token that answers begin with": ("<user> {{ m.content }} ", None),
}


@pytest.mark.parametrize(("answer", "end"), TEMPLATES.values(), ids=TEMPLATES)
def test_the_token_that_the_template_writes_after_an_answer(answer: str, end: int | None, tmp_path: Path) -> None:
    template = ASK + answer + TELL
    if end is None and answer.startswith("<user>"):
        template = template.replace("<model>", "<user>")
    turns = settled(tmp_path, template)
    assert turns.template_end == end
    assert turns.ids == ((2,) if end in (2, None) else (2, end))


def test_every_source_counts_and_the_generation_config_comes_first(tmp_path: Path) -> None:
    turns = settled(tmp_path, ASK + ANSWER + "<unk>" + TELL, asked=[9, 3])
    assert [(end.id, end.text, end.sources) for end in turns.ends] == [
        (9, "w3", ("generation config",)),
        (3, "<user>", ("generation config",)),
        (2, "</s>", ("tokenizer",)),
        (5, "<unk>", ("chat template",)),
    ]
    agreed = settled(tmp_path, ASK + ANSWER + "</s>" + TELL)
    assert agreed.to_json() == {
        "ends": [{"id": 2, "text": "</s>", "sources": ["generation config", "tokenizer", "chat template"]}],
        "overridden": {},
    }


def test_an_end_outside_the_vocabulary_is_told(tmp_path: Path) -> None:
    turns = settled(tmp_path, ASK + ANSWER + "</s>" + TELL, asked=[2, 62, -1])
    assert (turns.ids, turns.outside) == ((2, 62, -1), ((62, "generation config"), (-1, "generation config")))


def test_a_template_that_cannot_show_a_conversation(tmp_path: Path) -> None:
    turns = settled(tmp_path, ASK + "{{ raise_exception('one message only') }}" + TELL)
    assert turns.written is None
    assert "one message only" in turns.unshown


def test_what_stands_between_turns_where_only_blanks_end_one(tmp_path: Path) -> None:
    assert settled(tmp_path, ASK.replace("<user>", "w1:") + ANSWER + "\n" + TELL).written == "\nw1: "


def test_nothing_may_end_a_response(tmp_path: Path) -> None:
    turns = settled(tmp_path, ASK + ANSWER + " . " + TELL, asked=None, eos=None)
    assert (turns.ids, turns.template_end) == ((), None)


def test_no_end_that_the_model_can_write(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Responses would never end"):
        settled(tmp_path, ASK + ANSWER + " . " + TELL, asked=62, eos=None)


@pytest.mark.parametrize("value", ["</s>", [2, "x"], 2.0, True, [None], {"a": 2}, 10**30])
def test_an_end_that_is_no_token_id(value: Any, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": value}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"eos_token_id in generation_config\.json is .* no token id"):
        settled(tmp_path, ASK + ANSWER + TELL)


@pytest.mark.parametrize("content", ["", "{", "[2]", "7", '{"eos_token_id": ' + "[" * 100_000])
def test_a_damaged_generation_config_is_not_passed_over(content: str, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=r"generation_config\.json"):
        settled(tmp_path, ASK + ANSWER + TELL)


SETTINGS = [
    ({"do_sample": False, "temperature": 0.6, "top_p": 0.9, "max_length": 99, "use_cache": True, "num_beams": 1}, []),
    ({"do_sample": True, "temperature": 0.6, "top_p": 1.0, "top_k": 50}, ["do_sample", "temperature"]),
    ({"num_beams": 4, "min_new_tokens": 3, "use_cache": False}, ["min_new_tokens", "num_beams", "use_cache"]),
    ({"repetition_penalty": 1.2, "no_repeat_ngram_size": 0}, ["repetition_penalty"]),
    ({"bad_words_ids": [[3]], "suppress_tokens": [], "stop_strings": ["x"]}, ["bad_words_ids", "stop_strings"]),
    ({"cache_implementation": "static", "prompt_lookup_num_tokens": 3, "made_up": "x", "_private": 1, "none": None},
     ["cache_implementation", "made_up", "prompt_lookup_num_tokens"]),
]  # fmt: skip


@pytest.mark.parametrize(("settings", "told"), SETTINGS)
def test_what_the_checkpoint_asked_for_and_does_not_get(settings: dict[str, Any], told: list[str]) -> None:
    assert [name for name, _ in requests(settings)] == told


def test_a_request_that_is_no_number_is_text_in_the_manifest() -> None:
    found = Turns(overridden={"temperature": float("nan")}).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == {"ends": [], "overridden": {"temperature": "nan"}}


def test_a_long_request_is_shortened() -> None:
    shown = Turns(overridden={"bad_words_ids": [[one] for one in range(1000)]}).to_json()["overridden"]["bad_words_ids"]
    assert len(shown) < 210


def test_a_response_goes_up_to_its_end() -> None:
    assert up_to_end([7, 8, 2, 9, 2], (2, 5)) == ([7, 8], True)
    assert up_to_end([7, 8], (2,)) == ([7, 8], False)
    assert up_to_end([2], (2,)) == ([], True)
    assert up_to_end([7], ()) == ([7], False)
