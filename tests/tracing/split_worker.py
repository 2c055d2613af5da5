"""One of two processes that hold a model together: run by test_split_families.py. The first one saves what it found."""

import sys
from pathlib import Path
from typing import Any

import torch

from ssn_probe.errors import ModelError
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import Subject, load_subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing.edits import suppression
from ssn_probe.tracing.effects import decode, refusal_log_odds, score_local, score_refusal
from ssn_probe.tracing.generate import greedy_tokens

PROMPTS = [[1, 3, 7, 8, 9, 20, 4], [1, 3, 10, 11, 12, 13, 14, 15, 30, 31, 4], [1, 3, 9, 4]]
OPENINGS = Openings(refusal=((10, 11), (12,)), compliant=((13, 14, 15), (13, 16), (17,)))
SILENT = suppression([(layer, site, index) for layer in range(2) for site in SITES for index in (1, 6)])


def measured(subject: Subject) -> dict[str, Any]:
    """Effects of every neuron, and log-odds and responses with some of them silenced."""
    effects = {"local": score_local(subject, PROMPTS), "refusal": score_refusal(subject, PROMPTS, OPENINGS)}
    return {
        **{f"{name} {site}": decode(scores, site) for name, scores in effects.items() for site in SITES},
        "log odds": refusal_log_odds(subject, PROMPTS, OPENINGS, edits=SILENT),
        "responses": greedy_tokens(subject, PROMPTS, max_new_tokens=5, edits=SILENT),
    }


def found(folder: Path) -> dict[str, Any] | str:
    """The numbers, or why there are none."""
    try:
        return measured(load_subject(str(folder), dtype="float32"))
    except ModelError as error:
        return str(error)


if __name__ == "__main__":
    out, *folders = map(Path, sys.argv[1:])
    torch.save({folder.name: found(folder) for folder in folders}, out)
