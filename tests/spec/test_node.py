"""Contracts 1, 7 and 8: an expression is a value, its key is a digest of its JSON, and reading one executes nothing."""

import json
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssn_probe import (
    ASR,
    Expand,
    InLanguage,
    Language,
    LMEval,
    OverRefusal,
    Perplexity,
    Placebo,
    Prompts,
    RandomLike,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    Training,
    Utility,
)
from ssn_probe.errors import RecipeError
from ssn_probe.spec import (
    EFFECTS,
    RULES,
    SITES,
    Ablation,
    After,
    Amplify,
    Combine,
    Each,
    Exchanged,
    Final,
    FinalAblation,
    LeaveOneOut,
    Local,
    LoRA,
    MeanOf,
    NeST,
    NeuronFile,
    Of,
    Only,
    Patch,
    Peak,
    ProbedNeurons,
    Refusal,
    SetExpression,
    SparseEdit,
    Then,
    UnionOf,
    WholeLayers,
    WithoutStrongest,
)
from ssn_probe.spec.effect_registry import named_effect
from ssn_probe.spec.node import NODES, Node, canonical, digest, from_json, rewrite, to_json, walk

quick = settings(deadline=None, max_examples=60)

texts = st.text(max_size=6)
prompt_sets = st.builds(
    Prompts,
    texts,
    harmless=st.none() | texts,
    languages=st.none() | st.lists(texts, max_size=3),
    limit=st.none() | st.integers(1, 99),
)
effects = st.sampled_from(tuple(EFFECTS)) | st.sampled_from(
    [Local(), Local("last"), Final(probes=4), FinalAblation(), Refusal(), Ablation(0.2)]
)
safety_neurons = st.builds(
    SafetyNeurons,
    prompt_sets,
    effect=effects,
    rule=st.sampled_from(sorted(RULES)),
    top=st.none() | st.floats(0, 1, exclude_min=True),
    sites=st.lists(st.sampled_from(SITES), min_size=1),
    pool=st.sampled_from(["site", "layer"]),
)


def larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.builds(Shared, inner, anchor=st.none() | texts),
        st.builds(Shared, inner, at_least=st.integers(1, 9)),
        st.builds(Shared, safety_neurons, by=st.just("mean")),
        st.builds(RandomLike, inner, st.integers(0, 9)),
        st.builds(Combine, st.sampled_from(["and", "or", "minus"]), inner, inner),
        st.builds(lambda one, language: one.of(language), inner, texts),
        st.builds(lambda one: one.union(), inner),
        st.builds(lambda one: one.without_strongest(), inner),
        st.builds(
            lambda one, **kept: one.only(**kept),
            inner,
            layers=st.none() | st.lists(st.integers(0, 40), min_size=1, max_size=3, unique=True),
            sites=st.none() | st.lists(st.sampled_from(SITES), min_size=1, max_size=3, unique=True),
            languages=st.none() | st.lists(texts, min_size=1, max_size=3, unique=True),
        ),
    )


expressions = st.recursive(safety_neurons | st.builds(NeuronFile, texts), larger, max_leaves=4)
arms = st.builds(Suppress, expressions | st.builds(Each, expressions), to=st.just(0) | st.builds(MeanOf, prompt_sets))
recipes = st.builds(
    Recipe,
    model=texts,
    sets=st.dictionaries(st.sampled_from(["a", "b 1"]), expressions, min_size=1),
    arms=st.dictionaries(st.sampled_from(["c", "ü_-"]), arms),
    controls=st.integers(0, 30),
    measures=st.lists(
        st.one_of(st.builds(kind, prompt_sets) for kind in (ASR, OverRefusal, Utility)), min_size=1, unique_by=type
    ),
    seed=st.integers(0, 2**40),
    question=texts,
)


@quick
@given(recipes)
def test_json_round_trip_keeps_the_value_and_the_key(recipe: Recipe) -> None:
    text = json.dumps(to_json(recipe))
    again = from_json(json.loads(text))
    assert type(again) is Recipe
    assert again == recipe
    assert again.key == recipe.key
    assert hash(again) == hash(recipe)
    assert rewrite(recipe, lambda node: node) == recipe


@quick
@given(expressions, expressions)
def test_keys_are_equal_exactly_when_the_json_is(one: Node, other: Node) -> None:
    assert (one == other) == (one.key == other.key) == (to_json(one) == to_json(other))


PROMPTS = Prompts("a")
MS = SafetyNeurons(PROMPTS)
OTHER = NeuronFile("other.csv")
TRAINS = Expand(MS, PROMPTS)
TRAINING_CHANGES = {
    "neurons": OTHER,
    "data": Prompts("b"),
    "training": Training(lr=1e-3),
    "contexts": ("harmful",),
    "languages": ("en",),
    "at": (1, 3),
    "references": "own",
}
CHANGES: dict[type[Node], tuple[Node, dict[str, Any]]] = {
    Prompts: (PROMPTS, {"source": "b", "harmless": "b", "languages": ("en",), "limit": 3, "max_new_tokens": 9}),
    Local: (Local(), {"position": "last", "exact_qk": 0.2}),
    Final: (Final(), {"position": "response", "probes": 4, "seed": 1, "exact_qk": 0.5}),
    FinalAblation: (FinalAblation(), {"position": None}),
    Refusal: (Refusal(), {"at": 1.0, "candidates": 0.1, "exact_qk": 0.0}),
    Ablation: (Ablation(), {"candidates": 0.1}),
    Peak: (Peak(), {}),
    Language: (Language(), {"at": 1.0, "candidates": 0.1, "exact_qk": 0.0}),
    SetExpression: (SetExpression(), {}),
    SafetyNeurons: (
        MS,
        {
            "prompts": Prompts("b"),
            "effect": Local(),
            "rule": "harmful",
            "top": 0.006,
            "sites": ("q", "ffn"),
            "pool": "layer",
            "stable": 0.9,
            "labels": Exchanged(draw=1),
            "scoring_dtype": "float32",
            "audit_seed": 1,
            "verify_most": 0.1,
        },
    ),
    Exchanged: (Exchanged(), {"draw": 1, "seed": 1}),
    Placebo: (Placebo(), {"split": 1, "seed": 1}),
    Shared: (Shared(MS), {"neurons": OTHER, "anchor": "en", "at_least": 2, "by": "mean"}),
    RandomLike: (RandomLike(MS), {"neurons": OTHER, "seed": 1}),
    ProbedNeurons: (
        ProbedNeurons(MS),
        {"scored": SafetyNeurons(Prompts("b")), "threshold": 3.0, "penalty": 2.0},
    ),
    NeuronFile: (OTHER, {"path": "another.csv"}),
    Combine: (MS & OTHER, {"operation": "or", "left": OTHER, "right": MS}),
    Of: (MS.of("en"), {"neurons": OTHER, "language": "de"}),
    **{kind: (kind(MS), {"neurons": OTHER}) for kind in (UnionOf, WithoutStrongest, WholeLayers, LeaveOneOut, Each)},
    Only: (MS.only(), {"neurons": OTHER, "layers": (1,), "sites": ("q",), "languages": ("en",)}),
    After: (MS.after(TRAINS), {"neurons": OTHER, "trained": LoRA(MS, PROMPTS)}),
    **{
        kind: (kind(PROMPTS), {"prompts": Prompts("b")})
        for kind in (MeanOf, ASR, OverRefusal, Utility, InLanguage, Perplexity)
    },
    LMEval: (
        LMEval(tasks=("a", "b")),
        {"tasks": ("a",), "limit": 5, "num_fewshot": 0, "languages": {"a": "en"}, "chat_template": True},
    ),
    Amplify: (Amplify(MS, by=2), {"neurons": OTHER, "by": 3.0}),
    Patch: (Patch(MS), {"neurons": OTHER, "source": "en", "positions": "response"}),
    Suppress: (Suppress(MS), {"neurons": OTHER, "to": MeanOf(PROMPTS)}),
    Expand: (TRAINS, TRAINING_CHANGES),
    LoRA: (LoRA(MS, PROMPTS), TRAINING_CHANGES),
    NeST: (
        NeST(ProbedNeurons(MS), PROMPTS),
        TRAINING_CHANGES | {"neurons": ProbedNeurons(MS).of("en"), "clusters": 3, "most": 5},
    ),
    SparseEdit: (
        SparseEdit(MS, PROMPTS),
        {name: value for name, value in TRAINING_CHANGES.items() if name != "at"}
        | {"at": None, "rank": 2, "keep": 2.0, "ridge": 0.1},
    ),
    Then: (Then(TRAINS, Suppress(MS)), {"first": LoRA(MS, PROMPTS), "then": Amplify(MS, by=2)}),
    Recipe: (
        Recipe(arms={"ms": Suppress(MS)}, measures=(ASR(PROMPTS),)),
        {
            "model": "m",
            "sets": {"x": MS},
            "arms": {"ss": Suppress(MS)},
            "comparisons": ("labels",),
            "label_sets": 39,
            "controls": 39,
            "log_odds_label_sets": 19,
            "permutations": 99,
            "half_samples": 10,
            "measures": (Utility(PROMPTS),),
            "primary": "ms",
            "seed": 1,
            "name": "n",
            "question": "q",
            "judge": "phrases",
            "system": "",
            "chat": "plain",
        },
    ),
}


OURS = [kind for kind in NODES.values() if kind.__module__.startswith("ssn_probe.") and kind is not Training]


@pytest.mark.parametrize("kind", OURS)
def test_every_field_of_every_node_counts_in_the_key(kind: type[Node]) -> None:
    node, changes = CHANGES[kind]
    one_value = {FinalAblation: {"position"}, SparseEdit: {"at"}}.get(kind, set())
    if kind is SafetyNeurons:  # fdr stands alone: it has no top beside it
        assert SafetyNeurons(PROMPTS, fdr=0.05).key != SafetyNeurons(PROMPTS, fdr=0.1).key != node.key
        first = replace(node, effect="refusal:1")  # a default effect cannot be verified
        assert replace(first, verify=0.2).key != replace(first, verify=0.1).key != first.key
        changes = changes | {"fdr": None, "verify": None}
        one_value = {"fdr", "verify"}
    assert set(changes) == {spec.name for spec in fields(kind)}, "a field without a change here is not tested"
    for name, value in changes.items():
        if name not in one_value:
            assert replace(node, **{name: value}).key != node.key, name


def test_a_field_that_came_later_keeps_old_keys() -> None:
    assert "max_new_tokens" not in to_json(PROMPTS)
    assert from_json(to_json(replace(PROMPTS, max_new_tokens=9))).max_new_tokens == 9


def test_the_key_is_pinned() -> None:
    """Whoever changes how a key is made orphans every result: that must be a decision, not an accident."""
    expression = Shared(SafetyNeurons(Prompts("organism"), effect="local", rule="paper", sites=("v", "q")), anchor="ä")
    assert canonical(to_json(expression)) == (
        '{"anchor":"ä","at_least":null,"by":"intersection","kind":"Shared","neurons":'
        '{"effect":{"exact_qk":0.09,"kind":"Local","position":"mean","version":2},"fdr":null,'
        '"kind":"SafetyNeurons","labels":null,"pool":"site","prompts":'
        '{"harmless":null,"kind":"Prompts","languages":null,"limit":null,"source":"organism","version":1},'
        '"rule":"paper","sites":["q","v"],"stable":null,"top":0.03,"version":2},"version":1}'
    )
    assert expression.key == "ce5a36493994bbd2466acdb4a99ec5d2993cd830d04778439b1565051d40e352"


def test_a_node_is_a_value() -> None:
    with pytest.raises(FrozenInstanceError):
        PROMPTS.source = "b"  # type: ignore[misc]
    assert Prompts("a", languages=["en", "de"]) == Prompts("a", languages=("en", "de"))  # type: ignore[arg-type]
    assert len({MS, SafetyNeurons(Prompts("a")), OTHER}) == 2
    assert MS.key != MS
    assert to_json(MS) != MS
    assert Recipe(sets={"a": MS, "b": OTHER}).key == Recipe(sets={"b": OTHER, "a": MS}).key
    assert digest({"x": 1, "y": {"p": 1, "q": 2}}) == digest({"y": {"q": 2, "p": 1}, "x": 1})
    assert canonical({"b": (1, 2.5, None), "a": "ü"}) == '{"a":"ü","b":[1,2.5,null]}'
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": float("nan")})


def test_the_method_version_counts_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    expression = Shared(SafetyNeurons(PROMPTS, effect="local"))
    before = expression.key
    monkeypatch.setattr(Local, "version", 3)
    assert expression.key != before


LIVE = {
    "lambda": lambda: 1,
    "object": object(),
    "set": {1},
    "bytes": b"x",
    "path": Path("x"),
    "class": dict,
    "complex": 1j,
    "int keys": {1: 2},
    "nan": float("nan"),
    "inf": float("inf"),
    "-inf": float("-inf"),
}


@pytest.mark.parametrize("value", LIVE.values(), ids=LIVE)
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: ("en", x), lambda x: [[x]], lambda x: {"a": (x,)}])
def test_what_a_recipe_cannot_hold_is_refused_with_the_field_named(value: Any, wrap: Any) -> None:
    with pytest.raises(RecipeError, match=r"Prompts\.languages is ") as caught:
        Prompts("a", languages=wrap(value))
    assert caught.value.hint
    assert not isinstance(value, float) or "finite" in caught.value.hint


def changed(**values: Any) -> dict[str, Any]:
    return to_json(MS) | values


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        (changed(kind="SafetyNeuron"), "unknown node 'SafetyNeuron'", "SafetyNeurons"),
        (changed(kind="os.system"), "unknown node 'os.system'", ""),
        (changed(kind="Node"), "unknown node 'Node'", ""),
        (changed(kind=["SafetyNeurons"]), "unknown node", ""),
        (changed(kind=None), "unknown node None", ""),
        (changed(version=1), "has version 1 in the recipe, but this release has version 2", "run the recipe by name"),
        (changed(version=None), "version None", "run the recipe by name"),
        (changed(version=True), "version True", "run the recipe by name"),
        (changed(version=1.0), "version 1.0", "run the recipe by name"),
        (changed(strength=1), "wrong fields.*strength", ""),
        ({"kind": "SafetyNeurons", "version": 2}, "wrong fields.*prompts", ""),
        (changed(rule="papr"), "unknown rule 'papr'", "paper"),
        (changed(top=float("nan")), r"SafetyNeurons\.top is nan", "finite"),
        (changed(prompts=to_json(Local())), "prompts is ", "Prompts"),
    ],
)
def test_json_that_is_no_expression_is_refused(data: Any, message: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        from_json(data)
    assert hint in (caught.value.hint or "")


def test_walk_meets_every_node_outermost_first() -> None:
    recipe = Recipe(sets={"a": Shared(MS)}, measures=(ASR(Prompts("b")),))
    kinds = [type(node).__name__ for node in walk(recipe)]
    assert kinds == ["Recipe", "Shared", "SafetyNeurons", "Prompts", "Refusal", "ASR", "Prompts"]


def test_rewrite_changes_every_node_of_a_kind_and_leaves_the_original() -> None:
    recipe = Recipe(sets={"a": MS | OTHER}, measures=(ASR(PROMPTS),))
    limited = rewrite(recipe, lambda node: replace(node, limit=5) if isinstance(node, Prompts) else node)
    assert [node.limit for node in walk(limited) if isinstance(node, Prompts)] == [5, 5]
    assert [node.limit for node in walk(recipe) if isinstance(node, Prompts)] == [None, None]


def test_an_effect_is_spelled_as_it_is_asked_for() -> None:
    for text in ("refusal", "refusal:1", "refusal:0.3", "final", "final:response", "local:last", "ablation:0.01"):
        assert named_effect(text).spelled == text
    assert Final(probes=4).spelled == "final(probes=4)"
    assert Refusal(at=1, exact_qk=1).spelled == "refusal(at=1, exact_qk=1)"
