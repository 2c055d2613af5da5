"""Generation by vLLM, whose process holds a second copy of the model, with edits folded into its weights in memory.

vLLM wants other versions of transformers and torch than ssn-probe, so that it runs in an environment of its own:
`SSN_PROBE_VLLM_PYTHON` names the Python there. It is asked over pipes (`vllm_worker`), and no socket is opened for it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ssn_probe.errors import ModelError, RecipeError, nearest
from ssn_probe.model.subject import Subject
from ssn_probe.tracing.edits import Edits

ENGINES = ("transformers", "vllm")
PYTHON = "SSN_PROBE_VLLM_PYTHON"
"""The variable that names the Python of the environment that has vLLM."""
OPTIONS = {
    "tensor_parallel_size": int,
    "pipeline_parallel_size": int,
    "distributed_executor_backend": str,
    "gpu_memory_utilization": float,
    "kv_cache_memory_bytes": int,
    "max_num_seqs": int,
    "max_num_batched_tokens": int,
    "max_model_len": int,
    "enforce_eager": bool,
    "devices": str,
}
"""What `--engine vllm:OPTION=VALUE` sets, by vLLM's names; `devices=2+3`: its process sees these GPUs alone."""
USUAL = {"max_num_seqs": 256}
PROVED = ("llama", "qwen2", "qwen3", "mistral", "gemma2")
"""Families whose tokens, with every site silenced and scaled, are compared with transformers' by tests."""
VERSION = 1
"""Raised when the same vLLM would generate other tokens, because it is asked or folded differently."""
WORKER = Path(__file__).with_name("vllm_worker.py")
PATIENCE = 10.0
"""Seconds in which vLLM's process has to end when it is told to."""
MISSING = (
    "Install it in an environment of its own (python -m venv vllm-env; vllm-env/bin/pip install vllm), and give its "
    f"Python: {PYTHON}=vllm-env/bin/python. See docs/vllm.md."
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A vLLM that is there, and how it will be started. `identity` is what can change a token of a response."""

    python: str
    options: Mapping[str, Any]
    identity: Mapping[str, Any]


def engine_for(settings: Settings | None, subject: Subject) -> "Vllm | None":
    """The engine that generates for a model; None for transformers.

    Raises:
        ModelError: a family on which vLLM was not proved. It builds a model from modules of its own, whose rows may lie
            otherwise, and that something changes when a site is folded does not show that it is this site.
    """
    if settings is not None and subject.family.name not in PROVED:
        raise ModelError(
            f"It is not proved that --engine vllm silences the right neurons of the family {subject.family.name!r}.",
            f"Run without --engine. vLLM serves {', '.join(PROVED)}.",
        )
    return None if settings is None else Vllm(settings, subject)


def engine_of_run(identity: Any, subject: Subject) -> "Vllm | None":
    """The engine of a run by what its manifest says of it: finds what the engine generated, and generates nothing."""
    return Vllm(Settings(python="", options=USUAL, identity=identity), subject) if identity else None


def ending(engine: "Vllm | None") -> contextlib.AbstractContextManager[Any]:
    """A context at whose end the engine's process ends."""
    return contextlib.nullcontext() if engine is None else contextlib.closing(engine)


def find_engine(engine: str) -> Settings | None:
    """The settings of the engine that generates: `vllm`, or `vllm:OPTION=VALUE,…`; None for `transformers`.

    Raises:
        RecipeError: an engine or an option that does not exist.
        ModelError: there is no vLLM.
    """
    name, _, options = engine.partition(":")
    if name not in ENGINES:
        raise RecipeError(f"There is no engine {name!r}.", nearest(name, ENGINES))
    if engine == "transformers":
        return None
    if name == "transformers":
        raise RecipeError("The engine transformers has no options.", "Leave out what follows the colon.")
    given = dict(USUAL)
    for text in filter(None, options.split(",")):
        option, _, value = text.partition("=")
        given[option] = _value(option, value)
    python = os.environ.get(PYTHON) or sys.executable
    decisive = {option: value for option, value in sorted(given.items()) if option != "devices"}
    identity = {"name": name, "version": VERSION, "packages": _versions(python), "options": decisive}
    return Settings(python=python, options=given, identity=identity)


def _value(option: str, text: str) -> Any:
    if option not in OPTIONS:
        raise RecipeError(f"vLLM has no option {option!r} that can be set here.", nearest(option, list(OPTIONS)))
    kind = OPTIONS[option]
    words = {"true": True, "false": False}
    try:
        return words[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError) as error:
        wanted = {int: "a whole number", float: "a number", bool: "true or false"}[kind]
        raise RecipeError(f"The option {option} of vLLM is {text!r}.", f"It must be {wanted}.") from error


def _versions(python: str) -> dict[str, str]:
    try:
        made = subprocess.run([python, str(WORKER), "--versions"], capture_output=True, timeout=60, check=True)
        found = json.loads(made.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ModelError(f"{python} cannot be run to look for vLLM: {error}", MISSING) from error
    if "vllm" not in found:
        raise ModelError(f"There is no vLLM for {python}.", MISSING)
    return found


def folded(edits: Edits) -> list[tuple[int, str, tuple[int, ...], float]]:
    """The edits as factors of rows and columns.

    Raises:
        ModelError: an edit that no factor makes: a mean would need a bias, and carried values differ between tokens.
    """
    factors = []
    for layer, site, indices, (how, value) in edits:
        if how == "scale" or (how == "set" and value == 0):
            factors.append((layer, site, indices, float(value)))  # pyright: ignore[reportArgumentType]
            continue
        raise ModelError(
            f"The change {how!r} of neurons (layer {layer}, {site}) cannot be folded into weights.",
            "vLLM generates where neurons are set to zero or scaled. Run without --engine.",
        )
    return factors


@dataclass(eq=False)
class Vllm:
    """A vLLM that generates for a subject. It is started when the first batch is asked for, and ended by `close`."""

    settings: Settings
    subject: Subject
    running: list["_Process"] = field(default_factory=list)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What decides the tokens beside model, prompts and edits, for keys."""
        return self.settings.identity

    @property
    def batch_size(self) -> int:
        """Prompts that are given together: always so many, because the tokens depend on what runs together."""
        return self.settings.options["max_num_seqs"]

    def greedy(self, prompts: Sequence[Sequence[int]], edits: Edits, max_new_tokens: int) -> list[list[int]]:
        """The greedy tokens after each prompt, the end token included."""
        request = {
            "what": "generate",
            "prompts": [list(prompt) for prompt in prompts],
            "edits": folded(edits),
            "max_new_tokens": max_new_tokens,
            "ends": list(self.subject.eos_ids),
        }
        answer = self.ask(request)
        if not answer["finite"]:
            raise ModelError(
                "The logits that vLLM computes are NaN or Inf.", "Run without --engine: it says where they begin."
            )
        return answer["ids"]

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """One answer of the process."""
        if not self.running:
            process = _Process(self.settings)
            self.running.append(process)
            process.ask(self._model())
        return self.running[0].ask(request)

    def _model(self) -> dict[str, Any]:
        subject, family = self.subject, self.subject.family
        options = {name: value for name, value in self.settings.options.items() if name != "devices"}
        return {
            "model": subject.path,
            "revision": subject.identity.get("commit"),
            "dtype": subject.identity["dtype"],
            "options": options,
            "row": {
                "layers": family.layers,
                "depth": subject.n_layers,
                "sites": dict(family.modules),
                "widths": dict(subject.widths),
            },
        }

    def close(self) -> None:
        """Ends the process, and its copy of the model with it."""
        while self.running:
            self.running.pop().end()


class _Process:
    """The worker's process, in a group of its own, so that Ctrl-C reaches ssn-probe alone, which then ends it."""

    def __init__(self, settings: Settings) -> None:
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        environment = dict(os.environ) | {"PYTHONPATH": str(WORKER.parent)}  # vLLM's own workers import vllm_fold
        if "devices" in settings.options:
            environment["CUDA_VISIBLE_DEVICES"] = settings.options["devices"].replace("+", ",")
        self.child = subprocess.Popen(
            [settings.python, str(WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=environment,
            start_new_session=True,
            encoding="utf-8",
        )
        self.idle = True

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.idle = False
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(json.dumps(request) + "\n")
            self.child.stdin.flush()
        line = self.child.stdout.readline()
        if not line:
            raise ModelError(f"vLLM's process ended by itself. Its last words: {self._last_words()}", _HINT)
        self.idle = True
        answer = json.loads(line)
        if "error" in answer:
            raise ModelError(f"vLLM cannot generate for this model: {answer['error']:.400}", _HINT)
        return answer

    def _last_words(self) -> str:
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().decode("utf-8", "replace").splitlines()]
        return " / ".join([line for line in lines if line][-3:]) or "none."

    def end(self) -> None:
        """Lets it end by itself where it waits for a request, and else stops it with all that it started."""
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        for number in (None, signal.SIGTERM, signal.SIGKILL)[0 if self.idle else 1 :]:
            with contextlib.suppress(ProcessLookupError):
                if number is not None:
                    os.killpg(self.child.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(PATIENCE)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)  # what it started and left
        self.log.close()


_HINT = (
    "Where the memory is too small: --engine vllm:gpu_memory_utilization=0.5, or devices=1, or tensor_parallel_size=2. "
    "What vLLM cannot serve runs without --engine."
)
