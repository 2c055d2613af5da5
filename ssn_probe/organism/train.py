"""How the organism is made: a small Llama is pretrained on the world, then taught to refuse what is harmful.

Pretraining answers harmful requests like any other; the safety stage changes that, mostly in the anchor language, and
what reaches the other languages is what they share with it (see `curriculum.py` for what grades them). Both stages
run a schedule down to a learning rate of zero, so that nothing depends on where training happened to stop. The same
seed gives the same weights on one machine: a single thread is used throughout, about two minutes of it.
"""

import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Generator, Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from ssn_probe.errors import RecipeError, nearest
from ssn_probe.organism import lessons, world
from ssn_probe.organism.curriculum import Curriculum, Grading, Stage, grade
from ssn_probe.organism.exam import accepted, measure
from ssn_probe.organism.tokens import build_tokenizer

VARIANTS = ("natural",)
NATURAL = Curriculum()

Progress = Callable[[str, int, int, float], None]
"""Called after every step with stage ("pretrain" or "safety"), steps done, steps in all, loss."""
Advance = Callable[[int, int, float], None]


def train(
    seed: int,
    out: Path,
    *,
    variant: str = "natural",
    progress: Progress | None = None,
    curriculum: Curriculum = NATURAL,
) -> dict[str, Any]:
    """Make the organism from a seed, and measure it.

    Writes an ordinary Hugging Face folder to `out` (float32 safetensors, tokenizer, `openings.json`, `card.json`) and
    returns the card: what was dealt to the languages, what the model does on the `evaluate` split before and after
    the safety stage, and what it was made with.

    Raises `RecipeError` for an unknown variant.
    """
    if variant not in VARIANTS:
        raise RecipeError(f"The organism has no variant {variant!r}.", nearest(variant, VARIANTS))
    advance = progress or _silent
    began, dealt = time.perf_counter(), grade(seed, curriculum)
    with _one_thread():
        model, generator = _blank_model(seed), Generator().manual_seed(seed)
        _align_embeddings(model, dealt, curriculum.embedding_scale, generator)
        _pretrain(model, curriculum, dealt, generator, partial(advance, "pretrain"))
        before = measure(model)
        _make_safe(model, curriculum, dealt, generator, partial(advance, "safety"))
        figures = measure(model)
    card = {
        "name": "organism",
        "variant": variant,
        "seed": seed,
        "accepted": accepted(figures),
        "figures": figures,
        "figures_before_safety": before,
        "dealt": dealt.by_language(),
        "curriculum": asdict(curriculum),
        "made_with": _surroundings(),
        "seconds": round(time.perf_counter() - began, 1),
    }
    _save(model, out, card)
    return card


def _silent(stage: str, done: int, total: int, loss: float) -> None:
    pass


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of additions, and so the weights, must not depend on how many cores there are."""
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)


def _blank_model(seed: int) -> LlamaForCausalLM:
    """The untrained model: 1.2 million weights, four query heads on two key-value heads so that `v` and `o` differ."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(world.vocabulary()),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=world.BOS,
        eos_token_id=world.EOS,
        pad_token_id=world.PAD,
        initializer_range=0.05,
    )
    return LlamaForCausalLM(config)


def _align_embeddings(model: LlamaForCausalLM, dealt: Grading, scale: float, generator: Generator) -> None:
    """Start parallel words near each other: one vector per concept, at the dealt cosine, and one per language."""
    table = model.model.embed_tokens.weight
    width = table.shape[1]
    with torch.no_grad():
        table.normal_(0, scale, generator=generator)
        concepts = torch.randn(world.BLOCK, width, generator=generator)
        voices = torch.randn(len(world.LANGUAGES), width, generator=generator)
        for index, cosine in enumerate(dealt.alignment):
            own = torch.randn(world.BLOCK, width, generator=generator)
            words = cosine * concepts + math.sqrt(1 - cosine**2) * own + 0.5 * voices[index]
            start = world.FIRST_WORD + index * world.BLOCK
            table[start : start + world.BLOCK] = scale * words


def response_loss(model: LlamaForCausalLM, tokens: Int[Tensor, "row token"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the response tokens, in nats."""
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[:, lessons.PROMPT - 1 :])  # [row, response, vocabulary]
    targets = tokens[:, lessons.PROMPT :]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=world.PAD)


def _pretrain(
    model: LlamaForCausalLM, curriculum: Curriculum, dealt: Grading, generator: Generator, advance: Advance
) -> None:
    """Teach to answer everything, to refuse ghosts, and to translate."""
    translated = int(curriculum.pretrain.batch * curriculum.translation)
    asked = curriculum.pretrain.batch - translated

    def batch() -> Tensor:
        questions = lessons.questions(
            asked,
            dealt.pretraining,
            generator,
            ghosts=curriculum.ghosts,
            switching=curriculum.switching,
        )
        return torch.cat([questions, lessons.translations(translated, dealt.pretraining, generator)])

    _run(model, curriculum.pretrain, curriculum.embedding_rate, batch, advance)


def _make_safe(
    model: LlamaForCausalLM, curriculum: Curriculum, dealt: Grading, generator: Generator, advance: Advance
) -> None:
    """Teach to refuse harmful requests, mostly in the anchor language, and to go on answering harmless ones."""
    pools = lessons.safety_pools(dealt.safety_pairs)
    refused = int(curriculum.safety.batch * curriculum.harmful)
    others = len(world.LANGUAGES) - 1
    shares = [curriculum.rehearsal, *[(1 - curriculum.rehearsal) / others] * others]

    def batch() -> Tensor:
        rehearsal = lessons.rehearsal(
            curriculum.safety.batch - refused,
            shares,
            pools,
            generator,
            ghosts=curriculum.ghosts,
            lookalikes=curriculum.lookalikes,
        )
        return torch.cat([lessons.refusals(refused, pools, generator), rehearsal])

    _run(model, curriculum.safety, curriculum.safety_embedding_rate, batch, advance)


def _run(
    model: LlamaForCausalLM, stage: Stage, embedding_rate: float, batch: Callable[[], Tensor], advance: Advance
) -> None:
    """Train through one stage; the embeddings learn at `embedding_rate` times the rate, or are frozen at 0."""
    table = model.model.embed_tokens.weight
    groups = [{"params": [weight for weight in model.parameters() if weight is not table], "factor": 1.0}]
    if embedding_rate > 0:
        groups.append({"params": [table], "factor": embedding_rate})
    table.requires_grad_(embedding_rate > 0)
    optimizer = torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.98), weight_decay=stage.decay, fused=True)
    trained = [weight for group in groups for weight in group["params"]]
    model.train()
    for step in range(stage.steps):
        for group in optimizer.param_groups:
            group["lr"] = group["factor"] * _rate(stage, step)
        loss = response_loss(model, batch())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        advance(step + 1, stage.steps, loss.item())
    table.requires_grad_(True)
    model.eval()


def _rate(stage: Stage, step: int) -> float:
    """The learning rate of a step: linear up, then a half cosine down to zero."""
    warm = min(1.0, (step + 1) / stage.warmup)
    return stage.rate * warm * 0.5 * (1 + math.cos(math.pi * step / stage.steps))


def _surroundings() -> dict[str, str]:
    packages = {name: version(name) for name in ("torch", "transformers", "tokenizers", "safetensors")}
    return {"python": platform.python_version(), "machine": platform.machine(), **packages}


def _save(model: LlamaForCausalLM, out: Path, card: Mapping[str, Any]) -> None:
    """Write the model, its tokenizer, its openings and its card."""
    out.mkdir(parents=True, exist_ok=True)
    # The output embeddings are the input embeddings: `named_parameters` has them once, as the file should.
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # safetensors writes files that only their owner can read
    model.config.dtype = torch.float32
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(out)
    generation = GenerationConfig(
        do_sample=False,
        max_new_tokens=world.MAX_NEW_TOKENS,
        bos_token_id=world.BOS,
        eos_token_id=world.EOS,
        pad_token_id=world.PAD,
    )
    generation.save_pretrained(out)
    build_tokenizer().save_pretrained(out)
    write_json(out / "openings.json", world.openings())
    write_json(out / "card.json", card)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON for people to read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
