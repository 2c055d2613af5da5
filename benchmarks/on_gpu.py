"""A GPU: does it give the numbers that the CPU gives, and how fast is it with eight billion parameters?

    python -m benchmarks.on_gpu --quick                # agreement, a minute or two
    python -m benchmarks.on_gpu --part speed           # a random Llama of 8B parameters in bfloat16, 16 GB of disk
    python -m benchmarks.on_gpu --device cpu --tiny    # a dry run without a GPU

Every result is a line of JSON as soon as it is there. Agreement: benchmarks/agreement.py. Speed: the lines of
benchmarks/speed as multiples of plain passes by CUDA events, tokens a second, and how much the allocator's peak is
beyond the weights, beside the estimate of `ssn_probe.model.memory`. TMPDIR says where the random model is written.
"""

import json
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

Found = dict[str, Any]
PARTS = ("doctor", "agreement", "run", "memory", "speed")


@click.command()
@click.option("--device", default="cuda", show_default=True)
@click.option("--part", "parts", type=click.Choice(PARTS), multiple=True, help="Only this part; repeatable.")
@click.option("--quick", is_flag=True, help="All but speed.")
@click.option("--tiny", is_flag=True, help="A tiny model instead of the 8B, on few prompts: does it run?")
@click.option("--repeats", type=click.IntRange(1), default=2, show_default=True, help="Repeats that count, of speed.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Append the lines to this file, too.")
def main(device: str, parts: tuple[str, ...], quick: bool, tiny: bool, repeats: int, out: Path | None) -> None:
    """Agreement of a GPU with the CPU, and the speed of an 8B model on it, as lines of JSON."""
    began = time.monotonic()
    chosen = parts or (PARTS[:-1] if quick else PARTS)
    for part in ("machine", *chosen):
        try:
            for found in _part(part, device, tiny, repeats):
                _say({**found, "at": round(time.monotonic() - began, 1)}, out)
        except (Exception, SystemExit) as error:  # the other parts are measured all the same
            _say({"part": part, "failed": repr(error), "where": traceback.format_exc()[-3000:]}, out)


def _say(found: Found, out: Path | None) -> None:
    line = json.dumps(found, ensure_ascii=False)
    click.echo(line)
    if out is not None:
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def _part(part: str, device: str, tiny: bool, repeats: int) -> Iterator[Found]:
    from benchmarks import agreement

    match part:
        case "machine":
            yield _machine(device)
        case "doctor":
            yield from _doctor(device)
        case "agreement":
            for dtype in ("float32", "bfloat16"):
                yield from agreement.compare_devices(device, dtype)
        case "run":
            yield from agreement.compare_runs(device, limit=40, controls=1 if tiny else 3)
        case "memory":
            yield from agreement.run_out_of_memory(device)
        case "speed":
            yield from _speed(device, tiny, repeats)


def _machine(device: str) -> Found:
    import torch

    from benchmarks.report import machine

    gpu = {}
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        gpu = {"gpu": properties.name, "gpu memory": properties.total_memory, "cuda": torch.version.cuda}
    return {"part": "machine"} | gpu | machine(torch.get_num_threads())


def _doctor(device: str) -> Iterator[Found]:
    from ssn_probe.doctor.examine import examine_machine, examine_model

    for check in (*examine_machine(Path("results"), device=device), *examine_model("organism", device=device)):
        yield {"part": "doctor", "what": check.name, "status": check.status, "found": check.found}


def _speed(device: str, tiny: bool, repeats: int) -> Iterator[Found]:
    """The model is made and loaded once for everything."""
    from benchmarks.models import opened
    from benchmarks.speed import large_model

    began = time.monotonic()
    prompts, length = (2, 16) if tiny else (16, 128)
    name, dtype = ("tiny", "float32") if tiny else ("8b", "bfloat16")
    with opened(name, prompts=prompts, length=length, device=device, dtype=dtype) as case:
        case = replace(case, new_tokens=4 if tiny else 64)
        yield {"part": "speed", "what": "made and loaded", "seconds": time.monotonic() - began, "held": _held()}
        yield from _memory(case)
        yield from _same(case)
        size = large_model.TINY if tiny else large_model.Size()
        yield large_model.identification(case, size)
        yield from large_model.ratios(case, size, repeats=1 if tiny else repeats)


def _memory(case: Any) -> Iterator[Found]:
    """The peak of each kind of work beyond what is held, beside its estimate without the weights."""
    from benchmarks.speed.training import expand_step
    from ssn_probe.model.memory import footprint
    from ssn_probe.model.shape import shape_of
    from ssn_probe.spec import Local
    from ssn_probe.tracing.effects import (
        refusal_log_odds,
        score_final,
        score_final_ablation,
        score_local,
        score_refusal,
    )
    from ssn_probe.tracing.generate import generate

    subject, tokens, count = case.subject, case.tokens, len(case.tokens)
    shape, length, new = shape_of(subject.model._module, subject.family), max(map(len, tokens)), case.new_tokens
    first = replace(subject, n_layers=1)  # brute force for the neurons of one layer
    works: dict[Any, tuple[int, Callable[[], object]]] = {
        "local": (count, lambda: score_local(subject, tokens, batch_size=count)),
        "refusal": (count, lambda: score_refusal(subject, tokens, case.single, batch_size=count)),
        "log_odds": (count, lambda: refusal_log_odds(subject, tokens, case.single, edits=case.edits, batch_size=count)),
        "generate": (count, lambda: generate(subject, tokens, edits=case.edits, max_new_tokens=new)),
        "final": (count, lambda: score_final(subject, tokens, probes=4, batch_size=count)),
        "final_ablation": (64, lambda: score_final_ablation(first, tokens[:1], sites=["k"], batch_size=64)),
    }
    for work, (rows, run) in works.items():
        estimate = footprint(shape, work, tokens=length, new_tokens=new, probes=4, exact_qk=Local.exact_qk)
        estimated = estimate.beside(rows)
        yield _peak(run) | {"what": work, "rows": rows, "estimated": estimated, "needed": estimate.needed(rows)}
    yield _peak(expand_step(case, case.plain).run) | {"what": "a training step of expand", "rows": count}


def _same(case: Any) -> Iterator[Found]:
    """Does tracing compute, to the last bit, what a plain forward pass and generation compute?"""
    from benchmarks.speed import plain
    from ssn_probe.doctor.probing import traced_logits
    from ssn_probe.tracing.generate import generate

    inputs, few = plain.batches(case, len(case.tokens)), replace(case, new_tokens=min(8, case.new_tokens))
    first, again = (plain.forward(case, inputs).double() for _ in range(2))
    traced = traced_logits(case.subject, case.tokens)
    gaps = {"again": again - first, "traced": traced - first}
    yield {"part": "same", "what": "logits"} | {name: float(gap.abs().max()) for name, gap in gaps.items()}
    texts = [plain.responses(few, inputs) for _ in range(2)]
    mine = [generate(few.subject, few.tokens, max_new_tokens=few.new_tokens) for _ in range(2)]
    texts += [[one.text for one in made] for made in mine]
    same = [sum(one == other for one, other in zip(texts[0], other, strict=True)) for other in texts]
    yield {"part": "same", "what": "responses: plain, plain again, probe, probe again", "as the first": same}


def _peak(run: Callable[[], object]) -> dict[str, Any]:
    """Bytes beyond what is held, 0 without a GPU, and seconds."""
    import torch

    from benchmarks.timing import clocked
    from ssn_probe.model.out_of_memory import release_memory

    release_memory()
    before, gpu = _held(), torch.cuda.is_initialized()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    seconds = clocked(run)[0]
    return {
        "part": "peak",
        "beyond": torch.cuda.max_memory_allocated() - before if gpu else 0,
        "reserved": torch.cuda.max_memory_reserved() if gpu else 0,
        "seconds": round(seconds, 3),
    }


def _held() -> int:
    import torch

    return torch.cuda.memory_allocated() if torch.cuda.is_initialized() else 0


if __name__ == "__main__":
    main()
