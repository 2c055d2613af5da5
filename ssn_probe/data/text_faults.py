"""Prompts whose text is not what its row says: in another script or language, or nearly another prompt's text.

Languages that nobody speaks (qaa) are not examined.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from operator import eq
from zlib import crc32

import numpy as np
import polars as pl

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.languages import in_language, off_language, scripts_in, scripts_of

MOST_TRIED = 2_000
"""So many texts of a language are examined by their words, evenly over the file; all of them by their script."""
MOSTLY = 0.95
"""From this share on a column is another language's."""
FEWEST = 5
"""So few texts of a language are no column."""
ALIKE = 0.8
"""Least Jaccard overlap of the pieces of two texts that are nearly the same."""
FEWEST_COMPARED, LEAST_SPREAD, TRANSLATED = 60, 0.1, 0.2
"""So many texts tell whether those of another language are translations, by lengths that differ so much (standard
deviation of logarithms) and correlate at least so well."""
BANDS, ROWS = 8, 2
"""Texts are compared if all minimal hashes of one of these bands are equal: nearly always if they are alike."""
MULTIPLIERS = np.random.default_rng(0).integers(1, 2**31, BANDS * ROWS, dtype=np.uint64) * 2 + 1


@dataclass(frozen=True)
class Misplaced:
    """Texts of one source and language that are in another script, in English or in another language of the set."""

    source: str
    language: str
    reason: str
    count: int
    total: int
    ids: tuple[str, ...]

    @property
    def is_whole_column(self) -> bool:
        return self.total >= FEWEST and self.count >= MOSTLY * self.total


@lru_cache(maxsize=8)
def misplaced(prompts: PromptSet) -> tuple[Misplaced, ...]:
    """What is not in the language that its row declares, by language and reason."""
    return tuple(_misplaced(prompts))


def _misplaced(prompts: PromptSet) -> Iterator[Misplaced]:
    known = [language for language in prompts.languages if scripts_of(language)]
    if not known:  # names of languages take a quarter of a second to look up
        return
    sources = prompts.frame["source"].unique(maintain_order=True)
    others = {in_language(language) for language in ("en", *prompts.languages)}
    for source, language in product(sources, known):
        rows = prompts.frame.filter(source=source, language=language).select("prompt_id", "text")
        wrong = [(name, reason) for name, text in rows.iter_rows() if (reason := _script(text, language))]
        if not wrong:
            rows = rows.gather_every(max(1, -(-rows.height // MOST_TRIED)))
            told = ((name, off_language(text, language)) for name, text in rows.iter_rows())
            wrong = [(name, reason) for name, reason in told if reason and (language == "en" or reason in others)]
        for reason, count in Counter(reason for _, reason in wrong).most_common():
            ids = tuple(name for name, why in wrong if why == reason)
            yield Misplaced(source, language, reason, count, rows.height, ids[:3])


def _script(text: str, language: str) -> str | None:
    own, found = scripts_of(language), scripts_in(text)
    if not found or sum(found.get(name, 0.0) for name in own) >= 0.5 or next(iter(found)) in own:
        return None
    return f"in {next(iter(found))} script"


def near_duplicates(prompts: PromptSet) -> dict[str, list[tuple[str, str]]]:
    """Language → pairs of prompt ids whose texts are nearly the same, each with the first that it resembles.

    Texts with the same words are left out. Candidates share a band of minimal hashes of their pieces (four characters
    long), which finds nearly all pairs in one pass; then their pieces are compared.
    """
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for language in (one for one in prompts.languages if scripts_of(one)):
        rows = prompts.frame.select("prompt_id", "language", words=prompts.words).filter(language=language)
        first: dict[tuple[int, ...], tuple[str, str, tuple[int, ...]]] = {}
        for name, words in (
            rows.unique("words", keep="first", maintain_order=True).select("prompt_id", "words").iter_rows()
        ):
            least = _least(words)
            bands = [(band, *least[band * ROWS : (band + 1) * ROWS]) for band in range(BANDS)]
            candidates = dict.fromkeys(one for band in bands if (one := first.get(band)))
            alike = next((one for one in candidates if _share(one[2], least) and _alike(one[1], words)), None)
            if alike is not None:
                found[language].append((alike[0], name))
            for band in bands:
                first.setdefault(band, (name, words, least))
    return dict(found)


def _pieces(words: str) -> set[str]:
    return {words[start : start + 4] for start in range(max(1, len(words) - 3))}


def _alike(left: str, right: str) -> bool:
    one, other = _pieces(left), _pieces(right)
    return len(one & other) >= ALIKE * len(one | other)


def _least(words: str) -> tuple[int, ...]:
    """The minimal hashes of a text's pieces; each is that of another text in the share of pieces that both have."""
    codes = np.array([crc32(piece.encode()) for piece in _pieces(words)], dtype=np.uint64)
    return tuple((codes[:, None] * MULTIPLIERS % (2**32 - 5)).min(axis=0).tolist())  # [band × row]


def _share(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Half of the hashes, which two texts that are alike have but once in 700 times: a test that takes no pieces."""
    return 2 * sum(map(eq, one, other)) >= len(one)


def unlike_translations(prompts: PromptSet) -> dict[str, float]:
    """Language → correlation of the logarithms of its texts' lengths with those of the same ids in the first language.

    Only languages in which it is below what translations have (0.46 to 0.88 in the shipped sets).
    """
    spoken = [language for language in prompts.languages if scripts_of(language)]
    if not spoken:
        return {}
    first = prompts.anchor if prompts.anchor in spoken else spoken[0]
    rows = prompts.frame.select("prompt_id", "language", length=pl.col("text").str.len_chars().log())
    theirs = rows.filter(pl.col("language") == pl.lit(first, pl.String))
    found = {}
    for language in spoken:
        both = theirs.join(rows.filter(language=language), on="prompt_id")
        spread = min(both.select(pl.std("length").fill_null(0), pl.std("length_right").fill_null(0)).row(0))
        if language != first and both.height >= FEWEST_COMPARED and spread >= LEAST_SPREAD:
            agreement = both.select(pl.corr("length", "length_right")).item()
            if agreement < TRANSLATED:
                found[language] = agreement
    return found


def across_splits(prompts: PromptSet) -> pl.DataFrame:
    """Texts that stand in several splits, in whatever languages and contexts: `words, splits, languages, ids`."""
    rows = prompts.frame.select("prompt_id", "language", "split", words=prompts.words)
    texts = rows.group_by("words", maintain_order=True).agg(
        pl.col("split").unique().sort().alias("splits"),
        pl.col("language").unique().sort().alias("languages"),
        pl.col("prompt_id").unique(maintain_order=True).alias("ids"),
    )
    return texts.filter(pl.col("splits").list.len() > 1)
