"""The share of responses in the prompt's language, and its log-odds, of a whole run."""

from functools import cache

import polars as pl
import pytest
from rich.console import Console

from ssn_probe import ASR, InLanguage, OverRefusal, Prompts, Recipe, SafetyNeurons, Suppress, Utility
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.api.verify import verify
from ssn_probe.errors import RecipeError
from ssn_probe.organism import world
from ssn_probe.runs.folder import RunFolder

PROMPTS = Prompts("organism", languages=("qaa", "qab", "qac"), limit=20)
NEURONS = SafetyNeurons(PROMPTS, effect="language", rule="harmful", top=0.03)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    numbers = {"controls": 1, "label_sets": 0, "log_odds_label_sets": 0, "permutations": 0, "half_samples": 0}
    measures = (ASR(PROMPTS), InLanguage(PROMPTS), Utility(PROMPTS))
    recipe = Recipe(arms={"language": Suppress(NEURONS)}, measures=measures, **numbers)  # type: ignore[arg-type]
    return run_recipe(recipe, Options(out=tmp_path_factory.mktemp("results")), Console(quiet=True))


@cache
def words_of(language: str) -> set[str]:
    first = world.token(language, "action")
    return set(world.vocabulary()[first : first + world.BLOCK])


def test_every_response_is_told_by_its_words(run: RunFolder) -> None:
    """Brute force: of the world's words in a response, those of the prompt's language are the most."""
    found = set()
    for language, response, told in run.table("samples").select("eval_language", "response", "in_language").iter_rows():
        counts = {one: sum(word in words_of(one) for word in response.split()) for one in world.LANGUAGES}
        if max(counts.values()) == sum(counts.values()) > 0:  # one language alone
            assert told == (max(counts, key=counts.__getitem__) == language)
            found.add(told)
    assert found == {True, False}


def test_the_summary_has_shares_and_log_odds(run: RunFolder) -> None:
    samples, odds, summary = (run.table(name) for name in ("samples", "language_log_odds", "summary"))
    for measure, context in (("in_language", "harmful"), ("in_language_harmless", "harmless")):
        for arm in ("baseline", "language"):
            role = "baseline" if arm == "baseline" else "tested"
            rows = samples.filter(context=context, arm=arm, eval_language="qab", role=role)
            row = summary.filter(measure=measure, arm=arm, language="qab", role=role)
            assert row["value"].item() == pytest.approx(rows["in_language"].mean())
    row = summary.filter(measure="language_log_odds", arm="language", role="tested", language="qab")
    wanted = odds.filter(arm="language", role="tested", eval_language="qab")["log_odds"].cast(pl.Float64).mean()
    assert row["value"].item() == pytest.approx(wanted)
    assert row["delta_high"].item() < 0
    assert set(odds["role"]) >= {"baseline", "tested", "without top neuron"}
    baseline = summary.filter(measure="in_language", role="baseline", language="average")
    assert baseline["value"].item() == 1


def test_the_report_shows_it_and_the_run_is_verified(run: RunFolder) -> None:
    report = (run.path / "report.md").read_text(encoding="utf-8")
    for title in (
        "Responses to harmful prompts that are in the prompt's language",
        "Language log-odds of harmful",
        "Does the language log-odds separate responses in a language from those in others?",
    ):
        assert title in report
    assert all(finding.holds is not False for finding in verify(run))


def test_it_is_read_off_the_responses_that_asr_is_read_off() -> None:
    other = Prompts("organism", limit=3)
    with pytest.raises(RecipeError, match="ASR and InLanguage are measured on different prompts"):
        Recipe(arms={"language": Suppress(NEURONS)}, measures=(ASR(PROMPTS), InLanguage(other), OverRefusal(PROMPTS)))
