"""Generated tokens a second: transformers and vLLM by turns, with the same neurons silenced. Needs vLLM: docs/vllm.md.

python -m benchmarks.engines smollm2     # some two minutes, most of them to start vLLM
"""

import argparse
import time
from statistics import median

import torch

from ssn_probe.engines.vllm_engine import Vllm, ending, find_engine
from ssn_probe.model.subject import load_subject
from ssn_probe.neurons import SITES
from ssn_probe.tracing.edits import suppression
from ssn_probe.tracing.generate import greedy_tokens

SHARE = 0.005


def main() -> None:
    """Prints the median and the range of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--engine", default="vllm")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    subject, settings = load_subject(given.model), find_engine(given.engine)
    if settings is None:
        parser.error("--engine must be vllm")
    draw = torch.Generator().manual_seed(0)
    neurons = [
        (layer, site, int(index))
        for layer in range(subject.n_layers)
        for site in SITES
        for index in torch.randperm(subject.widths[site], generator=draw)[: max(1, int(SHARE * subject.widths[site]))]
    ]
    edits = suppression(neurons)
    prompts = torch.randint(20, subject.vocabulary, (given.prompts, given.length), generator=draw).tolist()
    speeds: dict[str, list[float]] = {"transformers": [], "vllm": []}
    vllm = Vllm(settings, subject)
    with ending(vllm):
        for repeat in range(given.repeats + 1):
            for name, engine in (("transformers", None), ("vllm", vllm)):
                began = time.monotonic()
                made = greedy_tokens(
                    subject, prompts, edits=edits, max_new_tokens=given.tokens, batch_size=given.prompts, engine=engine
                )
                if repeat:  # the first warms up, and starts vLLM
                    speeds[name].append(sum(map(len, made)) / (time.monotonic() - began))
    for name, found in speeds.items():
        print(f"{name}: {median(found):.0f} ({min(found):.0f} to {max(found):.0f}) tokens a second")  # noqa: T201


if __name__ == "__main__":
    main()
