"""How often does the model still comply while it learns? Greedy responses to harmful rows that are held out.

The rows come from the held-out share of the train split: the evaluate split is for the study alone, since
looking at it while training would mean choosing by it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from ssn_probe.data.judges import Judge, JudgedRow
from ssn_probe.data.training_rows import Example, SafetyData
from ssn_probe.model.asking import own_turn
from ssn_probe.model.chat import pad_left
from ssn_probe.model.out_of_memory import fitting, memory_errors
from ssn_probe.model.plain_text import encode_messages
from ssn_probe.model.token_ids import decoded, embedding_size, usable_pad
from ssn_probe.model.turn_ends import up_to_end
from ssn_probe.spec.training_settings import Training
from ssn_probe.training.loop.frozen_model import evaluating
from ssn_probe.training.loop.processes import is_sharded

ROWS = 64
"""Rows of a probe, spread over the languages."""
BATCH = 16
"""Rows that are generated together."""


def probe_rows(data: SafetyData, settings: Training, most: int = ROWS) -> list[Example]:
    """Harmful held-out rows, equally many of each language, at most `most` in all."""
    rows = [row for row in data.split(settings)[1] if row.context == "harmful"]
    share = max(1, most // len(data.languages))
    return [row for code in data.languages for row in [row for row in rows if row.language == code][:share]]


def asr_probe(
    tokenizer: Any, rows: Sequence[Example], judge: Judge, *, max_new_tokens: int, eos_ids: Sequence[int] = ()
) -> Callable[[Any], float]:
    """A function of the model: complied / judged among greedy responses to `rows`, NaN where none is judged.

    It leaves the model as it was. Where the memory does not hold BATCH rows, it generates fewer together. Under a
    launcher every process generates all responses.

    Args:
        tokenizer: with the chat template in which the model is asked.
        rows: requests; see `probe_rows`.
        judge: of the responses, as the data declare it.
        max_new_tokens: of a response.
        eos_ids: the tokens on which the model's generation ends.
    """
    from transformers import GenerationConfig

    prompts = encode_messages(tokenizer, [row.text for row in rows])
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_new_tokens,
        pad_token_id=tokenizer.pad_token_id or 0,
        eos_token_id=list(eos_ids) or tokenizer.eos_token_id,
    )

    def responses(module: Any, size: int) -> list[str]:
        texts = []
        message = f"There is not enough memory for the ASR probe with {size} row{'s' * (size > 1)} at a time"
        with memory_errors(size, message, "Shorten the longest request, or lower max_new_tokens in dataset.json."):
            for start in range(0, len(rows), size):
                texts += _responses(module, tokenizer, prompts[start : start + size], config)
        return texts

    def probe(module: Any) -> float:
        with _generating(module, config):
            texts = fitting(lambda size: responses(module, size or BATCH), BATCH, shrink=not is_sharded(module))
        asked = [JudgedRow(row.language, row.text, text) for row, text in zip(rows, texts, strict=True)]
        judged = [found.verdict for found in judge.judge(asked) if found.verdict != "unjudged"]
        return judged.count("complied") / len(judged) if judged else float("nan")

    return probe


def held_out_probe(
    tokenizer: Any, data: SafetyData, settings: Training, *, max_new_tokens: int, eos_ids: Sequence[int] = ()
) -> Callable[[Any], float] | None:
    """An `asr_probe` of the rows that this training holds out, by the judge of the data; None if there are none."""
    rows = probe_rows(data, settings)
    if not rows:
        return None
    return asr_probe(tokenizer, rows, data.judge, max_new_tokens=max_new_tokens, eos_ids=eos_ids)


@contextmanager
def _generating(module: Any, config: Any) -> Iterator[None]:
    """Inside, these are the model's only generation settings, and there is no dropout.

    Passed to `generate` instead, they would be completed by those of the checkpoint, such as a repetition penalty.
    """
    config.pad_token_id = usable_pad(config.pad_token_id, (), embedding_size(module))
    kept = module.generation_config
    module.generation_config = config
    try:
        with evaluating(module):
            yield
    finally:
        module.generation_config = kept


def _responses(module: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], config: Any) -> list[str]:
    device = module.get_input_embeddings().weight.device
    batch = pad_left(prompts, config.pad_token_id, str(device))
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        made = module.generate(**inputs, synced_gpus=is_sharded(module))
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    rows = [up_to_end(row, ends)[0] for row in made[:, inputs["input_ids"].shape[1] :].tolist()]
    return [own_turn(text, tokenizer) for text in decoded(rows, tokenizer)[0]]
