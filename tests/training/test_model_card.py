"""What a delta file says was measured, as its card, a merged folder's card and the check of foreign files take it."""

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from measured_record import MEASURED, MEASURES, TRAP, effects
from rich.console import Console
from training_case import file_of, llama

from ssn_probe.report.terminal.delta_tables import differences
from ssn_probe.spec.rendering import as_text
from ssn_probe.training.delta_file.file import DeltaFile
from ssn_probe.training.delta_file.record import check_record
from ssn_probe.training.export.model_card import NO_CONTROLS, model_card
from ssn_probe.training.weights.delta import Rounding


@pytest.fixture(scope="module")
def file() -> DeltaFile:
    return file_of(llama(), chosen="MS of qaa <top 0.5 %>")


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
    assert "| 4 random sets | 36.0 [0.0, 50.0] |" in text


def test_the_card_states_base_neurons_data_and_settings(file: DeltaFile) -> None:
    text = card(file)
    assert text.startswith('---\nbase_model: "tiny/llama"\n')
    for words in (
        "MS of qaa \\<top 0.5 %\\>",
        "| qab | harmful | 6 |",
        "| all | 11 | 408 |",
        "harmful: refused",
        "lr 0.01",
        "4 of 4 steps",
        file.base_digest,
    ):
        assert words in text, words


def test_the_card_escapes_what_a_file_states(file: DeltaFile) -> None:
    hostile = {**file.about["base"], "name": "evil\n---\n<b>"}
    text = card(replace(file, about={**file.about, "base": hostile}))
    assert 'base_model: "evil --- <b>"' in text
    assert "# evil --- \\<b\\>, expanded" in text
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


def test_two_files_are_compared_by_the_averages_that_were_measured(file: DeltaFile) -> None:
    def lines(first: DeltaFile, second: DeltaFile) -> list[str]:
        screen = Console(width=200, file=io.StringIO(), record=True)
        screen.print(differences(first, second))
        return [" ".join(line.split()) for line in screen.export_text().splitlines()]

    one, other = measured(file), measured(file, arm="ms")
    assert lines(one, other)[-2:] == ["entry first second", "measured.arm ss.at(20) ms"]
    shown = "\n".join(lines(file, one))
    assert "ASR – 43.3 % → 15.1 %" in shown
    assert "qab" not in shown, "one language's figures"
    assert "before_low" not in shown
