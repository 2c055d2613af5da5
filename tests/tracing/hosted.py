"""A host in this process: bodies get their arguments as a job carries them, and of the model what a sandbox shows."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from ssn_probe.model.subject import Subject
from ssn_probe.remote.turns import Turns
from ssn_probe.tracing.execution import OPEN_LOOP

SHOWN = ("input", "inputs", "output", "result", "trace", "generate", "session", "interleave")


class Blind:
    """nnsight's wrapper of a module, of which there is nothing but its place, its activations and calling it."""

    def __init__(self, envoy: Any):
        vars(self)["_envoy"] = envoy

    def __getattr__(self, name: str) -> Any:
        envoy = vars(self)["_envoy"]
        if name in SHOWN:
            found = getattr(envoy, name)
            return found.detach() if isinstance(found, torch.Tensor) else found  # a copy is on no graph
        if name in envoy._module._modules:
            return Blind(getattr(envoy, name))
        raise AttributeError(f"a sandbox does not show {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(vars(self)["_envoy"], name, value)

    def __getitem__(self, place: int) -> "Blind":
        return Blind(vars(self)["_envoy"][place])

    def __call__(self, *inputs: Any) -> Any:
        return vars(self)["_envoy"](*inputs)


@dataclass(eq=False)
class Host:
    """Stands in for `Calls`; `jobs` has each body's name, and the bytes of its arguments and of its result."""

    model: Any
    jobs: list[tuple[str, int, int]] = field(default_factory=list)
    turns: Turns = field(default_factory=Turns)

    def run(self, body: Callable[..., Any], *arguments: Any) -> Any:
        sent = pickle.dumps(arguments)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=OPEN_LOOP)  # a host warns nobody here
            found = pickle.dumps(body(self.model, *pickle.loads(sent)))
        self.jobs.append((body.__name__, len(sent), len(found)))
        return pickle.loads(found)


def hosted(subject: Subject, *, sandbox: bool = False) -> Subject:
    """The subject, run by a host: what is done to its module is done to the host's."""
    host = Host(Blind(subject.model) if sandbox else subject.model)
    outline = _outline(subject)
    return replace(subject, model=outline, calls=host)  # type: ignore[arg-type]


def _outline(subject: Subject) -> Any:
    import copy

    from nnsight import TransformersModel

    with torch.device("meta"):
        module = type(subject.model._module)(subject.model._module.config)
    module.generation_config = subject.model._module.generation_config
    return TransformersModel(module, tokenizer=copy.deepcopy(subject.tokenizer), task="text-generation", device="meta")
