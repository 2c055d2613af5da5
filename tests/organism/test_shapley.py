"""Shapley values: they add up, they are those of the definition, and v is what the model itself says."""

import itertools
import json
import math
from pathlib import Path

import pytest
import torch

from ssn_probe.errors import RecipeError
from ssn_probe.model.loading import locate
from ssn_probe.neurons import Site
from ssn_probe.organism import planting, promptset, world
from ssn_probe.organism import truth_measurement as truth
from ssn_probe.organism.exam import prompt_tokens
from ssn_probe.organism.shapley import Coalitions, Questions, Shapley, shapley
from ssn_probe.organism.variants import blank_model

NEURONS: list[tuple[int, Site, int]] = [(0, "ffn", 3), (0, "o", 5), (1, "ffn", 9), (2, "o", 70), (3, "ffn", 1)]


@pytest.fixture(scope="module")
def model():
    """Random, with neurons that matter: their columns are long."""
    made = blank_model("qwen3", 3).eval().requires_grad_(False)
    for layer, site, channel in NEURONS:
        planting.reader(made, layer, site).weight[:, channel] *= 300.0
    return made


@pytest.fixture(scope="module")
def asked() -> Questions:
    texts = promptset.truth_prompts("qac")["harmful"][:5] + promptset.truth_prompts("qac")["lookalike"][:5]
    return Questions(
        tokens=prompt_tokens(texts),
        refusal=torch.full((10,), world.token("qac", "refusal")),
        compliant=torch.full((10,), world.token("qac", "opening")),
        weights=torch.tensor([(0.2, 0.2)] * 5 + [(0.0, -0.2)] * 5),
    )


def nothing(done: int, total: int) -> None:
    pass


@torch.no_grad()
def plain_value(model, asked: Questions, off: set[int]) -> torch.Tensor:
    """v by zeroed columns and the model's own forward pass, in the words of the definition."""
    weights = {(layer, site): planting.reader(model, layer, site).weight for layer, site, _ in NEURONS}
    before = {place: weight.clone() for place, weight in weights.items()}
    for number in off:
        layer, site, channel = NEURONS[number]
        weights[layer, site][:, channel] = 0.0
    log_probs = model(input_ids=asked.tokens).logits[:, -1].double().log_softmax(-1)
    for place, weight in weights.items():
        weight.copy_(before[place])
    rows = torch.arange(len(asked.tokens))
    odds = log_probs[rows, asked.refusal] - log_probs[rows, asked.compliant]
    return torch.stack([odds[:5].mean(), odds[:5].mean() - odds[5:].mean()])


def test_v_is_what_the_model_says_whatever_joined_before(model, asked: Questions) -> None:
    coalitions = Coalitions(model, NEURONS, asked)
    with torch.no_grad(), coalitions.hooked():
        for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 17):
            coalitions.turn(False)
            for done, number in enumerate(order, 1):
                value = coalitions.join(number)
                expected = plain_value(model, asked, set(order[done:]))
                torch.testing.assert_close(value, expected, atol=2e-5, rtol=1e-4)


def test_values_are_those_of_the_definition_and_add_up(model, asked: Questions) -> None:
    subsets = {
        frozenset(on): plain_value(model, asked, set(range(5)) - set(on))
        for size in range(6)
        for on in itertools.combinations(range(5), size)
    }
    exact = torch.zeros(5, 2, dtype=torch.float64)
    for number, on in itertools.product(range(5), subsets):
        if number not in on:
            weight = math.factorial(len(on)) * math.factorial(4 - len(on)) / math.factorial(5)
            exact[number] += weight * (subsets[on | {number}] - subsets[on])
    found = shapley(model, NEURONS, asked, pairs=40, seed=1, report=nothing)
    torch.testing.assert_close(found.values.sum(0), found.all - found.none, atol=1e-4, rtol=0)
    assert ((found.values - exact).abs() <= 4 * found.errors + 1e-4).all()
    assert found.errors.max() < 0.2 * exact.abs().max()
    assert exact[:, 0].abs().min() > 1e-3


def test_one_pair_has_no_error(model, asked: Questions) -> None:
    with pytest.raises(RecipeError, match="two permutation pairs, not 1"):
        shapley(model, NEURONS, asked, pairs=1, seed=0, report=nothing)


def test_classes_are_by_bounds_and_a_hundredth_of_the_total() -> None:
    for value, error, expected in (
        (0.13, 0.01, "carrier"),
        (0.12, 0.01, "idle"),
        (0.09, 0.0, "idle"),
        (-0.13, 0.01, "brake"),
        (-0.12, 0.01, "idle"),
    ):
        assert truth.classify(value, error, 10.0) == truth.classify(value, error, -10.0) == expected


def test_the_frame_has_values_errors_and_classes_of_both_questions() -> None:
    columns = {"values": [[2.0, -1.0], [0.0, 3.0]], "errors": [[0.1, 0.1], [0.1, 0.2]]}
    found = Shapley(
        **{name: torch.tensor(value) for name, value in columns.items()},
        none=torch.tensor([-1.0, 0.0]),
        all=torch.tensor([1.0, 2.0]),
        pairs=2,
    )
    frame = truth.truth_frame([(0, "ffn", 7), (3, "o", 1)], found)
    assert frame.select("layer", "site", "index").rows() == [(0, "ffn", 7), (3, "o", 1)]
    assert frame.select("harmful_class", "difference_class").rows() == [("carrier", "brake"), ("idle", "carrier")]
    assert frame["difference_se"].to_list() == pytest.approx([0.1, 0.2])


def test_questions_weigh_languages_and_prompts_alike() -> None:
    asked = truth.questions()
    assert len(asked.tokens) == 7 * sum(promptset.HELD_OUT.values())
    torch.testing.assert_close(asked.weights.sum(0), torch.tensor([1.0, 0.0]), atol=1e-5, rtol=0)
    spoken = {tuple(row) for row in asked.weights[:160].tolist()}
    assert len(spoken) == 2
    torch.testing.assert_close(asked.weights[:160], asked.weights[160:320])


@pytest.mark.parametrize(("strongest", "accepted"), [(1.0, True), (40.0, False)])
def test_a_strong_neuron_is_not_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model, strongest: float, accepted: bool
) -> None:
    values = torch.ones(8, 2)
    values[3, 0] = strongest
    found = Shapley(values=values, errors=0.0 * values, none=torch.zeros(2), all=values.sum(0), pairs=2)
    monkeypatch.setattr(truth, "shapley", lambda *args, **options: found)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    natural = json.loads((Path(locate("organism")) / "card.json").read_text("utf-8"))
    planted: planting.Planted = {(0, "ffn"): tuple(range(8))}
    card = truth.add_truth(tmp_path, natural, model, planted, pretrained="", pairs=2, report=nothing)
    assert card["accepted"] is accepted
    assert card["largest_share"] == pytest.approx(strongest / (strongest + 7), abs=1e-4)
