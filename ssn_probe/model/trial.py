"""Foreign templates and tokenizers are tried in a process of its own before they are used in this one.

A template may loop or write gigabytes, and a pattern of tokenizer.json may backtrack for hours: no exception ends that.
So a child process, with a limit of time and memory, does first what this process is about to do. What is computed is
thrown away, so no number depends on it; it takes about the time of reading the tokenizer once more.
"""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError
from ssn_probe.limits import MB, RENDERED
from ssn_probe.model.think_blocks import SWITCHES
from ssn_probe.text import size

SECONDS = 10
"""Of a processor, for the texts of a trial; real prompts get more the longer they are."""
PER_SECOND = 50_000
"""Characters that are tokenised in a second by the slowest tokenizer that is still of use."""
WAITING = 6
"""How many times as long the clock on the wall may take, since others use the machine, too."""
MEMORY = 4_000 * MB
RUN = 500
"""Characters of one kind in a row, which no pattern that is fit for use takes long for."""
PIECES = ("a", " ", "\n", "1", ".", "é", "字", "aA", "a ", "a1", "'", "\t ", " \n", "_", "-", "😀")
TEXTS = tuple((piece * RUN)[:RUN] + end for piece in PIECES for end in ("", "!", "\x00"))
_passed: set[str] = set()


def try_tokenizer(where: str) -> None:
    """Can the tokenizer.json of a folder be read, and does it take texts that make bad patterns slow?

    Raises:
        ModelError: not within the limits of time and memory, or the library that reads it gives up.
    """
    file = Path(where) / "tokenizer.json"
    if file.is_file():
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        _try(f"{digest} texts", where, {"path": str(file), "texts": TEXTS}, SECONDS)


def try_chats(tokenizer: Any, texts: Sequence[str], *, answers: Sequence[str] = ()) -> None:
    """Can user messages be rendered in the chat template and tokenised, and answers, within the limits?

    Raises:
        ModelError: not within the limits of time and memory, or the library that reads it gives up.
    """
    template = tokenizer.get_chat_template() if _has_default(tokenizer.chat_template) else None
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    chats = [[{"role": "user", "content": text}] for text in texts]
    roles = (("user", "assistant") * 2, ("system", "user"), ("assistant", "user"), ("user", "user"))
    conversations = [[{"role": role, "content": "word"} for role in chat] for chat in roles]
    request = {
        "content": tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else None,
        "template": template,
        "special": special,
        "chats": [*conversations, *chats],
        "texts": list(answers),
    }
    digest = hashlib.sha256(json.dumps(request).encode()).hexdigest()
    seconds = SECONDS + sum(map(len, (*texts, *answers))) // PER_SECOND
    _try(digest, tokenizer.name_or_path, request, seconds)


def passed_trials() -> frozenset[str]:
    """What has been tried here, by digest."""
    return frozenset(_passed)


def take_as_passed(tried: frozenset[str]) -> None:
    """What another process has tried is not tried again in this one."""
    _passed.update(tried)


def _has_default(template: Any) -> bool:
    return isinstance(template, str) or (isinstance(template, dict) and isinstance(template.get("default"), str))


def _try(digest: str, name: str, request: dict[str, Any], seconds: int) -> None:
    if digest in _passed or not sys.executable:
        return
    limits = {"seconds": seconds, "memory": MEMORY, "longest": RENDERED, "switches": dict(SWITCHES)}
    nothing = {"path": None, "content": None, "template": None, "special": {}, "chats": [], "texts": []}
    package = str(Path(__file__).parents[2])
    quiet = {"RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONIOENCODING": "utf-8"}
    paths = {"PYTHONPATH": os.pathsep.join([package, *filter(None, sys.path)])}
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "ssn_probe.model.trial_child"],
            input=json.dumps(nothing | request | limits).encode("ascii"),
            capture_output=True,
            timeout=seconds * WAITING,
            env=os.environ | quiet | paths,
        )
        lines, late = done.stdout.decode("utf-8", "replace").split("\n"), False
    except subprocess.TimeoutExpired as error:
        lines, late = (error.stdout or b"").decode("utf-8", "replace").split("\n"), True
    reached = [line for line in lines if line]
    if reached and reached[-1] == "done":
        _passed.add(digest)
        return
    raise _stopped(name, reached, seconds, late)


DOING = {
    "load": "tokenizer.json cannot be read",
    "render": "the chat template cannot be rendered",
    "encode": "the tokenizer cannot take a text",
}


def _stopped(name: str, reached: Sequence[str], seconds: int, late: bool) -> ModelError:
    """What to say of a child that did not come to its end."""
    stages = [line for line in reached if line in DOING]
    what = DOING[stages[-1]] if stages else "the tokenizer cannot be tried"
    if reached and reached[-1].startswith("error "):
        why = f": {reached[-1].removeprefix('error ')}"
    else:
        why = f" within {seconds:,} seconds" + ("" if late else f" and {size(MEMORY)} of memory")
    return ModelError(
        f"{name}: {what}{why}.",
        "A template that loops, or a pattern in tokenizer.json that goes back and forth over a text, may be the cause: "
        "get the original files.",
    )
