"""The per-prompt effects behind a set, read pool group by pool group, so that a single group is in memory at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssn_probe.errors import DataError, ModelError

COLUMNS = ("prompt_id", "harmful", "cluster", "pair_id", "stratum", "source")

Place = tuple[int, str]
"""A layer and a site."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptEffects:
    """The per-prompt effects behind a `SafetyNeurons` node, read place by place.

    `prompts` has one row per prompt id of the two contexts, for all its translations: `prompt_id, harmful` (bool),
    `cluster, pair_id, stratum, source` (the last three may be null). `places` are the (layer, site) of selection.
    `read(language, layer, site)` gives float32 [prompt, neuron], rows as in `prompts`; a row is NaN where the language
    lacks the prompt. `key` identifies all of it in the cache. `per_language`: labels are exchanged in each language by
    itself, so that nothing that combines languages can be tested. Raises DataError for prompts that are missing,
    repeated or without a label.
    """

    prompts: pl.DataFrame
    languages: tuple[str, ...]
    places: tuple[Place, ...]
    read: Callable[[str, int, str], np.ndarray]
    key: str = ""
    per_language: bool = False

    def __post_init__(self) -> None:
        check_prompts(self.prompts)
        if not self.languages or not self.places:
            raise DataError("the effects have no language or no place", "Give at least one language and one site.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Group:
    """The neurons that a rule ranks together, in the order that breaks ties: by layer, site and index.

    `effects`: language → float32 [prompt, neuron], 0 where `present` (language → bool [prompt]) is False.
    `layers`, `sites`, `index`: of every neuron.
    """

    effects: dict[str, np.ndarray]
    present: dict[str, np.ndarray]
    layers: np.ndarray
    sites: np.ndarray
    index: np.ndarray


def check_prompts(prompts: pl.DataFrame) -> None:
    """Raises DataError for a table that is not a list of labelled prompts."""
    missing = [name for name in COLUMNS if name not in prompts.columns]
    if missing:
        raise DataError(f"the prompts lack the columns {missing}", f"Give {', '.join(COLUMNS)}.")
    if prompts["harmful"].dtype != pl.Boolean or prompts["harmful"].null_count():
        raise DataError("some prompts have neither true nor false as `harmful`", "Label every prompt.")
    if prompts["prompt_id"].is_duplicated().any():
        raise DataError("a prompt id occurs twice among the prompts", "Give one row per id: translations share theirs.")
    if prompts["harmful"].n_unique() < 2:
        raise DataError("the prompts all have the same label", "Give harmful and harmless prompts.")


def groups(effects: PromptEffects, pool: str) -> Iterator[Group]:
    """Every pool group in turn: a (layer, site) with `pool="site"`, all sites of a layer with `"layer"`."""
    for places in pooled(effects.places, pool):
        yield read_group(effects, places)


def pooled(places: tuple[Place, ...], pool: str) -> list[list[Place]]:
    """The places of each group. Sites are in alphabetical order, as `select_neurons` sorts them, so that ties agree."""
    if pool == "site":
        return [[place] for place in sorted(places)]
    layers = sorted({layer for layer, _ in places})
    return [[place for place in sorted(places) if place[0] == layer] for layer in layers]


def read_group(effects: PromptEffects, places: list[Place]) -> Group:
    """The effects at these places. Raises DataError for wrong shapes, ModelError for a row that is partly NaN."""
    values, present = {}, {}
    for language in effects.languages:
        blocks = [_read(effects, language, *place) for place in places]
        rows = np.concatenate(blocks, axis=1) if len(blocks) > 1 else blocks[0]
        present[language] = _present(rows, language, places)
        values[language] = np.where(present[language][:, None], rows, np.float32(0))
    widths = [block.shape[1] for block in blocks]
    return Group(
        effects=values,
        present=present,
        layers=np.repeat([layer for layer, _ in places], widths),
        sites=np.repeat([site for _, site in places], widths),
        index=np.concatenate([np.arange(width) for width in widths]),
    )


def _read(effects: PromptEffects, language: str, layer: int, site: str) -> np.ndarray:
    rows = np.asarray(effects.read(language, layer, site), dtype=np.float32)
    if rows.ndim != 2 or rows.shape[0] != effects.prompts.height or not rows.shape[1]:
        raise DataError(
            f"the effects of {language} in layer {layer}, {site} have shape {rows.shape}",
            f"Give [prompt, neuron] with {effects.prompts.height} prompts.",
        )
    return rows


def _present(rows: np.ndarray, language: str, places: list[Place]) -> np.ndarray:
    """Which prompts the language has, bool [prompt]: those without NaN."""
    finite = np.logical_and.reduce(np.isfinite(rows), axis=1)
    if not np.isnan(rows[~finite]).all():
        raise ModelError(
            f"some effects of {language} in {places} are NaN or infinite, while others of the same prompt are not",
            "The model computed NaN: run `ssn-probe doctor`.",
        )
    return finite


def widths(effects: PromptEffects) -> dict[Place, int]:
    """The number of neurons at every place."""
    first = effects.languages[0]
    return {place: _read(effects, first, *place).shape[1] for place in sorted(effects.places)}
