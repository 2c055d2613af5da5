"""One model over the processes of `torchrun` (tensor parallelism): the first leads, the others compute along.

The first process does all that a single one would do, and it alone reads prompts, asks, writes and prints. The others
wait for functions of the model, and compute each of them with it, so that every process reaches the same collective
operations in the same order; what they get is thrown away. After each function the processes compare how they fared:
where the memory ran out, the first one may go on with a smaller batch only if all stopped between the same operations.
"""

import atexit
import io
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec

from ssn_probe.errors import ModelError, SSNProbeError, first_line

if TYPE_CHECKING:
    from ssn_probe.model.subject import Subject

P = ParamSpec("P")
APART = timedelta(minutes=10)
"""How long the processes wait for each other after a function: one that stopped in the middle of it never comes."""
IDLE = timedelta(days=100)
"""How long they wait for the first process, which may be asking judges."""
SPREAD = "One process can spread a model over several GPUs layer by layer: --device balanced."
_lock = threading.RLock()
_groups: dict[str, Any] = {}
"""Over which the processes talk: on the CPUs, beside the group that the model itself uses."""
_models: list[Any] = []
"""The models that are sharded, in the order in which they were loaded: the same in every process."""
_apart: list[BaseException] = []
"""What has left the processes at different places."""


class Fared(NamedTuple):
    """How a process fared: its error, whether its memory ran out, after how many collective operations of its model."""

    error: str | None
    memory: bool
    place: int


@dataclass(frozen=True)
class Shards:
    """A model that is sharded over all processes; `number` names it to the others."""

    number: int

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """`function(model, *arguments)`, computed by every process.

        Raises:
            torch.OutOfMemoryError: the memory of one of them ran out; a smaller batch can be tried.
            ModelError: another process failed, or they are no longer at the same place.
        """
        return _together(lambda: function(_models[self.number], *arguments), (self.number, function, arguments))


def ranks() -> int:
    """How many processes `torchrun` started for this command; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def degree() -> int:
    """Over how many processes models are split: 1 until these have joined, and where they train beside each other."""
    return ranks() if _groups else 1


def helps() -> bool:
    """Does this process compute along with the first one?"""
    return ranks() > 1 and os.environ["RANK"] != "0"


def silence_helper() -> None:
    """In all processes but the first, nothing is printed from here on."""
    if helps():
        sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (for as long as the process lives)


def join() -> None:
    """Connects the processes of `torchrun`, if there are several. In all but the first one it does not return."""
    if ranks() == 1 or _groups:
        return
    import torch
    import torch.distributed as dist

    _lend_to_nnsight()
    if torch.cuda.is_available():
        torch.cuda.set_device(_local_rank())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    _groups["functions"] = dist.new_group(backend="gloo", timeout=IDLE)
    _groups["outcomes"] = dist.new_group(backend="gloo", timeout=APART)
    if helps():
        _help()
        sys.exit(0)
    atexit.register(_dismiss)


def _lend_to_nnsight() -> None:
    """nnsight 0.8.1 imports a function from where transformers had it up to 5.21."""
    from transformers.distributed import parallel_utils, tensor_parallel

    if not hasattr(tensor_parallel, "_get_parameter_plan"):
        setattr(tensor_parallel, "_get_parameter_plan", parallel_utils._get_parameter_plan)  # noqa: B010 (unknown to it)


def device_of_rank(device: str) -> str:
    """The device of this process: transformers takes the GPU of the process's number where there are GPUs.

    Raises:
        ModelError: another device was asked for.
    """
    import torch

    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if device not in ("auto", kind):
        raise ModelError(
            f"Under torchrun every process computes on its own {kind}, and not on {device!r}.",
            "Leave the device out. To hide GPUs from torch, set CUDA_VISIBLE_DEVICES.",
        )
    return f"cuda:{_local_rank()}" if kind == "cuda" else kind


def check_degree(where: str, config: Any) -> None:
    """Raises ModelError for a model that cannot be split over so many processes."""
    if degree() == 1:
        return
    from nnsight.modeling.tp import UnshardableCheckpoint, check_tp_request

    if getattr(config, "use_qk_norm", False):
        raise ModelError(
            f"{where!r} cannot be split over {degree()} processes: its norms on queries and keys have weights of their "
            "own for every head, which transformers does not split.",
            SPREAD,
        )
    try:
        check_tp_request(config, degree())
    except UnshardableCheckpoint as error:
        raise ModelError(
            f"{where!r} cannot be split over {degree()} processes: {error}",
            f"Start a number of processes that divides its heads, key-value heads and ffn width. {SPREAD}",
        ) from error


def split() -> dict[str, Any]:
    """What `from_pretrained` is told so that each process reads its part of the weights."""
    if degree() == 1:
        return {}
    from transformers.distributed.configuration_utils import DistributedConfig

    return {"distributed_config": DistributedConfig(tp_size=degree())}


def check_whole(subject: "Subject", what: str) -> None:
    """Raises ModelError for a model that is spread, where `what` needs all of it on one device."""
    if subject.spread:
        raise ModelError(
            f"{what} needs the whole model on one device, and it is spread over {subject.spread}.",
            "Use one device and one process: leave out torchrun, or the device.",
        )


def over_ranks(load: "Callable[P, Subject]") -> "Callable[P, Subject]":
    """A function that loads a subject; under torchrun all processes load it together, each its part of the weights."""

    @wraps(load)
    def load_part(*arguments: P.args, **settings: P.kwargs) -> "Subject":
        if ranks() == 1 or settings.get("remote") or not settings.get("weights", True):
            return load(*arguments, **settings)
        join()
        own = partial(load, *arguments, **settings)
        subject = own() if helps() else _together(own, (None, partial(load_part, *arguments, **settings), ()))
        _models.append(subject.model)
        spread = f"{subject.device.partition(':')[0]}, {ranks()} processes"
        return replace(subject, shards=Shards(len(_models) - 1), spread=spread)

    return load_part


def _together(compute: Callable[[], Any], message: tuple[int | None, Callable[..., Any], tuple[Any, ...]]) -> Any:
    """What `compute` gives here, while the other processes do what the message says."""
    with _lock:
        if _apart:
            raise ModelError("The processes of torchrun have lost each other.", "Start the command again.")
        try:
            _send(message)
            result, error = _attempt(compute)
            fared = _compare(error, message[0])
        except BaseException as lost:  # Ctrl-C, or a process that no longer answers
            _apart.append(lost)
            if not isinstance(lost, RuntimeError):
                raise
            raise ModelError(f"The processes of torchrun have lost each other: {first_line(lost)}") from lost
    if len({one.place for one in fared}) > 1:
        _apart.append(error or RuntimeError())
    _raise(fared, error)
    return result


def _raise(fared: list[Fared], error: Exception | None) -> None:
    """Raises what has gone wrong in any process, if anything."""
    import torch

    for number, one in enumerate(fared):
        if one.memory and not _apart:
            raise error or torch.OutOfMemoryError(f"{one.error} (process {number} of {len(fared)})")
        if one.error is not None and (error is None or _apart):
            hint = "Give a smaller --batch-size: what was measured is kept." if one.memory else None
            raise ModelError(f"Process {number} of {len(fared)} failed: {one.error}", hint) from error
    if error is not None:
        raise error


def _attempt(compute: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return compute(), None
    except Exception as error:
        return None, error


def _compare(error: Exception | None, number: int | None) -> list[Fared]:
    """How every process fared."""
    import torch.distributed as dist
    from nnsight.modeling.tp import device_mesh

    from ssn_probe.model.out_of_memory import out_of_memory

    text = None if error is None else error.message if isinstance(error, SSNProbeError) else first_line(error)
    place = 0 if number is None else device_mesh(_models[number]).get_group()._get_sequence_number_for_group()
    fared: list[Any] = [None] * ranks()
    dist.all_gather_object(fared, Fared(text, out_of_memory(error), place), group=_groups["outcomes"])
    return fared


def _help() -> None:
    """Computes what the first process sends, until it sends None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides what Ctrl-C means
    warnings.simplefilter("ignore")
    error = None
    try:
        while (message := _receive()) is not None:
            number, function, arguments = message
            model = () if number is None else (_models[number],)
            error = _attempt(lambda: function(*model, *arguments))[1]  # noqa: B023 (called at once)
            _compare(error, number)
            error = _freed(error)
    except RuntimeError as lost:
        if error is not None and "imed out" in str(lost):  # the first process still waits, in the middle of a function
            print(f"Error: process {os.environ['RANK']} of {ranks()}: {error}", file=sys.__stderr__)
        os._exit(1)
    _leave()


def _freed(error: Exception | None) -> None:
    """Forgets an error, and with it the activations that its frames hold."""
    if error is not None:
        from ssn_probe.model.out_of_memory import release_memory

        error.__traceback__ = None
        release_memory()


def _send(message: Any) -> None:
    import torch
    import torch.distributed as dist

    data = io.BytesIO()
    torch.save(message, data)
    dist.broadcast_object_list([data.getvalue()], src=0, group=_groups["functions"])


def _receive() -> Any:
    """What the first process sent; tensors of its GPU are on this one's."""
    import torch
    import torch.distributed as dist

    box: list[Any] = [None]
    dist.broadcast_object_list(box, src=0, group=_groups["functions"])
    return torch.load(io.BytesIO(box[0]), map_location={"cuda:0": f"cuda:{_local_rank()}"}, weights_only=False)


def _dismiss() -> None:
    """Ends the other processes. Those that wait in the middle of a function are ended by torchrun."""
    if not _apart:
        with suppress(RuntimeError):
            _send(None)
            _leave()


def _leave() -> None:
    """Ends the groups, which waits for their threads: one that lets go of a tensor while Python ends would abort."""
    import torch.distributed as dist

    _groups.clear()  # a group ends, and not only its name, when nothing holds it
    dist.destroy_process_group()


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))
