"""Selection and set algebra on arrays, against `select_neurons` and `NeuronSet` on frames, one labelling at a time."""

import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from evidences import evidence_from, prompt_table, sides
from hypothesis import given, settings
from hypothesis import strategies as st

from ssn_probe.errors import DataError, ModelError, RecipeError
from ssn_probe.neurons import NeuronSet, neuron_set
from ssn_probe.neurons.selection import averaged, select_neurons, shared_at_least, shared_with_anchor
from ssn_probe.spec import NeuronFile, Prompts, RandomLike, SafetyNeurons, SetExpression, Shared
from ssn_probe.stats.nulls.array_selection import Samples, in_top, means, select
from ssn_probe.stats.nulls.labelling_sweep import languages_of, sweep
from ssn_probe.stats.nulls.mask_algebra import Masked, no_null
from ssn_probe.stats.nulls.prompt_effects import Evidence, Group, groups, widths

LANGUAGES = ("en", "de", "sw")
quick = settings(deadline=None, max_examples=60)
prompts = Prompts("made up")


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    """Two layers, sites of different widths, out of order; effects of few values, so that ties are common."""
    places = [(1, "v"), (0, "q"), (0, "ffn"), (1, "ffn")]
    random = np.random.default_rng(draw(st.integers(0, 10**6)))
    size = {"q": draw(st.integers(1, 5)), "ffn": draw(st.integers(1, 9)), "v": draw(st.integers(1, 3))}
    effects = {
        (language, layer, site): random.integers(-2, 5, size=(8, size[site])) / 4
        for language in LANGUAGES
        for layer, site in places
    }
    return evidence_from(prompt_table(sides(4)), effects)


def frame_of(evidence: Evidence, samples: Samples, sample: int) -> pl.DataFrame:
    """The importance frame of one sample, averaged in plain numpy."""
    rows = []
    for language in evidence.languages:
        for layer, site in sorted(evidence.places):
            effects = evidence.read(language, layer, site).astype(float)
            harmful = effects[samples.harmful[sample]].mean(axis=0)
            harmless = effects[samples.harmless[sample]].mean(axis=0)
            rows += [(language, layer, site, i, harmful[i], harmless[i]) for i in range(effects.shape[1])]
    schema = {"language": pl.String, "layer": pl.Int32, "site": pl.String, "index": pl.Int32}
    return pl.DataFrame(rows, schema=schema | {"harmful": pl.Float64, "harmless": pl.Float64}, orient="row")


def swept(evidence: Evidence, expression: SetExpression, samples: Samples, sample: int) -> NeuronSet | None:
    """The set of one sample from the arrays; None when it is empty."""
    rows = []

    def visit(name: str, block: slice, group: Group, found: Masked) -> None:
        mask = found.mask[sample - block.start]
        for language, here in zip(found.languages, mask, strict=True):
            rows.extend(
                (language, int(group.layers[i]), str(group.sites[i]), int(group.index[i]), None)
                for i in np.flatnonzero(here)
            )

    sweep(evidence, {"set": expression}, samples, anchor="en", visit=visit)
    languages = languages_of(evidence, expression, "en")
    return NeuronSet(neuron_set(rows).frame, languages) if rows else None


def expected(evidence: Evidence, samples: Samples, sample: int, node: SafetyNeurons) -> NeuronSet:
    assert node.top is not None
    return select_neurons(frame_of(evidence, samples, sample), rule=node.rule, top=node.top, pool=node.pool)


LABELS = np.array([sides(4), [True] * 4 + [False] * 4])
SAMPLES = Samples(harmful=LABELS, harmless=~LABELS)


@quick
@given(
    evidences(),
    st.sampled_from(["difference", "harmful", "paper"]),
    st.sampled_from([0.01, 0.2, 0.25, 0.5, 1.0]),
    st.sampled_from(["site", "layer"]),
    st.integers(0, 1),
)
def test_selection_is_that_of_select_neurons(evidence: Evidence, rule: str, top: float, pool: str, sample: int) -> None:
    node = SafetyNeurons(prompts, rule=rule, top=top, pool=pool)
    try:
        wanted = expected(evidence, SAMPLES, sample, node)
    except DataError:  # some language is empty, which `select_neurons` refuses
        return
    assert swept(evidence, node, SAMPLES, sample) == wanted


@quick
@given(evidences(), st.sampled_from(["difference", "harmful", "paper"]))
def test_expressions_mean_what_they_mean_on_frames(evidence: Evidence, rule: str) -> None:
    ms = SafetyNeurons(prompts, rule=rule, top=0.5)
    frame = frame_of(evidence, SAMPLES, 0)
    try:
        base = expected(evidence, SAMPLES, 0, ms)
        mean = select_neurons(averaged(frame), rule=rule, top=0.5, pool="site")
    except DataError:
        return
    nothing = pl.DataFrame(schema={"layer": pl.Int32, "site": pl.String, "index": pl.Int32, "score": pl.Float64})
    common = (base & base.of("en")).frame["language"].n_unique() > 1
    shared = shared_with_anchor(base, "en", nothing) if common else None
    part = {"layers": [1], "sites": ["ffn"], "languages": ["sw", "en"]}
    swahili = base.only(languages=["sw"])
    cases: dict[str, tuple[SetExpression, NeuronSet | None]] = {
        "of": (ms.of("de"), base.of("de")),
        "union": (ms.union(), base.union()),
        "mean": (Shared(ms, by="mean"), mean),
        "one": (Shared(ms, at_least=1), shared_at_least(base, 1)),
        "minus": (ms - ms.of("en"), base - base.of("en")),
        "spread": (ms.union() - ms, base.union() - base),
        "or": (ms.of("de") | ms.only(layers=[0]), base.of("de") | base.only(layers=[0])),
        "only": (ms.only(**part), base.only(**part)),
        "twice": (ms.only(languages=["sw"]) & ms.only(languages=["sw"], sites=["ffn"]), swahili.only(sites=["ffn"])),
    }
    if shared is not None:
        cases["shared"] = (Shared(ms), shared)
        others = [language for language in shared.languages if language != "en"]
        cases["union of shared"] = (Shared(ms, anchor="en").union(), shared.only(languages=others).union())
    for name, (expression, wanted) in cases.items():
        assert wanted is not None
        found = swept(evidence, expression, SAMPLES, 0)
        assert len(wanted) == 0 if found is None else found == wanted, name
        assert set(languages_of(evidence, expression, "en")) == set(wanted.languages), name


def test_ties_go_to_the_first_and_zeros_to_nobody() -> None:
    score = np.array([[1.0, 1.0, 2.0, 1.0], [0.0, 0.0, -1.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    assert in_top(score, 0.5).tolist() == [[True, False, True, False], [False, False, False, True], [False] * 4]
    assert in_top(score, 1.0)[0].all()
    assert not in_top(score, 1e-12).any()


def test_paper_rule_leaves_out_what_harmless_prompts_need_too() -> None:
    harmful, harmless = np.array([3.0, 2.0, 1.0, 0.5]), np.array([3.0, 0.1, 0.0, 2.0])
    assert select(harmful, harmless, rule="paper", top=0.5).tolist() == [False, True, False, False]


def test_a_language_without_some_prompts_is_averaged_over_those_it_has() -> None:
    effects = np.array([[1.0], [5.0], [3.0], [7.0]])
    lacking = effects.copy()
    lacking[2:] = np.nan
    evidence = evidence_from(prompt_table(sides(2)), {("en", 0, "o"): effects, ("de", 0, "o"): lacking})
    group = next(groups(evidence, "site"))
    harmful, harmless = means(group, Samples(harmful=LABELS[:1, :4], harmless=~LABELS[:1, :4]))
    assert harmful[0, :, 0].tolist() == [2.0, 1.0]
    assert harmless[0, :, 0].tolist() == [6.0, 5.0]
    nobody = np.array([[False, False, True, False]])
    with pytest.raises(DataError, match="de has no harmful prompt"):
        means(group, Samples(harmful=nobody, harmless=~nobody))


def test_equal_effects_have_a_difference_of_exactly_zero() -> None:
    effects = np.full((10, 3), 0.1, dtype=np.float32)
    labels = np.random.default_rng(0).random((50, 10)) < 0.4
    labels[:, :2] = [True, False]
    group = next(groups(evidence_from(prompt_table(sides(5)), {("en", 0, "o"): effects}), "site"))
    harmful, harmless = means(group, Samples(harmful=labels, harmless=~labels))
    assert (harmful == harmless).all()


def test_effects_that_are_partly_nan_or_misshapen_are_refused() -> None:
    broken = np.ones((4, 2))
    broken[0, 1] = np.nan
    with pytest.raises(ModelError, match="NaN"):
        next(groups(evidence_from(prompt_table(sides(2)), {("en", 0, "o"): broken}), "site"))
    with pytest.raises(DataError, match=r"shape \(3, 2\)"):
        next(groups(evidence_from(prompt_table(sides(2)), {("en", 0, "o"): np.ones((3, 2))}), "site"))


def test_widths_are_those_of_the_places() -> None:
    effects = {("en", 0, "o"): np.ones((4, 2)), ("en", 0, "ffn"): np.ones((4, 5))}
    evidence = evidence_from(prompt_table(sides(2)), effects)
    assert widths(evidence) == {(0, "ffn"): 5, (0, "o"): 2}


def test_prompts_that_are_no_prompts_are_refused() -> None:
    table = prompt_table(sides(2))
    for wrong, words in (
        (table.drop("cluster"), "lack the columns"),
        (table.with_columns(harmful=pl.lit(1)), "true or false"),
        (pl.concat([table, table[:1]]), "twice"),
        (table.filter(pl.col("harmful")), "one label only"),
    ):
        with pytest.raises(DataError, match=words):
            evidence_from(wrong, {("en", 0, "o"): np.ones((wrong.height, 1))})


def test_sets_without_a_null_say_why() -> None:
    ms = SafetyNeurons(prompts)
    assert no_null(Shared(ms).union() - ms.of("en")) is None
    assert no_null(SafetyNeurons(prompts, placebo=True)) is None
    cases = {
        "random itself": ms - RandomLike(ms),
        "a file": NeuronFile("x.csv"),
        "strongest": ms.without_strongest(),
        "several different": ms - SafetyNeurons(prompts, rule="harmful"),
        "error bound": SafetyNeurons(prompts, stable=0.9),
        "a test itself": SafetyNeurons(prompts, fdr=0.05),
    }
    evidence = evidence_from(prompt_table(sides(2)), {("en", 0, "o"): np.ones((4, 2))})
    for words, expression in cases.items():
        assert words in str(no_null(expression))
        with pytest.raises(RecipeError, match=words):
            languages_of(evidence, expression, "en")


def test_wrong_expressions_are_refused_as_on_frames() -> None:
    ms = SafetyNeurons(prompts)
    evidence = evidence_from(prompt_table(sides(2)), {(one, 0, "o"): np.ones((4, 2)) for one in ("en", "de")})
    for expression, words in (
        (Shared(ms, anchor="fr"), "not a language of the set"),
        (Shared(ms, at_least=3), "at_least=3"),
        (ms.of("fr"), "no language 'fr'"),
        (ms.union().only(languages=["en"]), "language-free"),
        (ms.only(languages=["en"]) & ms, "do not combine"),
    ):
        with pytest.raises(RecipeError, match=words):
            languages_of(evidence, expression, "en")
    with pytest.raises(RecipeError, match="needs an anchor"):
        languages_of(evidence, Shared(ms), None)


def test_the_package_needs_no_model_and_imports_scipy_only_where_used() -> None:
    code = "import sys, ssn_probe.stats.nulls; print([name for name in ('torch', 'scipy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
