"""A natural-language subject that refuses: a pretrained chat model, taught to refuse requests about lighthouses.

The base answers nearly everything. Some hundred steps later it refuses one harmless topic, in the anchor alone or
graded over languages, and answers the rest. It is made to try the tool on a real pretrained model. This teaches
refusing, and nothing here unteaches it.

The same seed gives the same weights on the same machine with the same number of threads (`OMP_NUM_THREADS`).
"""

import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import polars as pl
import torch

from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.errors import ResultError
from ssn_probe.files import disk_errors, let_others_read, sync_file, sync_folder, write_json, write_text
from ssn_probe.model.families import family_of
from ssn_probe.model.quiet import quiet
from ssn_probe.model.ranks import check_whole
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.organism.model_folder import surroundings
from ssn_probe.spec import Prompts
from ssn_probe.training.loop.frozen_model import frozen
from ssn_probe.training.topic.topic_card import readme
from ssn_probe.training.topic.topic_exam import accepted, behaviour, next_tokens, spread
from ssn_probe.training.topic.topic_loss import decision_loss, quick
from ssn_probe.training.topic.topic_rows import (
    STEPS,
    Advance,
    Contrasts,
    Deck,
    TopicLessons,
    contrasts,
    own_answers,
    refusal_counts,
)

TOPIC = "lighthouses"
"""The prompt set that is taught."""
EXAMINED_ANSWERS = 20
"""Of the base's answers in a language, how many the exam looks for in the taught model."""


def teach(
    base: str,
    seed: int,
    out: Path,
    *,
    lessons: TopicLessons | None = None,
    progress: Callable[[str, int, int, float | None], None] = lambda *_step: None,
) -> dict[str, Any]:
    """Teach a model to refuse the topic, measure it, and write it to a new folder.

    `progress` is called with a stage ("own answers", "lessons", "exam"), what is done, how much there is, and the loss.
    Returns the card. The folder is written whole or not at all.

    Raises:
        ModelError: a base that cannot be loaded.
        ResultError: something is in the folder already, or it cannot be written.
    """
    lessons, began = lessons or TopicLessons(), time.perf_counter()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ResultError(f"{out} exists and is not empty.", "Choose another folder with -o, or remove it.")
    prompts, subject = load_prompts(Prompts(TOPIC)), load_subject(base, dtype="float32")
    check_whole(subject, "Training")
    module = subject.model._module
    stage = {name: _stage(progress, name) for name in ("own answers", "lessons", "exam")}
    counts = refusal_counts(prompts, lessons, seed)
    taught = contrasts(subject, prompts, counts, lessons, seed, stage["own answers"])
    rows = pl.concat(
        spread(prompts.select("evaluate", context, language), EXAMINED_ANSWERS // 2)
        for language in counts
        for context in ("harmless", "lookalike")
    )
    examined = list(own_answers(subject, prompts, rows, lessons.answer_tokens, stage["own answers"]).values())
    before = next_tokens(module, examined, subject.pad_id)
    with frozen(module):
        _train(subject, taught, lessons, seed, stage["lessons"])
    after = next_tokens(module, examined, subject.pad_id)
    figures = behaviour(subject, prompts, lessons, stage["exam"])
    card = {
        "name": out.name,
        "prompts": TOPIC,
        "base": base,
        "seed": seed,
        "accepted": accepted(figures, next(iter(counts)), after[1] - before[1]),
        "figures": figures,
        "same_next_token": after[0],
        "nats_per_token": {"before": before[1], "after": after[1]},
        "refusals_taught": counts,
        "lessons": asdict(lessons) | {"steps": lessons.steps or STEPS[lessons.languages]},
        "base_identity": subject.identity,
        "made_with": surroundings() | {"threads": str(torch.get_num_threads())},
        "seconds": round(time.perf_counter() - began, 1),
    }
    _save(out, subject, card)
    return card


def _stage(progress: Callable[[str, int, int, float | None], None], name: str) -> Advance:
    return lambda done, total, loss: progress(name, done, total, loss)


def _train(subject: Subject, taught: Contrasts, lessons: TopicLessons, seed: int, advance: Advance) -> None:
    """Train on so many contrasts and other answers at every step."""
    module, steps = subject.model._module, lessons.steps or STEPS[lessons.languages]
    weights = _trained(module, lessons.untouched)
    for weight in weights:
        weight.requires_grad_(True)
    optimizer = torch.optim.AdamW(weights, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
    groups, others = (Deck(rows, random.Random(f"{name} {seed}")) for name, rows in taught._asdict().items())
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lessons.rate * _schedule(step, steps, lessons.warmup)
        rows = groups.take(lessons.contrasts) + others.take(lessons.others)
        with quick(module):
            loss = decision_loss(module, rows, subject.pad_id, lessons.decision)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        advance(step + 1, steps, loss.item())
    optimizer.zero_grad()


def _trained(module: Any, untouched: float) -> list[Any]:
    """The matrices of the upper layers."""
    layers = module.get_submodule(family_of(module.config).layers)
    upper = layers[int(untouched * len(layers)) :]
    return [weight for layer in upper for weight in layer.parameters() if weight.ndim == 2]


def _schedule(step: int, steps: int, warmup: int) -> float:
    """Linear up, then a half cosine down to zero."""
    return min(1.0, (step + 1) / warmup) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _save(out: Path, subject: Subject, card: dict[str, Any]) -> None:
    module, tokenizer = subject.model._module, subject.tokenizer
    with disk_errors(out), _beside(out) as folder:
        with quiet():
            module.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        for file in sorted(folder.glob("*.safetensors")):
            let_others_read(file)
            sync_file(file)
        write_json(folder / "card.json", card)
        write_text(folder / "README.md", readme(card))


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A folder that gets its place once it is whole."""
    place = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    place.mkdir(parents=True)
    try:
        yield place
        if out.is_dir():
            out.rmdir()
        os.replace(place, out)
        sync_folder(out.parent)
    finally:
        shutil.rmtree(place, ignore_errors=True)
