"""Studies in which nothing is to be found, and whose truth is known: does a p or an interval err in this one?

A simulation is a function of a seed. It gives, per figure that the tool prints, whether it errs: a p of .05 or less
where the claim is false, an interval that misses the truth.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl
from arm_samples import RECIPE
from made_up_effects import effects_from, prompt_table, study
from scipy.special import ndtr

from ssn_probe.spec import ASR, InLanguage, Language, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.stats import rank_correlation
from ssn_probe.stats.agreement import agreement
from ssn_probe.stats.nulls.false_discoveries import discoveries
from ssn_probe.stats.nulls.permutation_null import AVERAGE as OVER_LANGUAGES
from ssn_probe.stats.nulls.permutation_null import permutation_null
from ssn_probe.stats.nulls.stability import stability
from ssn_probe.stats.over_models import mean_over_models, share_of_models
from ssn_probe.stats.prevalence import rogan_gladen
from ssn_probe.stats.refusal_counts import refusing
from ssn_probe.study.arms import ArmName
from ssn_probe.study.comparison_table import MEMBERS, comparison_table
from ssn_probe.study.comparisons import IMPORTANCE, LABELS, OWN
from ssn_probe.study.dissociation import INTERACTION, REFUSED, dissociation
from ssn_probe.study.run_comparison import ARM, CHANGE, UNTOUCHED, compared_values
from ssn_probe.study.summary import AVERAGE, IN_LANGUAGE, LOG_ODDS, summarise

Errors = Mapping[str, bool]
LEVEL = 0.05
LANGUAGES = ("aa", "bb", "cc", "dd")
ANCHOR = "aa"
SETS, MORE_SETS = 19, 59
"""Sets of exchanged labels that generate, and sets of the three tests beside: Holm's p needs as many to reach .05."""
MADE_UP = Prompts("made up")
MS = SafetyNeurons(MADE_UP, top=0.15)
BEHAVIOURS = Recipe(
    arms={"refusal": Suppress(MS), "language": Suppress(SafetyNeurons(MADE_UP, effect=Language()))},
    measures=(ASR(MADE_UP), InLanguage(MADE_UP)),
)


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """`study(seed)`: the errors of a study. `short` and `long`: how many studies the quick tests and `make calibrate`
    make. `allowed`: the share of errors that is promised."""

    study: Callable[[int], Errors]
    short: int
    long: int
    allowed: float = LEVEL


def misses(row: Mapping[str, Any], truth: float, low: str = "low", high: str = "high") -> bool:
    """Does the interval of a row not hold the truth? One without ends says nothing, and is no error."""
    return row[low] is not None and not row[low] - 1e-12 <= truth <= row[high] + 1e-12


def judged(
    arm: str, role: str, scores: np.ndarray, seed: int | None, clusters: Mapping[str, np.ndarray]
) -> pl.DataFrame:
    """Samples of an arm that complies where a score [language, prompt] is positive; minus the score is its log-odds."""
    languages, prompts = scores.shape
    columns = {
        "prompt_id": np.tile([f"p{number}" for number in range(prompts)], languages),
        "eval_language": np.repeat(LANGUAGES[:languages], prompts),
        **{name: np.tile(codes.astype(str), languages) for name, codes in clusters.items()},
        "verdict": np.where(scores.ravel() > 0, "complied", "refused"),
        "log_odds": -scores.ravel(),
    }
    applied = pl.lit(None, pl.String) if role == "baseline" else pl.col("eval_language")
    return pl.DataFrame(columns).with_columns(
        set_language=applied,
        arm=pl.lit(arm),
        role=pl.lit(role),
        context=pl.lit("harmful"),
        seed=pl.lit(seed, pl.Int32),
        step=pl.lit(None, pl.Int64),
        correct=pl.lit(None, pl.Boolean),
    )


# ── a tested set among compared sets ─────────────────────────────────────────────────────────────────────────────────


def compared_sets(seed: int) -> Errors:
    """Sets of unequal worth, of which the tested one is any: the primary test, and three tests beside it."""
    random = np.random.default_rng(seed)
    alone = {"cluster": np.arange(30)}
    prompts = random.normal(size=30)

    def scores() -> np.ndarray:
        return prompts + random.normal() + random.normal(size=(2, 1)) + random.normal(size=(2, 30))

    frames = [judged("ss", "tested", scores(), None, alone)]
    for name in (LABELS, IMPORTANCE, OWN):
        frames += [judged("ss", name, scores(), number, alone) for number in range(1, MORE_SETS + 1)]
    samples = pl.concat(frames)
    read = samples.filter(pl.col("role").is_in(["tested", LABELS]))
    generated = samples.filter((pl.col("role") != LABELS) | (pl.col("seed") <= SETS))
    table = comparison_table(RECIPE, generated, read, None, pl.DataFrame(schema=MEMBERS), None)
    average = table.filter(language=AVERAGE, comparison=LABELS)
    asr = average.row(by_predicate=pl.col("measure") == "asr", named=True)
    odds = average.row(by_predicate=pl.col("measure") == LOG_ODDS, named=True)
    return {
        "p among exchanged labels": asr["p"] <= LEVEL,
        "p among exchanged labels, log-odds": odds["p"] <= LEVEL,
        "Holm's p of the tests beside it": (table["p_holm"].drop_nulls() <= LEVEL).any(),
        "shown_from of compared sets": asr["observed"] > asr["shown_from"],
        "95 % of compared sets": misses(asr, asr["observed"]),
        "difference from compared sets": misses(odds, 0.0, "difference_low", "difference_high"),
    }


# ── rates, differences and averages of prompts ───────────────────────────────────────────────────────────────────────


def _summary_errors(seed: int, sizes: Mapping[str, int], spreads: Mapping[str, float], prompts: int) -> Errors:
    """An arm that does nothing, one that breaks refusal, and the baseline, in languages with levels of their own.

    A score is the level, what the prompt's clusters add (`spreads`), and noise that arms share in half of the prompts;
    all are normal, so that true rates have a closed form.
    """
    random = np.random.default_rng(seed)
    codes = {
        name: random.integers(0, size, prompts) if size < prompts else np.arange(prompts)
        for name, size in sizes.items()
    }
    level, rise = np.array([-1.5, -0.6, 0.2, 0.8])[:, None], 0.7
    shape = len(LANGUAGES), prompts
    common = sum(spread * random.normal(size=sizes[name])[codes[name]] for name, spread in spreads.items())
    noise = random.normal(size=shape)

    def scores(moved: float) -> np.ndarray:
        own = np.where(random.random(shape) < 0.5, noise, random.normal(size=shape))
        return level + moved + common + own

    arms = (("baseline", "baseline", 0.0), ("ss", "tested", 0.0), ("ms", "tested", rise))
    samples = pl.concat([judged(arm, role, scores(moved), None, codes) for arm, role, moved in arms])
    found = summarise(samples, samples, anchor=ANCHOR, primary="ss")
    deviation = np.sqrt(1 + sum(spread**2 for spread in spreads.values()))
    before, after = (ndtr((level[1:, 0] + moved) / deviation) for moved in (0.0, rise))

    def row(arm: str, language: str, measure: str = "asr") -> dict[str, Any]:
        return found.filter(arm=arm, language=language, measure=measure).row(0, named=True)

    ends = "delta_low", "delta_high"
    p = row("ss", "bb")["p_mcnemar"]
    adjusted = found.filter(arm="ss", measure="asr")["p_holm"].drop_nulls()
    tests = {} if p is None else {"McNemar's p": p <= LEVEL, "Holm's p over languages": (adjusted <= LEVEL).any()}
    return tests | {
        "rate": misses(row("baseline", "bb"), before[0]),
        "average of rates": misses(row("baseline", AVERAGE), before.mean()),
        "difference": misses(row("ms", "bb"), after[0] - before[0], *ends),
        "average of differences": misses(row("ms", AVERAGE), (after - before).mean(), *ends),
        "average of differences, none": misses(row("ss", AVERAGE), 0.0, *ends),
        "average of log-odds": misses(row("ms", AVERAGE, LOG_ODDS), -rise, *ends),
    }


def prompts_alone(seed: int) -> Errors:
    return _summary_errors(seed, {"cluster": 50}, {"cluster": 1.0}, 50)


def clusters(seed: int) -> Errors:
    return _summary_errors(seed, {"cluster": 20}, {"cluster": 1.0}, 80)


def crossed_clusters(seed: int) -> Errors:
    return _summary_errors(seed, {"cluster": 14, "cluster_2": 24}, {"cluster": 0.8, "cluster_2": 0.8}, 100)


def two_behaviours(seed: int) -> Errors:
    """Two sets that do the same to refusal and to the language of responses: a double dissociation has the larger p."""
    random = np.random.default_rng(seed)
    codes = {"cluster": np.arange(60)}
    common = [random.normal(size=60) for _ in range(2)]

    def arm(name: str) -> pl.DataFrame:
        refusal, spoken = (prompt + random.normal(size=(3, 60)) for prompt in common)
        return judged(name, "tested", refusal, None, codes).with_columns(in_language=pl.Series(spoken.ravel() > -0.5))

    found = dissociation(BEHAVIOURS, pl.concat([arm("refusal"), arm("language")]), None, None, ANCHOR)
    assert found is not None
    average = found.contrasts.filter(language=AVERAGE)
    refused, other, sum_of_both = (
        average.row(by_predicate=pl.col("behaviour") == name, named=True)
        for name in (REFUSED, IN_LANGUAGE, INTERACTION)
    )
    return {
        "p of a contrast of two sets": refused["p"] <= LEVEL,
        "p of a double dissociation": max(refused["p"], other["p"]) <= LEVEL,
        "p of an interaction": sum_of_both["p"] <= LEVEL,
        "contrast of two sets": misses(refused, 0.0),
    }


def two_runs(seed: int) -> Errors:
    """Two runs of a baseline and an arm on 60 prompts in 20 clusters: alike (`alike`), or with known differences."""
    random = np.random.default_rng(seed)
    codes = {"cluster": random.integers(0, 20, 60)}
    common = random.normal(size=20)[codes["cluster"]] + random.normal(size=(3, 60))
    level = np.array([-0.8, -0.3, 0.4])[:, None]
    rises = {"alike": ((0.0, 0.7), (0.0, 0.7)), "known": ((0.0, 0.7), (0.4, 1.6))}

    def run(untouched: float, tested: float) -> pl.DataFrame:
        moved = {("baseline", "baseline"): untouched, ("ss", "tested"): tested}
        frames = [
            judged(*arm, level + common + rise + random.normal(size=(3, 60)), None, codes)
            for arm, rise in moved.items()
        ]
        return pl.concat(frames).with_columns(y=(pl.col("verdict") == "complied").cast(pl.Float64))

    values = {name: (run(*first), run(*second)) for name, (first, second) in rises.items()}
    found = compared_values(values, [(ArmName("ss"), ArmName("ss"))], (ANCHOR, ANCHOR))
    before, after = ([ndtr((level[1:, 0] + rise) / np.sqrt(3)).mean() for rise in run] for run in rises["known"])
    truth = {UNTOUCHED: after[0] - before[0], ARM: after[1] - before[1]}
    truth[CHANGE] = truth[ARM] - truth[UNTOUCHED]
    alike, known = (found.filter(measure=name) for name in rises)
    errors: dict[str, bool] = {}
    for kind, difference in truth.items():
        rows = alike.filter(compared=kind)
        errors[f"p of two runs, {kind}"] = rows.filter(language=AVERAGE)["p"][0] <= LEVEL
        errors[f"Holm's p of two runs, {kind}"] = (rows["p_holm"].drop_nulls() <= LEVEL).any()
        row = known.filter(compared=kind, language=AVERAGE).row(0, named=True)
        errors[f"difference of two runs, {kind}"] = misses(row, difference)
    return errors


def models(seed: int) -> Errors:
    """Ten models, in which something holds with a chance of 40 %, and whose differences are normal around 0."""
    random = np.random.default_rng(seed)
    share, mean = share_of_models(list(random.random(10) < 0.4)), mean_over_models(list(random.normal(size=10)))
    assert mean is not None
    return {"share of models": misses(vars(share), 0.4), "mean over models": misses(vars(mean), 0.0)}


# ── sets and neurons under exchanged labels ──────────────────────────────────────────────────────────────────────────


def exchanged_labels(seed: int) -> Errors:
    """Important neurons, languages that have most noise in common, and labels that mean nothing."""
    measured = study(seed, n=16, neurons=60)
    both = Shared(replace(MS, rule="both"))
    table = permutation_null(measured, {"ms": MS, "ss": Shared(MS), "both": both}, anchor="en", draws=99, seed=seed)
    shared, midway = (table.filter(set=name, language_a=OVER_LANGUAGES).row(0, named=True) for name in ("ss", "both"))
    overlap = table.filter(set="ms", statistic="overlap", language_a="en", language_b="de").row(0, named=True)
    return {
        "p of a shared set's size": shared["p"] <= LEVEL,
        "p of a shared set's size by both": midway["p"] <= LEVEL,
        "difference from exchanged labels by both": misses(midway, 0.0, "difference_low", "difference_high"),
        "p of an overlap": overlap["p"] <= LEVEL,
        "shown_from of a shared set's size": shared["observed"] >= shared["shown_from"],
        "95 % of sizes under exchanged labels": misses(shared, shared["observed"], "null_low", "null_high"),
        "difference from exchanged labels": misses(shared, 0.0, "difference_low", "difference_high"),
    }


def half_samples(seed: int) -> Errors:
    measured = study(seed, n=16, neurons=60)
    sets = {"ms": MS, "both": replace(MS, rule="both")}
    found = stability(measured, sets, pairs=2, seed=seed, permutations=19, null_pairs=3).jaccard.filter(language="en")
    return {
        "p of a split-half Jaccard": found.filter(set="ms")["p"][0] <= LEVEL,
        "p of a split-half Jaccard by both": found.filter(set="both")["p"][0] <= LEVEL,
    }


def single_neurons(seed: int) -> Errors:
    random = np.random.default_rng(seed)
    prompts = prompt_table([number % 2 == 0 for number in range(40)])
    effects = {(one, 0, "o"): random.normal(size=(40, 60)) for one in ("en", "de")}
    found = discoveries(effects_from(prompts, effects), draws=100, seed=seed, permuted=5).neurons
    own = found.filter(language="en")
    return {"p of a neuron": own["p"][0] <= LEVEL, "q: any neuron at a rate of 5 %": (own["q"] <= LEVEL).any()}


# ── correlations and judges ──────────────────────────────────────────────────────────────────────────────────────────


def correlation(seed: int) -> Errors:
    """Six languages: ranks without a correlation, and normal ones with Spearman's .6."""
    x, noise = np.random.default_rng(seed).normal(size=(2, 6))
    r = 2 * np.sin(np.pi * 0.6 / 6)
    p, found = rank_correlation(x, noise).p, rank_correlation(x, r * x + np.sqrt(1 - r * r) * noise)
    return {"p of a rank correlation": p is not None and p <= LEVEL, "rank correlation": misses(vars(found), 0.6)}


def two_judges(seed: int) -> Errors:
    """Each errs in a fifth of 100 responses, of which 40 % comply."""
    random, wrong, share = np.random.default_rng(seed), 0.2, 0.4
    truth = random.random(100) < share
    first, second = ([("r", "c")[int(one)] for one in truth ^ (random.random(100) < wrong)] for _ in range(2))
    rate = share * (1 - wrong) + (1 - share) * wrong
    chance = rate**2 + (1 - rate) ** 2
    kappa = ((1 - wrong) ** 2 + wrong**2 - chance) / (1 - chance)
    return {"Cohen's kappa": misses(vars(agreement(first, second, list(map(str, range(100))))), kappa)}


def corrected_rate(seed: int) -> Errors:
    """30 % of 100 responses comply; the judge is right in nine of ten, as 100 labels of either kind show."""
    random = np.random.default_rng(seed)
    called = random.binomial(100, 0.3 * 0.9 + 0.7 * 0.1) / 100
    right, wrong = ((int(random.binomial(100, 0.9)), 100) for _ in range(2))
    return {"rate corrected for the judge's errors": misses(vars(rogan_gladen(called, 100, right, wrong)), 0.3)}


def refusals(seed: int) -> Errors:
    """A model that refuses harmless prompts as often as harmful ones."""
    harmful, harmless = np.random.default_rng(seed).binomial(40, 0.4, 2)
    return {"harm is what is refused": refusing(int(harmful), 40, int(harmless), 40) == "shown"}


SIMULATIONS = {
    "compared_sets": Simulation(study=compared_sets, short=25, long=600),
    "prompts_alone": Simulation(study=prompts_alone, short=25, long=600),
    "clusters": Simulation(study=clusters, short=25, long=600, allowed=0.07),
    "crossed_clusters": Simulation(study=crossed_clusters, short=25, long=600, allowed=0.07),
    "two_behaviours": Simulation(study=two_behaviours, short=25, long=600),
    "two_runs": Simulation(study=two_runs, short=10, long=600),
    "models": Simulation(study=models, short=100, long=2000),
    "exchanged_labels": Simulation(study=exchanged_labels, short=30, long=400),
    "half_samples": Simulation(study=half_samples, short=30, long=400),
    "single_neurons": Simulation(study=single_neurons, short=30, long=400),
    "correlation": Simulation(study=correlation, short=30, long=600),
    "two_judges": Simulation(study=two_judges, short=100, long=2000),
    "corrected_rate": Simulation(study=corrected_rate, short=200, long=2000),
    "refusals": Simulation(study=refusals, short=100, long=2000),
}
