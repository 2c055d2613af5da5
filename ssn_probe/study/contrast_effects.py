"""The effects of single prompts behind the means that choose a set, and which of those prompts are exchangeable.

Means choose neurons; nulls and stability need the prompts behind them. Effects are read place by place from the scores
that `importance` stores, so that no more than one (layer, site) is in memory at a time.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Any

import numpy as np
import polars as pl

from ssn_probe.data.clusters import cluster_columns
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.spec import SafetyNeurons
from ssn_probe.spec.node import digest
from ssn_probe.stats.nulls.label_exchange import can_exchange
from ssn_probe.stats.nulls.parallel_units import known_parallel
from ssn_probe.stats.nulls.placebo_splits import length_classes
from ssn_probe.stats.nulls.prompt_effects import PromptEffects
from ssn_probe.study.importance import CONTRASTED, distinct_sites, effects_at, importance, score_inputs
from ssn_probe.study.measurements import tokens_of
from ssn_probe.study.relabelled_effects import under
from ssn_probe.study.workbench import Workbench

LENGTH_CLASSES = 4
KEPT_BYTES = 2**27
"""What all effects of a contrast may take to be kept in memory once they are read; of larger ones, none is."""
STRATUM = 32
"""About so many prompts of a topic are in a class of length, of which there are four at most."""


def prompt_effects(bench: Workbench, node: SafetyNeurons) -> PromptEffects:
    """Per-prompt effects of a node's contrast, under its labels. Raises DataError where there are no such labels."""
    return bench.remember(("prompt effects", contrast(node)), lambda: _prompt_effects(bench, node))


def contrast(node: SafetyNeurons) -> SafetyNeurons:
    """The node without the fields that only turn effects into a set; verified effects depend on its threshold."""
    if node.verify is not None:
        return replace(node, stable=None)
    return replace(node, rule="difference", top=None, pool="site", stable=None, fdr=None)


def _prompt_effects(bench: Workbench, node: SafetyNeurons) -> PromptEffects:
    if node.labels is not None:
        return under(node.labels, prompt_effects(bench, replace(node, labels=None)))
    importance(bench, node)
    data = bench.data[node.prompts]
    known = _prompts(bench, data)
    for note in _notes(known, data.name):
        bench.warn(note)
    sites = distinct_sites(bench, node)
    return PromptEffects(
        prompts=known,
        languages=data.languages,
        places=tuple((layer, site) for layer in range(bench.subject.n_layers) for site in sites),
        read=_reader(bench, node, data, known),
        key=_key(bench, node),
    )


def _notes(prompts: pl.DataFrame, name: str) -> Iterator[str]:
    """What no exchange of labels and no placebo can show with these prompts."""
    found = apart(prompts)
    if "source" in found:
        yield (
            f"{name}: harmful and harmless prompts come from different sources: what a set finds, what its null "
            "rejects and what it does more than its placebo may be a difference of sources, and no permutation can "
            "distinguish the two"
        )
    if "topic" in found:
        yield (
            f"{name}: harmful and harmless prompts share too few topics to exchange their labels within them: labels "
            "are exchanged within classes of length alone, and what the null rejects may be a difference of topics"
        )


def _key(bench: Workbench, node: SafetyNeurons) -> str:
    """The key of the effects and of the labels that contrast them."""
    data = bench.data[node.prompts]
    sides = product(data.languages, CONTRASTED)
    scores = [digest(score_inputs(bench, node, language, context)) for language, context in sides]
    return digest({"scores": scores, "data": data.digest})


def _prompts(bench: Workbench, data: PromptSet) -> pl.DataFrame:
    """One row per prompt id of the contrast, for all its languages; exchangeable prompts have one `stratum`.

    `parallel`: are its translations known (`known_parallel`)? `spoken`: the languages of the id.
    """
    rows = pl.concat([data.select("identify", context) for context in CONTRASTED])
    first = rows.unique("prompt_id", keep="first", maintain_order=True)
    lengths = [len(tokens) for tokens in tokens_of(bench, _in_anchor(first, rows, data))]
    harmful = (pl.col("context") == "harmful").alias("harmful")
    frame = first.select("prompt_id", harmful, *cluster_columns(first), "pair_id", "topic", "source")
    frame = frame.with_columns(parallel=pl.Series(known_parallel(frame, rows)), tokens=pl.Series(lengths))
    languages = rows.group_by("prompt_id").agg(spoken=pl.col("language").unique().sort().str.join(" "))
    frame = frame.join(languages, on="prompt_id", how="left", maintain_order="left")
    topics = frame["topic"].fill_null("").n_unique()
    return in_strata(frame.with_columns(within=_within(frame), within_topic=_within(frame, topics)))


def _within(frame: pl.DataFrame, topics: int = 1) -> pl.Series:
    """The class of length of every prompt, with its source where that does not tell the label.

    There are so few classes that some 32 prompts of a topic are in one: where strata are small, one of the labels has
    most prompts of many a stratum by chance, and exchanged labels would mostly be the observed ones.
    """
    classes = min(LENGTH_CLASSES, max(1, frame.height // (topics * STRATUM)))
    length = pl.Series(length_classes(frame["tokens"].to_numpy().astype(float), classes)).cast(pl.String)
    source = [frame["source"].fill_null("")] if _mixed(frame) else []
    return pl.select(pl.concat_str([length, *source], separator=" | ")).to_series()


def in_strata(prompts: pl.DataFrame) -> pl.DataFrame:
    """The prompts with a `stratum`: their topic and what they are exchanged `within`, or the latter alone.

    The latter where harmful and harmless prompts have so few topics in common that no null could be drawn.
    """
    topics = pl.col("topic").fill_null("")
    within = "within_topic" if "within_topic" in prompts.columns else "within"
    by_topic = prompts.with_columns(stratum=pl.concat_str(topics, within, separator=" | "))
    if prompts["topic"].drop_nulls().is_empty() or can_exchange(by_topic):
        return by_topic
    by_length = prompts.with_columns(stratum="within")
    return by_length if can_exchange(by_length) else by_topic


def apart(prompts: pl.DataFrame) -> tuple[str, ...]:
    """What distinguishes harmful from harmless prompts beside their label, so that no exchange can tell them apart."""
    harmless = prompts.filter(~pl.col("harmful"))
    if prompts["harmful"].all() or harmless.is_empty() or "within" not in prompts.columns:
        return ()
    topics = ["topic"] * bool((prompts["stratum"] == prompts["within"]).all())
    return (*([] if _mixed(prompts) else ["source"]), *topics)


def _in_anchor(first: pl.DataFrame, rows: pl.DataFrame, data: PromptSet) -> pl.DataFrame:
    """The prompts in the anchor language where they are in it, so that their lengths compare."""
    anchor = data.anchor or data.languages[0]
    spoken = rows.filter(pl.col("language") == anchor).select("prompt_id", text="text")
    joined = first.select("prompt_id", other="text").join(spoken, on="prompt_id", how="left", maintain_order="left")
    return joined.select(text=pl.coalesce("text", "other"))


def _mixed(frame: pl.DataFrame) -> bool:
    """Is there a source with both labels? Otherwise label and source cannot be distinguished."""
    return bool(frame.group_by("source").agg(pl.col("harmful").n_unique() > 1)["harmful"].any())


def _reader(
    bench: Workbench, node: SafetyNeurons, data: PromptSet, prompts: pl.DataFrame
) -> Callable[[str, int, str], np.ndarray]:
    """A function that reads the effects at a place in a language; a row is NaN where the language lacks the prompt."""
    ids = list(prompts["prompt_id"])

    @cache
    def rows_of(language: str) -> Mapping[str, np.ndarray]:
        places = {}
        for context in CONTRASTED:
            found = list(data.select("identify", context, language)["prompt_id"])
            where = {prompt: row for row, prompt in enumerate(found)}
            places[context] = np.array([where.get(prompt, -1) for prompt in ids])
        return places

    def read(language: str, layer: int, site: str) -> np.ndarray:
        effects = np.full((len(ids), bench.widths()[layer, site]), np.nan, dtype=np.float32)
        for context, rows in rows_of(language).items():
            if (rows >= 0).any():
                effects[rows >= 0] = effects_at(bench, node, language, context, layer, site)[rows[rows >= 0]]
        effects.flags.writeable = False
        return effects

    # Nulls, half-samples and sets under other labels read all effects a dozen times.
    places = product(range(bench.subject.n_layers), distinct_sites(bench, node))
    size = 4 * len(ids) * len(data.languages) * sum(bench.widths()[place] for place in places)
    return _kept(bench, read) if size <= KEPT_BYTES else read


def _kept(bench: Workbench, read: Callable[[str, int, str], np.ndarray]) -> Callable[[str, int, str], np.ndarray]:
    """A function that keeps what it has read, until effects of another contrast are."""
    kept: dict[Any, Any] = bench.remember(("kept effects",), dict)

    def known(*place: Any) -> np.ndarray:
        if kept.get("read") is not read:
            kept.clear()
            kept["read"] = read
        if place not in kept:
            kept[place] = read(*place)
        return kept[place]

    return known
