"""vLLM itself against transformers: token ids before, while neurons are folded, and after they are restored.

`make test-vllm` installs vLLM for a CPU into an environment of its own and runs these tests.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from tiny import FAMILIES, tiny_module, tiny_tokenizer, write_tiny

from ssn_probe.engines.vllm_engine import PYTHON, Vllm, find_engine
from ssn_probe.errors import ModelError
from ssn_probe.model.chat import encode
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.model.turn_ends import up_to_end
from ssn_probe.neurons import SITES
from ssn_probe.tracing.edits import NO_EDITS, Edits, amplification, suppression
from ssn_probe.tracing.generate import greedy_tokens

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(not os.environ.get(PYTHON), reason=f"{PYTHON} names no Python that has vLLM: make test-vllm"),
]
SHAPE = {"hidden_size": 128, "intermediate_size": 96, "head_dim": 32}
"""vLLM's attention has kernels for heads of 32 and more."""
TOKENS = 24
QUESTIONS = ("What is the capital of France?", "How is bread made?", "Name three rivers.", "Why is the sky blue?")


@pytest.fixture
def start() -> Iterator[Callable[..., Vllm]]:
    """Starts vLLM for a subject; all of them end with the test."""
    running: list[Vllm] = []

    def start(subject: Subject, options: str = "max_num_seqs=32") -> Vllm:
        settings = find_engine(f"vllm:{options}")
        assert settings is not None
        running.append(Vllm(settings, subject))
        return running[-1]

    yield start
    for engine in running:
        engine.close()


def some(subject: Subject, share: float = 0.04) -> list[tuple[int, str, int]]:
    """Neurons of every layer and site."""
    draw = torch.Generator().manual_seed(1)
    return [
        (layer, site, int(index))
        for layer in range(subject.n_layers)
        for site in SITES
        for index in torch.randperm(subject.widths[site], generator=draw)[: max(1, int(share * subject.widths[site]))]
    ]


def prompts_for(subject: Subject, count: int = 12) -> list[list[int]]:
    draw = torch.Generator().manual_seed(2)
    return [
        torch.randint(3, subject.vocabulary, (length,), generator=draw).tolist()
        for length in torch.randint(4, 20, (count,), generator=draw).tolist()
    ]


def responses(subject: Subject, prompts: list[list[int]], edits: Edits, engine: Vllm | None) -> list[list[int]]:
    new = greedy_tokens(subject, prompts, edits=edits, max_new_tokens=TOKENS, batch_size=32, engine=engine)
    return [up_to_end(row, subject.eos_ids)[0] for row in new]


def check_equal(subject: Subject, engine: Vllm, prompts: list[list[int]]) -> None:
    """Token ids equal, untouched, silenced, scaled and untouched again; weights as they were, to the last bit."""
    before = engine.ask({"what": "digest"})
    neurons = some(subject)
    changes = (NO_EDITS, suppression(neurons), amplification(neurons, 2.0), amplification(neurons, -1.0), NO_EDITS)
    made = [responses(subject, prompts, edits, engine) for edits in changes]
    for edits, found in zip(changes, made, strict=True):
        assert found == responses(subject, prompts, edits, None)
    assert made[0] == made[-1]
    assert made[0] != made[1]
    assert made[0] != made[2]
    assert engine.ask({"what": "digest"}) == before


def tied_gemma(folder: Path) -> Path:
    """vLLM knows no other. Its embedding is small, or every response would repeat the prompt's last token."""
    module = tiny_module("gemma2", **SHAPE, tie_word_embeddings=True)
    module.model.embed_tokens.weight.data *= 0.1
    module.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str, tmp_path: Path, start: Callable[..., Vllm]) -> None:
    folder = write_tiny(tmp_path / family, family, **SHAPE) if family != "gemma2" else tied_gemma(tmp_path / family)
    subject = load_subject(str(folder), dtype="float32")
    check_equal(subject, start(subject), prompts_for(subject))


def test_the_organism_and_what_a_run_relies_on(start: Callable[..., Vllm]) -> None:
    subject = load_subject("organism")
    engine = start(subject)
    check_equal(subject, engine, prompts_for(subject, 40))

    # a batch that fails leaves the weights as they were
    before, edits = engine.ask({"what": "digest"}), suppression(some(subject))
    with pytest.raises(ModelError, match="vLLM cannot generate for this model"):
        engine.greedy([[3] * 200], edits, TOKENS)
    assert engine.ask({"what": "digest"}) == before

    # nothing that it started listens, but on this machine's own address
    mine = [one for one in psutil.Process().children(recursive=True) if one.is_running()]
    listening = {socket.laddr.ip for one in mine for socket in one.net_connections() if socket.status == "LISTEN"}
    assert listening <= {"127.0.0.1"}
    engine.close()
    assert not [one for one in mine if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_two_workers_that_share_every_layer(start: Callable[..., Vllm]) -> None:
    subject = load_subject("organism")
    engine = start(subject, "tensor_parallel_size=2,max_num_seqs=32,kv_cache_memory_bytes=268435456")
    check_equal(subject, engine, prompts_for(subject))
    assert len(engine.ask({"what": "digest"})["sha256"]) == 2


def test_neurons_that_are_not_found_are_noticed(start: Callable[..., Vllm]) -> None:
    """A fold that misses neurons would be a silent failure: here the sites' columns lie in each other's modules."""
    subject = load_subject("organism")
    modules = dict(subject.family.modules) | {"ffn": ("self_attn.o_proj", "input"), "o": ("mlp.down_proj", "input")}
    engine = start(replace(subject, family=replace(subject.family, modules=modules)))
    with pytest.raises(ModelError, match="neurons of the site"):
        engine.greedy([[1, 2, 3]], NO_EDITS, 1)


def test_smollm2(start: Callable[..., Vllm]) -> None:
    subject = load_subject("smollm2")
    check_equal(subject, start(subject), encode(subject, QUESTIONS))
