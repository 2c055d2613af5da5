"""Runs one small study again and again, and kills it with SIGKILL somewhere else each time, until it ends by itself.

A script of its own, since a process that has used threads cannot be forked: importing torch and nnsight takes ten
seconds, and every run here is a fork of a process that has imported them and used nothing. Prints one line per run.

    python tests/killing.py FOLDER
"""

import itertools
import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

from rich.console import Console  # noqa: E402

import ssn_probe.runner as runner  # noqa: E402
from ssn_probe import (  # noqa: E402
    ASR,
    Amplify,
    MeanOf,
    Patch,
    Prompts,
    Recipe,
    SafetyNeurons,
    Shared,
    Suppress,
    results,
)
from ssn_probe.subject import load_subject  # noqa: E402, F401


def study() -> Recipe:
    """Every kind of measurement: scores, gate, direction, responses, log-odds, means, activations, nulls."""
    prompts = Prompts("organism", languages=("qaa", "qac"), limit=24)
    ms = SafetyNeurons(prompts, top=0.01)
    arms = {
        "ss": Suppress(Shared(ms)),
        "mean": Suppress(ms, to=MeanOf(prompts)),
        "patch": Patch(ms, positions="response"),
        "twice": Amplify(ms, by=2),
    }
    return Recipe(
        arms=arms,
        controls=1,
        log_odds_controls=1,
        permutations=99,
        half_samples=2,
        measures=(ASR(prompts),),
        name="study",
    )


def run(folder: Path, where: str | None = None, moment: int = 0) -> None:
    """One run, which kills itself at its `moment`-th file where it is told to."""
    if where is not None:
        replace, left = os.replace, [moment]

        def dying(temporary: str, path: str) -> None:
            left[0] -= 1
            if left[0] == 0 and where == "during":
                with open(temporary, "r+b") as file:
                    file.truncate(os.path.getsize(temporary) // 2)
            if left[0] == 0 and where != "after":
                os.kill(os.getpid(), signal.SIGKILL)
            replace(temporary, path)
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        results.os.replace = dying
    options = runner.Options(out=folder, batch_size=9)
    runner.run_recipe(study(), options, Console(quiet=True))


def forked(folder: Path, where: str | None, moment: int) -> int:
    """The signal that ended the run, 0 where it ended by itself."""
    child = os.fork()
    if child == 0:
        run(folder, where, moment)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the run failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(folder: Path) -> None:
    """A whole run first; then one that is killed later and later in what it newly writes, until it ends."""
    assert forked(folder / "whole", None, 0) == 0
    moment = 1
    for where in itertools.cycle(("before", "during", "after")):
        if not forked(folder / "killed", where, moment):
            return
        sys.stdout.write(f"killed {where} the renaming of file {moment}\n")
        moment += 2 + moment // 2


if __name__ == "__main__":
    main(Path(sys.argv[1]))
