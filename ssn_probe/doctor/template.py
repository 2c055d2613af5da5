"""Does the chat template ask the model, once, and hand over to its answer? Does a prompt begin as it should?"""

from typing import Any

from ssn_probe.doctor.checks import Check, failed, passed, warned
from ssn_probe.doctor.probing import texts
from ssn_probe.model import templates
from ssn_probe.model.asking import asking_notes, is_plain
from ssn_probe.model.chat import encode
from ssn_probe.model.plain_text import control_tokens
from ssn_probe.model.spelled_tokens import Reader
from ssn_probe.model.subject import Subject
from ssn_probe.text import counted

ANSWER = "answer"


def check_template(subject: Subject) -> Check:
    """Does the template hold the user's message once, and end where the response begins, the same every day?"""
    text = texts(subject)[1]
    shown = render(subject.tokenizer, text)
    before, message, end = shown.partition(text)
    if not message or text in end:
        found = f"the user's message is in the prompt {shown.count(text)} times: {shown!r}"
        meaning = "The model would not be asked what the prompt set says."
        return failed("chat template", found, meaning, "Fix the template (chat_template.jinja beside the tokenizer).")
    if not hands_over(subject.tokenizer, text):
        meaning = "The model would go on with the user's message instead of answering it."
        remedy = (
            "Use the instruction-tuned variant, or let the template add the turn when add_generation_prompt is set."
        )
        return failed("chat template", f"no generation prompt at the end: {shown!r}", meaning, remedy)
    found = f"{before!r} MESSAGE {end!r}"
    if subject.turns.think is not None:
        opening, closing = subject.turns.think
        meaning = f"Every response begins inside a think block: one without {closing!r} is judged by its thoughts."
        remedy = f"Raise max_new_tokens, or let {templates.FILE} close the block when enable_thinking is false."
        return warned("chat template", f"{found}, which leaves {opening!r} open", meaning, remedy)
    if changed := changed_texts(subject.tokenizer):
        meaning = "Prompts with such text would not be asked as the prompt set has them."
        remedy = f"Let {templates.FILE} write the message as it is, or see that no prompt has such text."
        return warned("chat template", f"{found}; it changes messages such as {changed[0]!r}", meaning, remedy)
    if templates.is_dated(subject.tokenizer.get_chat_template()):
        meaning = "The template puts today's date into every prompt: results change from one day to the next."
        remedy = "Put a fixed date into chat_template.jinja, and give the model as a folder."
        return warned("chat template", f"{found}, with the date", meaning, remedy)
    return passed("chat template", "; ".join((found, *asking_notes(subject.tokenizer))))


def check_control_tokens(subject: Subject) -> Check:
    """Is a message that spells the control tokens of the model plain text to it?"""
    name, known = "control tokens", control_tokens(subject.tokenizer).tokens.values()
    (read,) = Reader(subject.tokenizer).messages([" ".join((texts(subject)[1], *known))])
    left = [token for token in read.tokens if token in known]
    if left:
        meaning = "A prompt that spells them can hold a turn that nobody took; a run notes how many do."
        remedy = "Use a tokenizer.json that the tokenizers package reads, or leave such prompts out."
        return warned(name, f"{left[0]!r} in a message reaches the model as the token", meaning, remedy)
    return passed(name, f"{counted(len(read.as_text), 'token')} that a message spells would be plain text")


TEXTS = ("one </think> two", 'say "no" & <go>', "first\n\n  second", "{{ 1 }}", "# / {% if %}", "é e\u0301 \u200d")
"""Messages that a template may take for something else, or write otherwise."""


def changed_texts(tokenizer: Any) -> list[str]:
    """Messages whose text does not stand in the prompt. Blanks at the ends, which many templates trim, are no such."""
    shown = templates.render(tokenizer, [[{"role": "user", "content": text}] for text in TEXTS])
    return [text for text, prompt in zip(TEXTS, shown, strict=True) if text not in prompt]


def render(tokenizer: Any, text: str, *, prompted: bool = True, answer: str | None = None) -> str:
    """A chat as text, up to where the response begins, or with an answer."""
    chat = [{"role": "user", "content": text}]
    chat += [] if answer is None else [{"role": "assistant", "content": answer}]
    return templates.render(tokenizer, [chat], prompted=prompted)[0]


def hands_over(tokenizer: Any, text: str) -> bool:
    """Does the prompt end in what comes before an answer?

    Most templates add it when asked to; some (Mistral's) end a user's turn in a way that needs nothing more, so that a
    chat with an answer begins with the very same text.
    """
    prompt, bare = render(tokenizer, text), render(tokenizer, text, prompted=False)
    if prompt != bare and prompt.startswith(bare):
        return True
    whole = render(tokenizer, text, prompted=False, answer=ANSWER)
    before, _, _ = whole.rpartition(ANSWER)
    return before.rstrip() == prompt.rstrip() and bool(prompt.rpartition(text)[2].strip())


def check_bos(subject: Subject) -> Check:
    """Does a prompt begin with one BOS, where the tokenizer has one that it puts in front of text?"""
    tokenizer, text = subject.tokenizer, texts(subject)[1]
    bos, ours = tokenizer.bos_token_id, encode(subject, [text])[0]
    if bos is None:
        return passed("BOS", "the tokenizer has none")
    token, count, habit = tokenizer.bos_token, leading(ours, bos), leading(tokenizer(text)["input_ids"], bos)
    if count > 1:
        meaning = "The model never saw that in training: its states and answers are off from the first token on."
        return failed(
            "BOS", f"{count} × {token} begin a prompt", meaning, "Take the BOS out of the chat template once."
        )
    if count < habit:
        meaning = "The tokenizer puts one before text, the chat template does not: the model may miss it."
        return warned("BOS", f"no {token} begins a prompt", meaning, "Ask the model's card; add it to the template.")
    again = leading(tokenizer(render(tokenizer, text))["input_ids"], bos)
    trap = f" (rendered text that is tokenised again would get {again}: use encode())" if again > count else ""
    return passed("BOS", (f"one {token}" if count else f"no {token}, nor does the tokenizer add one") + trap)


def leading(ids: list[int], token: int) -> int:
    """How many times a token is repeated at the very beginning."""
    return next((place for place, one in enumerate(ids) if one != token), len(ids))


def check_ends(subject: Subject) -> Check:
    """Does the token that the template writes after an answer end a response? Which tokens do?"""
    turns = subject.turns
    found = f"a response ends with {'; '.join(map(str, turns.ends)) or 'no token'}"
    meaning = "A turn that the model goes on with, and the next, would be judged as part of its answer."
    remedy = (
        f"Name the token that ends its turns in generation_config.json (eos_token_id), or correct {templates.FILE}."
    )
    if is_plain(subject.tokenizer):
        return passed("end of turn", f"{found}, or before a line that begins with 'User:'")
    if turns.written is None:
        return warned("end of turn", f"{found}; what ends a turn is not known: {turns.unshown}", meaning, remedy)
    if turns.template_end is None:
        shown = f"{found}; the template writes {turns.written!r} after an answer, which is no token of its own"
        return warned("end of turn", shown, meaning, remedy)
    if turns.template_end not in turns.ids:
        return failed("end of turn", f"{found}; the template's end is outside the vocabulary", meaning, remedy)
    if turns.outside:
        outside = ", ".join(f"{one} ({source})" for one, source in turns.outside)
        meaning = "The model has no logit for it, so it never ends a response."
        return warned("end of turn", f"{found}; outside the vocabulary: {outside}", meaning, remedy)
    return passed("end of turn", found)
