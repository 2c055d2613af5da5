"""How a model is asked where the researcher decides it: with a system prompt, and in a plain form without a template.

Both become part of the tokenizer's chat template. Whatever renders it, tries it or puts its digest into a key has them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssn_probe.errors import ModelError, nearest
from ssn_probe.model.templates import (
    MESSAGES,
    check_template,
    handover,
    own_template,
    put_system,
    render,
    said,
    system_of,
)
from ssn_probe.model.think_blocks import TEXT_SWITCHES, open_block, switches
from ssn_probe.spec import Recipe
from ssn_probe.spec.recipe import CHAT_FORMS

PLAIN = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User:\\n' + message['content'] + '\\n\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant:\\n' + message['content'] + '\\n\\n' }}"
    "{% else %}{{ message['content'] + '\\n\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\\n' }}{% endif %}"
)
"""The plain form: a line `User:`, the message, an empty line, a line `Assistant:`, and then the response."""
FORMS = dict(zip(CHAT_FORMS, (PLAIN,), strict=True))
BOS = "{{ bos_token }}"
LONGEST = 200
"""Characters of a system prompt that a note shows."""
ASKED = ("system_prompt", "chat", "template_switches")
"""What a model's identity says of how it is asked, where that is not what its chat template does by itself."""
SYSTEM = "ssnsystemprompt"
"""A system prompt in a word that no template writes by itself."""
_NEXT_TURN = re.compile(r"^User:", re.MULTILINE)
_NO_PLACE = (
    "Leave out the system prompt, or put its text in front of the prompts of the data; what the template can hold is "
    "decided by whoever trained the model."
)

_NEEDED = "The template takes a chat with a system prompt: -T system=… (run, show), --system … (doctor, delta)."


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How a model is asked.

    `system`: the system prompt, which may be empty; None for what the chat template writes by itself. `chat`: "plain"
    for the plain form, whatever template the tokenizer has; None for the tokenizer's own template.
    """

    system: str | None = None
    chat: str | None = None


NO_WISH = Asking()


def asking_of(recipe: Recipe) -> Asking:
    """How a recipe asks its model."""
    return Asking(system=recipe.system, chat=recipe.chat)


def put_form(tokenizer: Any, chat: str | None) -> None:
    """Gives a tokenizer the plain form as its chat template, where that is asked for.

    Raises:
        ModelError: there is no such form.
    """
    if chat is None:
        return
    if chat not in FORMS:
        raise ModelError(f"There is no chat form {chat!r}.", nearest(chat, CHAT_FORMS))
    begins = tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]  # as for a document of its training
    tokenizer.chat_template = (BOS if begins else "") + FORMS[chat]


def settle_system(tokenizer: Any, system: str | None) -> None:
    """Puts a system prompt in front of every chat, and switches thinking off where only a system prompt does that.

    Raises:
        ModelError: the model cannot be asked anything in its template, see `check_template`, or the template has no
            place for a system prompt, or gives it another role.
    """
    if system is None:
        try:
            check_template(tokenizer)
        except ModelError as error:
            if tokenizer.chat_template and SYSTEM in (_shown(tokenizer, "system") or ""):
                raise ModelError(error.message, _NEEDED) from error
            raise
    else:
        put_system(tokenizer, system)
        _check_system(tokenizer, system)
    if open_block(handover(tokenizer)) is None:
        return
    own, front = own_template(tokenizer), written_by_itself(tokenizer) if system is None else system
    for switch in (word for word in TEXT_SWITCHES if word in own):
        before = tokenizer.chat_template
        put_system(tokenizer, f"{front}\n{switch}" if front else switch)
        try:
            closed = open_block(handover(tokenizer)) is None
        except ModelError:
            closed = False
        if closed:
            return
        tokenizer.chat_template = before


def is_plain(tokenizer: Any) -> bool:
    """Is the model asked in the plain form?"""
    return own_template(tokenizer).removeprefix(BOS) == PLAIN


def own_turn(text: str, tokenizer: Any) -> str:
    """A response up to where a model that is asked in the plain form goes on with another message of the user."""
    found = _NEXT_TURN.search(text) if is_plain(tokenizer) else None
    return text if found is None else text[: found.start()].rstrip("\n")


def own_tokens(row: Sequence[int], tokenizer: Any) -> list[int]:
    """The same of token ids: those before the first that has a part of that message."""
    whole = tokenizer.decode(row) if is_plain(tokenizer) else ""
    kept = own_turn(whole, tokenizer)
    if kept == whole:
        return list(row)
    most = len(row)
    while most and not kept.startswith(tokenizer.decode(row[:most]).rstrip("\n")):
        most -= 1
    return list(row[:most])


def _check_system(tokenizer: Any, system: str) -> None:
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special and token.content]
    if spelled := [token for token in special if token in system]:
        raise ModelError(f"The system prompt spells {spelled[0]!r}, a control token of the model.", "Leave it out.")
    name, user = tokenizer.name_or_path, {"role": "user", "content": MESSAGES[0]}
    try:
        (shown,) = render(tokenizer, [[user]])
    except ModelError as error:
        if _shown(tokenizer) is None:  # nor does it take a chat without one
            raise
        why = said(error.__cause__ or error)
        raise ModelError(f"The chat template of {name!r} takes no system prompt: {why}", _NO_PLACE) from error
    given, answered = (_shown(tokenizer, role) for role in ("system", "assistant"))
    if system.strip() not in shown or MESSAGES[0] not in shown or SYSTEM not in (given or ""):
        raise ModelError(
            f"The chat template of {name!r} leaves the system prompt out, or writes another text: {shown[:200]!r}.",
            _NO_PLACE,
        )
    if given == answered:
        raise ModelError(f"The chat template of {name!r} takes a system prompt for an answer of the model.", _NO_PLACE)
    check_template(tokenizer)


def _shown(tokenizer: Any, role: str | None = None) -> str | None:
    """A chat in the tokenizer's own template, with a message of a role in front; None where that raises."""
    front = [] if role is None else [{"role": role, "content": SYSTEM}]
    try:
        return render(
            tokenizer, [[*front, {"role": "user", "content": MESSAGES[0]}]], template=own_template(tokenizer)
        )[0]
    except ModelError:
        return None


def written_by_itself(tokenizer: Any) -> str | None:
    """The system prompt that the template writes where it is given none; None if there is none, or none can be seen."""
    given, bare = _shown(tokenizer, "system"), _shown(tokenizer)
    if given is None or bare is None:
        return None
    before, found, rest = given.partition(SYSTEM)
    after, head = rest.partition(MESSAGES[0])[0], bare.partition(MESSAGES[0])[0]
    inside = head.startswith(before) and head.endswith(after) and len(head) > len(before) + len(after)
    return head[len(before) : len(head) - len(after)].strip() or None if found and inside else None


def is_merged(tokenizer: Any) -> bool:
    """Does the template put a system prompt into a turn of the user's?"""
    given, bare = _shown(tokenizer, "system"), _shown(tokenizer)
    if given is None or bare is None or SYSTEM not in given:
        return False
    if given == _shown(tokenizer, "user"):
        return True
    head, end = bare.partition(MESSAGES[0])[0], given.find(MESSAGES[0]) + len(MESSAGES[0])
    if not given.startswith(head):
        return False
    message = {"role": "user", "content": given[len(head) : end]}
    return render(tokenizer, [[message]], template=own_template(tokenizer)) == [given]


def asking_identity(tokenizer: Any, asking: Asking) -> dict[str, Any]:
    """What of this belongs to a model's identity: it is empty for a model that is asked as its template has it.

    The template's digest tells these models apart, too; this says what was asked for, and which switches were passed.
    """
    passed = {name: value for name, value in switches(own_template(tokenizer)).items() if name != "enable_thinking"}
    told = {"system_prompt": system_of(tokenizer), "chat": asking.chat, "template_switches": passed or None}
    return {name: value for name, value in told.items() if value is not None}


def asked_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What of a model's identity says how it is asked."""
    return {name: identity[name] for name in ASKED if name in identity}


def asked_in_words(asked: Mapping[str, Any] | None) -> str:
    """How a model was asked, by what `asked_of` gives."""
    told = asked or {}
    form, system = told.get("chat"), told.get("system_prompt")
    where = "in its chat template" if form is None else f"in the {form} form"
    return where if system is None else f"{where}, with the system prompt {system[:LONGEST]!r}{_rest(system)}"


def _rest(system: str) -> str:
    return " …" if len(system) > LONGEST else ""


def asking_notes(tokenizer: Any) -> Iterator[str]:
    """What a reader must know of how the model is asked: form and system prompt, and how thinking is switched off."""
    system, own = system_of(tokenizer), own_template(tokenizer)
    if is_plain(tokenizer):
        yield (
            "the model is asked in the plain form 'User:\\n…\\n\\nAssistant:\\n', and not in a chat template: a "
            "response ends with an end token, after max_new_tokens, or before a line that begins with 'User:'"
        )
    if system is None:
        if (written := written_by_itself(tokenizer)) is not None:
            yield f"the chat template writes a system prompt by itself: {written!r}"
    else:
        yield f"the system prompt is {system[:LONGEST]!r}{_rest(system)}"
    if system is not None and not is_plain(tokenizer) and is_merged(tokenizer):
        yield "the chat template has no place for a system prompt of its own: it is part of the user's turn"
    passed = ", ".join(f"{name}={value!r}" for name, value in switches(own).items())
    if passed:
        yield f"thinking is switched off: the chat template is given {passed}"
    ended = (system or "").rpartition("\n")[2]
    if ended in TEXT_SWITCHES:
        yield f"thinking is switched off by {ended!r} in the system prompt"
