"""The door through which a checkpoint comes in: whatever a library raises becomes one ModelError with a fitting remedy.

transformers, huggingface_hub and safetensors may raise anything for a file that they do not expect, and one cause has
many classes in their versions: so what happened is read from the whole chain of exceptions, classes and texts.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError, SSNProbeError, first_line, is_library_failure
from ssn_probe.model.hub import from_cache_alone

NO_CODE = (
    "The checkpoint wants to run code that comes with it, which ssn-probe never does: use a checkpoint that "
    "transformers itself can read."
)
OFFLINE = (
    "There is no such folder, and the hub has no such model or cannot be reached: check the name, and "
    "when offline give a folder that holds the model (`hf download NAME --local-dir FOLDER` makes one)."
)
DAMAGED = "The file is damaged or was not copied whole: copy or download it again."
BY_CLASS = {
    "PermissionError": "You may not read it: change the permissions of the files, or copy them to a folder of yours.",
    "GatedRepoError": "Accept the model's conditions on its page on the hub, then log in with `hf auth login`.",
    "RecursionError": "A file is nested more deeply than any that a model needs: get the original file.",
    "SafetensorError": DAMAGED,
    "JSONDecodeError": DAMAGED,
    "UnicodeDecodeError": DAMAGED,
    "PanicException": "The library that reads the file gave up on it: get the original file.",
}
"""The class of an exception in the chain → what to do."""
BY_TEXT = (
    (r"trust_remote_code|custom code|code in the repository", NO_CODE),
    (r"gated repo|awaiting a review", BY_CLASS["GatedRepoError"]),
    (r"not a valid JSON", DAMAGED),
    (r"does not recognize this architecture|Unrecognized (model|configuration class)", "Install a newer transformers."),
)
"""What stands in the text of an exception → what to do."""


def read_foreign(where: str, what: str, load: Callable[[], Any]) -> Any:
    """The value of `load`, which reads the `what` of a model at `where` with a library.

    Raises:
        ModelError: whatever `load` raised, with a remedy; what a user or the system stops passes through.
    """
    try:
        with from_cache_alone(where):
            return load()
    except SSNProbeError:
        raise
    except BaseException as error:
        if not is_library_failure(error):
            raise
        message = f"The {what} of {where!r} cannot be loaded: {first_line(error)}"
        raise ModelError(message, remedy(where, what, error)) from error


def remedy(where: str, what: str, error: BaseException) -> str:
    """What to do about an exception that was raised while the `what` of a model at `where` was read."""
    from ssn_probe.model.out_of_memory import out_of_memory

    if out_of_memory(error):
        return "Choose a smaller dtype or another device, or free memory, then run again."
    chain = list(_chain(error))
    names, text = {kind.__name__ for one in chain for kind in type(one).__mro__}, "\n".join(map(str, chain))
    for name, hint in BY_CLASS.items():
        if name in names:
            return hint
    for pattern, hint in BY_TEXT:
        if re.search(pattern, text):
            return f"{hint} {newer_transformers(where)}".strip()
    if names & {"ImportError", "ModuleNotFoundError"} or "pip install" in text:
        return _missing_package(text)
    if what == "generation config":
        return "Correct generation_config.json, or remove it: it decides no more than which tokens end a response."
    newer = newer_transformers(where)
    if "StrictDataclassError" in names or (what == "config" and Path(where).is_dir()):
        return f"Fix the value in config.json, or get the model's own config.json. {newer}".strip()
    if newer:
        return newer
    if Path(where).is_dir():
        return "The folder may be incomplete or damaged: copy it again."
    return OFFLINE


def newer_transformers(where: str) -> str:
    """A sentence, if the config of a folder was written by a newer transformers than the installed one; else ''."""
    from packaging.version import InvalidVersion, Version
    from transformers import __version__

    try:
        written = json.loads((Path(where) / "config.json").read_text(encoding="utf-8"))["transformers_version"]
        newer = Version(written) > Version(__version__)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, InvalidVersion):
        return ""
    return f"It was saved with transformers {written}, and {__version__} is installed: install that." if newer else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _missing_package(text: str) -> str:
    found = re.search(r"pip install [`'\"]?(?:-U |--upgrade )?[`'\"]?([A-Za-z][\w\-]*)", text)
    found = found or re.search(r"No module named '(\w+)", text) or re.search(r"requires? (?:the )?[`'\"]?(\w+)", text)
    package = f"`pip install {found[1]}`" if found else "Install the package that the message names"
    return f"{package}, then run again. Quantised weights are not studied, whatever is installed."
