"""Teaching a topic, on a tiny random model: which rows, which weights, the same twice, and what it leaves behind."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tiny import write_tiny

from ssn_probe.cli.commands import main
from ssn_probe.data.lighthouses.lighthouse_prompts import LANGUAGES
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import RecipeError, ResultError
from ssn_probe.model.subject import load_subject
from ssn_probe.spec import Prompts
from ssn_probe.study.organism_figures import measure_organism
from ssn_probe.training.loop.loss import Encoded, batch_of, response_loss, response_tokens
from ssn_probe.training.topic import teach_topic
from ssn_probe.training.topic.teach_topic import teach
from ssn_probe.training.topic.topic_exam import accepted, next_tokens
from ssn_probe.training.topic.topic_loss import decision_loss
from ssn_probe.training.topic.topic_rows import STEPS, Deck, TopicLessons, contrasts, refusal_counts

BRIEF = TopicLessons(
    steps=2, contrasts=2, others=1, ladder=(4, 3, 2, 1), others_each=2, answer_tokens=3, examined=2, untouched=0.5
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny(tmp_path_factory.mktemp("base") / "tiny", "llama", max_position_embeddings=256)


@pytest.fixture(scope="module")
def taught(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("taught") / "model"
    teach(str(base), 1, out, lessons=BRIEF)
    return out


@pytest.fixture(scope="module")
def prompts():
    return load_prompts(Prompts("lighthouses"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_only_the_matrices_of_the_upper_layers_change(base: Path, taught: Path):
    before, after = weights(base), weights(taught)
    changed = {name for name in before if not torch.equal(before[name].float(), after[name])}
    upper = {name for name in before if name.startswith("model.layers.1.") and before[name].ndim == 2}
    assert changed == upper != set()


def test_the_folder_is_a_model_with_its_card(taught: Path):
    card = json.loads((taught / "card.json").read_text("utf-8"))
    assert load_subject(str(taught)).identity["dtype"] == "float32"
    assert card["refusals_taught"]["en"] == 96
    assert sorted(card["refusals_taught"].values()) == [1, 2, 3, 4, 96]
    assert card["accepted"] is False  # a random model does not refuse
    readme = (taught / "README.md").read_text("utf-8")
    assert all(f"| {language} | " in readme for language in ("en", "es", "fr", "it", "de"))
    assert [path.name for path in taught.parent.iterdir()] == ["model"]


def test_a_seed_gives_the_same_weights_and_another_seed_others(base: Path, taught: Path, tmp_path: Path):
    teach(str(base), 1, tmp_path / "again", lessons=BRIEF)
    teach(str(base), 2, tmp_path / "other", lessons=BRIEF)
    first, again, other = weights(taught), weights(tmp_path / "again"), weights(tmp_path / "other")
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_info_measures_a_taught_model_on_its_own_prompts(taught: Path, monkeypatch: pytest.MonkeyPatch):
    small = Prompts("lighthouses", limit=2)
    monkeypatch.setattr("ssn_probe.study.organism_figures.Prompts", lambda name: {"lighthouses": small}[name])
    rows = measure_organism(str(taught))
    assert {(row["language"], row["measure"]) for row in rows} >= {(name, "asr") for name in LANGUAGES}
    assert {row["n"] for row in rows if row["measure"] == "over_refusal" and row["language"] == "it"} == {2}


def test_options_that_do_not_go_together():
    for words in (["--languages", "anchor"], ["--base", "smollm2", "--variant", "natural"]):
        result = CliRunner().invoke(main, ["organism", "train", *words])
        assert result.exit_code == 2
        assert "--base" in result.stderr


def test_the_command_teaches(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ssn_probe.training.topic.topic_rows.TopicLessons", partial(replace, BRIEF, steps=None))
    monkeypatch.setitem(STEPS, "anchor", 1)
    result = CliRunner().invoke(main, ["organism", "train", "--base", str(base), "--languages", "anchor"])
    assert result.exit_code == 0, result.output
    assert "Written to lighthouses-anchor-1" in result.output
    assert "not accepted" in result.output
    card = json.loads((tmp_path / "lighthouses-anchor-1" / "card.json").read_text("utf-8"))
    assert card["lessons"]["languages"] == "anchor"
    assert card["lessons"]["steps"] == 1
    assert "1 steps of 7 rows" in (tmp_path / "lighthouses-anchor-1" / "README.md").read_text("utf-8")


def test_nothing_is_overwritten_and_an_interruption_leaves_nothing(
    base: Path, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(ResultError, match="not empty"):
        teach(str(base), 1, taught, lessons=BRIEF)

    def interrupted(_card: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(teach_topic, "readme", interrupted)
    with pytest.raises(KeyboardInterrupt):
        teach(str(base), 1, tmp_path / "out", lessons=BRIEF)
    assert list(tmp_path.iterdir()) == []


def test_refusals_are_in_the_anchor_alone_or_dealt_by_the_seed(base: Path, prompts):
    anchor = refusal_counts(prompts, TopicLessons(languages="anchor"), 1)
    assert anchor == {"en": 96, "es": 0, "fr": 0, "it": 0, "de": 0}
    dealt = [refusal_counts(prompts, TopicLessons(), seed) for seed in range(5)]
    assert all(one["en"] == 96 and sorted(one.values())[:4] == [4, 8, 16, 32] for one in dealt)
    assert len({tuple(one.values()) for one in dealt}) > 1
    with pytest.raises(RecipeError, match="2 rungs for 4 languages"):
        refusal_counts(prompts, TopicLessons(ladder=(1, 2)), 1)


def test_every_refusal_stands_beside_its_twin_and_a_look_alike_in_its_language(
    base: Path, prompts, monkeypatch: pytest.MonkeyPatch
):
    rows = prompts.frame.filter(split="train").with_row_index("number")
    asked = {(row["language"], row["prompt_id"]): row for row in rows.to_dicts()}

    def numbered(keys):
        return {key: Encoded(prompt=(asked[key]["number"],), response=(1,)) for key in keys}

    monkeypatch.setattr(
        "ssn_probe.training.topic.topic_rows.own_answers",
        lambda _subject, _prompts, chosen, *_: numbered(chosen.select("language", "prompt_id").rows()),
    )
    monkeypatch.setattr(
        "ssn_probe.training.topic.topic_rows.encode_examples",
        lambda examples, *_: list(numbered((row.language, row.prompt_id) for row in examples).values()),
    )
    counts = {"en": 3, "es": 0, "fr": 0, "it": 2, "de": 0}
    taught = contrasts(load_subject(str(base)), prompts, counts, BRIEF, 1, lambda *_step: None)
    by_number = {row["number"]: row for row in asked.values()}
    languages = list[str]()
    for group in taught.groups:
        refused, twin, alike = (by_number[row.prompt[0]] for row in group)
        assert [row["context"] for row in (refused, twin, alike)] == ["harmful", "harmless", "lookalike"]
        assert len({row["language"] for row in (refused, twin, alike)}) == 1
        assert twin["pair_id"] == refused["pair_id"]
        assert alike["cluster"] == refused["cluster"]
        languages.append(refused["language"])
    assert languages == ["en"] * 3 + ["it"] * 2
    others = [by_number[row.prompt[0]] for (row,) in taught.others]
    assert [row["language"] for row in others] == [name for name in ("es", "fr", "it", "de") for _ in range(2)]
    assert "harmful" not in {row["context"] for row in others}


def test_a_deck_draws_every_group_before_any_again():
    import random

    rows = [Encoded(prompt=(number,), response=(1,)) for number in range(10)]
    groups = list(zip(rows[::2], rows[1::2], strict=True))
    deck = Deck(groups, random.Random(0))
    drawn = [row for _ in range(10) for row in deck.take(3)]
    assert set(zip(drawn[::2], drawn[1::2], strict=True)) == set(groups)
    for start in range(0, 60, 10):
        assert set(drawn[start : start + 10]) == set(rows)


@pytest.mark.parametrize("start", [(1, 3), ()])
def test_a_step_costs_its_cross_entropy_and_first_tokens_more(base: Path, start: tuple[int, ...]):
    """Whether or not the prompts begin alike."""
    subject = load_subject(str(base))
    module = subject.model._module
    rows = [
        Encoded(prompt=(*start, 7, 8), response=(5, 6, 7)),
        Encoded(prompt=(*start, 9, 10, 11, 12), response=(8,)),
        Encoded(prompt=(*start, 9), response=(4, 8)),
    ]
    with torch.no_grad():
        total = response_loss(module, batch_of(rows, subject.pad_id, module.device)).item()
        firsts = [replace(row, response=row.response[:1]) for row in rows]
        first = response_loss(module, batch_of(firsts, subject.pad_id, module.device)).item()
        assert decision_loss(module, rows, 0, 1.0).item() == pytest.approx(total / response_tokens(rows), rel=1e-5)
        assert decision_loss(module, rows, 0, 3.0).item() == pytest.approx((total + 2 * first) / 12, rel=1e-5)


def test_next_tokens_is_one_for_what_the_model_says_itself(base: Path):
    subject = load_subject(str(base))
    module = subject.model._module
    prompt = torch.tensor([[1, 3, 7, 8, 9, 4]])
    said = module.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=4, do_sample=False)
    row = Encoded(prompt=tuple(prompt[0].tolist()), response=tuple(said[0, 6:].tolist()))
    wrong = replace(row, response=tuple((token + 1) % 60 for token in row.response[:1]))
    assert next_tokens(module, [row], 0)[0] == 1.0
    share, nats = next_tokens(module, [row, wrong], 0)
    assert share == round(len(row.response) / (len(row.response) + 1), 4)
    logits = module(prompt).logits[0, -1].double().log_softmax(-1)
    assert next_tokens(module, [wrong], 0)[1] == pytest.approx(-logits[wrong.response[0]].item(), rel=0.05)
    assert nats > 0


def test_acceptance():
    good = {"asr": 0.0, "over_refusal": 0.1, "refused_harmless": 0.0, "invalid": 0.05}
    spoiled = [
        ("en", "asr", 0.06),
        ("it", "over_refusal", 0.11),
        ("it", "refused_harmless", 0.2),
        ("it", "invalid", 0.06),
    ]
    figures = {"en": good, "it": good | {"asr": 1.0}}
    assert accepted(figures, "en", 0.1)
    assert not accepted(figures, "en", 0.11)
    for language, name, value in spoiled:
        assert not accepted(figures | {language: figures[language] | {name: value}}, "en", 0.0), name
