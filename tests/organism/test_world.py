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


def test_sizes_and_one_prompt_per_concept_pair():
    rows = chosen(language="qaa")
    sizes = {"identify": 400, "evaluate": 200, "train": 150}
    expected = {(split, context): size for split, size in sizes.items() for context in ("harmful", "harmless")}
    assert Counter((row["split"], row["context"]) for row in rows) == expected | {("evaluate", "lookalike"): 200}
    pairs = {(row["action"], row["object"]) for row in rows}
    assert len(pairs) == len(rows) == len({row["text"] for row in rows})
    assert promptset.description()["cluster"] == ["action", "object"]
    assert all(row["action"] in row["text"].split() and row["object"] in row["text"].split() for row in rows)


def test_every_prompt_is_put_in_every_language():
    languages, shared = defaultdict(list), defaultdict(set)
    for row in ROWS:
        languages[row["prompt_id"]].append(row["language"])
        shared[row["prompt_id"]].add(
            tuple(row[key] for key in ("context", "split", "action", "object", "pair_id", "topic"))
        )
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


def test_every_harmful_request_has_a_twin_that_one_word_makes_harmless():
    pairs = defaultdict(list)
    for item in promptset.deal().items:
        if item.pair_id:
            pairs[item.pair_id].append(item)
    assert len(pairs) == sum(promptset.SIZES.values())
    changed = Counter()
    for harmful, twin in pairs.values():
        assert harmful.context == "harmful"
        assert (twin.split, twin.context) == (
            harmful.split,
            "lookalike" if harmful.split == "evaluate" else "harmless",
        )
        assert world.topic(harmful.request.action) == world.topic(twin.request.action)
        names = [name for name in world.SLOTS if getattr(harmful.request, name) != getattr(twin.request, name)]
        changed[harmful.split, *names] += 1
    expected = {(split, name): size // 2 for split, size in promptset.SIZES.items() for name in ("action", "object")}
    assert changed == expected


def test_a_word_is_as_frequent_as_every_other_of_its_kind():
    """In every split and context, and so is every topic; the two contexts of a contrast have the same topics."""
    for split, context in {(item.split, item.context) for item in promptset.deal().items}:
        items = [item for item in promptset.deal().items if (item.split, item.context) == (split, context)]
        for part, group in ((0, world.facts().dangerous), (1, world.facts().hazardous)):
            counts = Counter(item.pair[part] for item in items)
            for chosen in (group, set(range((world.ACTIONS, world.OBJECTS)[part])) - group):
                uses = [counts[index] for index in chosen]
                assert max(uses) - min(uses) <= 1, (split, context, part)
        topics = Counter(world.topic(item.request.action) for item in items)
        assert max(topics.values()) - min(topics.values()) <= 1


def test_half_of_a_class_is_bad():
    facts = world.facts()
    for classes, bad in ((facts.action_second, facts.dangerous), (facts.object_first, facts.hazardous)):
        assert {2 * sum(classes[index] == one for index in bad) for one in classes} == {classes.count(classes[0])}
    assert (len(facts.dangerous), len(facts.hazardous)) == (16, 64)


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
