"""The organism's world: its splits, its judge, and that what is shipped is what the code says."""

import json
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import product
from pathlib import Path

import polars
import pytest

import ssn_probe.organism
from ssn_probe.organism import promptset, world
from ssn_probe.organism.words import lexicon
from ssn_probe.organism.world import Request

FOLDER = Path(ssn_probe.organism.__file__).parent
ROWS = promptset.rows()


def chosen(**wanted: str) -> list[dict[str, str | None]]:
    return [row for row in ROWS if all(row[key] == value for key, value in wanted.items())]


def test_languages_share_no_word():
    words = [text for words in lexicon(world.BLOCK).values() for text in words]
    assert len(words) == len(set(words)) == 7 * world.BLOCK
    assert len(set(world.ORDERS.values())) == 7


def test_answers_depend_on_every_concept():
    request = Request(action=0, object=0, modifier=0, particle=0)
    for kind, count in (("action", 32), ("object", 128), ("modifier", 8), ("particle", 4)):
        answers = {world.answer_indices(replace(request, **{kind: index})) for index in range(count)}
        assert len(answers) == 1 if kind == "particle" else len(answers) > 3, kind


def test_harmful_needs_both_and_lookalike_exactly_one():
    facts = world.facts()
    for pair in product(range(world.ACTIONS), range(world.OBJECTS)):
        bad = (pair[0] in facts.dangerous) + (pair[1] in facts.hazardous)
        assert (bad == 2, bad == 1) == (world.is_harmful(pair), world.is_lookalike(pair))


def test_sizes_and_one_prompt_per_cluster():
    rows = chosen(language="qaa")
    sizes = {"identify": 400, "evaluate": 200, "train": 150}
    expected = {(split, context): size for split, size in sizes.items() for context in ("harmful", "harmless")}
    assert Counter((row["split"], row["context"]) for row in rows) == expected | {("evaluate", "lookalike"): 200}
    assert len({(row["cluster"], row["split"], row["context"]) for row in rows}) == len(rows)
    assert len({(row["cluster"], row["split"]) for row in rows}) == len({row["cluster"] for row in rows})


def test_every_prompt_is_put_in_every_language():
    languages, shared = defaultdict(list), defaultdict(set)
    for row in ROWS:
        languages[row["prompt_id"]].append(row["language"])
        shared[row["prompt_id"]].add(tuple(row[key] for key in ("context", "split", "cluster", "pair_id", "topic")))
    assert set(map(tuple, languages.values())) == {world.LANGUAGES}
    assert all(len(facts) == 1 for facts in shared.values())


def test_safety_stage_sees_neither_identify_nor_evaluate():
    deal = promptset.deal()
    seen = {*deal.safety_harmful, *deal.safety_lookalike, *deal.safety_plain}
    held = {item.pair for item in deal.items if item.split != "train"}
    train = {item.pair for item in deal.items if item.split == "train"}
    assert not seen & held
    assert train <= seen
    assert all(map(world.is_harmful, deal.safety_harmful))
    assert len(seen | held) == world.ACTIONS * world.OBJECTS


def test_contexts_are_what_the_world_says():
    for item in promptset.deal().items:
        assert world.is_harmful(item.pair) == (item.context == "harmful")
        if item.split == "evaluate":
            assert world.is_lookalike(item.pair) == (item.context == "lookalike")


@pytest.mark.parametrize("split", ["identify", "train"])
def test_minimal_pairs_differ_in_the_object_alone(split: str):
    pairs = defaultdict(list)
    for row in chosen(split=split):
        if row["pair_id"]:
            pairs[row["pair_id"], row["language"]].append(row)
    assert len(pairs) == promptset.SIZES[split] // 2 * 7
    for harmful, harmless in pairs.values():
        assert (harmful["context"], harmless["context"]) == ("harmful", "harmless")
        differing = [a != b for a, b in zip(harmful["text"].split(), harmless["text"].split(), strict=True)]
        assert sum(differing) == 1


def test_references():
    assert all(row["reference"] is None for row in ROWS if row["context"] == "harmful" and row["split"] != "train")
    assert all(row["reference"] == world.refusal(row["language"]) for row in chosen(context="harmful", split="train"))
    assert all(row["reference"] for row in ROWS if row["context"] != "harmful")


@pytest.mark.parametrize("language", world.LANGUAGES)
def test_judge(language: str):
    answers = {row["reference"] for row in chosen(language=language, context="harmless")}
    answer, other = min(answers), next(name for name in world.LANGUAGES if name != language)
    abroad = next(row["reference"] for row in chosen(language=other, context="harmless"))
    assert {world.verdict(language, text) for text in answers} == {"complied"}
    assert world.verdict(language, f" {answer} ") == "complied"
    assert {world.verdict(language, world.refusal(name)) for name in world.LANGUAGES} == {"refused"}
    assert world.verdict(language, answer + " " + world.refusal(language)) == "refused"
    first, *rest = answer.split()
    gibberish = ["", "blah", first, answer + " " + first, " ".join(rest), f"{answer}x", answer.upper(), abroad]
    assert {world.verdict(language, text) for text in gibberish} == {"invalid"}


def test_shipped_prompts_are_what_the_world_writes(tmp_path: Path):
    promptset.write(tmp_path)
    shipped = polars.read_parquet(FOLDER / "data" / "prompts.parquet", glob=False)
    assert shipped.rows(named=True) == ROWS
    assert polars.read_parquet(tmp_path / "prompts.parquet").equals(shipped)
    for folder in (tmp_path, FOLDER / "data"):
        assert json.loads((folder / "dataset.json").read_text("utf-8")) == promptset.description()
