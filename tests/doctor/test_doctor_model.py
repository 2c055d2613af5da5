"""What is asked of a model: all is well in every family, and whatever is broken is found and named."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from tiny import TEMPLATE, WORDS, tiny_module, tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from tracing import plain

from ssn_probe.doctor import module_weights as weights
from ssn_probe.doctor import noise, probing
from ssn_probe.doctor import padding as batching
from ssn_probe.doctor.checks import Check, guarded
from ssn_probe.doctor.examine import examine_subject
from ssn_probe.doctor.loaded_model import check_tracing, describe_subject
from ssn_probe.doctor.noise import check_noise
from ssn_probe.doctor.padding import check_padding
from ssn_probe.doctor.sites import check_site
from ssn_probe.doctor.template import check_bos, check_ends, check_template
from ssn_probe.errors import ModelError
from ssn_probe.model import chat
from ssn_probe.model.chat import pad_left
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES, Site
from ssn_probe.tracing import edits, generate


@pytest.fixture
def own(tiny_folder: Callable[[str], Path]) -> Subject:
    """A tiny Llama that a test may spoil."""
    return load_subject(str(tiny_folder("llama")))


@pytest.fixture(scope="module")
def organism() -> Subject:
    return load_subject("organism")


def unwell(check: Check, status: str, found: str, meaning: str, remedy: str) -> None:
    """The check has this status and these words."""
    assert check.status == status, check
    assert found in check.found
    assert meaning in check.meaning
    assert remedy in check.remedy


def all_bits(subject: Subject) -> list[torch.Tensor]:
    return [weights.as_integers(parameter).clone() for parameter in subject.model._module.parameters()]


# --- all is well


def test_every_check_passes_in_every_family_and_leaves_the_weights_alone(subject: Subject) -> None:
    before = all_bits(subject)
    checks = list(examine_subject(subject))
    assert [check for check in checks if check.status != "ok"] == []
    sites = [f"site {site}" for site in SITES]
    names = [
        "chat template",
        "control tokens",
        "BOS",
        "end of turn",
        "numbers",
        "tracing",
        *sites,
        "local effects",
        "rows of ffn",
        "padding",
        "neighbours",
        "row",
        "proved",
        "rounding",
    ]
    assert [check.name for check in checks] == names
    assert all(torch.equal(one, other) for one, other in zip(before, all_bits(subject), strict=True))


def test_what_was_loaded(tiny_subject: Callable[[str], Subject], organism: Subject) -> None:
    found = describe_subject(tiny_subject("qwen2")).found
    for words in ("qwen2", "2 layers of q 24, k 12, v 12, o 24, ffn 20", "float64 on cpu", "biases at q, k, v"):
        assert words in found
    assert describe_subject(organism).found.endswith("float32 on cpu; tied embeddings")


def test_prompts_are_words_that_the_model_knows(llama: Subject, organism: Subject) -> None:
    for subject in (llama, organism):
        rows = probing.prompts(subject)
        assert len({len(row) for row in rows}) == 3, "padding is at work"
        assert not any(subject.tokenizer.unk_token_id in row for row in rows)
    assert set(" ".join(probing.texts(llama)).split()) <= set(WORDS)


def test_the_chosen_neurons_are_spread_and_always_the_same() -> None:
    assert probing.spread(8, 4) == [1, 3, 5, 7]
    assert probing.spread(3, 8) == [0, 1, 2]
    assert probing.spread(14336, 8) == probing.spread(14336, 8)


# --- sites


@pytest.mark.parametrize("site", SITES)
def test_weights_zeroed_are_those_that_plain_torch_zeroes(subject: Subject, site: Site) -> None:
    module, indices = subject.model._module, [0, 5]
    neurons = [(1, site, index) for index in indices]
    before, tokens = all_bits(subject), probing.prompts(subject)
    with plain.weights_scaled(module, neurons):
        wanted = probing.plain_logits(subject, tokens)
    with probing.zeroed_weights(module, 1, site, indices):
        assert torch.equal(probing.plain_logits(subject, tokens), wanted)
    assert all(torch.equal(one, other) for one, other in zip(before, all_bits(subject), strict=True))


@pytest.mark.parametrize(
    ("site", "place"),
    [
        ("q", ("self_attn.o_proj", "input")),
        ("k", ("self_attn.v_proj", "output")),
        ("o", ("self_attn.q_proj", "output")),
        ("ffn", ("mlp.down_proj", "output")),
        ("ffn", ("mlp.gate_proj", "input")),
    ],
)
def test_a_site_that_is_elsewhere_than_the_row_says(llama: Subject, site: Site, place) -> None:
    family = replace(llama.family, modules={**llama.family.modules, site: place})
    check = check_site(replace(llama, family=family), site)
    unwell(
        check, "failed", "silencing differs from zeroed weights", "not the neurons whose weights", "none of this site"
    )


def test_a_width_that_is_not_the_weights(llama: Subject) -> None:
    check = check_site(replace(llama, widths={**llama.widths, "ffn": 16}), "ffn")
    found = "the family has 16 neurons a layer, the weights [20]"
    unwell(check, "failed", found, "not the neurons", "none of this site")


def test_silencing_that_does_nothing(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "suppression", lambda _neurons: edits.NO_EDITS)
    check = check_site(llama, "ffn")
    unwell(check, "failed", "no logit in layer 0, 1", "would be zero", "Leave the site out")


def test_silencing_other_neurons(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    real = edits.suppression
    monkeypatch.setattr(edits, "suppression", lambda neurons: real([(a, b, (c + 1) % 12) for a, b, c in neurons]))
    for site in SITES:
        assert "silencing differs" in check_site(llama, site).found


def test_neurons_that_are_dead(own: Subject) -> None:
    with torch.no_grad():
        own.model._module.model.layers[1].self_attn.o_proj.weight.zero_()
    assert "changes no logit in layer 1; zeroing weights: " in check_site(own, "o").found
    assert check_site(own, "ffn").status == "ok"


class Elsewhere(torch.nn.Linear):
    """What it calls its weight is a copy, made anew whenever it computes, as where weights are stored packed."""

    @property
    def weight(self) -> torch.Tensor:
        return self._parameters["weight"].clone()


class Drifting(torch.nn.Linear):
    """Its weight differs whenever it is read."""

    @property
    def weight(self) -> torch.Tensor:
        return self._parameters["weight"] + torch.rand(())


@pytest.mark.parametrize(
    ("kind", "found", "meaning", "remedy"),
    [
        (Elsewhere, "in layer 1 silencing differs from zeroed weights", "not the neurons whose weights", "report"),
        (Drifting, "are not what they were", "would stop", "Load the model again"),
    ],
)
def test_weights_that_are_not_what_computes(own: Subject, kind: type, found: str, meaning: str, remedy: str) -> None:
    own.model._module.model.layers[1].mlp.down_proj.__class__ = kind
    (check,) = guarded("site ffn", lambda: check_site(own, "ffn"))
    unwell(check, "failed", found, meaning, remedy)


def test_a_projection_that_the_doctor_does_not_know(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "PROJECTIONS", {**weights.PROJECTIONS, "ffn": ("dense_4h_to_h", 1)})
    (check,) = guarded("site ffn", lambda: check_site(llama, "ffn"))
    unwell(check, "failed", "0 modules called dense_4h_to_h", "would stop", "cannot be examined")


def test_a_row_that_breaks_the_trace_stops_no_other_check(llama: Subject) -> None:
    family = replace(llama.family, modules={**llama.family.modules, "v": ("self_attn.w_pack", "output")})
    status = {check.name: check.status for check in examine_subject(replace(llama, family=family))}
    assert (status["site v"], status["site ffn"], status["padding"]) == ("failed", "ok", "ok")


# --- tracing


def test_a_trace_that_computes_something_else(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_tracing(llama).status == "ok"
    real = edits.suppression
    monkeypatch.setattr(edits, "suppression", lambda neurons: real([*neurons, (0, "ffn", 3)]))
    unwell(check_tracing(llama), "failed", "a trace differs", "not the model as transformers runs it", "tested nnsight")


# --- padding


def pad_right(tokens, pad_id: int, device: str) -> dict[str, torch.Tensor]:
    batch = pad_left(tokens, pad_id, device)
    lengths = [len(row) for row in tokens]
    return {
        key: torch.stack([row.roll(length) for row, length in zip(value, lengths, strict=True)])
        for key, value in batch.items()
    }


def test_padding_on_the_right(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "pad_left", pad_right)
    unwell(check_padding(llama), "failed", "batched and single logits differ", "share a batch", "--batch-size 1")


def test_padding_that_is_attended_to(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(*arguments) -> dict[str, torch.Tensor]:
        batch = pad_left(*arguments)
        return batch | {"attention_mask": torch.ones_like(batch["attention_mask"])}

    monkeypatch.setattr(chat, "pad_left", seen)
    assert "batched and single logits" in check_padding(llama).found
    monkeypatch.undo()
    monkeypatch.setattr(generate, "pad_left", seen)
    unwell(
        check_padding(llama), "failed", "greedy responses are equal", "batched responses are wrong", "--batch-size 1"
    )


def test_a_response_on_the_edge_in_a_coarse_dtype(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "equal_responses", lambda _subject: [True, False, True])
    coarse = replace(llama, identity=llama.identity | {"dtype": "bfloat16"})
    unwell(check_padding(coarse), "warning", "2 of 3 greedy responses", "rounding chose", "--dtype float32")
    assert check_padding(llama).status == "failed", "in double precision nothing is on the edge"


def test_a_traced_model_whose_tokenizer_pads_on_the_right(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama.model.tokenizer, "padding_side", "right")
    unwell(check_padding(llama), "failed", "pads on the right", "[:, -1] reads padding", 'padding_side = "left"')


# --- chat template and BOS


def asking(subject: Subject, template: str, *, adds_bos: bool = False) -> Subject:
    """The subject with another chat template, and a tokenizer that puts a BOS before text or not."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return replace(subject, tokenizer=tokenizer)


MESSAGE = "{% for message in messages %}<user> {{ message['content'] }} {% endfor %}"
PROMPT = "{% if add_generation_prompt %}<model>{% endif %}"
INSTRUCTION = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}[INST] {{ message['content'] }} "
    "[/INST]{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def test_a_template(llama: Subject) -> None:
    assert check_template(llama).found == "'<s><user> ' MESSAGE ' <model>'"
    assert check_template(asking(llama, INSTRUCTION)).status == "ok", "Mistral's needs nothing more"


DATE = "{% set form = '%d %b %Y' %}{{ strftime_now(form) }}"
FAULTY: dict[str, tuple[str, str, str, str, str]] = {
    "no message": ("<user> hello " + PROMPT, "failed", "prompt 0 times", "would not be asked", "chat_template.jinja"),
    "two messages": (MESSAGE + MESSAGE + PROMPT, "failed", "prompt 2 times", "would not be asked", "chat_template"),
    "no prompt": (MESSAGE, "failed", "no generation prompt", "go on with the user's message", "add_generation_prompt"),
    "a date": (DATE + MESSAGE + PROMPT, "warning", "with the date", "from one day to the next", "a fixed date"),
}


def test_a_template_that_changes_messages_or_leaves_thoughts_open(llama: Subject) -> None:
    cuts = check_template(asking(llama, MESSAGE.replace("['content']", ".content.split('</think>')[-1]") + PROMPT))
    unwell(cuts, "warning", "messages such as 'one </think> two'", "would not be asked", "chat_template.jinja")
    thinking = replace(llama, turns=replace(llama.turns, think=("<think>", "</think>")))
    unwell(check_template(thinking), "warning", "leaves '<think>' open", "inside a think block", "max_new_tokens")


def test_how_a_turn_ends(llama: Subject) -> None:
    assert check_ends(llama).found == "a response ends with </s> (2; generation config, tokenizer, chat template)"
    turns = llama.turns
    never = replace(turns, written="\n\nw1", template_end=None)
    for other, status, found in (
        (never, "warning", "writes '\\n\\nw1' after an answer, which is no token of its own"),
        (replace(turns, written=None, unshown="It raises."), "warning", "what ends a turn is not known: It raises."),
        (replace(turns, template_end=62), "failed", "the template's end is outside the vocabulary"),
        (replace(turns, outside=((62, "tokenizer"),)), "warning", "outside the vocabulary: 62 (tokenizer)"),
    ):
        unwell(check_ends(replace(llama, turns=other)), status, found, "", "")


@pytest.mark.parametrize(("template", "status", "found", "meaning", "remedy"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_template(llama: Subject, template: str, status: str, found: str, meaning: str, remedy: str) -> None:
    unwell(check_template(asking(llama, template)), status, found, meaning, remedy)


def test_two_bos(llama: Subject) -> None:
    check = check_bos(asking(llama, "{{ bos_token }}" + TEMPLATE))
    unwell(check, "failed", "2 × <s>", "never saw that in training", "out of the chat template")


def test_one_bos(llama: Subject) -> None:
    assert check_bos(llama).found == "one <s>"
    check = check_bos(asking(llama, TEMPLATE, adds_bos=True))
    assert check.status == "ok"
    assert check.found == "one <s> (rendered text that is tokenised again would get 2: use encode())"


def test_an_encoding_that_adds_a_second_bos(llama: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssn_probe.doctor.template.encode", lambda _subject, texts: [[1, 1, 7] for _ in texts])
    assert check_bos(llama).status == "failed"


def test_no_bos(llama: Subject) -> None:
    check = check_bos(asking(llama, MESSAGE + PROMPT, adds_bos=True))
    unwell(check, "warning", "no <s>", "the chat template does not", "model's card")
    assert check_bos(asking(llama, MESSAGE + PROMPT)).found == "no <s>, nor does the tokenizer add one"
    none = asking(llama, MESSAGE + PROMPT)
    none.tokenizer.bos_token = None
    assert check_bos(none).found == "the tokenizer has none"


def test_a_bos_that_marks_every_turn_is_no_second_one(llama: Subject) -> None:
    turns = "{{ bos_token }}" + MESSAGE + "{{ bos_token }}" + PROMPT
    assert check_bos(asking(llama, turns)).status == "ok"


# --- numbers and rounding


def test_a_model_that_computes_nan_is_named_and_the_rest_waits(own: Subject) -> None:
    with torch.no_grad():
        own.model._module.model.layers[1].self_attn.v_proj.weight[3] = torch.nan
    found = {check.name: check for check in examine_subject(own)}
    unwell(found["numbers"], "failed", "NaN or Inf at site v of layer 1", "would stop", "the weights are damaged")
    unwell(found["other checks"], "failed", "not run", "none that can be compared", "Fix")
    assert found["BOS"].status == "ok"
    assert "site v" not in found


@pytest.fixture(scope="module")
def coarse() -> Subject:
    return load_subject("organism", dtype="bfloat16")


def test_a_neuron_drowns_in_bfloat16(coarse: Subject) -> None:
    check = check_noise(coarse)
    unwell(check, "warning", "bfloat16: a typical neuron moves", "distinguished from rounding", "scoring_dtype=float32")
    assert "--dtype float32" in check.remedy


def test_in_bfloat16_the_other_checks_still_tell_right_from_wrong(coarse: Subject) -> None:
    assert check_tracing(coarse).status == check_padding(coarse).status == check_site(coarse, "k").status == "ok"
    modules = {**coarse.family.modules, "k": ("self_attn.v_proj", "output")}
    assert check_site(replace(coarse, family=replace(coarse.family, modules=modules)), "k").status == "failed"


def test_rounding_noise_follows_the_dtype(organism: Subject, coarse: Subject) -> None:
    fine, rough = (noise.rounding_noise(one, probing.prompts(one)) for one in (organism, coarse))
    assert 0 < fine < 1e-3 * rough


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_step_of_the_dtype(dtype: torch.dtype) -> None:
    values = torch.tensor([0.0, 1.0, -1.0, 3.0, -0.1, 1e-3], dtype=dtype).repeat(8)
    moved = noise._step(0)(None, None, values)
    assert torch.equal(moved == values, values == 0)
    steps = (moved.double() - values.double()).abs() / values.double().abs().clamp_min(1e-9)
    assert steps.max() <= torch.finfo(dtype).eps
    assert {True, False} == set((moved > values)[values != 0].tolist())


def test_the_change_of_log_probabilities() -> None:
    """A shift of all logits is none; log-odds of 0 that become log 3 move by log 2 and log 2 − log 3 … by hand."""
    even = torch.zeros(1, 2, dtype=torch.float64)
    assert noise.change(even, even + 5) == pytest.approx(0, abs=1e-12)
    odds = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()
    wanted = ((torch.tensor([0.75, 0.25]).log() - torch.tensor([0.5, 0.5]).log()) ** 2).mean().sqrt()
    assert noise.change(even, odds) == pytest.approx(float(wanted), rel=1e-6)


def test_a_typical_effect_is_the_median_of_single_neurons(llama: Subject) -> None:
    tokens, module = probing.prompts(llama), llama.model._module
    before, found = probing.plain_logits(llama, tokens), []
    for layer in (0, 1):
        for site in SITES:
            for index in probing.spread(llama.widths[site], noise.PER_PLACE):
                with plain.silenced(module, [(layer, site, index)]):
                    found.append(noise.change(before, probing.plain_logits(llama, tokens)))
    assert noise.typical_effect(llama, tokens) == pytest.approx(median(found), rel=1e-9)


@pytest.mark.parametrize("bias", [False, True])
def test_the_oracle_finds_queries_keys_and_values_in_one_module(bias: bool) -> None:
    module = tiny_module("phi3")
    fused: Any = torch.nn.Linear(24, 48, bias=bias)
    module.model.layers[1].self_attn.qkv_proj = fused
    first = 0
    for site, rows in (("q", 24), ("k", 12), ("v", 12)):
        found = weights.own_weights(module, 1, site)
        assert weights.width(module, 1, site) == rows
        assert len(found) == 1 + bias
        for (own, dimension), whole in zip(found, [fused.weight, fused.bias], strict=False):
            assert dimension == 0
            assert own.data_ptr() == whole[first:].data_ptr()
            assert torch.equal(own, whole[first : first + rows])
        first += rows


def test_a_row_with_the_parts_in_another_order_is_found_wrong(single: Callable[[str], Subject]) -> None:
    phi3 = single("phi3")
    turned = {"self_attn.qkv_proj": ("q", "v", "k")} | {"mlp.gate_up_proj": ("gate", "up")}
    check = check_site(replace(phi3, family=replace(phi3.family, fused=turned)), "k")
    unwell(check, "failed", "silencing differs from zeroed weights", "not the neurons whose weights", "none of this")
    assert check_site(phi3, "k").status == "ok"


def test_the_oracle_finds_nothing_where_names_are_doubled(own: Subject) -> None:
    layer = own.model._module.model.layers[0]
    layer.mlp.shared = copy.deepcopy(torch.nn.ModuleDict({"down_proj": layer.mlp.down_proj}))
    with pytest.raises(ModelError, match="2 modules called down_proj"):
        weights.own_weights(own.model._module, 0, "ffn")
