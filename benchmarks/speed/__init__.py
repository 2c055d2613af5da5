"""How fast the probe is beside a plain pass and beside tools that do the same work: `python -m benchmarks.speed`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.speed.lines import Line
    from benchmarks.timing import Row


@dataclass(frozen=True, kw_only=True)
class Found:
    """Rows of the CPU, of a GPU where there is one; by line, which tools are missing and why; and remarks."""

    cpu: "Sequence[Row]"
    gpu: "Sequence[Row] | None"
    missing: Mapping[str, Mapping[str, str]]
    notes: Sequence[str]


def measured(name: Any, *, repeats: int, quick: bool, threads: int, only: Sequence[str] = ()) -> Found:
    """All lines of a model. On a GPU it runs in bfloat16, as large models do."""
    import torch

    from benchmarks.models import opened
    from benchmarks.speed.lines import measure

    torch.set_num_threads(threads)
    rows, missing, notes = {}, {}, []
    devices = {"cpu": "float32"} | ({"cuda": "bfloat16"} if torch.cuda.is_available() else {})
    for device, dtype in devices.items():
        sizes = {"prompts": prompts_of(name, quick), "length": 16 if quick else 64}
        with opened(name, **sizes, device=device, dtype=dtype) as case:
            case = replace(case, new_tokens=4) if quick else case
            lines = chosen(case, only, quick)
            rows[device] = measure(lines, where=f"{name}, {device}", repeats=repeats)
        missing |= {line.name: line.missing for line in lines}
        notes += list(dict.fromkeys(f"{device}, {row.name}: {row.note}" for row in rows[device] if row.note))
    return Found(cpu=rows["cpu"], gpu=rows.get("cuda"), missing=missing, notes=notes)


def chosen(case: Any, only: Sequence[str], quick: bool) -> "list[Line]":
    """The lines of scoring, generation and training whose names contain one of `only`, or all."""
    from benchmarks.models import of_length
    from benchmarks.speed import generation, scoring, training

    count = len(case.tokens)
    lines = scoring.lines(case, batch_size=count)
    if case.name != "organism" and not quick:
        lines += scoring.local_lines(of_length(case, prompts=2, length=256), goal=5, batch_size=2)
    lines += [*generation.lines(case, batch_size=count), *training.lines(case)]
    return [line for line in lines if not only or any(part in line.name for part in only)]


def prompts_of(name: str, quick: bool) -> int:
    """The organism is so small that it runs its whole set."""
    return 200 if name == "organism" else 2 if quick else 8
