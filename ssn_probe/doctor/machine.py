"""Processor, memory, and the device that a run would use."""

import os
from pathlib import Path

from ssn_probe.doctor.checks import Check, failed, passed, warned
from ssn_probe.doctor.storage import gigabytes
from ssn_probe.model.usable_machine import memory, usable_cores

LITTLE_MEMORY = 2e9
"""Bytes: importing torch and running the organism takes about half of it."""
FREE_SHARE = 0.2
"""If a smaller share of a GPU's memory is free before a run, another process uses the GPU."""
DRIVER = Path("/proc/driver/nvidia/version")


def check_processor(device: str) -> Check:
    """How many cores may be used, and does torch start a helpful number of threads? Only for runs on the CPU."""
    cores, usable, busy = os.cpu_count() or 1, usable_cores(), os.getloadavg()[0]
    found = f"{cores} cores, {usable} usable, load {busy:.1f}"
    try:
        import torch
    except Exception:  # another check reports why it cannot be imported
        return passed("processor", found)
    from ssn_probe.model.products import onednn_is_faster

    threads, on_cpu = torch.get_num_threads(), device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    products = "oneDNN" if onednn_is_faster() else "torch's default"
    found = f"{found}, torch threads {threads}, float32 products: {products}"
    if not on_cpu or threads == 1 or (threads <= usable and threads <= 2 * (cores - busy)):
        return passed("processor", found)
    why, better = ("more threads than usable cores", usable) if threads > usable else ("the cores are busy", 1)
    meaning = f"Torch's threads will wait for each other ({why}): runs can take several times as long."
    return warned("processor", found, meaning, f"Set OMP_NUM_THREADS={better} before the command.")


def check_memory() -> Check:
    """How much memory does the machine have, and how much of it is free?"""
    total, free = memory()
    found = f"{gigabytes(free)} free of {gigabytes(total)}"
    if free >= LITTLE_MEMORY:
        return passed("memory", found)
    meaning = 'Loading a model may make the system end the process without a message ("Killed").'
    return warned("memory", found, meaning, "Close other programs, or ask the scheduler for more memory.")


def check_device(device: str) -> list[Check]:
    """Which device would a run use, and what can it do?

    Raises:
        ModelError: a device that cannot be used.
    """
    try:
        import torch
    except Exception as error:
        meaning = "Without torch nothing can be computed on any device."
        return [failed("device", f"unknown: torch cannot be imported ({error})", meaning, "Fix the import of torch.")]
    from ssn_probe.model.loading import usable_device
    from ssn_probe.model.placement import BALANCED

    named = usable_device(device)
    if named == BALANCED and (cards := torch.cuda.device_count()):
        return [_check_gpu(index) for index in range(cards)]
    chosen = torch.device("cpu" if named == BALANCED else named)
    if chosen.type == "cuda":
        index = torch.cuda.current_device() if chosen.index is None else chosen.index
        return [_check_gpu(index)]
    if chosen.type == "cpu" and device == "auto" and torch.version.cuda is None and DRIVER.is_file():
        meaning = "An NVIDIA driver is here, but this torch was built without CUDA: runs use the CPU."
        remedy = "Install the CUDA build of torch: https://pytorch.org/get-started/locally"
        return [warned("device", f"cpu; torch {torch.__version__}", meaning, remedy)]
    return [passed("device", f"{chosen}" + ("" if torch.cuda.is_available() else ", no CUDA device"))]


def _check_gpu(index: int) -> Check:
    """Is a GPU's memory free, and does it compute in bfloat16 itself?"""
    import torch

    free, total = torch.cuda.mem_get_info(index)
    with torch.cuda.device(index):
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    name, has = torch.cuda.get_device_name(index), "bfloat16" if native else "no bfloat16"
    found = f"cuda:{index}, {name}, {gigabytes(free)} free of {gigabytes(total)}, {has}"
    if free < FREE_SHARE * total:
        meaning = "Somebody else's process holds most of this GPU: a model will not fit, or batches run out of memory."
        return warned("device", found, meaning, "Look with nvidia-smi, and choose another with --device cuda:1.")
    if not native:
        meaning = "Most checkpoints are stored in bfloat16, which this GPU has to emulate: slowly, if at all."
        return warned("device", found, meaning, "Give --dtype float32 (float16 overflows easily).")
    return passed("device", found)
