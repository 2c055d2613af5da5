"""A system prompt, the plain form, and thinking switched off: what the model gets, and what is refused or told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import TEMPLATE, tiny_tokenizer

from ssn_probe.errors import ModelError
from ssn_probe.model.asking import (
    Asking,
    asking_identity,
    asking_notes,
    own_tokens,
    own_turn,
    put_form,
    settle_system,
    written_by_itself,
)
from ssn_probe.model.subject import load_subject
from ssn_probe.model.templates import put_system, render, system_of, two_turns

TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
ANSWER = "{% if add_generation_prompt %}<assistant>"
HAS_DEFAULT = "{% if messages[0].role != 'system' %}<system>You are w9.</system>{% endif %}" + TURNS
RAISES = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + TURNS
DROPS = "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{{ m.content }}</{{ m.role }}>{% endfor %}"
MERGES = (
    "{% set first = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% for m in messages if m.role != 'system' %}<{{ m.role }}>{% if loop.first and first %}<<S>>{{ first }}<</S>>\n"
    "{% endif %}{{ m.content }}</{{ m.role }}>{% endfor %}"
)
SYSTEMS = ("You are w1.", 'It\'s "w2" \\ {{ 1 }} {% set x = 1 %} {# w3 #}\nم 😀 w4', "")


def with_template(template: str) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def shown(tokenizer: Any) -> str:
    return render(tokenizer, [[{"role": "user", "content": "w1"}]])[0]


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_system_prompt_is_what_the_template_gets_as_one(system: str) -> None:
    tokenizer = with_template("\n  " + HAS_DEFAULT)
    chat = [{"role": "system", "content": system}, {"role": "user", "content": "w1"}]
    expected = render(tokenizer, [chat])[0]
    assert f"<system>{system}</system>" in expected
    settle_system(tokenizer, system)
    assert shown(tokenizer) == expected
    assert system_of(tokenizer) == system
    assert two_turns(tokenizer).before == expected.partition("w1</user>")[0]


def test_without_one_the_template_writes_its_own_and_that_is_told() -> None:
    tokenizer = with_template(HAS_DEFAULT)
    settle_system(tokenizer, None)
    assert tokenizer.chat_template == HAS_DEFAULT
    assert list(asking_notes(tokenizer)) == ["the chat template writes a system prompt by itself: 'You are w9.'"]
    for template in (TURNS, RAISES, DROPS, MERGES, TEMPLATE):
        assert written_by_itself(with_template(template)) is None


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (RAISES, "takes no system prompt: System role not supported"),
        (DROPS, "leaves the system prompt out"),
        (TEMPLATE, "takes a system prompt for an answer of the model"),
    ],
)
@pytest.mark.parametrize("system", ["You are w1.", ""])
def test_a_template_without_a_place_for_it_is_one_error(template: str, message: str, system: str) -> None:
    with pytest.raises(ModelError, match=message) as error:
        settle_system(with_template(template), system)
    assert "Leave out the system prompt" in str(error.value.hint)


@pytest.mark.parametrize(
    "template", [MERGES, TURNS.replace("{{ m.role }}", "{{ m.role | replace('system', 'user') }}")]
)
def test_one_that_is_put_into_the_users_turn_is_told(template: str) -> None:
    tokenizer = with_template(template)
    settle_system(tokenizer, "You are w2.")
    told, note = asking_notes(tokenizer)
    assert told == "the system prompt is 'You are w2.'"
    assert "part of the user's turn" in note
    other = with_template(TURNS)
    settle_system(other, "You are w2.")
    assert list(asking_notes(other)) == [told]


def test_a_template_that_needs_a_system_prompt_is_asked_with_one() -> None:
    needs = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('a system message is needed') }}{% endif %}" + TURNS
    )
    tokenizer = with_template(needs)
    settle_system(tokenizer, "You are w1.")
    assert shown(tokenizer) == "<system>You are w1.</system><user>w1</user>"
    with pytest.raises(ModelError, match="cannot be applied: a system message is needed") as caught:
        settle_system(with_template(needs), None)
    assert "-T system=" in (caught.value.hint or "")
    with pytest.raises(ModelError, match="cannot be applied: never") as caught:
        settle_system(with_template("{{ raise_exception('never') }}"), None)
    assert "system" not in (caught.value.hint or "")
    with pytest.raises(ModelError, match="cannot be applied: never"):
        settle_system(with_template("{{ raise_exception('never') }}"), "You are w1.")


def test_a_system_prompt_for_the_organism_is_refused() -> None:
    with pytest.raises(ModelError, match="takes no system prompt: the organism knows the roles user and assistant"):
        load_subject("organism", weights=False, asking=Asking(system="You are w1."))


def test_several_templates_keep_the_others() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = {"default": TURNS, "rag": TURNS}
    put_system(tokenizer, "w5")
    assert tokenizer.chat_template["rag"] == TURNS
    assert shown(tokenizer) == "<system>w5</system><user>w1</user>"


SWITCHED: dict[str, tuple[str, dict[str, Any]]] = {
    "enable_thinking": (
        ANSWER
        + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% else %}<think>{% endif %}",
        {},
    ),
    "thinking": (
        "{% if not thinking is defined %}{% set thinking = true %}{% endif %}"
        + ANSWER
        + "{% if thinking %}<think>{% else %}</think>{% endif %}",
        {"template_switches": {"thinking": False}},
    ),
    "reasoning": (
        "{% if reasoning is not defined %}{% set reasoning = true %}{% endif %}"
        + ANSWER
        + "<|START_THINKING|>{% if not reasoning %}<|END_THINKING|>{% endif %}",
        {"template_switches": {"reasoning": False}},
    ),
    "thinking_mode": (
        ANSWER + "<think>{% if thinking_mode is defined and thinking_mode == 'off' %}\n</think>{% endif %}",
        {"template_switches": {"thinking_mode": "off"}},
    ),
    "thinking_budget": (
        "{% if thinking_budget is not defined %}{% set thinking_budget = -1 %}{% endif %}"
        + ANSWER
        + "<think>{% if thinking_budget == 0 %}none</think>{% endif %}",
        {"template_switches": {"thinking_budget": 0}},
    ),
}


@pytest.mark.parametrize(("template", "identity"), SWITCHED.values(), ids=SWITCHED)
def test_thinking_is_switched_off_by_what_the_template_asks_for(template: str, identity: dict[str, Any]) -> None:
    from ssn_probe.model.think_blocks import open_block

    tokenizer = with_template(TURNS + template + "{% endif %}")
    assert open_block(shown(tokenizer)) is None
    assert "think" in shown(tokenizer).lower()
    assert asking_identity(tokenizer, Asking()) == identity
    (note,) = asking_notes(tokenizer)
    assert note.startswith("thinking is switched off: the chat template is given ")


def test_a_model_whose_template_thinks_of_nothing_has_the_identity_that_it_had() -> None:
    words = with_template(TURNS + "{# thinking, reasoning #}{{ 'detailed thinking' }}")
    assert asking_identity(words, Asking()) == {}
    assert not list(asking_notes(words))


@pytest.mark.parametrize("system", [None, "You are w2."])
@pytest.mark.parametrize("switch", ["/no_think", "detailed thinking off"])
def test_thinking_is_switched_off_in_the_system_prompt_where_that_alone_does_it(
    switch: str, system: str | None
) -> None:
    reads = f"{{% set off = '{switch}' in messages[0].content %}}" + TURNS
    tokenizer = with_template(reads + ANSWER + "<think>{% if off %}</think>{% endif %}{% endif %}")
    settle_system(tokenizer, system)
    assert shown(tokenizer).endswith("<think></think>")
    assert (system or "") in shown(tokenizer)
    assert f"thinking is switched off by {switch!r} in the system prompt" in list(asking_notes(tokenizer))
    assert switch in asking_identity(tokenizer, Asking(system=system))["system_prompt"]


def test_a_think_block_that_nothing_closes_stays_as_it_is() -> None:
    tokenizer = with_template(TURNS + "{# /no_think #}" + ANSWER + "<think>{% endif %}")
    settle_system(tokenizer, None)
    assert system_of(tokenizer) is None
    assert shown(tokenizer).endswith("<think>")


def test_the_plain_form() -> None:
    tokenizer = tiny_tokenizer()
    put_form(tokenizer, "plain")
    assert shown(tokenizer) == "User:\nw1\n\nAssistant:\n"
    settle_system(tokenizer, "w2 w3")
    assert shown(tokenizer) == "w2 w3\n\nUser:\nw1\n\nAssistant:\n"
    assert two_turns(tokenizer).between == "\n\nUser:\n"
    assert "a line that begins with 'User:'" in next(asking_notes(tokenizer))
    with pytest.raises(ModelError, match="no chat form 'plane'"):
        put_form(tokenizer, "plane")


def test_the_plain_form_begins_as_the_tokenizer_begins_a_text() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    put_form(tokenizer, "plain")
    assert shown(tokenizer) == "<s>User:\nw1\n\nAssistant:\n"
    assert own_turn("w1\nUser:\nw2", tokenizer) == "w1"


@pytest.mark.parametrize(
    ("response", "own"),
    [
        ("w1 w2", "w1 w2"),
        ("w1\n\nUser:\nw2\n\nAssistant:\nw3", "w1"),
        ("w1\nUser: w2", "w1"),
        ("User:\nw2", ""),
        ("w1 User: w2", "w1 User: w2"),
    ],
)
def test_what_the_model_says_for_the_user_is_no_part_of_its_response(response: str, own: str) -> None:
    tokenizer = tiny_tokenizer()
    assert own_turn(response, tokenizer) == response
    put_form(tokenizer, "plain")
    assert own_turn(response, tokenizer) == own


def test_tokens_of_the_response_alone() -> None:
    text = "w1 w2.\n\nUser:\nw3"
    tokenizer, row = tiny_tokenizer(), list(range(len(text) // 2))
    tokenizer.decode = lambda row: "".join(text[2 * one : 2 * one + 2] for one in row)
    assert own_tokens(row, tokenizer) == row
    put_form(tokenizer, "plain")
    assert tokenizer.decode(own_tokens(row, tokenizer)) == "w1 w2.\n\n"


def test_a_model_without_a_chat_template_is_asked_in_the_plain_form_alone(
    tiny_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "base"))
    before = load_subject(str(folder), weights=False).identity
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="no chat template") as error:
        load_subject(str(folder), weights=False)
    assert "chat=plain" in str(error.value.hint)
    subjects = {
        system: load_subject(str(folder), weights=False, asking=Asking(chat="plain", system=system))
        for system in (None, "w3")
    }
    plain, told = (subjects[system].identity for system in (None, "w3"))
    assert plain["chat"] == told["chat"] == "plain"
    assert told["system_prompt"] == "w3"
    assert "system_prompt" not in plain
    digests = {one["chat_template_sha256"] for one in (before, plain, told)}
    assert len(digests) == 3
    assert any("plain form" in note for note in subjects[None].template_notes)
