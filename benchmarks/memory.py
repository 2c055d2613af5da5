"""Memory of a scoring pass beside its score array: it must not grow with the prompts.

Each size runs in a fresh process, `python -m benchmarks.memory EFFECT MODEL PROMPTS`: after a pass over one batch,
which makes every buffer that stays, the growth of the resident set up to the peak of a pass, less the score array. What
is left are the activations of one batch.
"""

import json
import sys
from typing import Any

from benchmarks.apart import MIB, forget_peak, peak, run_apart
from benchmarks.models import Case, opened
from benchmarks.timing import Row, spread

SIZES = (64, 256, 1024)
LENGTH = 16
BATCH = 32


def memory(name: str, *, sizes: tuple[int, ...], threads: int) -> list[Row]:
    """Peak growth less the score array, per effect and number of prompts."""
    rows = []
    for effect in ("local", "refusal"):
        for size in sizes:
            found = run_apart("benchmarks.memory", [effect, name, str(size)], threads=threads)
            beyond = (found["growth"] - found["array"]) / MIB
            rows.append(
                Row(
                    group=f"{name}: peak memory of a pass less its score array, batches of {BATCH}",
                    name=f"score_{effect}, {size:,} prompts × {found['length']} tokens",
                    value=spread([beyond]),
                    unit="MiB",
                    note=f"score array {found['array'] / MIB:,.0f} MiB",
                )
            )
    return rows


def _pass(effect: str, case: Case, tokens: Any) -> Any:
    from ssn_probe.tracing.effects import score_local, score_refusal

    if effect == "local":
        return score_local(case.subject, tokens, sites=("ffn", "o", "v"), batch_size=BATCH)
    return score_refusal(case.subject, tokens, case.single, batch_size=BATCH)


def _measure(effect: str, name: Any, prompts: int) -> dict[str, int]:
    with opened(name, prompts=prompts, length=LENGTH) as case:
        _pass(effect, case, case.tokens[:BATCH])
        before = forget_peak()
        scores = _pass(effect, case, case.tokens)
        growth = peak() - before
    tensors = [*scores.values.values(), *scores.scale.values()]
    array = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    return {"growth": growth, "array": array, "length": max(map(len, case.tokens))}


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))))  # noqa: T201
