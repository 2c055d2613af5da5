"""vLLM in a process of its own: token ids come in and go out as JSON, one request and one answer a line.

It runs in the environment that has vLLM, which need not have ssn-probe, and imports nothing of it: a script, started by
`vllm_engine`. The first request loads the model, every further one generates. Where standard input ends, it ends.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

SETTINGS = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",  # the model is here already, and no other version of it may be fetched
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
ALONE = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the scheduler in this process, too, whose steps no clock decides
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOOPBACK_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}
"""On one machine nothing may be reached from outside. Over several, the addresses are the user's to say."""
PROOF = 8
"""Tokens of the prompt that shows whether folding does something."""


class Server:
    """The model, and what is asked of it."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        from vllm import LLM  # pyright: ignore[reportMissingImports]
        from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]

        usual = {"enforce_eager": True, "kv_cache_memory_bytes": 1 << 30} if current_platform.is_cpu() else {}
        self.row = request["row"]
        self.llm = LLM(
            model=request["model"],
            revision=request["revision"],
            dtype=request["dtype"],
            skip_tokenizer_init=True,
            generation_config="vllm",  # not the checkpoint's: no penalty, no sampling
            config_format="hf",
            load_format="hf",
            enable_prefix_caching=False,  # what it holds was computed with other weights
            disable_log_stats=True,
            seed=0,
            worker_extension_cls="vllm_fold.Folding",
            **{"max_model_len": -1} | usual | request["options"],
        )
        self.prove()

    def prove(self) -> None:
        """Fails where a folded weight changes nothing, or where putting it back does not undo it."""
        tokens, layers = [list(range(1, PROOF + 1))], range(self.row["depth"])
        before = self.next_token(tokens)
        for site, width in self.row["widths"].items():
            edits = [(layer, site, list(range(width)), 0.0) for layer in layers]
            with self.folded(edits):
                if self.next_token(tokens) == before:
                    raise RuntimeError(f"vLLM computes the same with all neurons of the site {site} folded to zero")
            if self.next_token(tokens) != before:
                raise RuntimeError(f"vLLM computes something else after the site {site} was restored")

    def next_token(self, prompts: Sequence[Sequence[int]]) -> list[tuple[int, float]]:
        """The greedy token after each prompt with its log-probability."""
        made = self.run(prompts, {"max_tokens": 1})
        return [(one.token_ids[0], one.logprobs[0][one.token_ids[0]].logprob) for one in made]

    def generate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The greedy continuation of every prompt, the end token included, while the edits are in the weights."""
        with self.folded(request["edits"]):
            made = self.run(
                request["prompts"], {"max_tokens": request["max_new_tokens"], "stop_token_ids": request["ends"]}
            )
        numbers = [
            entry[token].logprob for one in made for token, entry in zip(one.token_ids, one.logprobs, strict=True)
        ]
        # a logit that is NaN or Inf leaves no finite log-probability of the token that was taken
        finite = all(-float("inf") < number < float("inf") for number in numbers)
        return {"ids": [list(one.token_ids) for one in made], "finite": finite}

    def run(self, prompts: Sequence[Sequence[int]], settings: Mapping[str, Any]) -> list[Any]:
        from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

        greedy = SamplingParams(temperature=0, ignore_eos=True, detokenize=False, logprobs=0, **settings)
        asked = [{"prompt_token_ids": list(prompt)} for prompt in prompts]
        return [one.outputs[0] for one in self.llm.generate(asked, greedy, use_tqdm=False)]

    @contextmanager
    def folded(self, edits: Sequence[Any]) -> Iterator[None]:
        """The edits are in the weights inside, and those that were there are back at its end, whatever happens."""
        try:
            if edits:
                self.check(edits, self.llm.collective_rpc("ssn_fold", args=(self.row, edits)))
            yield
        finally:
            if edits:
                self.llm.collective_rpc("ssn_unfold")

    def check(self, edits: Sequence[Any], held: Sequence[Mapping[str, int]]) -> None:
        """Has every neuron been found by some worker? Key-value heads may lie in several."""
        for site in {edit[1] for edit in edits}:
            asked = sum(len(indices) for _, where, indices, _ in edits if where == site)
            found = sum(one.get(site, 0) for one in held)
            if found < asked:
                raise RuntimeError(f"of {asked} neurons of the site {site}, the workers hold {found}")

    def digest(self, _request: Mapping[str, Any]) -> dict[str, Any]:
        """SHA-256 of the weights of every worker."""
        return {"sha256": self.llm.collective_rpc("ssn_digest")}


def versions() -> dict[str, str]:
    """Of vLLM and of what computes its numbers, without importing any of it."""
    from importlib.metadata import packages_distributions, version

    names = packages_distributions()
    return {name: version(names[name][0]) for name in ("vllm", "torch") if name in names}


def main() -> None:
    """Answers requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever vLLM and its libraries print is no answer

    def answer(handle: Callable[[], Any]) -> None:
        try:
            value = handle()
        except Exception as error:
            value = {"error": f"{type(error).__name__}: {error}", "kind": type(error).__name__}
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    first = json.loads(sys.stdin.readline() or "null")
    if first is None:
        return
    os.environ.update(SETTINGS)
    nodes = first["options"].get("distributed_executor_backend") == "ray"
    for name, value in {} if nodes else ALONE.items():
        os.environ.setdefault(name, value)
    server: list[Server] = []
    answer(lambda: server.append(Server(first)) or {"ready": True})
    for line in sys.stdin if server else ():
        request = json.loads(line)
        answer(partial(getattr(server[0], request["what"]), request))
    os._exit(0)  # vLLM's own end takes ten seconds, and has nothing left to do


if __name__ == "__main__":
    if sys.argv[1:] == ["--versions"]:
        sys.stdout.write(json.dumps(versions()))
    else:
        main()
