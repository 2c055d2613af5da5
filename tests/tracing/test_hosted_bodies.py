"""Every body gives on a host what it gives here, trusted or in its sandbox, and what travels is small."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny import EVERY_FAMILY
from torch import Tensor
from transformers import GenerationConfig

from ssn_probe.errors import ModelError
from ssn_probe.model.subject import Subject
from ssn_probe.model.turn_ends import requests
from ssn_probe.neurons import SITES
from ssn_probe.spec import Peak
from ssn_probe.tracing.capture import capture
from ssn_probe.tracing.divergence import read_texts
from ssn_probe.tracing.edits import amplification, carrying, suppression
from ssn_probe.tracing.effects import (
    Scores,
    final_states,
    refusal_log_odds,
    score,
    score_final,
    score_final_ablation,
    score_local,
    score_refusal,
)
from ssn_probe.tracing.generate import greedy_tokens
from ssn_probe.tracing.means import mean_activations
from ssn_probe.tracing.texts import Text

from .hosted import Host, hosted
from .test_effects import OPENINGS, PROMPTS, module_of

pytestmark = pytest.mark.usefixtures("sequences_apart")

NEURONS = [(layer, site, index) for layer in range(2) for site in SITES for index in (1, 6)]
SILENT = suppression(NEURONS)
TEXTS = [Text(prompt=tuple(row[:-2]), answer=tuple(row[-2:]), own=(1, len(row) - 2)) for row in PROMPTS]
HALF = 2**-11
ROUNDING = 1e-5
"""Of single precision, summed up in a pass: a share of the largest value."""
FAMILIES = ("llama", "qwen3", "gemma2", "phi3")


def decoded(scores: Scores) -> dict[str, Tensor]:
    return {site: scores.values[site].double() * scores.scale[site].double()[..., None] for site in scores.values}


def changed_reading(subject: Subject) -> dict[str, Tensor]:
    untouched = read_texts(subject, TEXTS)
    found = read_texts(subject, TEXTS, before=untouched.states, edits=SILENT)
    return {"nll before": untouched.nll, "kl": found.kl, "first": found.kl_first, "nll": found.nll}


def carried_generation(subject: Subject) -> dict[str, Tensor]:
    values = capture(subject, PROMPTS, NEURONS, max_new_tokens=3)
    odds = refusal_log_odds(subject, PROMPTS[::-1], OPENINGS, edits=carrying(NEURONS, "run"), carried=values)
    return {"values": values.values, "odds": odds}


RUNS: dict[str, Callable[[Subject], Mapping[str, Tensor]]] = {
    "local": lambda subject: decoded(score_local(subject, PROMPTS)),
    "local ffn, v": lambda subject: decoded(score_local(subject, PROMPTS, sites=("ffn", "v"), position="last")),
    "final": lambda subject: decoded(score_final_ablation(subject, PROMPTS[2:], sites=["k"])),
    "log odds": lambda subject: {"": refusal_log_odds(subject, PROMPTS, OPENINGS, edits=SILENT)},
    "states": lambda subject: {"": final_states(subject, PROMPTS)},
    "peaks": lambda subject: decoded(score(Peak(), subject, PROMPTS)),
    "means": lambda subject: {**mean_activations(subject, PROMPTS)},
    "carried": carried_generation,
    "reading": changed_reading,
    "generation": lambda subject: {
        "": torch.tensor(greedy_tokens(subject, PROMPTS, max_new_tokens=5, edits=amplification(NEURONS, 2.0)))
    },
}


def allowed(run: str, part: str, wanted: Tensor, sandbox: bool) -> Tensor | float:
    """How far a host's values may be from those here: nothing, where both sum in the same order.

    A sandbox measures columns with unit vectors. What is read at last positions runs whole on a host, and here behind
    the start that the prompts share, with the last layer at fewer positions: sums in single precision over
    other blocks of a matrix, which need not be equal to the last bit. A sum of some hundred terms errs by some 2⁻²⁴ of
    its largest partial sum for every doubling of their number, 5e-7, and a pass has about ten such sums one after
    another, hence 1e-5 in the worst case. An ablation runs whole on a host, too, and here from the neuron's layer on,
    and so does the last layer of a refusal effect, here where r is read alone: an effect that is stored in half
    precision is then the same number or the next one.
    """
    if run in ("final", "refusal") or (sandbox and run.startswith("local")):
        return HALF * wanted.abs().amax(-1, keepdim=True)
    if run in ("log odds", "states") or part == "odds":
        return ROUNDING * wanted.abs().amax(-1, keepdim=True)
    return 0.0


QUICK = ("local", "carried")
"""All that a row decides: what is read of the attention, and where sites are read and written."""


@pytest.fixture(params=["trusted", "sandbox"])
def sandbox(request: pytest.FixtureRequest) -> bool:
    return request.param == "sandbox"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("run", RUNS)
def test_a_host_computes_the_same(single: Callable[[str], Subject], family: str, run: str, sandbox: bool) -> None:
    subject = single(family)
    here, there = RUNS[run](subject), RUNS[run](hosted(subject, sandbox=sandbox))
    assert here.keys() == there.keys()
    for name, wanted in here.items():
        gap = allowed(run, name, wanted, sandbox)
        assert ((there[name] - wanted).abs() <= gap).all() or wanted.equal(there[name]), name


@pytest.mark.parametrize(
    "run", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RUNS]
)
@pytest.mark.parametrize("family", [name for name in EVERY_FAMILY if name not in FAMILIES])
def test_a_sandbox_computes_the_same_in_every_family(single: Callable[[str], Subject], family: str, run: str) -> None:
    """What a body must know of modules is in `places`, whatever the row says: a sandbox shows none."""
    test_a_host_computes_the_same(single, family, run, True)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_gradients_of_every_family_on_a_host(single: Callable[[str], Subject], family: str) -> None:
    here, there = (decoded(score_refusal(one, PROMPTS, OPENINGS)) for one in (single(family), hosted(single(family))))
    for site, wanted in here.items():
        assert ((there[site] - wanted).abs() <= allowed("refusal", site, wanted, False)).all(), site


@pytest.mark.parametrize("family", FAMILIES)
def test_read_outs_are_the_same_on_a_host(single: Callable[[str], Subject], family: str) -> None:
    one = single(family)
    here, there = (decoded(score_final(where, PROMPTS, probes=2)) for where in (one, hosted(one)))
    assert all(here[site].equal(there[site]) for site in here)


def test_nan_is_named_on_a_host(single: Callable[[str], Subject], sandbox: bool) -> None:
    subject = single("llama")
    weight = module_of(subject).get_parameter("model.layers.1.self_attn.v_proj.weight")
    kept = weight[3, 3].item()
    weight[3, 3] = float("nan")
    try:
        with pytest.raises(ModelError, match="at site v of layer 1"):
            score_local(hosted(subject, sandbox=sandbox), PROMPTS)
    finally:
        weight[3, 3] = kept


def jobs_of(subject: Subject, run: Callable[[Subject], Any]) -> dict[str, tuple[int, int]]:
    """The bytes up and down of the last job of each body."""
    run(subject)
    assert isinstance(subject.calls, Host)
    return {name: (sent, received) for name, sent, received in subject.calls.jobs}


def test_little_travels(single: Callable[[str], Subject]) -> None:
    """Effects in half precision, one scale per layer; of texts, of responses and of weights next to nothing."""
    subject = single("llama")
    neurons = len(PROMPTS) * subject.n_layers * sum(subject.widths.values())
    jobs = jobs_of(hosted(subject), RUNS["local"]) | jobs_of(hosted(subject), RUNS["reading"])
    jobs |= jobs_of(hosted(subject), RUNS["generation"])
    assert neurons * 2 < jobs["trace_local_effects"][1] < neurons * 2 + 6000
    assert jobs["trace_texts_alone"][1] < 3000
    assert jobs["trace_generation"][1] < 1500
    assert max(sent for sent, _received in jobs.values()) < 10_000  # inputs, places and edits
    blind = jobs_of(hosted(subject, sandbox=True), RUNS["local"])
    assert blind["trace_weights"][0] < 4000


REQUESTS = {
    **{"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "typical_p": 0.9},
    **{"num_beams": 3, "num_return_sequences": 2, "length_penalty": 2.0, "diversity_penalty": 0.5},
    **{"repetition_penalty": 1.8, "encoder_repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
    **{"bad_words_ids": [[word] for word in range(5, 90)], "suppress_tokens": list(range(90, 120))},
    **{"begin_suppress_tokens": [4, 5], "forced_bos_token_id": 7, "forced_eos_token_id": 8},
    **{"min_length": 40, "min_new_tokens": 4, "max_length": 3, "max_time": 1e-6, "eos_token_id": [2, 9]},
    **{"sequence_bias": [[[5], -10.0]], "guidance_scale": 2.0, "exponential_decay_length_penalty": [1, 2.0]},
    **{"remove_invalid_values": True, "renormalize_logits": True, "use_cache": False, "cache_implementation": "static"},
    **{"return_dict_in_generate": True, "output_scores": True, "output_attentions": True, "a_custom_entry": 3},
    **{"stop_strings": ["a"], "penalty_alpha": 0.6, "dola_layers": "low", "prompt_lookup_num_tokens": 3},
}
"""What a checkpoint may ask of generation, all at once."""


@pytest.mark.parametrize("known", [True, False])
def test_the_generation_config_of_the_host_changes_nothing(
    single: Callable[[str], Subject], sandbox: bool, known: bool
) -> None:
    """Whether it is that of the checkpoint as read here, or only the host's own (which a sandbox does not show)."""
    subject, asked = single("llama"), GenerationConfig(**REQUESTS)
    if sandbox and not known:
        pytest.skip("A sandbox does not show what the host has read.")
    wanted = greedy_tokens(subject, PROMPTS, max_new_tokens=6)
    host = hosted(subject, sandbox=sandbox)
    if known:
        turns = replace(subject.turns, overridden=dict(requests(asked.to_diff_dict())))
        host = replace(host, turns=turns)
    kept, module_of(subject).generation_config = module_of(subject).generation_config, asked
    try:
        assert greedy_tokens(host, PROMPTS, max_new_tokens=6) == wanted
    finally:
        module_of(subject).generation_config = kept
