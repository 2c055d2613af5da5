"""The process of NDIF's sandbox, as NDIF starts it, with two repairs. First come who must be alive, and True or False.

It ends when that process is gone, also while it is still importing, which NDIF's own watch would miss: the runner would
stay for ever. And nnsight 0.8.1 does not see with transformers >= 5.23 that a text model has a tokenizer, so the
sandbox has no outline of the model, and a job can ask no module for its weight or scale. With an older transformers it
has one, whose weights are meta tensors; so it has here, with True.
"""

import os
import runpy
import signal
import sys
import time
from pathlib import Path
from threading import Thread

parent, has_outline = int(sys.argv.pop(1)), sys.argv.pop(1) == "True"


def leave(*_: object) -> None:
    Path(sys.argv[1]).unlink(missing_ok=True)  # its socket
    os._exit(1)


def watch() -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    leave()


signal.signal(signal.SIGTERM, leave)
Thread(target=watch, daemon=True).start()

from nnsight.modeling.transformers import TransformersModel  # noqa: E402 (takes seconds)

if has_outline:
    TransformersModel._loaded_preprocessors = lambda _: {"tokenizer"}
runpy.run_module("ndif.services.ray.sandbox.runner", run_name="__main__", alter_sys=True)
