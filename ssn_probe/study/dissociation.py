"""Two sets and two behaviours: does each set carry its own behaviour, and not the other's?

One arm silences neurons that carry refusal, another those that carry the language of the response. Both behaviours are
read off the same responses to the same harmful prompts: a response refuses or not, in whatever language, and it is in
its prompt's language or not. A double dissociation is a claim about both contrasts at once, so its p is the larger of
the two (intersection-union test: Berger 1982, Technometrics 24:295). The interaction is their sum, which a strong
effect on one behaviour can move alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import polars as pl

from ssn_probe.spec import Each, InLanguage, RandomLike, Recipe, SafetyNeurons, Suppress
from ssn_probe.spec.node import walk
from ssn_probe.stats import Estimate
from ssn_probe.stats.interval_test import interval_p
from ssn_probe.study.arms import TESTED
from ssn_probe.study.summary import (
    AVERAGE,
    HARMFUL,
    IN_LANGUAGE,
    JUDGED,
    LANGUAGE_LOG_ODDS,
    LOG_ODDS,
    in_language,
    matched,
    ordered,
    paired,
)

REFUSED, INTERACTION = "refused", "interaction"
SCHEMA = {
    **dict.fromkeys(("behaviour", "language", "carries", "other"), pl.String),
    **dict.fromkeys(("difference", "low", "high"), pl.Float64),
    **dict.fromkeys(("n", "clusters"), pl.Int64),
    "p": pl.Float64,
}
FATE = {"arm": pl.String, "verdict": pl.String, "n": pl.Int64}


@dataclass(frozen=True, kw_only=True, eq=False)
class Dissociation:
    """`safety` and `language` name the arms.

    `contrasts`: how much lower each behaviour is where the set that carries it is silenced than where the other is, per
    language and on the average. `wrong_language`: the verdicts of responses to harmful prompts that are in another
    language than their prompt, under the untouched model and both arms.
    """

    safety: str
    language: str
    contrasts: pl.DataFrame
    wrong_language: pl.DataFrame


def dissociated(recipe: Recipe) -> tuple[str, str] | None:
    """The arms that silence what carries refusal, and what carries the language; None unless there is one of each."""
    found: dict[bool, list[str]] = {False: [], True: []}
    for name, node in recipe.arms.items():
        inside = list(walk(node.neurons))
        kinds = {inner.scored_by.reads_language for inner in inside if isinstance(inner, SafetyNeurons)}
        drawn = any(isinstance(inner, RandomLike) for inner in inside)
        if len(kinds) == 1 and not drawn and isinstance(node, Suppress) and not isinstance(node.neurons, Each):
            found[kinds.pop()].append(name)
    asked = any(isinstance(measure, InLanguage) for measure in recipe.measures)
    return (found[False][0], found[True][0]) if asked and all(len(names) == 1 for names in found.values()) else None


def dissociation(
    recipe: Recipe,
    samples: pl.DataFrame,
    log_odds: pl.DataFrame | None,
    language_odds: pl.DataFrame | None,
    anchor: str | None,
) -> Dissociation | None:
    """What two sets do to two behaviours; None for a recipe without them."""
    arms = dissociated(recipe)
    if arms is None:
        return None
    safety, language = arms
    rows = []
    for behaviour, values, carries in _behaviours(samples, log_odds, language_odds):
        own, other = (safety, language) if carries == REFUSED else (language, safety)
        named = {"behaviour": behaviour, "carries": own, "other": other}
        rows += [named | row for row in _contrasts(values, own, other, anchor)]
    return Dissociation(
        safety=safety,
        language=language,
        contrasts=pl.DataFrame(rows, schema=SCHEMA, orient="row"),
        wrong_language=_wrong_language(samples, arms),
    )


def _behaviours(
    samples: pl.DataFrame, log_odds: pl.DataFrame | None, language_odds: pl.DataFrame | None
) -> Iterator[tuple[str, pl.DataFrame, str]]:
    """A behaviour, its values as `y`, and which one of the two it is; the interaction is read as the language is."""
    rows = samples.filter(HARMFUL & JUDGED)
    refused, spoken = (pl.col("verdict") == "refused").cast(pl.Float64), pl.col(IN_LANGUAGE).cast(pl.Float64)
    yield REFUSED, rows.with_columns(y=refused), REFUSED
    yield IN_LANGUAGE, rows.with_columns(y=spoken), IN_LANGUAGE
    yield INTERACTION, rows.with_columns(y=spoken - refused), IN_LANGUAGE
    for name, read, carries in ((LOG_ODDS, log_odds, REFUSED), (LANGUAGE_LOG_ODDS, language_odds, IN_LANGUAGE)):
        if read is not None:
            yield name, read.with_columns(y=pl.col("log_odds").cast(pl.Float64)), carries


def _contrasts(values: pl.DataFrame, own: str, other: str, anchor: str | None) -> Iterator[dict]:
    """How much higher `y` is where the other set is silenced: per language, the average last."""
    tested = values.filter(role=TESTED)
    both = matched(tested.filter(arm=other), tested.filter(arm=own)).drop_nulls(("y", "y_other"))
    for language in [*ordered(both, anchor), AVERAGE]:
        rows = in_language(both, language, [] if anchor is None else [anchor])
        if rows.is_empty():
            continue
        estimate = partial(_estimate, rows, language == AVERAGE)
        found = estimate(0.95)
        p = interval_p(estimate) if language == AVERAGE else None
        sizes = {"n": found.n, "clusters": found.clusters}
        yield {"language": language, "difference": found.value, "low": found.low, "high": found.high, **sizes, "p": p}


def _estimate(rows: pl.DataFrame, average: bool, confidence: float) -> Estimate:
    found = paired(rows, average, confidence)
    assert found is not None
    return found


def _wrong_language(samples: pl.DataFrame, arms: tuple[str, str]) -> pl.DataFrame:
    rows = samples.filter(HARMFUL, ~pl.col(IN_LANGUAGE), pl.col("role").is_in(["baseline", TESTED]))
    counts = rows.group_by("arm", "verdict", maintain_order=True).len("n").with_columns(pl.col("n").cast(pl.Int64))
    return counts.filter(pl.col("arm").is_in(["baseline", *arms])).select(*FATE)
