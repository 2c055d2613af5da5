"""Which neurons, in which language: `NeuronSet`, a value with a set algebra.

A set maps language → neurons. The language `"*"` stands for "every language": such a set is *language-free*, and
between it and a per-language set the operators broadcast. The rows live in one polars frame, so that a set of a
million neurons is joined, counted and written without a loop.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ssn_probe.errors import RecipeError, nearest
from ssn_probe.neurons.language_means import merged
from ssn_probe.neurons.neuron_codes import ascending, codes, contained
from ssn_probe.spec import SITES, Site
from ssn_probe.spec.display import Displayed

EVERY = "*"
"""The language of a language-free set."""
LANGUAGE = re.compile(r"(?!average$)[A-Za-z0-9]{1,20}([-_][A-Za-z0-9]{1,20})*")
"""Language codes also name files and table rows, so they are restricted to plain characters."""

NEURON = ["layer", "site", "index"]
KEYS = ["language", *NEURON]
SCHEMA = {
    "language": pl.String,
    "layer": pl.Int32,
    "site": pl.String,
    "index": pl.Int32,
    "score": pl.Float64,
}


@dataclass(frozen=True, eq=False)
class NeuronSet(Displayed):
    """Neurons per language.

    `frame` has one row per language × neuron: `language, layer, site, index, score` (score may be null). `languages`
    names every language of the set, so that "no neuron in bn" and "bn was never examined" are different.
    """

    frame: pl.DataFrame
    languages: tuple[str, ...]

    def __len__(self) -> int:
        return self.frame.height

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NeuronSet):
            return NotImplemented
        if set(self.languages) != set(other.languages) or len(self) != len(other):
            return False
        mine, theirs = (some if ascending(some) else np.sort(some) for some in codes([self.frame, other.frame], KEYS))
        return np.array_equal(mine, theirs)

    __hash__ = None  # type: ignore[assignment]  # a frame is a value without a cheap hash

    @property
    def language_free(self) -> bool:
        return self.languages == (EVERY,)

    def __and__(self, other: "NeuronSet") -> "NeuronSet":
        return _kept(self, other, inside=True)

    def __sub__(self, other: "NeuronSet") -> "NeuronSet":
        return _kept(self, other, inside=False)

    def __or__(self, other: "NeuronSet") -> "NeuronSet":
        left, right = _broadcast(self, other)
        mine, theirs = codes([left.frame, right.frame], KEYS)
        new = ~contained(theirs, mine)
        rows = pl.concat([left.frame, right.frame.filter(new)])
        return NeuronSet(_in_order(rows, np.concatenate([mine, theirs[new]])), left.languages)

    def of(self, language: str) -> "NeuronSet":
        """The neurons of one language, as a set that applies in every language."""
        rows = self.neurons(language).select(pl.lit(EVERY).alias("language"), *NEURON, "score")
        return NeuronSet(rows, (EVERY,))

    def union(self) -> "NeuronSet":
        """The neurons of any language, language-free; the score is the mean over the languages that have the neuron."""
        found = merged(self.frame)
        rows = self.frame.select(NEURON)[found.rows].with_columns(score=found.mean(self.frame["score"]))
        return NeuronSet(rows.select(pl.lit(EVERY).alias("language"), *NEURON, "score"), (EVERY,))

    def only(
        self,
        *,
        layers: Sequence[int] | None = None,
        sites: Sequence[str] | None = None,
        languages: Sequence[str] | None = None,
    ) -> "NeuronSet":
        """The neurons in these layers, sites and languages (None: no restriction)."""
        rows, kept = self.frame, self.languages
        if layers is not None:
            rows = rows.filter(pl.col("layer").is_in(list(layers)))
        if sites is not None:
            rows = rows.filter(pl.col("site").is_in([checked_site(s) for s in sites]))
        if languages is not None:
            kept = tuple(self._checked(language) for language in languages)
            rows = rows.filter(pl.col("language").is_in(list(kept)))
        return NeuronSet(rows, kept)

    def neurons(self, language: str) -> pl.DataFrame:
        """The rows that apply while `language` is evaluated. Raises RecipeError when the set does not have it."""
        language = EVERY if self.language_free else self._checked(language)
        return self.frame.filter(pl.col("language") == language)

    def counts(self) -> pl.DataFrame:
        """Neurons per language and site: the module mix, `language, site, neurons`."""
        return self.frame.group_by("language", "site").agg(pl.len().alias("neurons")).sort("language", "site")

    def without_strongest(self) -> "NeuronSet":
        """The set without the neuron of highest score in every language (ties: the first in layer, site, index)."""
        frame = self.in_order().frame
        score, kept = frame["score"].fill_null(-np.inf).to_numpy(), np.ones(frame.height, dtype=bool)
        for _, rows in language_rows(frame):
            kept[rows.start + np.argmax(score[rows])] = False
        return NeuronSet(frame.filter(kept), self.languages)

    def in_order(self) -> "NeuronSet":
        """The same set, its rows sorted by language, layer, site and index."""
        return NeuronSet(_in_order(self.frame, codes([self.frame], KEYS)[0]), self.languages)

    def _checked(self, language: str) -> str:
        if language not in self.languages:
            raise RecipeError(
                f"the neuron set has no language {language!r}",
                f"{nearest(language, self.languages)} Or restrict what is measured with Prompts(…, languages=…).",
            )
        return language


def neuron_set(rows: Iterable[tuple[str, int, str, int, float | None]] | pl.DataFrame) -> NeuronSet:
    """A set from rows of (language, layer, site, index, score); its languages are those of the rows."""
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(list(rows), schema=SCHEMA, orient="row")
    frame = frame.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    (numbers,) = codes([frame], KEYS)
    if not ascending(numbers):
        order = np.argsort(numbers, kind="stable")  # of several rows of a neuron the first one stays
        numbers = numbers[order]
        frame = frame[order[np.append(True, numbers[1:] != numbers[:-1])[: len(order)]]]
    return NeuronSet(frame, tuple(frame["language"].unique().sort()))


def language_rows(frame: pl.DataFrame) -> Iterator[tuple[str, slice]]:
    """The rows of each language, of rows that are sorted by it."""
    end = 0
    for length, language in frame["language"].rle().struct.unnest().rows():
        start, end = end, end + length
        yield language, slice(start, end)


def checked_site(site: str) -> Site:
    """The site itself, or a RecipeError that names the known ones."""
    if site not in SITES:
        raise RecipeError(f"unknown site {site!r}", f"Sites: {', '.join(SITES)}.")
    return site


def combined_languages(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    """The languages of two sets that are combined: a language-free set takes those of the other set.

    Raises RecipeError for sets over different languages.
    """
    if left == (EVERY,):
        return right
    if right != (EVERY,) and set(left) != set(right):
        raise RecipeError(
            f"sets over different languages do not combine: {left} and {right}",
            "Restrict both with .only(languages=…), or make one language-free with .of(…) or .union().",
        )
    return left


def _kept(neurons: NeuronSet, other: NeuronSet, *, inside: bool) -> NeuronSet:
    """The neurons that are, or are not, in the other set, with their scores."""
    languages = combined_languages(neurons.languages, other.languages)
    left = _spread(neurons, languages)
    # A language-free set need not be repeated in every language to be compared with.
    keys = NEURON if other.language_free else KEYS
    mine, theirs = codes([left.frame, other.frame], keys)
    kept = contained(mine, theirs) == inside
    rows = left.frame.filter(kept)
    return NeuronSet(_in_order(rows, mine[kept] if keys is KEYS else codes([rows], KEYS)[0]), languages)


def _in_order(rows: pl.DataFrame, numbers: np.ndarray) -> pl.DataFrame:
    """The rows by ascending numbers; a set that has been made of sorted ones mostly is sorted."""
    return rows if ascending(numbers) else rows[np.argsort(numbers, kind="stable")]


def _broadcast(left: NeuronSet, right: NeuronSet) -> tuple[NeuronSet, NeuronSet]:
    languages = combined_languages(left.languages, right.languages)
    return _spread(left, languages), _spread(right, languages)


def _spread(neurons: NeuronSet, languages: tuple[str, ...]) -> NeuronSet:
    if not neurons.language_free or languages == (EVERY,):
        return neurons
    rows = neurons.frame.drop("language").join(pl.DataFrame({"language": languages}), how="cross")
    return NeuronSet(rows.select(*SCHEMA), languages)
