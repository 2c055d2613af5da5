"""Every effect of what is hardly a prompt, and of neurons that do nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.spec import Ablation, Effect, Final, FinalAblation, Local, Peak, Refusal
from ssn_probe.tracing.effects import Scores, decode, score

from .test_effects import OPENINGS, PROMPTS, assert_close, module_of

EFFECTS: dict[str, Effect] = {
    "local": Local(),
    "local, all exact": Local(exact_qk=1.0),
    "local, last token": Local(position="last"),
    "refusal": Refusal(),
    "final": Final(probes=2),
    "final by ablation": FinalAblation(),
    "ablation": Ablation(),
    "peak": Peak(),
}
EACH = pytest.mark.parametrize("effect", EFFECTS.values(), ids=EFFECTS)


def scored(effect: Effect, subject: Subject, tokens: list[list[int]]) -> Scores:
    options: dict[str, Any] = {}
    if effect.screen is not None:
        options["candidates"] = [(layer, site, 3) for layer in range(2) for site in SITES]
    return score(effect, subject, tokens, reads=OPENINGS if effect.needs_openings else None, **options)


@EACH
def test_a_single_prompt_has_the_effects_that_it_has_among_others(llama: Subject, effect: Effect) -> None:
    alone, among = scored(effect, llama, [PROMPTS[1]]), scored(effect, llama, PROMPTS)
    for site in SITES:
        assert decode(alone, site).shape[0] == 1
        assert_close(decode(alone, site)[0], decode(among, site)[1], 1e-3)


@EACH
def test_a_prompt_of_one_token(llama: Subject, effect: Effect) -> None:
    """It attends to itself alone, so that only an opening that follows it can ask and answer differently."""
    found = scored(effect, llama, [[5]])
    assert all(decode(found, site).isfinite().all() for site in SITES)
    assert decode(found, "ffn").any()
    if not effect.needs_openings and not isinstance(effect, Peak):
        assert all(decode(found, site).abs().max() < 1e-6 for site in ("q", "k"))


@EACH
def test_a_layer_of_dead_neurons(tiny_folder: Callable[[str], Any], effect: Effect) -> None:
    subject = load_subject(str(tiny_folder("llama")), dtype="float32")
    with torch.no_grad():
        for site in ("q", "k", "v"):
            module_of(subject).get_parameter(f"model.layers.1.self_attn.{site}_proj.weight").zero_()
        module_of(subject).get_parameter("model.layers.1.mlp.up_proj.weight").zero_()
    found = scored(effect, subject, PROMPTS)
    for site in SITES:
        effects = decode(found, site).abs().amax((0, 2))
        # Silencing what does nothing may still round another way.
        assert effects[1] < 1e-5 * effects[0], site


@EACH
def test_a_prompt_without_a_token_and_no_prompt(llama: Subject, effect: Effect) -> None:
    assert len(scored(effect, llama, [])) == 0
    with pytest.raises(ModelError, match=r"without tokens|no token"):
        scored(effect, llama, [[1, 2], []])
