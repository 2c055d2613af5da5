"""ssn-probe: which neurons make a language model refuse, do languages share them, and what if they fall silent?

Importing this package is cheap: recipes are values of the standard library. torch, nnsight and polars are imported when
something is run.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ssn_probe.errors import (
    DataError,
    JudgeError,
    ModelError,
    RecipeError,
    RemoteError,
    ResultError,
    SSNProbeError,
)
from ssn_probe.spec import (
    ASR,
    Ablation,
    Amplify,
    Each,
    Effect,
    Exchanged,
    Expand,
    Final,
    FinalAblation,
    InLanguage,
    Intervention,
    Language,
    LMEval,
    Local,
    LoRA,
    MeanOf,
    NeST,
    NeuronFile,
    OverRefusal,
    Patch,
    Peak,
    Perplexity,
    Placebo,
    ProbedNeurons,
    Prompts,
    RandomLike,
    Recipe,
    Refusal,
    SafetyNeurons,
    SetExpression,
    Shared,
    SparseEdit,
    Suppress,
    Training,
    Utility,
    paper,
    scores,
)
from ssn_probe.spec.decorator import recipe
from ssn_probe.spec.display import RENDERERS

if TYPE_CHECKING:
    from ssn_probe.api.comparing import Comparison, compare
    from ssn_probe.api.python import Preview, Result, evaluate, open_run, preview, run
    from ssn_probe.data.frames import prompts_from_frame
    from ssn_probe.model.families import register_family
    from ssn_probe.study.edits_of_arms import edits

__version__ = "0.1.0"

__all__ = [
    "ASR",
    "Ablation",
    "Amplify",
    "Comparison",
    "DataError",
    "Each",
    "Effect",
    "Exchanged",
    "Expand",
    "Final",
    "FinalAblation",
    "InLanguage",
    "Intervention",
    "JudgeError",
    "LMEval",
    "Language",
    "LoRA",
    "Local",
    "MeanOf",
    "ModelError",
    "NeST",
    "NeuronFile",
    "OverRefusal",
    "Patch",
    "Peak",
    "Perplexity",
    "Placebo",
    "Preview",
    "ProbedNeurons",
    "Prompts",
    "RandomLike",
    "Recipe",
    "RecipeError",
    "Refusal",
    "RemoteError",
    "Result",
    "ResultError",
    "SSNProbeError",
    "SafetyNeurons",
    "SetExpression",
    "Shared",
    "SparseEdit",
    "Suppress",
    "Training",
    "Utility",
    "compare",
    "edits",
    "evaluate",
    "open_run",
    "paper",
    "preview",
    "prompts_from_frame",
    "recipe",
    "register_family",
    "run",
    "scores",
]


def _render(value: Any) -> Any:
    from ssn_probe.report.terminal.render import render

    return render(value)


RENDERERS.append(_render)

_LAZY = dict.fromkeys(("Preview", "Result", "evaluate", "open_run", "preview", "run"), "ssn_probe.api.python") | {
    **dict.fromkeys(("Comparison", "compare"), "ssn_probe.api.comparing"),
    "prompts_from_frame": "ssn_probe.data.frames",
    "edits": "ssn_probe.study.edits_of_arms",
    "register_family": "ssn_probe.model.families",
}
"""What runs things is imported when it is asked for: the command line's `--help` and `list` do without."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
