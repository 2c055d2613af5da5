"""NDIF's actors on a CPU: what NDIF_CONTROLLER_IMPORT_PATH and NDIF_MODEL_IMPORT_PATH name.

Ray sends the classes that it decorates by value and their bases by name, so whoever gets one imports this module.
"""

from typing import Any

import ray
import torch
from ndif.services.ray.deployments.controller.controller import _ControllerActor
from ndif.services.ray.sandbox.model import SandboxModelDeployment
from nnsight.modeling.huggingface import HuggingFaceModel
from nnsight.modeling.mixins.remotable import Remotable
from nnsight.modeling.transformers import TransformersModel

TransformersModel._loaded_preprocessors = lambda _: {"tokenizer"}  # see sandbox_runner.py
torch.cuda.synchronize = lambda *_args, **_kwargs: None


def ignore_trust(name: str) -> None:
    """ndif 0.1.2 tells two methods whether a repository's code may run, which those of nnsight 0.8.1 do not take."""
    method = getattr(Remotable, name).__func__

    def without(cls: type, *arguments: Any, trust_remote_code: bool = False, **options: Any) -> Any:
        return method(cls, *arguments, **options)

    setattr(Remotable, name, classmethod(without))


ignore_trust("describe_checkpoint")
ignore_trust("max_tp_size")


class ControllerOnCPU(_ControllerActor):
    """The controller. Its one card, which `ray start` is told of, does not exist."""


class ModelOnCPU(SandboxModelDeployment):
    """A model in memory, and a process of the sandbox for who is not trusted."""

    CACHEABLE = False  # a model is parked by moving it off its card

    def load_from_disk(self) -> Any:
        model = HuggingFaceModel.from_model_key(
            self.model_key, dispatch=True, dtype=self.dtype_name, device="cpu", **self.kwargs
        )
        model._module.eval().requires_grad_(False)
        return model


Controller = ray.remote(num_cpus=1, max_restarts=-1, resources={"head": 1})(ControllerOnCPU)
Model = ray.remote(num_cpus=1, max_restarts=-1)(ModelOnCPU)
