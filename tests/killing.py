"""Runs one small study again and again, and kills it with SIGKILL somewhere else each time, until it ends by itself.

Beside it the same study undisturbed, and twice at once.

A script of its own, since a process whose threads have started cannot be forked, and every run here is a fork: torch
and nnsight take ten seconds to import. The model is loaded and used once before, too; polars, with its threads, is not.
Prints one line per run that was killed.

    python tests/killing.py FOLDER
"""

import gc
import itertools
import os
import signal
import sys
from pathlib import Path

import torch

torch.set_num_threads(1)

from rich.console import Console  # noqa: E402

import ssn_probe.api.runner as runner  # noqa: E402
import ssn_probe.files as files  # noqa: E402
from ssn_probe import ASR, MeanOf, Patch, Prompts, Recipe, SafetyNeurons, Shared, Suppress  # noqa: E402
from ssn_probe.model.chat import encode  # noqa: E402
from ssn_probe.model.subject import load_subject  # noqa: E402
from ssn_probe.runs.folder import RunFolder  # noqa: E402
from ssn_probe.tracing.generate import generate  # noqa: E402


def study() -> Recipe:
    """Every kind of measurement: scores, gate, direction, responses, log-odds, means, activations, nulls."""
    prompts = Prompts("organism", languages=("qaa", "qac"), limit=24)
    ms = SafetyNeurons(prompts, top=0.01)
    arms = {"mean": Suppress(Shared(ms), to=MeanOf(prompts)), "patch": Patch(ms, positions="response")}
    numbers = {"controls": 1, "log_odds_label_sets": 1, "permutations": 99, "half_samples": 2}
    return Recipe(arms=arms, measures=(ASR(prompts),), name="study", **numbers)


def same_tables(left: RunFolder, right: RunFolder) -> bool:
    """Are the tables of two runs the same, byte for byte?"""
    tables = [{path.name: path.read_bytes() for path in sorted(run.path.glob("*.parquet"))} for run in (left, right)]
    return tables[0] == tables[1] != {}


def run(folder: Path, where: str | None = None, moment: int = 0) -> None:
    """One run, which kills itself at its `moment`-th file if `where` is given."""
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

        files.os.replace = dying
    # of its own process alone, however slow the machine is just now: the order of files is the same in every run
    runner.run_recipe(study(), runner.Options(out=folder, batch_size=9, processes=1), Console(quiet=True))


def start(folder: Path, where: str | None = None, moment: int = 0) -> int:
    """A run in a process of its own; returns its number."""
    child = os.fork()
    if child == 0:
        run(folder, where, moment)
        os._exit(0)
    return child


def end(child: int) -> int:
    """The signal that ended a run, 0 where it ended by itself."""
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the run failed"
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def main(folder: Path) -> None:
    """One run; two at once; and one that is killed later and later in what it newly writes, until it ends."""
    subject = load_subject("organism")
    generate(subject, encode(subject, ["user"]), max_new_tokens=2)
    gc.freeze()  # what is there now is no garbage to look through in every fork
    assert end(start(folder / "whole")) == 0
    assert [end(child) for child in [start(folder / "twice"), start(folder / "twice")]] == [0, 0]
    moment = 1
    for where in itertools.cycle(("before", "during", "after")):
        if not end(start(folder / "killed", where, moment)):
            return
        sys.stdout.write(f"killed {where} the renaming of file {moment}\n")
        sys.stdout.flush()  # or the next fork would write it, too
        moment += 2 + moment // 2


if __name__ == "__main__":
    main(Path(sys.argv[1]))
