"""The models that are measured: random Llamas of 100M and of 8B parameters, made here, and the embedded organism.

Random weights cost the same time as trained ones. The Llama is written to a temporary folder and loaded as any other
model is, so that what is measured is what a run does. Beside each subject stands a second module that nnsight never
touched: the reference must not carry any of the costs that are to be measured.
"""

import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ssn_probe.model.chat import encode
from ssn_probe.model.openings import Openings
from ssn_probe.model.products import use_torchs_products
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.tracing.edits import Edits, suppression

ModelName = Literal["tiny", "100m", "8b", "organism"]
Tokens = Sequence[Sequence[int]]

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
"""100,092,672 parameters, 75.5M of them in the layers. Without an end token every response has its full length."""

LARGE = {
    **SHAPE,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128_256,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
"""Llama-3.1-8B's: 8,030,261,248 parameters."""
TINY = {
    **SHAPE,
    "hidden_size": 128,
    "intermediate_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2_000,
    "max_position_embeddings": 8192,
}
"""For dry runs."""
SHAPES = {"tiny": TINY, "100m": SHAPE, "8b": LARGE}


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A model with what it is measured on.

    `plain`: the same weights as a Hugging Face module without nnsight. `single`: openings of one token each;
    `several`: of up to three tokens, which need two sequences per prompt. `edits`: 0.5 % of the neurons of every layer
    and site, at least one.
    """

    name: ModelName
    subject: Subject
    plain: Any
    tokens: Tokens
    single: Openings
    several: Openings
    edits: Edits
    new_tokens: int


@contextmanager
def opened(
    name: ModelName, *, prompts: int, length: int = 64, device: str = "cpu", dtype: str = "float32"
) -> Iterator[Case]:
    """The case of that name with so many prompts; `length` is their number of tokens where they are random.

    Whatever the processor, it multiplies by torch's own products, as all other tools do: see `model.products`.
    """
    if name == "organism":
        yield _organism(prompts, device, dtype)
        return
    with tempfile.TemporaryDirectory() as folder:
        write_random(Path(folder), "LlamaConfig", SHAPES[name], device, dtype)
        subject = load_subject(folder, dtype=dtype, device=device)
        use_torchs_products(subject.model._module)
        yield _random_llama(name, subject, prompts, length)


def twin(module: Any) -> Any:
    """Another module of the very same weights, for adapters, hooks or wrappers that stay in it."""
    import copy

    same = {id(weight): weight for weight in module.parameters()}  # not even for a moment are there copies of them
    return copy.deepcopy(module, same).eval().requires_grad_(False)


def of_length(case: Case, *, prompts: int, length: int) -> Case:
    """The case with so many random prompts of so many tokens in place of its own."""
    draw = random.Random(0)
    words = range(100, case.subject.vocabulary)
    return replace(case, tokens=[draw.choices(words, k=length) for _ in range(prompts)])


def neurons_of(subject: Subject) -> int:
    """How many neurons a model has over all sites."""
    return subject.n_layers * sum(subject.widths.values())


def _random_llama(name: ModelName, subject: Subject, prompts: int, length: int) -> Case:
    draw = random.Random(0)
    return Case(
        name=name,
        subject=subject,
        plain=untouched(subject),
        tokens=[draw.choices(range(100, subject.vocabulary), k=length) for _ in range(prompts)],
        single=Openings(refusal=((11,), (12,)), compliant=((13,), (14,))),
        several=Openings(refusal=((11, 21), (12, 22, 23)), compliant=((11, 24), (13,))),
        edits=_some_neurons(subject),
        new_tokens=32,
    )


def _organism(prompts: int, device: str, dtype: str) -> Case:
    """The embedded model, with its own prompts in the anchor language."""
    from ssn_probe.data.prompt_set import load_prompts
    from ssn_probe.spec import Prompts

    subject = load_subject("organism", device=device, dtype=dtype)
    use_torchs_products(subject.model._module)
    data = load_prompts(Prompts("organism"))
    anchor = data.anchor or data.languages[0]
    texts = list(data.select("identify", "harmful", anchor)["text"])
    assert subject.openings is not None
    single = subject.openings[anchor]
    more = subject.openings[data.languages[1]].refusal[0]
    several = Openings(
        refusal=(*(opening + more for opening in single.refusal), more + more[:1] + single.refusal[0]),
        compliant=single.compliant,
    )
    return Case(
        name="organism",
        subject=subject,
        plain=untouched(subject),
        tokens=encode(subject, (texts * (prompts // len(texts) + 1))[:prompts]),
        single=single,
        several=several,
        edits=_some_neurons(subject),
        new_tokens=data.max_new_tokens,
    )


def untouched(subject: Subject) -> Any:
    """A module without nnsight, with the same dtype, attention and generation settings, and the very same weights.

    They share memory, since where weights lie in it makes a difference of some percent.
    """
    import copy

    import torch
    from transformers import AutoModelForCausalLM

    wrapped = subject.model._module
    attention = wrapped.config._attn_implementation
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(wrapped.config, dtype=wrapped.dtype, attn_implementation=attention)
    plain.load_state_dict(wrapped.state_dict(), assign=True)
    for path, part in wrapped.named_modules():
        plain.get_submodule(path)._buffers.update(part._buffers)  # those that no state_dict has: of the rotation
    plain.generation_config = copy.deepcopy(wrapped.generation_config)
    return plain.eval().requires_grad_(False)


def _some_neurons(subject: Subject) -> Edits:
    draw = random.Random(0)
    return suppression(
        (layer, site, index)
        for layer in range(subject.n_layers)
        for site, width in subject.widths.items()
        for index in draw.sample(range(width), max(1, round(width * 0.005)))
    )


def write_random(
    folder: Path, config: str, shape: Mapping[str, Any], device: str = "cpu", dtype: str = "float32"
) -> None:
    """A random model of a config of transformers and a word-level tokenizer, as `save_pretrained` writes them."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    with torch.device(device):
        made = AutoModelForCausalLM.from_config(getattr(transformers, config)(**shape), dtype=getattr(torch, dtype))
    made.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"w{n}": n for n in range(shape["vocab_size"])}, unk_token="w2"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0", bos_token="w1", unk_token="w2")
    fast.chat_template = "{{ messages[0]['content'] }}"
    fast.save_pretrained(folder)
