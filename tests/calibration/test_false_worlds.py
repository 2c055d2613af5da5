"""Whole runs in worlds where the claim is false: how often does a run claim it all the same?

Labels that mean nothing are drawn as the exchange draws them, so the observed ones are one draw more. At most one run
in twenty may claim that a set weakens refusal more than those of exchanged labels, and as many that more is shared.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from prompt_rows import organism_set
from rich.console import Console
from scipy.stats import binom

from ssn_probe import ASR, Prompts, Recipe, SafetyNeurons, Shared, Suppress
from ssn_probe.api.runner import Options, run_recipe
from ssn_probe.data.prompt_set import load_prompts
from ssn_probe.organism.model_folder import save
from ssn_probe.organism.variants import blank_model
from ssn_probe.report.claim import kept_claims
from ssn_probe.study.summary import AVERAGE, LOG_ODDS

LANGUAGES = ("qaa", "qab", "qac")
BROKE, SHARED = "weakens refusal more than sets found under exchanged labels do", "More is shared with the anchor"
RUNS = 20
IDENTIFY = pl.col("split") == "identify"
World = Callable[[pl.DataFrame, int], pl.DataFrame]
"""The organism's prompts, changed by a seed so that the claim is false."""


def exchanged_in_pairs(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """In every minimal pair, whether the harmful prompt is labelled so is a toss; translations go together."""
    pairs = frame.filter(IDENTIFY)["pair_id"].unique().drop_nulls().sort()
    tossed = pairs.filter(np.random.default_rng(seed).random(len(pairs)) < 0.5)
    other = pl.when(pl.col("context") == "harmful").then(pl.lit("harmless")).otherwise(pl.lit("harmful"))
    swapped = IDENTIFY & pl.col("pair_id").is_in(tossed.implode())
    return frame.with_columns(context=pl.when(swapped).then(other).otherwise("context"))


def halves_of_the_harmless(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """No identify prompt is harmful; half of them, at random, are labelled so."""
    kept = frame.filter(~IDENTIFY | (pl.col("context") == "harmless"))
    ids = kept.filter(IDENTIFY)["prompt_id"].unique().sort()
    half = ids.sample(len(ids) // 2, seed=seed)
    labelled = pl.when(IDENTIFY & pl.col("prompt_id").is_in(half.implode())).then(pl.lit("harmful"))
    alone = {name: pl.lit(None, pl.String) for name in ("cluster", "cluster_2", "pair_id")}
    return kept.with_columns(context=labelled.otherwise("context"), topic=pl.lit("one"), **alone)


def as_they_are(frame: pl.DataFrame, _seed: int) -> pl.DataFrame:
    return frame


def id_per_row(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Halves of the harmless; nothing says which prompts are translations of each other."""
    own = pl.concat_str("language", pl.lit("-"), "prompt_id")
    return halves_of_the_harmless(frame, seed).with_columns(prompt_id=own)


def random_model(folder: Path, seed: int) -> str:
    """An organism that was taught nothing."""
    save(blank_model("llama", seed), folder / f"model {seed}", {})
    return str(folder / f"model {seed}")


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What a run claims: what is shown, all verdicts, and p, None where something is not tested or not measured."""

    shown: str
    verdicts: list[str]
    p: dict[str, float | None]

    @property
    def made(self) -> dict[str, bool]:
        low = {f"p of {name} ≤ .05": p is not None and p <= 0.05 for name, p in self.p.items()}
        return {sentence: sentence in self.shown for sentence in (BROKE, SHARED)} | low


def claims(folder: Path, world: World, seed: int, *, prompts: int = 20, model: str = "organism") -> Claims:
    """A study of that many identify prompts on either side, and of a dozen harmful ones to evaluate on."""
    frame = load_prompts(Prompts("organism", languages=LANGUAGES, limit=prompts)).frame
    few = (pl.col("split") == "evaluate") & (pl.col("context") == "harmful")
    asked = frame.filter(few).filter(pl.col("prompt_id").rank("dense") <= 12)
    frame = world(pl.concat([frame.filter(IDENTIFY), asked]), seed)
    data = organism_set(folder / f"data {seed}", frame, languages=LANGUAGES)
    ms = SafetyNeurons(data, effect="local", sites=("ffn", "o"), top=0.05)
    recipe = Recipe(
        model=model,
        arms={"ss": Suppress(Shared(ms))},
        measures=(ASR(data),),
        primary="ss",
        comparisons=("labels",),
        log_odds_label_sets=19,
        permutations=99,
        half_samples=0,
        seed=seed,
    )
    found = run_recipe(recipe, Options(out=folder / "out"), Console(quiet=True))
    tables = {
        "breaking refusal": ("comparisons", {"primary": True}),
        "lowering the log-odds": ("comparisons", {"measure": LOG_ODDS, "language": AVERAGE}),
        "sharing": ("nulls", {"language_a": AVERAGE}),
    }
    p = {}
    for name, (table, rows) in tables.items():
        is_there = (found.path / f"{table}.parquet").is_file()
        listed = found.table(table).filter(**rows)["p"].to_list() if is_there else []
        p[name] = listed[0] if listed else None
    claimed = kept_claims(found.manifest())
    shown = " ".join(one.claim for one in claimed if one.verdict == "shown")
    return Claims(shown=shown, verdicts=[one.verdict for one in claimed], p=p)


FALSE: dict[str, tuple[World, Callable[[Path, int], str]]] = {
    "labels exchanged within pairs": (exchanged_in_pairs, lambda _folder, _seed: "organism"),
    "halves of the harmless prompts": (halves_of_the_harmless, lambda _folder, _seed: "organism"),
    "a random model": (exchanged_in_pairs, random_model),
    "an id for every row": (id_per_row, random_model),
}


@pytest.mark.parametrize("name", FALSE)
def test_nothing_is_claimed(name: str, tmp_path: Path) -> None:
    world, model = FALSE[name]
    found = claims(tmp_path, world, 0, model=model(tmp_path, 0))
    assert not any(found.made.values()), found
    assert set(found.verdicts) <= {"not shown", "not testable"}, found
    assert len(found.verdicts) >= 2
    assert (found.p["sharing"] is None) == (name == "an id for every row")


@pytest.mark.slow
@pytest.mark.calibration
@pytest.mark.parametrize("name", FALSE)
def test_claims_are_as_rare_as_promised(
    name: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    world, model = FALSE[name]
    made: Counter[str] = Counter()
    for seed in range(RUNS):
        made.update(claims(tmp_path, world, seed, model=model(tmp_path, seed)).made)
    for claim, count in made.items():
        record_property(f"{name}: {claim}", f"{count} of {RUNS}")
    assert max(made.values()) <= (0 if world is id_per_row else binom.ppf(0.999, RUNS, 0.05)), made


@pytest.mark.slow
@pytest.mark.calibration
def test_what_is_true_is_claimed(tmp_path: Path) -> None:
    """The worlds are such that a claim could be made: with labels as they are, and more prompts, more is shared."""
    assert SHARED in claims(tmp_path, as_they_are, 0, prompts=80).shown
