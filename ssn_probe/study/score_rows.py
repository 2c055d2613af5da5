"""Effects of every neuron on every prompt as rows of a table, batch by batch: what importances are the means of.

One row is one neuron on one prompt, since rows can be filtered, joined with `neurons.parquet` and averaged without a
word about layers' widths. Rows cost next to nothing beyond their effect: all other columns repeat, and parquet writes
what repeats once.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

from ssn_probe.errors import ResultError, nearest
from ssn_probe.runs.cache import NotCached
from ssn_probe.spec import Recipe, SafetyNeurons
from ssn_probe.study.importance import CONTRASTED, distinct_sites, score_inputs, scored, scored_as, unverified
from ssn_probe.study.pipeline import named_sets
from ssn_probe.study.resolve import choosers
from ssn_probe.study.workbench import Workbench
from ssn_probe.tracing.batching import Part

COLUMNS = {
    "language": pl.String,
    "context": pl.String,
    "prompt_id": pl.String,
    "layer": pl.Int32,
    "site": pl.String,
    "index": pl.Int32,
    "effect": pl.Float32,
}
"""Columns of the table; neurons are named as in `neurons.parquet`."""
ROWS = 2**20
"""Rows of a frame, at most, if a layer and site has fewer neurons."""


def scored_set(recipe: Recipe, name: str | None = None) -> SafetyNeurons:
    """The node whose effects chose the neurons of a named set; without a name the only one that the recipe has.

    Nodes that differ in what they make of the same effects are one.

    Raises:
        ResultError: no such set, one that no effects of the untouched model chose, or several.
    """
    sets = {one: list(choosers(expression)) for one, expression in named_sets(recipe).items()}
    if name is not None and name not in sets:
        raise ResultError(f"the run has no set {name!r}", nearest(name, list(sets)))
    nodes = [node for one, found in sets.items() if name in (None, one) for node in found]
    different = {(node.prompts, node.sites, *scored_as(node)): node for node in nodes}
    if not different:
        what = "the run has no set" if name is None else f"the set {name!r} is none"
        raise ResultError(f"{what} that effects of the untouched model chose", "There are no scores to export.")
    if len(different) > 1:
        what = "the run" if name is None else f"the set {name!r}"
        own = [one for one, found in sets.items() if len({(node.prompts, *scored_as(node)) for node in found}) == 1]
        hint = f"Name a set with --set: {', '.join(own)}." if own else "Each has its own prompts or its own effect."
        raise ResultError(f"{what} reads {len(different)} different scores", hint)
    return next(iter(different.values()))


def effect_frames(
    bench: Workbench, node: SafetyNeurons, languages: Sequence[str], contexts: Sequence[str] = CONTRASTED
) -> Iterator[pl.DataFrame]:
    """Frames with `COLUMNS`, of at most `ROWS` rows or one prompt, layer and site: all there are, in no fixed order.

    Exact effects stand in the place of estimates, where neurons were verified.

    Raises:
        NotCached: nothing may be computed, and not all is there.
    """
    sites = distinct_sites(bench, node)
    for language in languages:
        for context in contexts:
            ids = bench.data[node.prompts].select("identify", context, language)["prompt_id"].cast(pl.String)
            for part in _parts(bench, node, language, context, len(ids)):
                exact = _exact(bench, node, language, context, part)
                for layer in range(bench.subject.n_layers):
                    for site in sites:
                        for rows, effects in _blocks(part, layer, site, exact):
                            named = ids.gather(rows)
                            yield _frame(named, effects, language=language, context=context, layer=layer, site=site)


def check_kept(
    bench: Workbench, node: SafetyNeurons, languages: Sequence[str], contexts: Sequence[str] = CONTRASTED
) -> None:
    """Raises ResultError where the cache lacks something that `effect_frames` reads."""
    try:
        for language in languages:
            for context in contexts:
                count = bench.data[node.prompts].select("identify", context, language).height
                _parts(bench, node, language, context, count)
                if node.verify is not None:
                    scored(bench, node, language, context)
    except NotCached as missing:
        raise ResultError(
            f"the cache does not hold all of what the scores are read from ({missing.args[0]['method']})",
            "Run the recipe again, with the same model and prompts: what is missing is measured, and kept.",
        ) from missing


def _parts(bench: Workbench, node: SafetyNeurons, language: str, context: str, count: int) -> Sequence[Part]:
    with bench.shelf(score_inputs(bench, unverified(node) or node, language, context), count) as shelf:
        return shelf.parts()


def _exact(
    bench: Workbench, node: SafetyNeurons, language: str, context: str, part: Part
) -> dict[tuple[int, str], list[tuple[int, np.ndarray]]]:
    """(layer, site) → neurons that were verified there, each with its effects on the part's prompts."""
    found: dict[tuple[int, str], list[tuple[int, np.ndarray]]] = {}
    if node.verify is not None:
        own = scored(bench, node, language, context)
        for column, (layer, site, index) in enumerate(own.neurons):
            found.setdefault((layer, site), []).append((index, own.exact[list(part.rows), column]))
    return found


def _blocks(part: Part, layer: int, site: str, exact: dict) -> Iterator[tuple[list[int], np.ndarray]]:
    """Some prompts' numbers with their effects at a place, float32 [prompt, neuron]."""
    effects = part.array_at(f"values.{site}", layer).astype(np.float32)
    effects *= part.array_at(f"scale.{site}", layer)[:, None]
    for index, values in exact.get((layer, site), ()):
        effects[:, index] = values
    together = max(1, ROWS // effects.shape[1])
    for start in range(0, len(effects), together):
        yield list(part.rows[start : start + together]), effects[start : start + together]


def _frame(ids: pl.Series, effects: np.ndarray, *, layer: int, **same: str) -> pl.DataFrame:
    prompts, width = effects.shape
    index = np.tile(np.arange(width, dtype=np.int32), prompts)
    columns = {"prompt_id": ids.gather(np.repeat(np.arange(prompts), width)), "index": index, "effect": effects.ravel()}
    constant = [pl.lit(value).alias(name) for name, value in same.items()]
    return pl.DataFrame(columns).with_columns(pl.lit(layer, pl.Int32).alias("layer"), *constant).select(*COLUMNS)
