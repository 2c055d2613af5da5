"""Prompt sets: parallel requests in several languages, in fixed splits.

A set is a folder with `prompts.parquet` (or `.jsonl`, `.csv`) and `dataset.json`, or one such file. One row is one
prompt in one language; rows of one `prompt_id` are translations of each other and always fall into the same split, so
that a translation of a prompt that chose a neuron is never used to evaluate it.
"""

import codecs
import hashlib
import io
import os.path
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl

from ssn_probe.errors import DataError, nearest
from ssn_probe.neurons import LANGUAGE, UNREADABLE
from ssn_probe.spec import Prompts
from ssn_probe.spec.node import brief, canonical, read_json

CONTEXTS = ("harmful", "harmless", "lookalike")
SPLITS = ("identify", "evaluate", "train")
REQUIRED = ("prompt_id", "language", "context", "text")
OPTIONAL = ("split", "cluster", "pair_id", "topic", "reference")
MOST_NEW_TOKENS = 1_000_000
READERS = {
    ".parquet": pl.read_parquet,
    ".jsonl": partial(pl.read_ndjson, infer_schema_length=None),
    ".csv": partial(pl.read_csv, infer_schema=False),  # an id such as 007 is a word
}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_text, value)) and len(set(value)) == len(value)


CARD: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("name", _is_text, "a text"),
    ("anchor", _is_text, "a language code"),
    ("license", _is_text, "a text"),
    (
        "max_new_tokens",
        lambda value: type(value) is int and 0 < value <= MOST_NEW_TOKENS,
        f"a whole number from 1 to {MOST_NEW_TOKENS:,}",
    ),
    ("languages", _is_list, "a list of codes, each once"),
    ("judge", lambda value: isinstance(value, dict), "an object"),
)
"""What a card may declare: name, check, and what it must be, in words."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptSet:
    """Prompts with what is declared about them.

    `frame`: `prompt_id, language, context, split, cluster, pair_id, topic, text, reference, source`, one row per
    prompt × language. `anchor` is the high-resource language; `judge` the declared judge (`ssn_probe.data.judges`),
    `digest` a SHA-256 over the files, so that a result names the data it came from.
    """

    name: str
    frame: pl.DataFrame
    languages: tuple[str, ...]
    anchor: str | None
    judge: Mapping[str, Any] | None
    max_new_tokens: int
    license: str | None
    digest: str

    def select(self, split: str, context: str, language: str | None = None) -> pl.DataFrame:
        """The rows of one split and context (of one language), in the order of the file."""
        rows = self.frame.filter((pl.col("split") == split) & (pl.col("context") == context))
        return rows if language is None else rows.filter(pl.col("language") == language)


def load_prompts(node: Prompts) -> PromptSet:
    """The prompt set that a recipe names. Raises DataError for what is missing, malformed, empty or not parallel."""
    prompts = _read(node.source)
    if node.harmless is not None:
        prompts = _with_harmless(prompts, _read(node.harmless))
    if node.languages is not None:
        prompts = _restrict(prompts, node.languages)
    if node.limit is not None:
        digest = _derived(prompts.digest, f"limit {node.limit}")
        name = f"{prompts.name}, first {node.limit}"
        prompts = replace(prompts, name=name, frame=_first(prompts.frame, node.limit), digest=digest)
    _check_contexts(prompts)
    return prompts


def _read(source: str) -> PromptSet:
    path = Path(str(files("ssn_probe.organism") / "data")) if source == "organism" else Path(source)
    table, card = _locate(path, source)
    contents = [_bytes(file) for file in (table, card) if file is not None]  # read once: the digest is that of the rows
    declared = {} if card is None else _read_card(card, contents[1])
    frame = _with_defaults(_read_table(table, contents[0]), table)
    _check_table(frame, table)
    languages = tuple(declared.get("languages") or frame["language"].unique(maintain_order=True))
    frame = frame.filter(pl.col("language").is_in(languages))
    anchor = declared.get("anchor") or ("en" if "en" in languages else None)
    if anchor is not None and anchor not in languages:
        raise DataError(f"{card}: the anchor {anchor!r} is no language of the set", nearest(anchor, languages))
    name = declared.get("name") or path.stem
    return PromptSet(
        name=name,
        frame=frame.with_columns(source=pl.lit(name)),
        languages=languages,
        anchor=anchor,
        judge=declared.get("judge"),
        max_new_tokens=declared.get("max_new_tokens", 64),
        license=declared.get("license"),
        digest=_digest(contents),
    )


def _locate(path: Path, source: str) -> tuple[Path, Path | None]:
    """The table and, where there is one, the card of a folder or of a single file."""
    if os.path.isdir(path):
        tables = [path / f"prompts{suffix}" for suffix in READERS if os.path.isfile(path / f"prompts{suffix}")]
        card = path / "dataset.json"
    elif os.path.isfile(path) and path.suffix in READERS:
        tables, card = [path], path.with_suffix(".json")
    else:
        raise DataError(
            f"no prompt set {brief(source)}",
            "Give 'organism', a folder with prompts.parquet (or .jsonl, .csv) and dataset.json, or one such file.",
        )
    if not tables:
        raise DataError(f"{path} has no prompts.parquet, prompts.jsonl or prompts.csv", "Put one of them there.")
    return tables[0], card if os.path.lexists(card) else None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "Give a file that can be read.") from error


def _read_card(card: Path, content: bytes) -> dict[str, Any]:
    try:
        declared = read_json(content.decode("utf-8-sig"))
        canonical(declared).encode()  # raises for NaN and for half a character, which no result could hold
    except (ValueError, RecursionError) as error:
        raise DataError(f"{card} is not JSON: {error}", "Mend it, or remove it.") from error
    if not isinstance(declared, dict):
        raise DataError(f"{card} is not a JSON object", 'Write {"name": …, "anchor": …, "judge": …}.')
    for name, fits, wanted in CARD:
        if name in declared and not fits(declared[name]):
            raise DataError(f"{card}: {name} is {brief(declared[name])}", f"Give {name} as {wanted}, or leave it out.")
    return declared


def _read_table(table: Path, content: bytes) -> pl.DataFrame:
    try:
        frame = READERS[table.suffix](io.BytesIO(content.removeprefix(codecs.BOM_UTF8)))
    except UNREADABLE as error:
        raise DataError(f"cannot read {table}: {error}", f"Give one of {', '.join(READERS)}.") from error
    missing = [name for name in REQUIRED if name not in frame.columns]
    if missing:
        raise DataError(f"{table} lacks the columns {missing}", f"Needed: {', '.join(REQUIRED)}.")
    if frame.is_empty():
        raise DataError(f"{table} has no prompts", "Give at least one row per language and context.")
    return frame


def _with_defaults(frame: pl.DataFrame, table: Path) -> pl.DataFrame:
    """Fills optional columns: cluster is the id itself, the split a fixed function of the cluster."""
    for name in OPTIONAL:
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None, pl.String).alias(name))
    hint = f"Give {', '.join(REQUIRED + OPTIONAL)} as text."
    for name in REQUIRED + OPTIONAL:
        if frame[name].dtype.is_nested():
            raise DataError(f"{table} has a column that is no text: {name} is {frame[name].dtype}", hint)
    try:
        frame = frame.select(pl.col(name).cast(pl.String) for name in REQUIRED + OPTIONAL)
    except UNREADABLE as error:
        raise DataError(f"{table} has a column that is no text: {error}", hint) from error
    frame = frame.with_columns(pl.col("cluster").fill_null(pl.col("prompt_id")))
    assigned = pl.col("cluster").map_elements(_split_of, return_dtype=pl.String)
    return frame.with_columns(pl.col("split").fill_null(assigned))


def _split_of(cluster: str) -> str:
    """60 % identify, 30 % evaluate, 10 % train, by a hash of the cluster: the same on every machine, for ever."""
    share = int(hashlib.sha256(cluster.encode()).hexdigest()[:8], 16) / 2**32
    return "identify" if share < 0.6 else "evaluate" if share < 0.9 else "train"


def _check_table(frame: pl.DataFrame, table: Path) -> None:
    blank = pl.col(REQUIRED).str.strip_chars().replace("", None).is_null().any()
    if frame.select(pl.any_horizontal(blank))[0, 0]:
        raise DataError(f"{table} has empty cells in {', '.join(REQUIRED)}", "Fill them, or remove the rows.")
    for column in frame.columns:
        if frame[column].str.contains("\0", literal=True).any():
            hint = "Remove it. In JSON, \\ud800 to \\udfff stand for a character only in pairs."
            raise DataError(f"{table} has a null character, or half a character, in {column}", hint)
    for column, known in (("context", CONTEXTS), ("split", SPLITS)):
        for value in frame[column].unique():
            if value not in known:
                raise DataError(f"{table}: unknown {column} {brief(value)}", nearest(str(value)[:80], known))
    for language in frame["language"].unique():
        if not LANGUAGE.fullmatch(language):
            raise DataError(f"{table}: {brief(language)} is no language code", "Give codes such as en, zh-Hans or qaa.")
    twice = frame.filter(frame.select("prompt_id", "language").is_duplicated())
    if not twice.is_empty():
        raise DataError(
            f"{table}: {brief(twice['prompt_id'][0])} stands more than once in {twice['language'][0]!r}",
            "Give each prompt_id once per language.",
        )
    for unit in ("cluster", "prompt_id"):
        crossing = frame.group_by(unit).agg(pl.col("split").n_unique()).filter(pl.col("split") > 1)
        if not crossing.is_empty():
            raise DataError(
                f"{table}: the {unit} {brief(crossing[unit][0])} is in several splits",
                "Prompts that are not independent, and translations of one prompt, belong in one split.",
            )


def _check_contexts(prompts: PromptSet) -> None:
    """Every language needs harmful and harmless prompts where neurons are identified."""
    for context in ("harmful", "harmless"):
        have = set(prompts.select("identify", context)["language"])
        missing = [language for language in prompts.languages if language not in have]
        if missing:
            raise DataError(
                f"{prompts.name} has no {context} prompts to identify neurons with in {', '.join(missing)}",
                f"Languages with {context} prompts: {', '.join(sorted(have)) or 'none'}. "
                "Restrict with Prompts(…, languages=…), or give -T harmless=FOLDER with those languages.",
            )


def _with_harmless(prompts: PromptSet, other: PromptSet) -> PromptSet:
    rows = other.frame.filter(pl.col("context") == "harmless").with_columns(
        pl.concat_str(pl.lit(f"{other.name}:"), pl.col("prompt_id")).alias("prompt_id"),
        pl.concat_str(pl.lit(f"{other.name}:"), pl.col("cluster")).alias("cluster"),
    )
    if rows.is_empty():
        raise DataError(f"{other.name} has no harmless prompts", "Give a set with rows of context 'harmless'.")
    frame = pl.concat([prompts.frame.filter(pl.col("context") != "harmless"), rows])
    both = _derived(prompts.digest, f"harmless {other.digest}")
    return replace(prompts, frame=frame.filter(pl.col("language").is_in(prompts.languages)), digest=both)


def _restrict(prompts: PromptSet, languages: tuple[str, ...]) -> PromptSet:
    if not languages or len(set(languages)) < len(languages):
        raise DataError(f"the choice of languages is {languages}", "Name each language once, at least one.")
    for language in languages:
        if language not in prompts.languages:
            raise DataError(f"{prompts.name} has no language {language!r}", nearest(language, prompts.languages))
    anchor = prompts.anchor if prompts.anchor in languages else None
    frame = prompts.frame.filter(pl.col("language").is_in(languages))
    digest = _derived(prompts.digest, f"languages {' '.join(languages)}")
    return replace(prompts, frame=frame, languages=languages, anchor=anchor, digest=digest)


def _first(frame: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The first `limit` ids of each split and context, the same ids in every language."""
    ids = frame.select("split", "context", "prompt_id").unique(maintain_order=True)
    kept = ids.filter(pl.int_range(pl.len()).over("split", "context") < limit)
    return frame.join(kept, on=["split", "context", "prompt_id"], how="semi", maintain_order="left")


def _derived(digest: str, change: str) -> str:
    return hashlib.sha256(f"{digest} {change}".encode()).hexdigest()


def _digest(contents: list[bytes]) -> str:
    total = hashlib.sha256()
    for content in contents:
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()
