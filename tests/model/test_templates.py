"""Whatever is wrong with a chat template is one error that names it; which of several is taken is told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import TEMPLATE, tiny_tokenizer

from ssn_probe.errors import ModelError
from ssn_probe.model.loading import read_tokenizer
from ssn_probe.model.plain_text import encode_messages
from ssn_probe.model.templates import check_template, foreign_errors, render, template_notes

NEEDS_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('a system message is needed') }}{% endif %}"
UNUSABLE: dict[str, tuple[Any, str]] = {
    "none": (None, "has no chat template"),
    "empty": ("", "has no chat template"),
    "raises": ("{{ raise_exception('tools are needed') }}", "cannot be applied: tools are needed"),
    "needs a system message": (NEEDS_SYSTEM + TEMPLATE, "a system message is needed"),
    "does not parse": ("{% for m in messages %}\n{{ m.content ", r"cannot be applied: .*\(line 2 of the template\)"),
    "knows no such filter": ("{{ messages | surely }}", "cannot be applied: No filter named 'surely'"),
    "reads what is not there": ("{{ messages[1].content }}", "cannot be applied: list object has no element 1"),
    "divides by zero": ("{{ 1 / 0 }}", "cannot be applied: division by zero"),
    "calls itself": ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "cannot be applied: maximum recursion"),
    "leaves the message out": ("<user> <model>", "leaves the user's message out"),
    "writes nothing": ("{# a comment #}", "leaves the user's message out"),
    "is for lists of parts": (
        "{% for p in messages[0].content %}{{ p.text }}{% endfor %}",
        "leaves the user's message",
    ),
    "writes by chance": (TEMPLATE + "{{ range(100000) | random }}", "another text each time"),
    "several": ({"chat": TEMPLATE, "rag": TEMPLATE}, r"several chat templates \(chat, rag\) and none called 'default'"),
    "no text": ({"default": 7}, "is no text, but 7"),
    "too long": (TEMPLATE + "{# " + "x" * 1_000_000 + " #}", "has more than 1"),
}


@pytest.mark.parametrize(("template", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_an_unusable_template_is_one_error(template: Any, message: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match=message) as error:
        check_template(tokenizer)
    assert "chat_template.jinja" in str(error.value.hint)


def test_several_templates_with_a_default() -> None:
    tokenizer = tiny_tokenizer()
    alone = encode_messages(tokenizer, ["w1"])
    tokenizer.chat_template = {"default": TEMPLATE, "tool_use": "{{ raise_exception('no') }}"}
    check_template(tokenizer)
    assert encode_messages(tokenizer, ["w1"]) == alone
    (note,) = template_notes("nowhere", tokenizer)
    assert "default, tool_use" in note


def test_two_files_with_different_templates(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    config = tmp_path / "tokenizer_config.json"
    for declared, notes in ((TEMPLATE, 0), (TEMPLATE + " ", 1), ([{"name": "default", "template": "x"}], 1)):
        config.write_text(json.dumps({"chat_template": declared}), encoding="utf-8")
        assert len(list(template_notes(str(tmp_path), tokenizer))) == notes


@pytest.mark.parametrize("content", ["7", "[]", '"text"', "null", "{"])
def test_a_tokenizer_config_of_another_kind(content: str, tiny_folder: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder("llama"), tmp_path / "model"))
    (folder / "tokenizer_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError):
        read_tokenizer(str(folder))


def test_a_panic_is_an_error_and_a_keyboard_interrupt_is_not() -> None:
    panic = type("PanicException", (BaseException,), {})
    with (
        pytest.raises(ModelError, match="The tokenizer fails: out of stack"),
        foreign_errors("The tokenizer fails", "h"),
    ):
        raise panic("out of stack\nmore")
    with pytest.raises(KeyboardInterrupt), foreign_errors("The tokenizer fails", ""):
        raise KeyboardInterrupt


def test_a_template_that_asks_for_todays_date_gets_the_same_one_every_day() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% else %}{% set day = 'none' %}"
        "{% endif %}\n" + '{{ day ~ strftime_now( "%Y" ) }}' + TEMPLATE
    )
    (text,) = render(tokenizer, [[{"role": "user", "content": "w1"}]])
    assert text.startswith("26 Jul 20242024"), text
    (note,) = template_notes("nowhere", tokenizer)
    assert "2024-07-26 on every day" in note
    tokenizer.chat_template = "{% set form = '%Y' %}{{ strftime_now(form) }}" + TEMPLATE
    (note,) = template_notes("nowhere", tokenizer)
    assert "change from one day to the next" in note
