"""A think block that is left open, in the spellings of open models."""

import pytest

from ssn_probe.model.think_blocks import is_thought, open_block


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("<|im_start|>assistant\n<think>\n", ("<think>", "</think>")),
        ("<think>\n\n</think>\n\n", None),
        ("<think>a</think><think>b", ("<think>", "</think>")),
        ("[THINK]", ("[THINK]", "[/THINK]")),
        ("<reasoning> so", ("<reasoning>", "</reasoning>")),
        ("<thought></thought>", None),
        ("<seed:think>", ("<seed:think>", "</seed:think>")),
        ("<|begin_of_thought|>", ("<|begin_of_thought|>", "<|end_of_thought|>")),
        ("<|START_THINKING|><|END_THINKING|>", None),
        ("◁think▷", ("◁think▷", "◁/think▷")),
        ("<|start|>assistant<|channel|>analysis<|message|>", ("<|channel|>analysis", "<|end|>")),
        ("<|channel>thought\n<channel|>", None),
        ("I think that <b>thinking</b> is <hard>", None),
        ("</think>", None),
    ],
)
def test_open_blocks(text: str, found: tuple[str, str] | None) -> None:
    assert open_block(text) == found


def test_responses_that_are_thoughts() -> None:
    assert is_thought("<think> maybe", None)
    assert not is_thought("<think> maybe </think> No.", None)
    assert not is_thought("No.", None)
    assert is_thought("maybe", "</think>"), "its prompt opened the block"
    assert not is_thought("maybe </think> No.", "</think>")
