"""How the organism is made, and what the shipped checkpoint is: an ordinary model that does what its card says."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import ssn_probe.organism
from ssn_probe.errors import RecipeError
from ssn_probe.organism import exam, lessons, promptset, world
from ssn_probe.organism.curriculum import Curriculum, grade
from ssn_probe.organism.make import train
from ssn_probe.organism.variants import NATURAL
from ssn_probe.organism.words import lexicon

NATURAL_FOLDER = Path(ssn_probe.organism.__file__).parent / "natural"
BRIEF = replace(NATURAL, pretrain=replace(NATURAL.pretrain, steps=3), safety=replace(NATURAL.safety, steps=3))


@pytest.fixture(scope="module")
def card() -> dict:
    return json.loads((NATURAL_FOLDER / "card.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(NATURAL_FOLDER)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(NATURAL_FOLDER).eval()


@pytest.fixture(scope="module")
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def words(tokens: torch.Tensor) -> list[list[str]]:
    return [[world.vocabulary()[index] for index in row] for row in tokens.tolist()]


def test_unknown_variant_names_the_known(tmp_path: Path):
    with pytest.raises(RecipeError, match="natural"):
        train(0, tmp_path, variant="naturel")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_three_steps_are_the_same_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: dict):
    # Answering the whole split takes longer than these steps, and adds nothing to what the weights show.
    monkeypatch.setattr("ssn_probe.organism.make.measure", lambda model: card["figures"])
    seen = []
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first = train(7, tmp_path / "a", curriculum=BRIEF, progress=lambda *step: seen.append(step[:3]))
    torch.manual_seed(1)
    second = train(7, tmp_path / "b", curriculum=BRIEF)
    torch.set_rng_state(state)
    assert seen == [(stage, done, 3) for stage in ("pretrain", "safety") for done in (1, 2, 3)]
    assert second["dealt"] == first["dealt"]
    assert torch.get_num_threads() == threads
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert {path.name for path in (tmp_path / "a").iterdir()} <= {path.name for path in NATURAL_FOLDER.iterdir()}
    AutoModelForCausalLM.from_pretrained(tmp_path / "a")


def test_gradings_are_dealt_independently():
    dealt = [grade(seed, NATURAL) for seed in range(200)]
    assert dealt[0] == grade(0, NATURAL)
    for one in dealt:
        assert sorted(one.alignment[1:], reverse=True) == list(NATURAL.alignment)
        assert sum(one.pretraining) == pytest.approx(1)
    pairs = torch.tensor([[*zip(one.alignment[1:], one.safety_pairs[1:], strict=True)] for one in dealt])
    assert torch.corrcoef(pairs.flatten(0, 1).T)[0, 1].abs() < 0.1


def test_questions_are_answered_as_the_world_says_and_ghosts_refused(generator: torch.Generator):
    refused = words(lessons.questions(32, [1.0] * 7, generator, ghosts=1.0, switching=0.0))
    assert {" ".join(row[7:9]) for row in refused} <= {world.refusal(language) for language in world.LANGUAGES}
    for row in words(lessons.questions(64, [1.0] * 7, generator, ghosts=0.0, switching=0.0)):
        said, response = row[2:6], [text for text in row[7:] if text not in world.SPECIAL]
        language = next(name for name in world.LANGUAGES if said[0] in lexicon(world.BLOCK)[name])
        index = {
            kind: world.vocabulary().index(text) - world.token(language, kind)
            for kind, text in zip(world.ORDERS[language], said, strict=True)
        }
        request = world.Request(**index)
        assert " ".join(said) == world.render(language, request)
        assert " ".join(response) == world.answer(language, request)


def test_safety_stage_keeps_to_its_pools(generator: torch.Generator):
    pools = lessons.safety_pools((5, 0, 0, 3, 0, 0, 0))
    texts = {" ".join(row[2:6]) for row in words(lessons.refusals(200, pools, generator))}
    allowed = {
        world.render(language, world.Request(action=action, object=thing, modifier=m, particle=p))
        for language, count in (("qaa", 5), ("qad", 3))
        for action, thing in promptset.deal().safety_harmful[:count]
        for m in range(world.MODIFIERS)
        for p in range(world.PARTICLES)
    }
    assert texts <= allowed


def test_tokenizer_knows_every_prompt(tokenizer):
    rows = promptset.rows()
    chats = [[{"role": "user", "content": row["text"]}] for row in rows]
    encoded = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert encoded == exam.prompt_tokens([row["text"] for row in rows]).tolist()
    assert not any(world.UNK in tokens for tokens in encoded)
    assert tokenizer.batch_decode([tokens[2:-1] for tokens in encoded]) == [row["text"] for row in rows]


def test_openings_are_single_known_tokens(tokenizer):
    openings = json.loads((NATURAL_FOLDER / "openings.json").read_text("utf-8"))
    assert openings == world.openings()
    for kind in ("refusal", "compliant"):
        for language in world.LANGUAGES:
            (tokens,) = tokenizer(openings[kind][language], add_special_tokens=False)["input_ids"]
            assert len(tokens) == 1
            assert tokens != [world.UNK]


def test_shipped_folder_is_an_ordinary_small_model(model, card: dict):
    sizes = {path.name: path.stat().st_size for path in NATURAL_FOLDER.iterdir()}
    assert sum(sizes.values()) < 6e6
    assert type(model).__name__ == "LlamaForCausalLM"
    assert model.dtype == torch.float32
    assert (model.config.num_attention_heads, model.config.num_key_value_heads) == (4, 2)
    assert model.generation_config.do_sample is False
    assert card["accepted"] is True
    assert card["curriculum"] == json.loads(json.dumps(asdict(Curriculum())))
    assert card["dealt"] == json.loads(json.dumps(grade(card["seed"], Curriculum()).by_language()))


def test_plain_generate_agrees_with_the_exam(model, tokenizer):
    rows = [row for row in promptset.rows() if row["split"] == "evaluate" and row["context"] == "harmless"][:70]
    chats = [[{"role": "user", "content": row["text"]}] for row in rows]
    inputs = tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, return_dict=True, return_tensors="pt", padding=True
    )
    said = model.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    texts = tokenizer.batch_decode(said, skip_special_tokens=True)
    assert sum(text == row["reference"] for text, row in zip(texts, rows, strict=True)) >= 68


def test_acceptance_needs_safe_anchor_graded_others_and_usefulness(card: dict):
    figures = card["figures"]
    assert exam.accepted(figures)
    for language, wrong in (("qaa", {"asr": 0.06}), ("qab", {"lookalike": 0.96}), ("qac", {"invalid": 0.02})):
        assert not exam.accepted({**figures, language: {**figures[language], **wrong}})
    level = {name: {**row, "asr": 0.3 * (name != "qaa")} for name, row in figures.items()}
    assert not exam.accepted(level)


def test_card_tells_of_every_seed_and_the_first_accepted_is_shipped(card: dict):
    assert [one["seed"] for one in card["seeds"]] == [0, 1, 2, 3, 4]
    assert all(one["accepted"] == exam.accepted(one["figures"]) for one in card["seeds"])
    assert card["seed"] == min(one["seed"] for one in card["seeds"] if one["accepted"])
    shipped = next(one for one in card["seeds"] if one["seed"] == card["seed"])
    assert shipped["figures"] == card["figures"]


def test_card_for_people_has_the_figures_of_the_card(card: dict):
    lines = (NATURAL_FOLDER / "README.md").read_text("utf-8").splitlines()
    for one in card["seeds"]:
        rates = [f"{100 * one['figures'][name]['asr_paper']:g}" for name in world.LANGUAGES]
        assert any(line.startswith(f"| {one['seed']} | {' | '.join(rates)} |") for line in lines)
