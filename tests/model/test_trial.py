"""Templates that loop or write gigabytes, and patterns that backtrack, end in an error and not in this process."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import TEMPLATE, tiny_tokenizer

from ssn_probe.errors import ModelError
from ssn_probe.model import trial
from ssn_probe.model.trial import try_chats, try_tokenizer

limited = pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory and processor time")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "SECONDS", 2)
    monkeypatch.setattr(trial, "_passed", set())


def with_template(template: Any) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


@pytest.mark.parametrize("template", [TEMPLATE, {"default": TEMPLATE}, {"rag": TEMPLATE}, "{% for", "{{ 1 / 0 }}"])
def test_a_template_that_ends_passes(template: Any) -> None:
    """One that raises does so in this process, too, and is named there."""
    try_chats(with_template(template), ["w1", "{{ w1 }}"], answers=["w2"])
    assert len(trial._passed) == 1


HUGE = "{% for m in messages %}{{ m.content * 1000000000 }}{% endfor %}"
WRITES = "{% for i in range(90000) %}{% for j in range(90000) %}xxxxxxxxxxxxxxxxxxxx{% endfor %}{% endfor %}"


@limited
@pytest.mark.parametrize(
    ("template", "message"),
    [(HUGE, "too much memory"), ("{{ 'x' * 10 ** 11 }}", "too much memory"), (WRITES, "too much memory")],
)
def test_a_template_that_writes_too_much(template: str, message: str) -> None:
    with pytest.raises(ModelError, match=f"chat template cannot be rendered: .*{message}"):
        try_chats(with_template(template), ["w1"])


@limited
def test_a_template_that_loops() -> None:
    loops = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
    with pytest.raises(ModelError, match="chat template cannot be rendered within 2 seconds"):
        try_chats(with_template(loops), ["w1"])
    told = "{% if messages[0].role == 'system' %}" + loops + "{% endif %}{{ messages[0].content }}"
    with pytest.raises(ModelError, match="chat template cannot be rendered within 2 seconds"):
        try_chats(with_template(told), ["w1"])


def tokenizer_file(folder: Path, pattern: str) -> str:
    content = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    (folder / "tokenizer.json").write_text(json.dumps(content | {"pre_tokenizer": split}), encoding="utf-8")
    return str(folder)


@limited
@pytest.mark.parametrize("pattern", ["(a+)+$", "(?:a|aa)+$"])
def test_a_pattern_that_backtracks(pattern: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the tokenizer cannot take a text"):
        try_tokenizer(tokenizer_file(tmp_path, pattern))


def test_a_pattern_of_ordinary_models_passes(tmp_path: Path) -> None:
    pattern = r"(?i:'s|'t|'re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    try_tokenizer(tokenizer_file(tmp_path, pattern))
    assert len(trial._passed) == 1
    try_tokenizer(str(tmp_path / "nowhere"))
