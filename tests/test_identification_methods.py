"""Peers' definitions on a model whose answers are known: one layer, five feed-forward neurons, a linear read-out."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.identification import peers
from benchmarks.identification.peers import by_activation, by_gradient
from benchmarks.identification.peers.given import Given
from benchmarks.identification.peers.passes import Place, candidates_of, log_odds, passed
from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Openings

OPENINGS = Openings(refusal=((0,),), compliant=((1,),))
# token → what it puts into each of the five neurons; 1 is harmful, 2 harmless, 0 pads
VALUES = torch.tensor([[9.0, 9, 9, 9, 9], [2, 1, 0, 1, 1], [2, 0, 1, 0, 1], [2, 0.5, 0, 2, 1], [2, 0, 1, 0.5, 1]])
WRITES = torch.tensor([[0.0, 3, 0, -1, 0], [0, 0, 0, 0, 1]])  # neuron → the two logits


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up_proj, self.down_proj = nn.Linear(5, 5, bias=False), nn.Linear(5, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.up_proj(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.layers = nn.Embedding(5, 5), nn.ModuleList([Block()])

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embed

    def forward(self, input_ids: Tensor, **_others: Any) -> Any:
        return SimpleNamespace(logits=self.layers[0](self.embed(input_ids)))


@pytest.fixture
def given() -> Any:
    module: Any = Tiny()
    with torch.no_grad():
        module.embed.weight.copy_(VALUES)
        module.layers[0].mlp.up_proj.weight.copy_(torch.eye(5))
        module.layers[0].mlp.down_proj.weight.copy_(WRITES)
    module.requires_grad_(False)
    family = SimpleNamespace(layers="layers", modules={"ffn": ("mlp.down_proj", "input")})
    subject: Any = SimpleNamespace(
        model=SimpleNamespace(_module=module), family=family, n_layers=1, pad_id=0, device="cpu"
    )
    tokens = {("qaa", "harmful"): [[1], [3, 1], [3]], ("qaa", "harmless"): [[2], [4, 2], [4]]}
    return Given(subject=subject, tokens=tokens, reads={"qaa": OPENINGS}, sites=("ffn",))


def test_attribution_is_exact_where_the_read_out_is_linear(given: Any) -> None:
    found = by_gradient.attribution(given, rule="harmful")["ffn"][0]
    activations = torch.stack([VALUES[1], VALUES[1], VALUES[3]]).mean(0)  # only the last token is read
    assert found.tolist() == pytest.approx((activations * (WRITES[0] - WRITES[1])).tolist())


def test_gradients_at_any_scale_are_those_of_a_linear_read_out(given: Any) -> None:
    first = by_gradient.attribution(given)["ffn"]
    for other in (by_gradient.half_scale, by_gradient.integrated_gradients, by_gradient.coalition_gradient):
        assert torch.allclose(other(given)["ffn"], first, atol=1e-6)


def test_patching_to_the_harmless_mean_counts_what_differs(given: Any) -> None:
    found = by_gradient.attribution_to_mean(given)["ffn"][0]
    assert found[0] == 0
    assert found.argmax() == 1


def test_the_loss_of_a_refusal_knows_no_sign(given: Any) -> None:
    found = by_gradient.loss_gradient(given)["ffn"][0]
    assert found[0] == found[2] == 0
    assert found[[1, 3, 4]].min() > 0


def test_sizes_are_means_and_sums_over_real_tokens(given: Any) -> None:
    assert by_activation.activation_size(given)["ffn"][0, 1] == pytest.approx((1 + 0.75 + 0.5) / 3)
    assert by_activation.summed_up_projection(given)["ffn"][0, 1] == pytest.approx((1 + 1.5 + 0.5) / 3)


def test_plnd_counts_the_prompts_whose_top_a_neuron_is_in(given: Any) -> None:
    found = by_activation.plnd(given, top=0.2)["ffn"][0]
    assert found.argmax() == 1  # in the top of two prompts; neuron 3 in that of one
    assert found[1] == pytest.approx(2 / 3 + 1 / 6)
    assert 1 / 3 < found[3] < 1 / 2
    assert found[[0, 2, 4]].max() < 1 / 6 + 1e-9


def test_rsn_tune_drops_what_every_harmless_prompt_has(given: Any) -> None:
    found = by_activation.plnd(given, top=0.2, foundation=True)["ffn"][0]
    assert found[4] == 0


def test_an_effect_size_is_cohens_d(given: Any) -> None:
    found = by_activation.effect_size(given)["ffn"][0]
    a, b = torch.tensor([1, 0.75, 0.5]), torch.zeros(3)
    assert found[1] == pytest.approx((a.mean() - b.mean()).item() / ((a.var() + b.var()) / 2).sqrt().item())
    assert found[0] == 0


@pytest.mark.parametrize("method", [by_activation.safeneuron, by_activation.nest])
def test_contrasts_prefer_what_is_active_on_harmful_prompts(given: Any, method: Any) -> None:
    found = method(given)["ffn"][0]
    assert found.argmax() in (1, 3)
    assert found.argmin() == 2


def test_a_probe_is_where_the_penalised_likelihood_is_flat() -> None:
    features = torch.tensor([[1.0, 0], [2, 1], [0, 2], [-1, 1]]).double()
    weights = by_activation._probe(features, [2, 2], 1.0)
    x = (features - features.mean(0)) / features.std(0)
    labels = torch.tensor([1.0, 1, 0, 0]).double()
    intercept = torch.zeros(1).double()
    for _ in range(200):
        intercept = intercept + 0.5 * (labels - (x @ weights + intercept).sigmoid()).sum()
    slope = x.T @ ((x @ weights + intercept).sigmoid() - labels) + weights
    assert slope.abs().max() < 1e-6


def test_the_refusal_direction_takes_what_is_written_along_it(given: Any) -> None:
    found = by_activation.refusal_direction(given)["ffn"][0]
    assert found[0] == found[2] == 0  # the same in both contexts; writes nothing
    assert found[1] > 0 > found[3]


def test_a_coalition_scales_candidates_alone_and_its_complement_the_others(given: Any) -> None:
    seen: list[dict] = []
    run = Given.run

    def noted(self: Given, language: str, context: str, read: Any = None, change: Any = None) -> Any:
        if change is not None:
            seen.append(change.args[0])
        return run(self, language, context, read, change)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Given, "run", noted)
        by_gradient.coalition_gradient(given, draws=2, share=0.2, seed=3, rule="harmful")
    one, other = (factors[0, "ffn"][:, 0] for factors in seen)
    assert not ((one == 0) & (other == 0)).any()
    assert (one * other).argmin(1).tolist() == [1, 1, 3]  # the strongest neuron of each prompt
    assert ((one * other) == 0).sum(1).tolist() == [1, 1, 1]


def test_every_method_scores_every_neuron(given: Any) -> None:
    for name, method in peers.METHODS.items():
        assert method.rank(given)["ffn"].shape == (1, 5), name
        assert method.forwards(1) >= 1, name


def test_candidates_are_the_largest_in_size_and_never_nothing() -> None:
    effects: dict[Place, Tensor] = {(0, "ffn"): torch.tensor([[0.1, -3, 2, 0, 0], [0, 0, 0, 0, 0]])}
    assert candidates_of(effects, 0.4)[0, "ffn"].tolist() == [[False, True, True, False, False], [False] * 5]


def test_openings_of_several_tokens_are_refused(given: Any) -> None:
    with pytest.raises(ModelError, match="several tokens"):
        passed(given.subject, [[1]], given.places, log_odds(Openings(refusal=((0, 1),), compliant=((1,),))))
