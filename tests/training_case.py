"""What the tests of expand share: tiny rows to learn, neurons at every site, and a model to train them in."""

import random
from collections.abc import Sequence
from typing import Any

import torch
from tiny import tiny_module, tiny_tokenizer
from torch import Tensor

from ssn_probe.data.judges import make_judge
from ssn_probe.data.training_rows import Example, SafetyData
from ssn_probe.spec.training_settings import Training
from ssn_probe.training.delta_file.file import DeltaFile, delta_file
from ssn_probe.training.export.merging import check_base, write_in
from ssn_probe.training.loop import training_steps
from ssn_probe.training.loop.train import Trained, train
from ssn_probe.training.weights.adapter import Adapter
from ssn_probe.training.weights.trainable import Change

LANGUAGES = ("qaa", "qab")
JUDGE = {
    "kind": "patterns",
    "refused": dict.fromkeys(LANGUAGES, r"\bw0\b"),
    "complied": dict.fromkeys(LANGUAGES, r"w1(?: w\d+)*"),
}
EOS = (2,)
NEURONS = [
    *((0, "ffn", 3), (0, "ffn", 11), (1, "ffn", 0)),
    *((0, "q", 5), (1, "q", 23), (0, "k", 11), (1, "k", 2)),
    *((0, "v", 0), (1, "v", 7), (0, "o", 4), (1, "o", 19)),
]


def example(number: int, language: str = "qaa", context: str = "harmful", **changes: Any) -> Example:
    """A row of random words, of a length of its own."""
    draw = random.Random(f"{number} {language} {context}")
    words = [f"w{draw.randrange(2, 56)}" for _ in range(2 + number % 4)]
    answer = [f"w{draw.randrange(2, 56)}" for _ in range(number % 3)]
    row = {
        "prompt_id": f"{context}-{number}",
        "language": language,
        "context": context,
        "cluster": f"{context}-{number}",
        "text": " ".join(words),
        "target": " ".join(["w0" if context == "harmful" else "w1", *answer]),
    }
    return Example(**row | changes)


def tiny_data(rows: int = 6, contexts: Sequence[str] = ("harmful",)) -> SafetyData:
    """`rows` parallel rows per context, in two languages."""
    examples = [example(n, language, context) for context in contexts for n in range(rows) for language in LANGUAGES]
    judge = make_judge(JUDGE, LANGUAGES, "tiny")
    return SafetyData(name="tiny", digest="0" * 64, judge=judge, examples=tuple(examples))


def settings(**changes: Any) -> Training:
    """Four quick steps, nothing held out."""
    return Training(**{"lr": 1e-3, "batch": 4, "steps": 4, "held_out": 0.0, "warmup": 0.25} | changes)


def quick(module: Any, *, data: SafetyData | None = None, neurons: Any = NEURONS, **options: Any) -> Trained:
    """Trains with `settings`; keywords that `train` does not know are settings."""
    ours = {name: options.pop(name) for name in list(options) if name in Training.__dataclass_fields__}
    return train(module, tiny_tokenizer(), neurons, data or tiny_data(), settings(**ours), **{"eos_ids": EOS} | options)


def file_of(
    module: Any, name: str = "tiny/llama", revision: str | None = None, chosen: str = "some", **options: Any
) -> DeltaFile:
    """The delta file of a `quick` training that moves the weights far."""
    trained = quick(module, **{"lr": 1e-2} | options)
    return delta_file(trained, model=name, revision=revision, neurons=chosen)


def merge(module: Any, file: DeltaFile) -> None:
    """Writes the delta into its base, for good."""
    check_base(module, file)
    write_in(module, file.rows)


def limit_memory(monkeypatch: Any, most: int) -> list[int]:
    """A memory that holds `most` rows of a pass; gives the sizes that are tried."""
    batch_of, sizes = training_steps.batch_of, []

    def limited(rows: Any, *given: Any) -> Any:
        sizes.append(len(rows))
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return batch_of(rows, *given)

    monkeypatch.setattr(training_steps, "batch_of", limited)
    monkeypatch.setattr("ssn_probe.model.out_of_memory.release_memory", lambda: None)  # it takes its time
    return sizes


def copies(module: Any) -> dict[str, Tensor]:
    """Every weight, as it is now."""
    return {name: weight.detach().clone() for name, weight in module.named_parameters()}


def same(before: dict[str, Tensor], module: Any) -> bool:
    """Are all weights bit for bit what they were?"""
    now = dict(module.named_parameters())
    return now.keys() == before.keys() and all(torch.equal(before[name], now[name]) for name in before)


def equal(one: Change, other: Change) -> bool:
    """Are two changes the same, bit for bit?"""
    names = ("a", "b") if isinstance(one, Adapter) else ("base", "change")
    parts = zip(one.parts, other.parts, strict=True)
    return all(a.name == b.name and torch.equal(getattr(a, name), getattr(b, name)) for a, b in parts for name in names)


def changes(trained: Trained) -> dict[str, Tensor]:
    return {part.name: part.change for part in trained.delta.parts}


def answer(module: Any, text: str, tokens: int = 8) -> str:
    """The greedy response to one request, by transformers alone."""
    tokenizer = tiny_tokenizer()
    chat = [{"role": "user", "content": text}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    ids = {name: ids[name] for name in ("input_ids", "attention_mask")}
    made = module.generate(**ids, max_new_tokens=tokens, do_sample=False, eos_token_id=list(EOS), pad_token_id=0)
    return tokenizer.decode(made[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def logits(module: Any, seed: int = 0) -> Tensor:
    """What the model says about two random sequences."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return module(input_ids=torch.randint(6, 62, (2, 7), generator=generator)).logits


def llama(**changes: Any) -> Any:
    """A tiny Llama in single precision."""
    return tiny_module("llama", **changes).float()
