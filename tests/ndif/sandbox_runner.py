"""The processes of NDIF's sandbox: NDIF's own runner, forked from this process, which has imported what it needs.

That takes seconds for each job where every runner is a new Python. A line of the input is JSON, {"path": SOCKET,
"model": KEY, "outline": BOOL}; the answer is the id of the process. This process ends with the one whose id it is
given, also while it is still importing, and its forks end with it: NDIF's runner looks after that.

nnsight 0.8.1 does not see with transformers >= 5.23 that a text model has a tokenizer, so the sandbox has no outline of
the model, and a job can ask no module for its weight or scale. With an older transformers it has one, whose weights are
meta tensors; so it has here, where an outline is asked for.
"""

import contextlib
import json
import os
import signal
import sys


def end_with_parent(*_: object) -> None:
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)


signal.signal(signal.SIGALRM, end_with_parent)
signal.setitimer(signal.ITIMER_REAL, 0.2, 0.2)  # of this process alone, and no thread, which a fork would lack

from ndif.services.ray.sandbox import runner  # noqa: E402 (takes seconds)
from nnsight.modeling.mixins.remotable import Remotable  # noqa: E402
from nnsight.modeling.transformers import TransformersModel  # noqa: E402


def run(path: str, model: str, outline: bool) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1):
        os.dup2(null, stream)
    if outline:
        TransformersModel._loaded_preprocessors = lambda _: {"tokenizer"}
    runner.die_with_parent()
    runner.Runner(path, model_key=model).serve()


signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a fork ended
known = set()
for line in sys.stdin:
    wanted = json.loads(line)
    if wanted["model"] not in known:
        with contextlib.suppress(Exception):
            Remotable.from_model_key(wanted["model"])  # imports what this kind of model needs
        known.add(wanted["model"])
    fork = os.fork()
    if not fork:
        run(**wanted)
    sys.stdout.write(f"{fork}\n")
    sys.stdout.flush()
