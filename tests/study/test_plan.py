"""Contracts 3 and 7: what a recipe will do, what it may not, and which changes give its result another key."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prompt_rows import write as write_rows
from ssn_probe.recipes import identify_ms, overlap, suppress_ss, transfer
from studies import expected_rows, planned

from ssn_probe import (
    ASR,
    NeuronFile,
    OverRefusal,
    Prompts,
    RandomLike,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Utility,
)
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import DataError, RecipeError
from ssn_probe.spec import SITES, Refusal
from ssn_probe.spec.node import Node, walk
from ssn_probe.study import plan as plan_module
from ssn_probe.study.keys import resolved_key
from ssn_probe.study.plan import limited, make_plan
from ssn_probe.study.resolve import evaluated, left_out, measured, study_anchor
from ssn_probe.study.steps import READING, Cost, Row, generating, reading_text

LANGUAGES = ("en", "de", "sw")
SIZES = {
    ("identify", "harmful"): 5,
    ("identify", "harmless"): 4,
    ("evaluate", "harmful"): 7,
    ("evaluate", "harmless"): 3,
    ("evaluate", "lookalike"): 2,
    ("train", "harmful"): 6,
}
"""Prompts per language."""
IDENTIFY, EVALUATE, HARMFUL = 3 * 9, 3 * 12, 3 * 7


def write(folder: Path, *, text: str = "{language} {split} {context} {number}", **card: Any) -> str:
    folder.mkdir(exist_ok=True)
    rows = [
        {"prompt_id": f"{split}-{context}-{number}", "language": language, "context": context, "split": split}
        | {"text": text.format(language=language, split=split, context=context, number=number)}
        for (split, context), size in SIZES.items()
        for number in range(size)
        for language in LANGUAGES
    ]
    (folder / "dataset.json").write_text(json.dumps({"name": "mine", "max_new_tokens": 11} | card), encoding="utf-8")
    return str(write_rows(folder, rows))


@pytest.fixture
def data(tmp_path: Path) -> str:
    return write(tmp_path / "mine")


GATE = "responses that test the refusal log-odds (mine)"
SCORES = "refusal effect of every neuron (mine)"


def test_the_rows_of_the_central_question(data: str) -> None:
    """Every count by hand: 3 languages, of which random sets of SS skip the anchor's."""
    recipe = suppress_ss(data=data, controls=20, label_sets=19, log_odds_label_sets=99)
    outside, generated = HARMFUL - 7, generating(11)
    doses = ("ss x0.75", "ss x0.5", "ss x0.25", "ss to mean")
    labels, drawn = "sets found under exchanged labels", "random sets of as many neurons"
    others = {
        "random sets of as many equally important neurons": 20,
        "random sets of as many of each language's own neurons": 20,
        "sets found between halves of the harmless prompts": 19,
    }
    expected = [
        Row(label=GATE, prompts=IDENTIFY, cost=generated),
        Row(label=SCORES, prompts=IDENTIFY, cost=Cost(work="effect", passes=6, effect=Refusal(), sites=SITES)),
        Row(label="baseline", prompts=EVALUATE, cost=generated),
        Row(label="ms", prompts=EVALUATE, cost=generated),
        Row(label="ms, without its top neuron", prompts=EVALUATE, cost=generated),
        Row(label="ss", prompts=EVALUATE, cost=generated),
        Row(label="ss, without its top neuron", prompts=EVALUATE, cost=generated),
        *(Row(label=dose, prompts=EVALUATE, cost=generated) for dose in doses),
        Row(label=f"ss: 19 {labels}", prompts=19 * outside, cost=generated),
        Row(label=f"ss: 19 {drawn}", prompts=19 * outside, cost=generated),
        *(Row(label=f"ss: {m} {sets}", prompts=m * outside, cost=generated) for sets, m in others.items()),
        Row(label="ms: log-odds only", prompts=2 * HARMFUL, cost=READING),
        Row(label="ss: log-odds only", prompts=2 * HARMFUL, cost=READING),
        Row(label=f"ss: 99 {labels}, log-odds only", prompts=99 * outside, cost=READING),
        Row(label=f"ss: 19 {drawn}, log-odds only", prompts=19 * outside, cost=READING),
        *(Row(label=f"ss: {m} {sets}, log-odds only", prompts=m * outside, cost=READING) for sets, m in others.items()),
        *(Row(label=f"{dose}: log-odds only", prompts=HARMFUL, cost=READING) for dose in doses),
        Row(label="baseline: KL and perplexity", prompts=3 * 3, cost=reading_text(11)),
        Row(label="ms: KL and perplexity", prompts=2 * 3 * 3, cost=reading_text(11)),
        Row(label="ss: KL and perplexity", prompts=2 * 3 * 3 + (19 + 19) * 2 * 3, cost=reading_text(11)),
        *(Row(label=f"{dose}: KL and perplexity", prompts=3 * 3, cost=reading_text(11)) for dose in doses),
    ]
    assert expected_rows(recipe) == expected


def test_an_effect_has_its_price(data: str) -> None:
    ms = {effect: identify_ms(data=data, effect=effect) for effect in ("local", "refusal", "final", "finalablation")}
    assert list(planned(overlap(data=data, effect="local"))) == list(planned(ms["local"])), "every rule has its scores"
    passes = {effect: [row.cost.passes for row in expected_rows(recipe)] for effect, recipe in ms.items()}
    assert passes["local"] == [1]
    assert passes["final"] == [33]
    assert passes["finalablation"] == [3_584]
    assert passes["refusal"][-1] == 6
    assert Refusal(at=1).passes(3_584) == 3
    assert GATE in planned(ms["refusal"])
    assert GATE not in planned(ms["local"])


def test_one_arm_per_language_multiplies_its_prompts(data: str) -> None:
    recipe = replace(transfer(data=data), comparisons=("random",), controls=2, log_odds_label_sets=3)
    found = planned(recipe)
    evaluated_rows = 3 * (7 + 3)
    assert found["baseline"] == evaluated_rows
    assert found["ms"] == found["ms, without its top neuron"] == 3 * evaluated_rows
    assert found["ms: 2 random sets of as many neurons"] == 3 * 2 * HARMFUL
    assert found["ms: 2 random sets of as many neurons, log-odds only"] == 3 * 2 * HARMFUL
    assert found["ms: log-odds only"] == 3 * 2 * HARMFUL


def test_a_limit_shrinks_every_stage(data: str) -> None:
    prompts = Prompts(data, limit=2)
    recipe = Recipe(
        arms={"ms": Suppress(SafetyNeurons(prompts, effect="local"))},
        measures=(ASR(prompts), OverRefusal(prompts)),
        controls=0,
        label_sets=0,
        log_odds_label_sets=0,
    )
    found = planned(recipe)
    assert found["local effect of every neuron (mine, first 2)"] == 3 * (2 + 2)
    assert found["ms"] == 3 * (2 + 2)
    assert not any("random" in label for label in found), "without controls there are no random sets"


def test_controls_need_harmful_prompts_to_be_measured(data: str) -> None:
    prompts = Prompts(data)
    recipe = Recipe(arms={"ms": Suppress(SafetyNeurons(prompts, effect="local"))}, measures=(Utility(prompts),))
    arms = ["baseline", "ms", "ms, without its top neuron"]
    arms += ["baseline: KL and perplexity", "ms: KL and perplexity"]
    assert list(planned(recipe)) == ["local effect of every neuron (mine)", *arms]


def test_measures_read_their_context_of_their_own_set(tmp_path: Path) -> None:
    one, other = Prompts(write(tmp_path / "one")), Prompts(write(tmp_path / "other", text="other {number}{language}"))
    ms = SafetyNeurons(one)
    plan = make_plan(Recipe(arms={"ms": Suppress(ms)}, measures=(ASR(one), Utility(replace(other, limit=1)))))
    contexts = measured(plan.recipe, plan.data)
    expected = {"harmful": one, "harmless": replace(other, limit=1)}
    assert {name: found.digest for name, found in contexts.items()} == {
        name: load_prompts(node).digest for name, node in expected.items()
    }
    assert evaluated(plan.recipe, plan.data) == LANGUAGES


# ── splits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("measure", [ASR, Utility])
def test_a_measure_on_prompts_that_choose_the_set_is_refused(measure: Any, tmp_path: Path) -> None:
    """The texts of the *identify* split stand in the other set's *evaluate* split."""
    chooses = write(tmp_path / "chooses", text="{language} {context} {number}")
    measures = write(tmp_path / "measures")
    lines = (Path(measures) / "prompts.jsonl").read_text(encoding="utf-8").replace("evaluate harm", "harm")
    (Path(measures) / "prompts.jsonl").write_text(lines, encoding="utf-8")
    ms = SafetyNeurons(Prompts(chooses, limit=1))
    with pytest.raises(RecipeError, match="both chooses neurons and measures them") as caught:
        make_plan(Recipe(arms={"ms": Suppress(Shared(ms).union())}, measures=(measure(Prompts(measures)),)))
    assert "another split" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "change",
    [
        *(str.upper, "{} ".format, "\u00a0{}?".format, "\u201c{}\u201d".format),
        *(lambda text: text.replace("e", "e\u00ad"), lambda text: text.replace("a", "\u0430").replace(" ", ", ")),
    ],
)
def test_a_prompt_in_another_spelling_is_the_same_prompt(change: Callable[[str], str], tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "mine"))
    rows = [json.loads(line) for line in (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = {(row["language"], row["context"]): row["text"] for row in rows if row["split"] == "identify"}
    for row in rows:
        if row["split"] == "evaluate" and row["context"] == "harmful":
            row["text"] = change(chosen[row["language"], row["context"]])
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prompts = Prompts(str(folder))
    with pytest.raises(RecipeError, match=r"prompt .* \((en|de|sw)\) both chooses neurons and measures them"):
        make_plan(Recipe(arms={"ms": Suppress(SafetyNeurons(prompts))}, measures=(ASR(prompts),)))


def test_the_same_words_in_another_language_are_another_prompt(tmp_path: Path) -> None:
    chooses = write(tmp_path / "chooses", text="{language} {context} {number}")
    measures = Path(write(tmp_path / "measures"))
    lines = (measures / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    swapped = {"en": "de", "de": "en", "sw": "sw"}
    rows = [json.loads(line) for line in lines]
    for row in rows:
        if row["split"] == "evaluate":
            row["text"] = f"{swapped[row['language']]} {row['context']} {row['prompt_id'].split('-')[-1]}"
    rows = [row for row in rows if not (row["split"] == "evaluate" and row["language"] == "sw")]
    (measures / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    ms = SafetyNeurons(Prompts(chooses))
    assert make_plan(Recipe(arms={"ms": Suppress(ms)}, measures=(ASR(Prompts(str(measures))),)))


def test_data_that_are_missing_are_found_before_a_model_is(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        make_plan(suppress_ss(model="no such model", data=str(tmp_path / "missing")))


def test_without_any_anchor_a_shared_set_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "mine"))
    lines = (folder / "prompts.jsonl").read_text(encoding="utf-8").replace('"en"', '"fr"')
    (folder / "prompts.jsonl").write_text(lines, encoding="utf-8")
    with pytest.raises((DataError, RecipeError), match="anchor"):
        make_plan(suppress_ss(data=str(folder)))


def test_a_language_that_the_data_do_not_have_is_found_before_anything_is_computed(data: str) -> None:
    ms, asr = SafetyNeurons(Prompts(data)), ASR(Prompts(data))
    expressions = (ms.of("fr"), ms.only(languages=["fr"]))
    recipes = [Recipe(arms={"ms": Suppress(expression)}, measures=(asr,)) for expression in expressions]
    for unknown in (*recipes, suppress_ss(data=data, anchor="fr"), identify_ms(data=data, anchor="fr")):
        with pytest.raises((DataError, RecipeError), match="fr"):
            make_plan(unknown)


# ── the anchor of a shared set ───────────────────────────────────────────────────────────────────────────────────────


def test_only_a_set_shared_with_an_anchor_leaves_the_anchor_out(data: str) -> None:
    ms = SafetyNeurons(Prompts(data))
    plan = make_plan(Recipe(sets={"ms": ms}))
    cases = {Shared(ms): ("en",), Shared(ms, anchor="sw"): ("sw",), Shared(ms, at_least=2): (), ms: ()}
    cases |= {Shared(ms, by="mean"): (), ms.each(): (), ms.of("en"): ()}
    assert {node: left_out(node, plan.data) for node in cases} == cases


# ── resolved keys ────────────────────────────────────────────────────────────────────────────────────────────────────

MODEL = {"id": "m", "digest": "0" * 64, "dtype": "float32", "attention": "sdpa", "chat_template_sha256": "1" * 64}


def key(node: Node, model: dict[str, Any] = MODEL) -> str:
    return resolved_key(node, model, make_plan(node if isinstance(node, Recipe) else Recipe(sets={"x": node})).data)


def shared(data: str, **options: Any) -> Shared:
    return Shared(SafetyNeurons(Prompts(data, **options)), anchor="en")


def test_a_resolved_key_follows_the_content_of_the_data_and_not_their_place(data: str, tmp_path: Path) -> None:
    copied = write(tmp_path / "copied")
    assert key(shared(data)) == key(shared(copied))
    assert shared(data).key != shared(copied).key, "the plain key does know, or this shows nothing"
    keys = [key(shared(data)), key(shared(write(tmp_path / "other", text="other {language} {split} {number}")))]
    keys += [key(shared(data, limit=3)), key(shared(data, languages=("en", "de"))), key(shared(data, harmless=data))]
    keys += [key(shared(write(tmp_path / "card", max_new_tokens=12)))]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", MODEL)
def test_a_resolved_key_follows_the_identity_of_the_model(name: str, data: str) -> None:
    assert key(shared(data), MODEL | {name: "other"}) != key(shared(data))
    assert key(shared(data), dict(reversed(MODEL.items()))) == key(shared(data))


def test_a_resolved_key_follows_parameters_and_seed(data: str) -> None:
    ms = SafetyNeurons(Prompts(data))
    nodes = [ms, replace(ms, top=0.5), replace(ms, rule="paper"), Shared(ms), RandomLike(ms, 0), RandomLike(ms, 1)]
    assert len({key(node) for node in nodes}) == len(nodes)


@pytest.mark.parametrize(
    "values",
    [{"model": "/another/place/of/the/same/weights"}, {"name": "mine"}, {"question": "Is it put otherwise?"}],
    ids=["path", "name", "question"],
)
def test_a_resolved_key_of_a_recipe_knows_no_paths_and_no_words(values: dict[str, str], data: str) -> None:
    """The model is in the key by its digest; neither its folder nor a reworded question changes a number."""
    recipe = suppress_ss(data=data)
    assert key(replace(recipe, **values)) == key(recipe)


def test_a_resolved_key_follows_the_content_of_a_neuron_file(data: str, tmp_path: Path) -> None:
    """A file of neurons is data: another content is another result, another place is not."""
    path, moved = tmp_path / "set.csv", tmp_path / "moved.csv"
    text = "language,layer,site,index\nen,0,q,1\n"
    path.write_text(text, encoding="utf-8")
    moved.write_text(text, encoding="utf-8")
    before = resolved_key(NeuronFile(str(path)), MODEL, {})
    assert resolved_key(NeuronFile(str(moved)), MODEL, {}) == before
    path.write_text(text + "en,0,q,2\n", encoding="utf-8")
    assert resolved_key(NeuronFile(str(path)), MODEL, {}) != before


def test_a_resolved_key_follows_the_method_version_of_every_node(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(data) / "set.csv"
    path.write_text("language,layer,site,index\nen,0,q,1\n", encoding="utf-8")
    node = Recipe(sets={"x": NeuronFile(str(path)) | Shared(SafetyNeurons(Prompts(data)))})
    before = key(node)
    for kind in (Recipe, NeuronFile, Shared, SafetyNeurons, Prompts):
        with monkeypatch.context() as patch:
            patch.setattr(kind, "version", 3)
            assert key(node) != before, kind.__name__


def test_a_limit_on_the_command_line_never_raises_the_recipes_own(data: str) -> None:
    recipe = Recipe(sets={"ms": SafetyNeurons(Prompts(data, limit=2))})
    for limit, expected in ((1, 1), (9, 2), (None, 2)):
        (prompts,) = (node for node in walk(limited(recipe, limit)) if isinstance(node, Prompts))
        assert prompts.limit == expected


def test_one_language_has_nobody_to_share_with(data: str) -> None:
    alone = Prompts(data, languages=("en",))
    with pytest.raises(RecipeError, match="no language besides the anchor en"):
        make_plan(Recipe(sets={"ss": Shared(SafetyNeurons(alone))}))
    plan = make_plan(Recipe(sets={"ms": SafetyNeurons(alone)}))
    assert study_anchor(plan.recipe, plan.data) is None


def test_a_plan_knows_what_compared_sets_generate() -> None:
    recipe = suppress_ss(controls=59, label_sets=19)
    prompts = 7 * 200
    assert make_plan(recipe).compared_responses == prompts * (19 + 19 + 59 + 59 + 19)
    assert make_plan(replace(recipe, controls=5)).compared_responses == prompts * (19 + 4 * 5)
    assert make_plan(identify_ms()).compared_responses == 0


def test_a_prompt_set_is_read_once_however_often_a_recipe_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Prompts] = []
    monkeypatch.setattr(plan_module, "load_prompts", lambda node: (read.append(node), load_prompts(node))[1])
    recipe = suppress_ss()
    assert sum(isinstance(node, Prompts) for node in walk(recipe)) > 5
    assert list(make_plan(recipe).data) == read == [Prompts("organism")]
