"""The models that are measured: a random Llama of 100M parameters, made here, and the embedded organism.

Random weights cost the same time as trained ones. The model is written to a temporary folder once and loaded as any
other model is, so that what is measured is what a run does.
"""

import json
import random
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ssn_probe.neurons import SITES, Site
from ssn_probe.subject import Openings, Subject, encode, load_subject
from ssn_probe.tracing.edits import Edits, suppression

SHAPE = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "vocab_size": 32_000,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
"""100,136,704 parameters, 75.5M of them in the layers. Without an end token every generation has its full length."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A model with the prompts and openings to measure it on.

    `single`: openings of one token each; `several`: of up to three tokens, which need more sequences per prompt.
    """

    name: str
    subject: Subject
    tokens: Sequence[Sequence[int]]
    single: Openings
    several: Openings
    batch_size: int
    new_tokens: int


@contextmanager
def random_llama(prompts: int, length: int = 64) -> Iterator[Case]:
    """The random model with random prompts of `length` tokens, all of one length: nothing is padding."""
    draw = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        subject = load_subject(folder, dtype="float32", device="cpu")
    words = range(10, SHAPE["vocab_size"])
    yield Case(
        name="100m",
        subject=subject,
        tokens=[draw.choices(words, k=length) for _ in range(prompts)],
        single=Openings(refusal=((11,), (12,)), compliant=((13,), (14,))),
        several=Openings(refusal=((11, 21), (12, 22, 23)), compliant=((11, 24), (13,))),
        batch_size=min(16, prompts),
        new_tokens=32,
    )
