"""Selection and set algebra on arrays, against `select_neurons` and `NeuronSet` on frames, one labelling at a time."""

import subprocess
import sys
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_effects import effects_from, prompt_table, sets_from_masks, sides

from ssn_probe.errors import DataError, ModelError, RecipeError
from ssn_probe.neurons.selection import in_top, select_neurons
from ssn_probe.spec import NeuronFile, Placebo, Prompts, RandomLike, SafetyNeurons, Shared
from ssn_probe.stats.nulls import array_selection
from ssn_probe.stats.nulls.array_selection import Samples, means
from ssn_probe.stats.nulls.labelling_sweep import languages_of
from ssn_probe.stats.nulls.mask_algebra import no_null
from ssn_probe.stats.nulls.prompt_effects import PromptEffects, groups

LANGUAGES = ("en", "de", "sw")
quick = settings(deadline=None, max_examples=60)
prompts = Prompts("made up")


@st.composite
def made_up_effects(draw: st.DrawFn) -> PromptEffects:
    """Two layers, sites of different widths, out of order; effects of few values, so that ties are common."""
    places = [(1, "v"), (0, "q"), (0, "ffn"), (1, "ffn")]
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    size = {"q": draw(st.integers(1, 5)), "ffn": draw(st.integers(1, 9)), "v": draw(st.integers(1, 3))}
    effects = {
        (language, layer, site): random.integers(-2, 5, size=(8, size[site])) / 4
        for language in LANGUAGES
        for layer, site in places
    }
    return effects_from(prompt_table(sides(4)), effects)


def importance_of(measured: PromptEffects, labels: np.ndarray) -> pl.DataFrame:
    """The importance frame under these labels, averaged in plain numpy."""
    frames = []
    for language, (layer, site) in product(measured.languages, sorted(measured.places)):
        effects = measured.read(language, layer, site).astype(float)
        means = {"harmful": effects[labels].mean(axis=0), "harmless": effects[~labels].mean(axis=0)}
        place = {"language": language, "layer": layer, "site": site, "index": range(effects.shape[1])}
        frames.append(pl.DataFrame(place | means, schema_overrides={"layer": pl.Int32, "index": pl.Int32}))
    return pl.concat(frames)


LABELS = np.array([sides(4), [True] * 4 + [False] * 4])


@quick
@given(
    made_up_effects(),
    st.sampled_from(["difference", "harmful", "both", "paper"]),
    st.sampled_from([0.01, 0.2, 0.25, 0.5, 1.0]),
    st.sampled_from(["site", "layer"]),
    st.integers(0, 1),
)
def test_selection_is_that_of_select_neurons(
    measured: PromptEffects, rule: str, top: float, pool: str, sample: int
) -> None:
    node = SafetyNeurons(prompts, rule=rule, top=top, pool=pool)
    try:
        wanted = select_neurons(importance_of(measured, LABELS[sample]), rule=rule, top=top, pool=pool)
    except DataError:  # some language is empty, which `select_neurons` refuses
        return
    assert sets_from_masks(measured, node, LABELS)[sample] == wanted


def test_ties_go_to_the_first_and_zeros_to_nobody() -> None:
    score = np.array([[1.0, 1.0, 2.0, 1.0], [0.0, 0.0, -1.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    assert in_top(score, 0.5).tolist() == [[True, False, True, False], [False, False, False, True], [False] * 4]
    assert in_top(score, 1.0)[0].all()
    assert not in_top(score, 1e-12).any()


def test_a_language_without_some_prompts_is_averaged_over_those_it_has() -> None:
    effects = np.array([[1.0], [5.0], [3.0], [7.0]])
    lacking = effects.copy()
    lacking[2:] = np.nan
    measured = effects_from(prompt_table(sides(2)), {("en", 0, "o"): effects, ("de", 0, "o"): lacking})
    group = next(groups(measured, "site"))
    harmful, harmless = means(group, Samples(harmful=LABELS[:1, :4], harmless=~LABELS[:1, :4]))
    assert harmful[0, :, 0].tolist() == [2.0, 1.0]
    assert harmless[0, :, 0].tolist() == [6.0, 5.0]
    nobody = np.array([[False, False, True, False]])
    with pytest.raises(DataError, match="de has no harmful prompt"):
        means(group, Samples(harmful=nobody, harmless=~nobody))


def test_weights_are_made_once_for_all_neurons_where_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    made, make = [], Samples._weights
    monkeypatch.setattr(Samples, "_weights", lambda self, present: (made.append(present), make(self, present))[1])
    everyone, most = np.ones(8, dtype=bool), np.arange(8) > 0

    def ask() -> list[np.ndarray]:
        samples = Samples(harmful=LABELS, harmless=~LABELS)
        return [side for present in (everyone, most, everyone, most) for side in samples.weights(present)]

    kept = ask()
    assert len(made) == 2
    monkeypatch.setattr(array_selection, "KEPT_BYTES", 0)
    assert all(one.tolist() == other.tolist() for one, other in zip(kept, ask(), strict=True))
    assert len(made) == 2 + 4


def test_equal_effects_have_a_difference_of_exactly_zero() -> None:
    effects = np.full((10, 3), 0.1, dtype=np.float32)
    labels = np.random.default_rng(0).random((50, 10)) < 0.4
    labels[:, :2] = [True, False]
    group = next(groups(effects_from(prompt_table(sides(5)), {("en", 0, "o"): effects}), "site"))
    harmful, harmless = means(group, Samples(harmful=labels, harmless=~labels))
    assert (harmful == harmless).all()


def test_effects_that_are_partly_nan_or_misshapen_are_refused() -> None:
    broken = np.ones((4, 2))
    broken[0, 1] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        next(groups(effects_from(prompt_table(sides(2)), {("en", 0, "o"): broken}), "site"))
    with pytest.raises(DataError, match=r"shape \(3, 2\)"):
        next(groups(effects_from(prompt_table(sides(2)), {("en", 0, "o"): np.ones((3, 2))}), "site"))


def test_prompts_that_are_no_prompts_are_refused() -> None:
    table = prompt_table(sides(2))
    for wrong, words in (
        (table.drop("cluster"), "lack the columns"),
        (table.with_columns(harmful=pl.lit(1)), "neither true nor false"),
        (pl.concat([table, table[:1]]), "twice"),
        (table.filter(pl.col("harmful")), "all have the same label"),
    ):
        with pytest.raises(DataError, match=words):
            effects_from(wrong, {("en", 0, "o"): np.ones((wrong.height, 1))})


def test_sets_without_a_null_say_why() -> None:
    ms = SafetyNeurons(prompts)
    assert no_null(Shared(ms).union() - ms.of("en")) is None
    assert no_null(SafetyNeurons(prompts, labels=Placebo())) is None
    cases = {
        "random itself": ms - RandomLike(ms),
        "a file": NeuronFile("x.csv"),
        "strongest": ms.without_strongest(),
        "several different": ms - SafetyNeurons(prompts, rule="harmful"),
        "error bound": SafetyNeurons(prompts, stable=0.9),
        "a test itself": SafetyNeurons(prompts, fdr=0.05),
    }
    measured = effects_from(prompt_table(sides(2)), {("en", 0, "o"): np.ones((4, 2))})
    for words, expression in cases.items():
        assert words in str(no_null(expression))
        with pytest.raises(RecipeError, match=words):
            languages_of(measured, expression, "en")


def test_wrong_expressions_are_refused_as_on_frames() -> None:
    ms = SafetyNeurons(prompts)
    measured = effects_from(prompt_table(sides(2)), {(one, 0, "o"): np.ones((4, 2)) for one in ("en", "de")})
    for expression, words in (
        (Shared(ms, anchor="fr"), "not a language of the set"),
        (Shared(ms, at_least=3), "at_least=3"),
        (ms.of("fr"), "no language 'fr'"),
        (ms.union().only(languages=["en"]), "language-free"),
        (ms.only(languages=["en"]) & ms, "do not combine"),
    ):
        with pytest.raises(RecipeError, match=words):
            languages_of(measured, expression, "en")
    with pytest.raises(RecipeError, match="needs an anchor"):
        languages_of(measured, Shared(ms), None)


def test_the_package_needs_no_model_and_imports_scipy_only_where_used() -> None:
    code = "import sys, ssn_probe.stats.nulls; print([name for name in ('torch', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
