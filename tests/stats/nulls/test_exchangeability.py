"""Does an exchange make a null? Label retention, what is left of the contrast, and what is said where it does not."""

import numpy as np
import pytest
from made_up_effects import LANGUAGES, effects_from, prompt_table, sides

from ssn_probe.stats.nulls.exchangeability import Exchangeability, exchangeability
from ssn_probe.stats.nulls.label_exchange import draw_labels, exchange
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.stats.nulls.relabelled import labelled_means, relabelled


def study(harmful: list[bool], topic: list[int], *, seed: int = 0, paired: bool = False) -> PromptEffects:
    """Effects of a label, a topic, and noise that translations share."""
    random, n = np.random.default_rng(seed), len(harmful)
    pairs = {"pair_id": [f"{i // 2}" for i in range(n)]} if paired else {}
    prompts = prompt_table(harmful, stratum=[f"t{code}" for code in topic], **pairs)
    shift = random.normal(size=(max(topic) + 1, 30))[topic] * 3 + np.array(harmful)[:, None] * random.normal(size=30)
    common = random.normal(size=(n, 30))
    effects = {(one, 0, "o"): common + shift + random.normal(size=(n, 30)) for one in LANGUAGES}
    return effects_from(prompts, effects)


def topics(n: int, share: float, seed: int = 0) -> tuple[list[bool], list[int]]:
    """n prompts in two topics, of which the first has that share of harmful ones and the second the rest."""
    harmful = [i < share * n / 2 for i in range(n // 2)] + [i < (1 - share) * n / 2 for i in range(n // 2)]
    return harmful, [0] * (n // 2) + [1] * (n // 2)


def test_pairs_keep_half_of_the_labels_and_no_contrast() -> None:
    found = exchangeability(study(sides(40), [0] * 80, paired=True))
    assert found.retention == pytest.approx(0.5, abs=0.01)
    assert abs(found.contrast or 0) < 3.29 * (found.contrast_error or 0)
    assert (found.pairs, found.strata, found.taking_part, found.prompts) == (40, 0, 80, 80)
    assert found.reason is None


def test_topics_that_predict_the_label_make_no_null() -> None:
    found = exchangeability(study(*topics(200, 0.8)))
    assert found.retention == pytest.approx(0.8**2 + 0.2**2, abs=0.005)
    assert found.reason is not None
    assert "68 % of the prompts keep their label" in found.reason
    # Means weighted by topics leave nothing of the contrast all the same.
    assert abs(found.contrast or 0) < 3.29 * (found.contrast_error or 0)


def test_how_many_there_are_of_either_label_is_no_prediction() -> None:
    harmful = [i % 4 == 0 for i in range(200)]
    found = exchangeability(study(harmful, [i // 4 % 3 for i in range(200)]))
    assert found.retention == pytest.approx(0.5, abs=0.01)
    assert found.reason is None


def test_the_projection_is_that_of_the_contrasts_themselves() -> None:
    effects = study(*topics(60, 0.55))
    vectors = []
    for draw in range(41):
        means = labelled_means(relabelled(effects, draw, 5))
        vectors.append((means["harmful"] - means["harmless"]).to_numpy())
    wanted = [vector @ vectors[0] / (vectors[0] @ vectors[0]) for vector in vectors[1:]]
    found = exchangeability(effects, draws=40, seed=5)
    assert found.contrast == pytest.approx(np.mean(wanted), rel=1e-4)
    assert found.contrast_error == pytest.approx(np.std(wanted, ddof=1) / 40**0.5, rel=1e-4)


def test_without_weights_topics_would_leave_a_contrast_that_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit's failure: the difference of plain means under exchange within topics that predict the label."""
    monkeypatch.setattr("ssn_probe.stats.nulls.prompt_blocks.Blocks.weights", lambda self, *both: both)
    found = exchangeability(study(*topics(200, 0.6)))
    assert (found.retention or 0) < 0.55
    assert (found.contrast or 0) > 0.1
    assert "the mean contrast under exchanged labels is" in (found.reason or "")


def test_what_cannot_be_exchanged_says_why() -> None:
    alone = exchangeability(study([True] * 10 + [False] * 10, [0] * 10 + [1] * 10))
    assert alone.reason == alone.impossible
    assert "no minimal pairs, and in no stratum" in (alone.reason or "")
    few = exchangeability(study(sides(4), [0] * 8, paired=True))
    assert "16 distinct ways to exchange their labels, within 4 minimal pairs" in (few.reason or "")
    one = exchangeability(study(sides(10), list(range(20))))  # one prompt per stratum
    assert "no prompts are exchangeable" in (one.reason or "")
    assert Exchangeability(prompts=2).reason is None


def test_effects_that_are_all_equal_have_no_contrast() -> None:
    effects = effects_from(prompt_table(sides(10)), {("en", 0, "o"): np.full((20, 3), 0.1)})
    found = exchangeability(effects, draws=20)
    assert (found.contrast, found.contrast_error, found.reason) == (0, 0, None)


@pytest.mark.parametrize("share", [0.5, 0.6, 0.7])
def test_the_null_of_the_contrast_holds_its_level_where_topics_predict(share: float) -> None:
    """Nothing but topics differs: ranks of the observed contrast's length among draws, with weighted means."""
    ranks = []
    for seed in range(120):
        random = np.random.default_rng(seed)
        harmful, topic = topics(40, share)
        prompts = prompt_table(harmful, stratum=[f"t{code}" for code in topic])
        x = random.normal(size=(40, 4)) + 4 * random.normal(size=(2, 4))[topic]
        labels, _ = draw_labels(prompts, 39, seed)
        blocks = exchange(prompts).blocks
        every = np.concatenate([np.array(harmful)[None], labels])
        sides_of = blocks.weights(every.astype(float), (~every).astype(float))
        gaps = [side @ x / side.sum(axis=1, keepdims=True) for side in sides_of]
        length = np.square(gaps[0] - gaps[1]).sum(axis=1)
        ranks.append((length >= length[0] - 1e-9).mean())
    assert np.mean(np.array(ranks) <= 0.05) <= 0.05 + 2.6 * (0.05 * 0.95 / 120) ** 0.5
