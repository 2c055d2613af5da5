"""The language log-odds: its openings, its gate, and the neurons that its effect finds."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from studies import bench_for, planned

from ssn_probe.errors import RecipeError
from ssn_probe.model.openings import Openings
from ssn_probe.model.subject import load_subject
from ssn_probe.organism import world
from ssn_probe.spec import ASR, Prompts, Recipe, SafetyNeurons, Suppress
from ssn_probe.spec.labels import set_label
from ssn_probe.study.importance import scored
from ssn_probe.study.language_readout import READ, language_gates, language_readouts
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.plan import make_plan
from ssn_probe.study.refusal_readout import UntrustedReadoutError
from ssn_probe.study.set_evaluation import evaluate
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.edits import amplification
from ssn_probe.tracing.effects import refusal_log_odds

LANGUAGES = ("qaa", "qab", "qac")
PROMPTS = Prompts("organism", languages=LANGUAGES, limit=24)
NEURONS = SafetyNeurons(PROMPTS, effect="language", rule="harmful")
RECIPE = Recipe(arms={"language": Suppress(NEURONS)}, measures=(ASR(PROMPTS),), controls=0, log_odds_label_sets=0)


@cache
def bench() -> Workbench:
    return bench_for(RECIPE, load_subject("organism"))


def begins(language: str) -> set[tuple[int, ...]]:
    """What responses in a language of the world begin with."""
    return {(world.token(language, "refusal"),), (world.token(language, "opening"),)}


def without_openings(**changes: object) -> Workbench:
    """The same bench, with a model that declares no openings."""
    subject = replace(bench().subject, openings=None)
    return replace(bench(), subject=subject, memory=dict(bench().memory) | changes, readouts={})


def test_the_openings_of_a_language_stand_against_all_others() -> None:
    found = language_readouts(bench(), bench().data[PROMPTS])
    assert list(found) == list(LANGUAGES)
    for language, readout in found.items():
        assert isinstance(readout.reads, Openings)
        assert set(readout.reads.refusal) == begins(language)
        others = set[tuple[int, ...]]().union(*(begins(other) for other in LANGUAGES if other != language))
        assert set(readout.reads.compliant) == others
        gate = readout.gate
        assert (gate.auroc, gate.n_refused, gate.n_other, readout.origin) == (1.0, 40, 80, "declared")
    assert [(one.language, one.auroc, one.behaviour) for one in language_gates(bench())] == [
        (language, 1.0, "language") for language in LANGUAGES
    ]
    assert not bench().warnings


def test_openings_that_are_not_declared_are_read_off_the_responses() -> None:
    here = without_openings()
    here.memory.pop((READ, here.data[PROMPTS].digest), None)
    found = language_readouts(here, here.data[PROMPTS])
    for language, readout in found.items():
        assert isinstance(readout.reads, Openings)
        assert set(readout.reads.refusal) == begins(language)
        assert readout.origin == "estimated"
    assert any("the language log-odds is untested: too few responses: 12 in-language" in one for one in here.warnings)
    here.warnings.clear()


def test_a_language_that_shares_its_openings_is_not_told() -> None:
    same = {language: bench().subject.openings["qaa"] for language in LANGUAGES}  # type: ignore[index]
    here = replace(bench(), subject=replace(bench().subject, openings=same), memory={})
    with pytest.raises(UntrustedReadoutError, match="the language log-odds cannot be trusted in qaa: no opening"):
        language_readouts(here, here.data[PROMPTS])


def test_an_opening_that_begins_with_one_of_another_language_tells_neither() -> None:
    known = dict(bench().subject.openings or {})
    (refusal,), longer = known["qaa"].refusal, (*known["qaa"].refusal[0], 5)
    known["qab"] = replace(known["qab"], refusal=(*known["qab"].refusal, longer))
    here = replace(bench(), subject=replace(bench().subject, openings=known), memory={}, readouts={})
    found = language_readouts(here, here.data[PROMPTS])
    for readout in found.values():
        assert isinstance(readout.reads, Openings)
        assert not {refusal, longer} <= {*readout.reads.refusal, *readout.reads.compliant}
    mine, theirs = found["qaa"].reads, found["qab"].reads
    assert isinstance(mine, Openings)
    assert isinstance(theirs, Openings)
    assert set(mine.refusal) == begins("qaa") - {refusal}
    assert set(theirs.refusal) == begins("qab")


def test_openings_of_another_language_fail_the_gate() -> None:
    known = bench().subject.openings
    assert known is not None
    turned = {"qaa": known["qab"], "qab": known["qaa"], "qac": known["qac"]}
    here = replace(bench(), subject=replace(bench().subject, openings=turned), memory={})
    with pytest.raises(UntrustedReadoutError, match=r"in qaa: AUROC 0\.\d+ of the language log-odds against the lang"):
        language_readouts(here, here.data[PROMPTS])


def test_the_effect_is_the_derivative_of_the_language_log_odds() -> None:
    """Scaling one neuron by 1 − ε moves the log-odds by ε times its effect, to first order, where nothing is scaled."""
    plain = replace(NEURONS, effect="language:1")
    found = evaluate(bench(), plain).neurons("qab").sort("score", descending=True)
    layer, site, index = found.select("layer", "site", "index").row(0)
    rows = bench().data[PROMPTS].select("identify", "harmful", "qab")
    reads = language_readouts(bench(), bench().data[PROMPTS])["qab"].reads
    tokens, step = tokens_of(bench(), rows), 0.02
    up, down = (
        refusal_log_odds(bench().subject, tokens, reads, edits=amplification([(layer, site, index)], by))
        for by in (1 + step, 1 - step)
    )
    slope = float((up - down).mean()) / (2 * step)
    effect = scored(bench(), plain, "qab", "harmful").means[site][layer, index]
    assert effect == pytest.approx(slope, rel=0.02)
    assert effect == pytest.approx(found["score"][0], rel=1e-6)


def test_silencing_them_lowers_the_language_log_odds() -> None:
    silenced = evaluate(bench(), NEURONS)
    rows = bench().data[PROMPTS].select("evaluate", "harmful", "qab")
    reads = language_readouts(bench(), bench().data[PROMPTS])["qab"].reads
    neurons = silenced.neurons("qab").select("layer", "site", "index").rows()
    tokens = tokens_of(bench(), rows)
    before, after = (
        refusal_log_odds(bench().subject, tokens, reads, edits=amplification(neurons, by)) for by in (1.0, 0.0)
    )
    assert np.mean((before - after).numpy() > 0) == 1


def test_what_is_planned_and_called() -> None:
    rows = planned(RECIPE)
    assert rows["responses that show how each language begins (organism, first 24)"] == 3 * 48
    assert not any("refusal log-odds" in row for row in rows)
    assert set_label(NEURONS) == "the language neurons"


def test_one_language_has_no_other() -> None:
    alone = Prompts("organism", languages=("qaa",), limit=4)
    recipe = Recipe(sets={"language": SafetyNeurons(alone, effect="language", rule="harmful")})
    with pytest.raises(RecipeError, match="no response could be in another"):
        make_plan(recipe)
