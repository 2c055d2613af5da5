"""How the organism is made: a small transformer is pretrained on the world, then taught to refuse what is harmful.

After pretraining the model answers harmful requests like all others. The safety stage changes that, mostly in the
anchor language; other languages learn to refuse through what they share with it (`curriculum.py` grades them). Both
stages run a schedule down to a learning rate of zero, so that the result does not depend on where training stopped.
The same seed gives the same weights on the same machine: a single thread is used, for about two minutes.

In a planted variant the safety stage may change the planted neurons only (`planting.py`), and the effect of each of
them is measured afterwards (`truth_measurement.py`), which takes ten seconds for each of `pairs` with 64 neurons.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ssn_probe.organism import lessons, planting, world
from ssn_probe.organism.curriculum import Curriculum, Grading, Stage, grade
from ssn_probe.organism.exam import accepted, measure
from ssn_probe.organism.model_folder import save, surroundings
from ssn_probe.organism.planting import Planted
from ssn_probe.organism.truth_measurement import PAIRS, add_truth
from ssn_probe.organism.variants import Variant, blank_model, find_variant

Progress = Callable[[str, int, int, float | None], None]
"""Called after every step with stage ("pretrain", "safety", "truth"), steps done, steps in all, and the loss or None.

The stage "truth" counts permutation pairs, and has no loss.
"""
Advance = Callable[[int, int, float], None]


def train(
    seed: int,
    out: Path,
    *,
    variant: str | Variant = "natural",
    progress: Progress | None = None,
    curriculum: Curriculum | None = None,
    pairs: int = PAIRS,
) -> dict[str, Any]:
    """Make the organism from a seed, and measure it.

    Writes an ordinary Hugging Face folder to `out` (safetensors, tokenizer, `openings.json`, `card.json`) and returns
    the card: what was dealt to the languages, what the model does on the `evaluate` split before and after the
    safety stage, and what it was made with. For a planted variant it also writes the ground truth (`truth.parquet`,
    `truth.json`), from `pairs` permutation pairs. `curriculum` replaces the variant's own. A variant that is no shipped
    one is given as a value; the card then calls it "own".

    Raises `RecipeError` for an unknown variant.
    """
    name, chosen = ("own", variant) if isinstance(variant, Variant) else (variant, find_variant(variant))
    advance = progress or (lambda *step: None)
    taught = curriculum or chosen.curriculum
    began, dealt = time.perf_counter(), grade(seed, taught, held_out=bool(chosen.planted))
    with _one_thread():
        model, planted, generator = _pretrained(seed, chosen, taught, dealt, partial(advance, "pretrain"))
        before, digest = measure(model), planting.digest_of(model, planted)
        _make_safe(model, planted, chosen.dropout, taught, dealt, generator, partial(advance, "safety"))
        figures = measure(model)
        card = {
            "name": "organism",
            "variant": name,
            "seed": seed,
            "accepted": accepted(figures) and not planted,  # a planted organism must also pass `add_truth`
            "figures": figures,
            "figures_before_safety": before,
            "dealt": dealt.by_language(),
            **({"planted_per_layer": dict(chosen.planted), "dropout": chosen.dropout} if planted else {}),
            "curriculum": asdict(taught),
            "made_with": surroundings(),
            "seconds": round(time.perf_counter() - began, 1),
        }
        save(model, out, card, stored=torch.bfloat16 if planted else torch.float32)
        if not planted:
            return card
        return add_truth(
            out,
            card,
            model,
            planted,
            pretrained=digest,
            pairs=pairs,
            report=lambda done, total: advance("truth", done, total, None),
        )


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


def _pretrained(
    seed: int, variant: Variant, curriculum: Curriculum, dealt: Grading, advance: Advance
) -> tuple[Any, Planted, Generator]:
    """The pretrained model, its planted neurons, which write nothing yet, and the generator after pretraining."""
    model, generator = blank_model(variant.architecture, seed), Generator().manual_seed(seed)
    planted = planting.reserve(model.config, variant.planted, seed)
    planting.silence(model, planted)
    _align_embeddings(model, dealt, curriculum.embedding_scale, generator)
    with planting.gradients(model, planted, of_planted=False):
        _pretrain(model, curriculum, dealt, generator, advance)
    if planted:
        planting.round_weights(model)  # the safety stage starts from what the bfloat16 file stores
    return model, planted, generator


def _align_embeddings(model: Any, dealt: Grading, scale: float, generator: Generator) -> None:
    """Start parallel words near each other: a vector per concept, at the dealt cosine, and a vector per language."""
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


def response_loss(model: Any, tokens: Int[Tensor, "row token"]) -> Float[Tensor, ""]:
    """Mean cross-entropy of the response tokens, in nats."""
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state
    logits = model.lm_head(hidden[:, lessons.PROMPT - 1 :])  # [row, response, vocabulary]
    targets = tokens[:, lessons.PROMPT :]
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=world.PAD)


def _pretrain(model: Any, curriculum: Curriculum, dealt: Grading, generator: Generator, advance: Advance) -> None:
    """Teach to answer everything, to refuse ghosts, and to translate."""
    translated = int(curriculum.pretrain.batch * curriculum.translation)
    asked = curriculum.pretrain.batch - translated

    def batch() -> Tensor:
        shares, habits = dealt.pretraining, {"ghosts": curriculum.ghosts, "switching": curriculum.switching}
        questions = lessons.questions(asked, shares, generator, **habits)
        return torch.cat([questions, lessons.translations(translated, shares, generator)])

    _run(model, curriculum.pretrain, _groups(model, curriculum.embedding_rate), batch, advance)


def _make_safe(
    model: Any,
    planted: Planted,
    dropout: float,
    curriculum: Curriculum,
    dealt: Grading,
    generator: Generator,
    advance: Advance,
) -> None:
    """Teach to refuse harmful requests, mostly in the anchor language, and to continue to answer harmless requests.

    Where neurons are planted, only they are trained, without the pairs that the ground truth is measured on.
    """
    pools = lessons.safety_pools(dealt.safety_pairs, held_out=bool(planted))
    batch = partial(_safety_batch, curriculum, pools, generator)
    if not planted:
        _run(model, curriculum.safety, _groups(model, curriculum.safety_embedding_rate), batch, advance)
        return
    planting.sprout(model, planted, generator)
    groups = [{"params": list(planting.masks(model, planted)), "factor": 1.0}]
    with planting.gradients(model, planted, of_planted=True), planting.dropout(model, planted, dropout, generator):
        _run(model, curriculum.safety, groups, batch, advance)
    planting.round_weights(model)


def _safety_batch(curriculum: Curriculum, pools: lessons.Pools, generator: Generator) -> Tensor:
    refused = int(curriculum.safety.batch * curriculum.harmful)
    others = len(world.LANGUAGES) - 1
    rehearsal = lessons.rehearsal(
        curriculum.safety.batch - refused,
        [curriculum.rehearsal, *[(1 - curriculum.rehearsal) / others] * others],
        pools,
        generator,
        ghosts=curriculum.ghosts,
        lookalikes=curriculum.lookalikes,
    )
    return torch.cat([lessons.refusals(refused, pools, generator), rehearsal])


def _groups(model: Any, embedding_rate: float) -> list[dict[str, Any]]:
    """All weights; the embeddings learn at `embedding_rate` times the rate, or are frozen at 0."""
    table = model.model.embed_tokens.weight
    groups = [{"params": [weight for weight in model.parameters() if weight is not table], "factor": 1.0}]
    return [*groups, {"params": [table], "factor": embedding_rate}] if embedding_rate > 0 else groups


def _run(
    model: Any, stage: Stage, groups: Sequence[dict[str, Any]], batch: Callable[[], Tensor], advance: Advance
) -> None:
    """Train the weights of the groups through a stage, each group at `factor` times the rate; the rest is frozen."""
    trained = [weight for group in groups for weight in group["params"]]
    model.requires_grad_(False)
    for weight in trained:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(groups, lr=stage.rate, betas=(0.9, 0.98), weight_decay=stage.decay, fused=True)
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
    model.requires_grad_(True)
    model.eval()


def _rate(stage: Stage, step: int) -> float:
    """The learning rate of a step: linear up, then a half cosine down to zero."""
    warm = min(1.0, (step + 1) / stage.warmup)
    return stage.rate * warm * 0.5 * (1 + math.cos(math.pi * step / stage.steps))
