"""ssn-probe: which neurons make a language model refuse, do languages share them, and what if they fall silent?

Importing this package is cheap: recipes are values of the standard library. torch, nnsight and polars are imported when
something is run.
"""

from ssn_probe.declare import recipe
from ssn_probe.errors import (
    DataError,
    JudgeError,
    ModelError,
    RecipeError,
    RemoteError,
    ResultError,
    SSNProbeError,
)
from ssn_probe.recipe import (
    ASR,
    Amplify,
    Final,
    Local,
    MeanOf,
    NeuronFile,
    OverRefusal,
    Patch,
    Prompts,
    RandomLike,
    Recipe,
    Refusal,
    SafetyNeurons,
    Shared,
    Suppress,
    Utility,
    paper,
)

__version__ = "0.1.0"

__all__ = [
    "ASR",
    "Amplify",
    "DataError",
    "Final",
    "JudgeError",
    "Local",
    "MeanOf",
    "ModelError",
    "NeuronFile",
    "OverRefusal",
    "Patch",
    "Prompts",
    "RandomLike",
    "Recipe",
    "RecipeError",
    "Refusal",
    "RemoteError",
    "ResultError",
    "SSNProbeError",
    "SafetyNeurons",
    "Shared",
    "Suppress",
    "Utility",
    "paper",
    "recipe",
]
