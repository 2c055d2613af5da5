"""A foreign chat template: which one it is, whether it can be applied, and what it writes around messages.

A template is a program that comes with a checkpoint and may raise anything; whatever goes wrong is one ModelError.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ssn_probe.errors import ModelError, is_library_failure
from ssn_probe.limits import CONFIG, TEMPLATE, read_limited
from ssn_probe.model.think_blocks import SWITCHES
from ssn_probe.text import size

Chat = Sequence[Mapping[str, str]]
FILE = "chat_template.jinja"
MESSAGES = ("ssnaskedfirst", "ssnansweredfirst", "ssnaskedsecond", "ssnansweredsecond")
"""Two turns in words that no template writes by itself."""
DAY = date(2024, 7, 26)
"""What a template that asks for today's date is told on every day; Llama's templates write it where they have none."""
_DATED = re.compile(r"""\bstrftime_now\s*\(\s*(['"])([^'"\\]*)\1\s*\)""")
_SET = "{{% set messages = [{{'role': 'system', 'content': '{}'}}] + messages %}}\n"
_IS_SET = re.compile(r"\{% set messages = \[\{'role': 'system', 'content': '([^']*)'\}\] \+ messages %\}\n")
_HINT = (
    f"Use the instruction-tuned variant, or put a {FILE} that takes a chat of one user message beside the tokenizer."
)


@dataclass(frozen=True, kw_only=True)
class TwoTurns:
    """What a template writes around the messages of a conversation of two turns, which ends with an answer."""

    before: str
    """In front of the first user message."""
    handover: str
    """From the first user message to its answer."""
    between: str
    """From the first answer to the second user message."""
    end: str
    """After the last answer."""


@contextmanager
def foreign_errors(message: str, hint: str) -> Iterator[None]:
    """Whatever a library raises for a file of somebody else, a panic of Rust included, becomes one ModelError."""
    try:
        yield
    except ModelError:
        raise
    except BaseException as error:
        if not is_library_failure(error):
            raise
        raise ModelError(f"{message}: {said(error)}", hint) from error


def said(error: BaseException) -> str:
    """The first line of an exception's text, with the line of the template where it names one."""
    lines = str(error).strip().splitlines()
    line = getattr(error, "lineno", None)
    where = f" (line {line} of the template)" if isinstance(line, int) else ""
    return (lines[0][:500] if lines else type(error).__name__) + where


def render(tokenizer: Any, chats: Sequence[Chat], *, prompted: bool = True, template: str | None = None) -> list[str]:
    """Chats as text, up to where the response begins; in thinking models that can be asked to, without a think block.

    Args:
        tokenizer: with a chat template.
        chats: messages with `role` and `content`.
        prompted: with what precedes an answer at the end.
        template: in place of the tokenizer's.

    Raises:
        ModelError: the template raises, does not parse, is one of several without a default, or writes no text.
    """
    if not chats:
        return []
    name = tokenizer.name_or_path
    with foreign_errors(f"The chat template of {name!r} cannot be applied", _HINT):
        return tokenizer.apply_chat_template(
            list(chats),
            chat_template=on_one_day(tokenizer.get_chat_template() if template is None else template),
            add_generation_prompt=prompted,
            tokenize=False,
            **SWITCHES,
        )


def on_one_day(template: str) -> str:
    """A template that writes `DAY` where it would write today's date, or the same template if it asks for none.

    With today's date, results would change from one day to the next under the same key.
    """
    formats = {found[2] for found in _DATED.finditer(template)}
    if not formats:
        return template
    days = {form: DAY.strftime(form) for form in sorted(formats)}
    return f"{{%- macro strftime_now(form) -%}}{{{{ {days!r}[form] }}}}{{%- endmacro +%}}{template}"


def put_system(tokenizer: Any, system: str) -> None:
    """Lets the template of a tokenizer write every chat with this system prompt in front.

    The prefix ends in a newline, which transformers takes away, so that the template begins a line.
    """
    letters = (one if one == " " or (one.isascii() and one.isalnum()) else f"\\U{ord(one):08x}" for one in system)
    template, kept = _SET.format("".join(letters)) + own_template(tokenizer), tokenizer.chat_template
    tokenizer.chat_template = {**kept, "default": template} if isinstance(kept, dict) else template


def system_of(tokenizer: Any) -> str | None:
    """The system prompt that was put in front; None where none was."""
    found = _IS_SET.match(tokenizer.get_chat_template())
    return None if found is None else found[1].encode("ascii").decode("unicode-escape")


def own_template(tokenizer: Any) -> str:
    """The template in use, without a system prompt that was put in front."""
    return _IS_SET.sub("", tokenizer.get_chat_template(), count=1)


def is_dated(template: str) -> bool:
    """Does it write today's date even so, in a form that does not stand in its text?"""
    return re.search(r"\bstrftime_now\s*\(", _DATED.sub("", template)) is not None


def two_turns(tokenizer: Any) -> TwoTurns:
    """What the template writes around the messages of a conversation.

    Raises:
        ModelError: it cannot be applied to a conversation, or leaves messages out.
    """
    roles = ("user", "assistant", "user", "assistant")
    chat = [{"role": role, "content": text} for role, text in zip(roles, MESSAGES, strict=True)]
    rest, parts = render(tokenizer, [chat], prompted=False)[0], []
    for message in MESSAGES:
        before, found, rest = rest.partition(message)
        if not found:
            raise ModelError("The chat template leaves out messages of a conversation.", _HINT)
        parts.append(before)
    return TwoTurns(before=parts[0], handover=parts[1], between=parts[2], end=rest)


def handover(tokenizer: Any) -> str:
    """What a prompt has after the user's message, up to where the response begins."""
    return render(tokenizer, [[{"role": "user", "content": MESSAGES[0]}]])[0].rpartition(MESSAGES[0])[2]


def check_kind(tokenizer: Any) -> None:
    """Is there a template to ask the model in?

    Raises:
        ModelError: there is none, several without a default, or one that is no text or too long.
    """
    name, template = tokenizer.name_or_path, tokenizer.chat_template
    if not template:
        raise ModelError(
            f"The tokenizer of {name!r} has no chat template, so it is not clear how to ask the model anything.",
            f"Use the instruction-tuned variant, put a {FILE} beside the tokenizer, or ask a base model in the plain "
            "form: -T chat=plain (run, show), --chat plain (doctor, delta).",
        )
    several = template if isinstance(template, dict) else {"default": template}
    for kind, text in several.items():
        if not isinstance(text, str):
            raise ModelError(f"The chat template {kind!r} of {name!r} is no text, but {text!r:.80}.", _HINT)
        if len(text) > TEMPLATE:
            raise ModelError(f"The chat template {kind!r} of {name!r} has more than {size(TEMPLATE)}.", _HINT)
    if "default" not in several:
        raise ModelError(
            f"{name!r} has several chat templates ({', '.join(sorted(map(str, several)))}) and none called 'default'.",
            f"Put the one for a plain chat beside the tokenizer as {FILE}.",
        )


def check_template(tokenizer: Any) -> None:
    """Can the model be asked anything in its template?

    Raises:
        ModelError: a template that `check_kind` refuses, that cannot be applied to one user message, that leaves the
            message out, or that writes another text each time.
    """
    check_kind(tokenizer)
    name, message = tokenizer.name_or_path, MESSAGES[0]
    shown, *again = render(tokenizer, [[{"role": "user", "content": message}]] * 8)
    if set(again) != {shown}:
        raise ModelError(f"The chat template of {name!r} writes another text each time it is applied.", _HINT)
    if message not in shown:
        raise ModelError(
            f"The chat template of {name!r} leaves the user's message out of the prompt: it writes {shown[:200]!r}.",
            "Every prompt would be the same to the model. " + _HINT,
        )


def template_notes(where: str, tokenizer: Any) -> Iterator[str]:
    """Which of several templates is taken, where more than one could be meant, and what becomes of a date in it."""
    template, taken = tokenizer.chat_template, own_template(tokenizer)
    if is_dated(taken):
        yield "the chat template puts today's date into every prompt: results change from one day to the next"
    elif on_one_day(taken) != taken:
        yield f"the chat template would put today's date into every prompt: it is given {DAY} on every day"
    if isinstance(template, dict) and len(template) > 1:
        names = ", ".join(sorted(template))
        yield f"the tokenizer has several chat templates ({names}): the one called 'default' is used"
    file, config = Path(where) / FILE, Path(where) / "tokenizer_config.json"
    if file.is_file() and config.is_file():
        declared = _declared(config)
        if declared is not None and declared != taken:
            yield f"{FILE} and tokenizer_config.json hold different chat templates: that of {FILE} is used"


def _declared(config: Path) -> Any:
    with foreign_errors(f"{config} cannot be read", "Copy it again."):
        declared = json.loads(read_limited(config, CONFIG, ModelError)).get("chat_template")
    if isinstance(declared, list):
        named = {one["name"]: one["template"] for one in declared if isinstance(one, dict) and len(one) >= 2}
        return named.get("default")
    return declared
