"""What a delta file says was measured, as its card, a merged folder's card and the check of foreign files take it."""

import re
from dataclasses import replace
from typing import Any

import pytest
from expand_case import llama, quick

from ssn_probe.spec.display import as_text
from ssn_probe.training.delta_file.file import DeltaFile, delta_file
from ssn_probe.training.delta_file.record import check_record
from ssn_probe.training.export.model_card import NO_CONTROLS, model_card
from ssn_probe.training.weights.delta import Rounding

MEASURES = {
    "asr": (0.4334, 0.1508),
    "invalid": (0.0, 0.0125),
    "over_refusal": (0.0017, 0.0242),
    "utility": (1.0, 0.995),
}
TRAP = "<b>a</b> | [x](http://x)"


@pytest.fixture(scope="module")
def file() -> DeltaFile:
    return delta_file(quick(llama(), lr=1e-2), model="tiny/llama", revision=None, neurons="some")


def effects(*languages: str) -> list[dict[str, Any]]:
    return [
        {"language": language, "measure": measure, "n": 1200, "before": before, "after": after}
        | {"before_low": 0.0, "before_high": 1.0, "low": max(0.0, after - 0.01), "high": min(1.0, after + 0.01)}
        for language in languages
        for measure, (before, after) in MEASURES.items()
    ]


def control(arm: str, value: float, low: Any, high: Any, measure: str = "asr") -> dict[str, Any]:
    return {"arm": arm, "measure": measure, "value": value, "low": low, "high": high}


MEASURED = {
    "run": f"run {TRAP}",
    "arm": "ss.at(20)",
    "effects": effects("qab", "average"),
    "controls": [control("4 random sets", 0.36, -0.02, 0.5), control(TRAP, 0.37, None, None)],
}


def measured(file: DeltaFile, **changes: Any) -> DeltaFile:
    return replace(file, about={**file.about, "measured": MEASURED | changes})


def card(file: DeltaFile) -> str:
    return model_card(file, Rounding(unmoved=0.0, error=0.0))


def test_every_figure_of_the_card_is_what_was_measured(file: DeltaFile) -> None:
    text = card(measured(file))
    line = next(line for line in text.splitlines() if line.startswith("| average |"))
    cells = [[float(one) for one in re.findall(r"\d+\.\d", cell)] for cell in line.split("|")[2:-1]]
    assert cells == [
        [pytest.approx(100 * row[name], abs=0.0501) for name in ("before", "after", "low", "high")]
        for row in MEASURED["effects"][4:]
    ]
    assert "| language | ASR | invalid | over-refusal | utility |" in text
    assert line.count("n = 1,200") == 4
    assert "| 4 random sets | 36.0 [-2.0, 50.0] |" in text


def test_the_card_escapes_what_a_file_states(file: DeltaFile) -> None:
    text = card(measured(file))
    for name in ("run ", "| "):
        assert f"{name}\\<b\\>a\\</b\\> \\| \\[x\\](http://x)" in text
    assert "<b>" not in text


def test_the_card_escapes_settings_and_contexts(file: DeltaFile) -> None:
    data = {**file.about["data"], "rows": {"qab": {TRAP: 3}}}
    training = {**file.about["training"], "lr": f"{TRAP}\n\n# title", TRAP: 1}
    text = card(replace(file, about={**file.about, "data": data, "training": training}))
    assert "<b>" not in text
    assert "\n# title" not in text
    assert "| qab | \\<b\\>a\\</b\\> \\| \\[x\\](http://x) | 3 |" in text


def test_a_digest_that_is_none_is_refused(file: DeltaFile) -> None:
    with pytest.raises(ValueError, match="name its prompts"):
        check_record({**file.about, "data": {**file.about["data"], "prompts_sha256": TRAP}}, file.delta)


def test_adapters_of_a_base_in_no_known_precision_are_refused() -> None:
    found = delta_file(quick(llama(), adapter="lora"), model="tiny", revision=None, neurons="some")
    check_record(found.about, found.delta)
    with pytest.raises(ValueError, match="its precision"):
        check_record({**found.about, "base": {**found.about["base"], "dtype": "load"}}, found.delta)


def test_a_language_alone_has_no_controls_and_nothing_measured_no_effects(file: DeltaFile) -> None:
    for text, counted in ((card(file), 2), (card(measured(file, effects=[], controls=[])), 2)):
        assert text.count("None were measured.") == counted
        assert NO_CONTROLS in text
    text = card(measured(file, effects=effects("qab"), controls=[]))
    assert NO_CONTROLS in text
    assert "| qab |" in text
    assert "| average |" not in text


def test_before_over_other_languages_is_a_question_mark(file: DeltaFile) -> None:
    row = effects("average")[0] | {"before": None, "before_low": None, "before_high": None}
    found = measured(file, effects=[row])
    check_record(found.about, found.delta)
    assert "| average | ? → 15.1 [14.1, 16.1], n = 1,200 |" in card(found)
    assert "? → 15.1 %" in as_text(found)


def test_the_file_shows_the_average_before_and_after(file: DeltaFile) -> None:
    text = " ".join(as_text(measured(file)).split())
    assert "ASR 43.3 % → 15.1 % (14.1 % to 16.1 %), average of languages, n = 1,200" in text
    assert "over-refusal 0.2 % → 2.4 % (1.4 % to 3.4 %)" in text
    assert text.count("average of languages") == len(MEASURES)
    assert "average of languages" not in as_text(file)


@pytest.mark.parametrize(
    "broken",
    [
        {"effects": [effects("average")[0] | {"after": 10**400}]},
        {"effects": [effects("average")[0] | {"n": True}]},
        {"effects": [effects("average")[0] | {"before": float("nan")}]},
        {"effects": [effects("average")[0] | {"measure": ["asr"]}]},
        {"effects": {"average": 1}},
        {"effects": [effects("average")[0] | {"measure": "fame"}]},
        {"effects": [effects("average")[0] | {"n": -1}]},
        {"effects": [effects("average")[0] | {"after": 1.1}]},
        {"effects": [effects("average")[0] | {"low": 0.3, "high": 0.2}]},
        {"effects": [effects("average")[0], effects("average")[0]]},
        {"controls": [control("a", 0.1, 0.0, 10**308)]},
        {"controls": [control("a", 0.1, 0.0, float("inf"))]},
        {"controls": [control("a", 0.1, 0.0, None)]},
        {"controls": [control("a", 0.1, None, 0.2)]},
        {"controls": [control("a", 0.1, 0.3, 0.2)]},
        {"controls": [control("a", float("nan"), None, None)]},
        {"controls": [control("a", 0.1, "little", "much")]},
        {"controls": [control("a" * 301, 0.1, None, None)]},
        {"arm": "a" * 301},
        {"run": None},
    ],
)
def test_what_no_run_writes_is_refused(file: DeltaFile, broken: dict) -> None:
    check_record(measured(file).about, file.delta)
    with pytest.raises((ValueError, TypeError, KeyError)):
        check_record(measured(file, **broken).about, file.delta)


def test_a_loss_beyond_every_number_is_refused(file: DeltaFile) -> None:
    with pytest.raises(ValueError, match="held-out loss"):
        check_record({**file.about, "held_out_loss": {"base": 10**400, "chosen": 0.1}}, file.delta)
