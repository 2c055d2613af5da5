"""A process that computes what another one asks of the same model, until its standard input ends: see `model.workers`.

Run as `python -m ssn_probe.tracing.worker`: pickled messages come on stdin, the `Loading` first, and answers go to
stdout, the model's identity first. Only the process that started it can write there.
"""

import os
import pickle
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from typing import Any, BinaryIO

from ssn_probe.model.garbage import left_for_later
from ssn_probe.model.messages import on_device, packed
from ssn_probe.model.out_of_memory import give_back_spare, release_memory
from ssn_probe.model.trial import take_as_passed
from ssn_probe.model.workers import Loading


def main() -> None:
    """Loads the model, says which it is, and answers calls: (number, was there a value, the value, seconds)."""
    with suppress(ValueError, OSError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the first process, which ends this one
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where a library prints
    with left_for_later():
        # what every model needs is imported before it is known which model it is: the first process may still read it
        import nnsight  # noqa: F401
        import torch
        import transformers.modeling_utils  # noqa: F401

        from ssn_probe.model.subject import load_subject
        from ssn_probe.model.torch_settings import set_torch
        from ssn_probe.tracing.execution import run_here

        loading: Loading = pickle.load(sys.stdin.buffer)
        asked: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=_listen, args=(asked,), daemon=True).start()
        torch.set_num_threads(loading.threads)
        set_torch(loading.settings)
        take_as_passed(loading.tried)
        subject = load_subject(loading.name, dtype=loading.dtype, device=loading.device, asking=loading.asking)
    _answer(answers, subject.identity)
    while True:
        number, body, arguments = asked.get()
        began = time.monotonic()
        try:
            value, is_known = on_device(run_here(subject, body, on_device(arguments, loading.device)), "cpu"), True
        except Exception:  # the first process computes it, and meets the same error
            value, is_known = None, False
        if not is_known:
            give_back_spare()
            release_memory()  # as whoever tries with fewer rows does
        _answer(answers, (number, is_known, value, time.monotonic() - began))


def _listen(asked: queue.SimpleQueue[Any]) -> None:
    """Takes calls while another one is computed; ends the process when there is nobody any more to ask."""
    try:
        while True:
            asked.put(pickle.load(sys.stdin.buffer))
    finally:
        os._exit(0)


def _answer(answers: BinaryIO, message: Any) -> None:
    try:
        answers.write(packed(message))
        answers.flush()
    except OSError:  # nobody listens any more
        os._exit(0)


if __name__ == "__main__":
    main()
