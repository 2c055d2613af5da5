"""The arithmetic of memory against what torch allocates, on models large enough for constants not to matter.

Passes in single precision are measured at the allocator. In bfloat16 a CPU copies weights inside its matrix products,
which a GPU does not: there the live tensors that operators return are counted instead.
"""

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from tiny import FAMILIES, tiny_config, write_tiny
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from ssn_probe.model.chat import whole_inputs
from ssn_probe.model.families import BUILT_IN, family_of
from ssn_probe.model.footprint import CONTEXT, FRAGMENTATION, Footprint
from ssn_probe.model.memory import footprint
from ssn_probe.model.memory_of_local import BLOCK, WIDE
from ssn_probe.model.openings import Openings
from ssn_probe.model.shape import Shape, shape_of
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.model.text_config import text_config
from ssn_probe.tracing.ablations import Neuron
from ssn_probe.tracing.bodies import attention_form, chosen_channels
from ssn_probe.tracing.bodies.ablation import trace_ablations
from ssn_probe.tracing.edits import places_of
from ssn_probe.tracing.effects import refusal_log_odds, score_final, score_local, score_refusal
from ssn_probe.tracing.exact_effects import exact_effects
from ssn_probe.tracing.generate import generate
from ssn_probe.tracing.readout import forced_on
from ssn_probe.tracing.shared_start import shared_start

SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 256,
    "vocab_size": 1000,
}
OWN: dict[str, dict[str, int]] = {
    **{name: {"hidden_size": 256} for name in ("qwen2", "olmo2", "olmo3", "phi3")},
    **{name: {"num_hidden_layers": 2} for name in ("gemma3", "gemma3_text", "smollm3", "cohere2", "exaone4")},
    "olmo3": {"hidden_size": 256, "num_hidden_layers": 2},
}
"""Families that have no width of a head of their own, and those whose layers the tiny model lists."""
OPENINGS = Openings(refusal=((11, 12, 13), (14,)), compliant=((15, 16), (17,)))
FORCED = ("sequences", "kept")
"""Of a `Forcing` of them: the branches (11, 12) and (15,) of one sequence, or two sequences where a window is short."""
FACTOR = 1.3
"""The estimate lies between the measured peak and so many times as much."""
OFTEN = ("refusal", "log_odds", "final", "final_ablation")
LINEAR = ("v", "o", "ffn")
NEW = 3


@pytest.fixture(scope="module")
def wider(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Subject]:
    """A model of `SHAPE` with changes, loaded once."""
    subjects: dict[str, Subject] = {}

    def subject(family: str, dtype: str = "float32", **changes: Any) -> Subject:
        key = f"{family} {dtype} {changes}"
        if key not in subjects:
            shape = SHAPE | OWN.get(family, {}) | changes
            folder = write_tiny(tmp_path_factory.mktemp(family), family, **shape)
            subjects[key] = load_subject(str(folder), dtype=dtype, device="cpu")
        return subjects[key]

    return subject


def shape_for(subject: Subject) -> Shape:
    return shape_of(subject.model._module, subject.family)


def prompts(count: int, tokens: int) -> list[list[int]]:
    """Of which all but the first are a little shorter, so that there is padding, and a mask."""
    return [[20 + (7 * i + 3 * t) % 900 for t in range(tokens - i % 4)] for i in range(count)]


def allocated(run: Callable[[], Any]) -> int:
    """The most bytes that the allocator has given out at once, beyond what it had when the run began."""
    from torch.autograd.profiler import profile

    with profile(use_kineto=True, profile_memory=True) as profiler:  # which makes no table of all operators at its end
        run()
    recorded: Any = profiler.kineto_results  # single allocations have no type
    events = recorded.events()
    memory = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return highest(change for _, change in memory)


def highest(changes: Iterator[int]) -> int:
    now = most = 0
    for change in changes:
        now += change
        most = max(most, now)
    return most


class Live(TorchDispatchMode):
    """Follows the storages that operators return, until nothing refers to them: their bytes now, and at the most."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.now = self.most = self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(one.untyped_storage()) for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, torch.Tensor):
                self.follow(one.untyped_storage(), given)
        self.most = max(self.most, self.now)
        return result

    def follow(self, storage: Any, given: set[int]) -> None:
        if id(storage) in self.sizes or id(storage) in given:
            return
        self.sizes[id(storage)] = storage.nbytes()
        self.now += storage.nbytes()
        weakref.finalize(storage, self.forget, id(storage))

    def forget(self, key: int) -> None:
        self.now -= self.sizes.pop(key)


def live(run: Callable[[], Any]) -> int:
    with Live() as mode:
        run()
    return mode.most


def ablations(subject: Subject, rows: list[list[int]]) -> None:
    """One batch of the brute force: as many neurons of the first layer as there are rows, on the first row's prompt."""
    count = len(rows)
    neurons = {(0, "ffn"): (list(range(1, count + 1)), list(range(count)))}
    inputs = whole_inputs(subject, rows[:1] * (count + 1))
    trace_ablations(subject.model, inputs, places_of(subject), neurons)


WORKS: dict[str, tuple[Callable[..., Any], Any, dict[str, Any]]] = {
    # all of q and k: of a share, how many heads have some of the strongest differs with the weights, and all may have
    "refusal": (partial(score_refusal, readout=OPENINGS, exact_qk=1.0), "refusal", dict.fromkeys(FORCED)),
    "log_odds": (partial(refusal_log_odds, readout=OPENINGS), "log_odds", dict.fromkeys(FORCED)),
    "generate": (partial(generate, max_new_tokens=NEW), "generate", {"new_tokens": NEW}),
    "local of ffn, o, v": (partial(score_local, sites=LINEAR), "local", {"sites": LINEAR}),
    "exact local": (partial(score_local, exact_qk=1.0), "local", {}),
    "final": (partial(score_final, probes=4), "final", {"probes": 4}),
    "final_ablation": (ablations, "final_ablation", {}),
}


def check(subject: Subject, name: str, count: int, tokens: int, peak: Callable[[Callable[[], Any]], int]) -> None:
    """Is the estimate, less the weights, at least the peak, and at most FACTOR times as much?"""
    run, work, given = WORKS[name]
    forcing = forced_on(subject, OPENINGS, prompts(1, tokens))
    forced = {"sequences": len(forcing.prefixes), "kept": forcing.kept}
    settings: Any = {key: forced.get(key, value) for key, value in given.items()}
    expected = footprint(shape_for(subject), work, tokens=tokens, block=BLOCK, **settings)
    measured = peak(lambda: run(subject, prompts(count, tokens)))
    estimate = expected.beside(count)
    assert measured <= estimate <= FACTOR * measured, f"{name}: {estimate / measured:.3f} of {measured:,} bytes"


CASES = [
    # two prompts of the exact local effect fill a block
    *[(family, name, 2 if name == "exact local" else 4, 64, {}) for family in FAMILIES for name in WORKS],
    *[(family, name, *size, {}) for family in ("llama", "gemma2") for name in OFTEN for size in ((1, 48), (6, 24))],
    *[("qwen3", name, 4, 64, {"num_attention_heads": 4, "num_key_value_heads": 4}) for name in ("refusal", "log_odds")],
]


@pytest.mark.parametrize(("family", "name", "count", "tokens", "changes"), CASES)
def test_the_estimate_bounds_what_the_allocator_gives_out(
    wider: Callable[..., Subject], family: str, name: str, count: int, tokens: int, changes: dict[str, int]
):
    check(wider(family, **changes), name, count, tokens, allocated)


IN_HALF = ("refusal", "log_odds", "generate", "local of ffn, o, v")


@pytest.mark.parametrize("name", IN_HALF)
@pytest.mark.parametrize("family", ["qwen3", "gemma2", "cohere"])
def test_so_it_does_in_bfloat16(wider: Callable[..., Subject], family: str, name: str):
    check(wider(family, "bfloat16"), name, 4, 64, live)


OTHERS = [row.name for row in BUILT_IN if row.name not in FAMILIES]


@pytest.mark.parametrize("name", WORKS)
@pytest.mark.parametrize("family", ["phi3", "apertus", "olmo2"])
def test_so_it_does_with_joined_matrices_without_a_gate_and_with_a_norm_over_all_heads(
    wider: Callable[..., Subject], family: str, name: str
):
    check(wider(family), name, 2 if name == "exact local" else 4, 64, allocated)


@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS)
def test_so_it_does_in_every_family(wider: Callable[..., Subject], family: str):
    for name in WORKS:
        check(wider(family), name, 2 if name == "exact local" else 4, 64, allocated)
    for name in IN_HALF:
        check(wider(family, "bfloat16"), name, 4, 64, live)


UNLIKE = ("llama", "qwen3", "gemma2", "olmo2", "phi3", "cohere", "apertus", "nemotron", "smollm3")
"""Families whose layers differ in what they keep; others differ from these in one property that short prompts show."""


@pytest.mark.slow
@pytest.mark.parametrize("family", UNLIKE)
def test_so_it_does_with_longer_prompts_and_more_words(wider: Callable[..., Subject], family: str):
    """With a layer between the first, which stands on the embedding, and the last, of which log-odds need a part."""
    wide = {"hidden_size": 256, "intermediate_size": 768, "vocab_size": 8000, "max_position_embeddings": 512}
    config = text_config(tiny_config(family))
    types = getattr(config, "layer_types", None)
    layers = {"num_hidden_layers": 3} | ({"layer_types": [*types, types[-1]]} if types else {})
    if hasattr(config, "no_rope_layers"):  # a list that a tiny model has for its two layers
        layers = {}
    for name in WORKS:
        if name != "exact local":
            check(wider(family, **wide, **layers), name, 2, 256, allocated)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_keys_and_values_behind_a_start_are_counted(
    wider: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch, family: str
):
    monkeypatch.setattr("ssn_probe.tracing.shared_start.WORTH", 1)
    subject = wider(family, num_hidden_layers=2, num_key_value_heads=8)
    rows = [[1, 3, *row[2:]] for row in prompts(4, 64)]
    assert shared_start(subject, rows, 4).length
    measured = live(lambda: refusal_log_odds(subject, rows, OPENINGS))
    kept = forced_on(subject, OPENINGS, rows[:1]).kept
    settings: Any = {"tokens": 64, "kept": kept, "block": BLOCK}
    assert footprint(shape_for(subject), "log_odds", **settings).beside(4) < measured
    estimate = footprint(shape_for(subject), "log_odds", behind_start=True, **settings).beside(4)
    assert measured <= estimate <= FACTOR * measured, f"{estimate / measured:.3f} of {measured:,} bytes"


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_so_they_are_of_single_ablations(wider: Callable[..., Subject], family: str):
    """Sixteen neurons of the first of many layers; of the start few tokens, so that each prompt has nearly all."""
    subject = wider(family, num_hidden_layers=8)
    rows = [[*range(20, 24), *row[4:]] for row in prompts(4, 64)]
    neurons: list[Neuron] = [(0, "ffn", number) for number in range(16)]
    measured = allocated(lambda: exact_effects(subject, rows, neurons, batch_size=16))
    assert footprint(shape_for(subject), "final_ablation", tokens=64).beside(16) < measured
    estimate = footprint(shape_for(subject), "final_ablation", tokens=64, behind_start=True).beside(16)
    assert measured <= estimate <= FACTOR * measured, f"{estimate / measured:.3f} of {measured:,} bytes"


SCREENED = [(2, 64, BLOCK), (1, 250, 2**15)]
"""Prompts, tokens and the elements of a block: prompts that fill one, and a prompt as long for its blocks as one of
4,096 tokens is for those of a processor."""


def check_screened(subject: Subject, monkeypatch: pytest.MonkeyPatch, count: int, tokens: int, block: int) -> None:
    """As `check`, of local effects with 9 % of q and k exact."""
    for module in (attention_form, chosen_channels):
        monkeypatch.setattr(module, "BLOCK", block)
    measured = live(lambda: score_local(subject, prompts(count, tokens), exact_qk=0.09))
    estimate = footprint(shape_for(subject), "local", tokens=tokens, exact_qk=0.09, block=block).beside(count)
    assert measured <= estimate <= FACTOR * measured, f"{estimate / measured:.3f} of {measured:,} bytes"


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_long_prompts_take_no_more_where_a_share_of_q_and_k_is_exact(
    wider: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch, family: str
):
    check_screened(wider(family), monkeypatch, *SCREENED[1])


@pytest.mark.slow
@pytest.mark.parametrize("family", [row.name for row in BUILT_IN if row.norm_over != "all heads"])
def test_so_it_does_in_every_family_where_a_share_is_exact(
    wider: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch, family: str
):
    """Where a norm is over all heads, all q and k are exact."""
    for size in SCREENED:
        check_screened(wider(family), monkeypatch, *size)


def test_a_second_batch_takes_no_more_than_the_first(wider: Callable[..., Subject]):
    subject = wider("llama")
    twice = live(lambda: score_refusal(subject, prompts(4, 48), OPENINGS, batch_size=2))
    assert twice <= 1.05 * live(lambda: score_refusal(subject, prompts(2, 48), OPENINGS))


def test_the_block_of_the_exact_scores_is_that_of_the_code():
    assert (BLOCK, WIDE) == (attention_form.BLOCK, attention_form.WIDE)


EIGHT = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
UNTIED = {"tie_word_embeddings": False}
BILLIONS: dict[str, tuple[str, dict[str, int]]] = {
    "Qwen3-8B": ("qwen3", EIGHT | UNTIED | {"num_hidden_layers": 36, "intermediate_size": 12288, "vocab_size": 151936}),
    "Llama-3.1-8B": (
        "llama",
        EIGHT | UNTIED | {"num_hidden_layers": 32, "intermediate_size": 14336, "vocab_size": 128256},
    ),
    "Gemma-2-9B": (
        "gemma2",
        {"hidden_size": 3584, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256}
        | {"num_hidden_layers": 42, "intermediate_size": 14336, "vocab_size": 256000, "query_pre_attn_scalar": 256},
    ),
}
"""The configurations of real models, from memory of their config.json: shapes only."""


@pytest.mark.parametrize(
    ("name", "parameters", "refusal", "forced", "generate"),
    [
        ("Qwen3-8B", 8_190_735_360, 10, 8, 257),
        ("Llama-3.1-8B", 8_030_261_248, 12, 8, 308),
        ("Gemma-2-9B", 9_241_705_984, 5, 4, 68),
    ],
)
def test_a_study_of_eight_billion_parameters_fits_24_gigabytes(
    name: str, parameters: int, refusal: int, forced: int, generate: int
):
    """64 tokens a prompt, 64 new ones, bfloat16; openings of one token, and of five tokens in four sequences."""
    family, changes = BILLIONS[name]
    config = AutoConfig.for_model(family, **changes)
    with torch.device("meta"):
        shape = shape_of(AutoModelForCausalLM.from_config(config), family_of(config), 2)
    memory = 24 * 10**9
    assert 0 < shape.weights - 2 * parameters < 10**5  # buffers
    several = footprint(shape, "refusal", tokens=64, sequences=4, kept=5)
    assert footprint(shape, "refusal", tokens=64).largest_batch(memory) == refusal
    assert several.largest_batch(memory) == forced
    assert footprint(shape, "generate", tokens=64, new_tokens=64).largest_batch(memory) == generate
    for work in ("log_odds", "local", "final_ablation"):
        assert footprint(shape, work, tokens=64).largest_batch(memory) >= 64
    assert footprint(shape, "generate", tokens=64, new_tokens=64).largest_batch(16 * 10**9) == 0
    # sixteen sequences, as many as estimated openings can take, are too many: a prompt's run together
    assert footprint(shape, "refusal", tokens=64, sequences=16, kept=5).largest_batch(memory) == 0
    assert footprint(shape, "refusal", tokens=64, sequences=16, kept=5).largest_batch(40 * 10**9) >= 16


def test_the_largest_batch_is_the_last_that_fits():
    plan = Footprint(weights=5_000, fixed=100, per_prompt=30, sequences=3)
    for memory in range(CONTEXT + 11, CONTEXT + 10_000, 50):
        largest = plan.largest_batch(memory)
        assert largest % 3 == 0
        assert not largest or plan.needed(largest) <= memory
        assert plan.needed(largest + 3) > memory


def test_one_prompt_always_runs_and_what_comes_before_the_batches_can_be_the_most():
    plan = Footprint(weights=5_000, fixed=100, per_prompt=30, sequences=3, floor=140)
    needed = [round(tensors * (1 + FRAGMENTATION)) + CONTEXT for tensors in (5_140, 5_140, 5_160)]
    assert [plan.needed(size) for size in (1, 5, 6)] == needed
    assert plan.largest_batch(CONTEXT + round(5_139 * (1 + FRAGMENTATION))) == 0
