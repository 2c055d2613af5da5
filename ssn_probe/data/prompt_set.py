"""Prompt sets: parallel requests in several languages, in fixed splits.

A set is a folder with `prompts.parquet` (or `.jsonl`, `.csv`) and `dataset.json`, or one such file, or a set in a
format of others (`ssn_probe.data.sources`). One row is one prompt in one language; rows of one `prompt_id` are
translations of each other and always fall into the same split, so that a translation of a prompt that chose a neuron is
never used to evaluate it.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import polars as pl

from ssn_probe import limits
from ssn_probe.data import everyday
from ssn_probe.data.card import read_card, unused_fields
from ssn_probe.data.clusters import cluster_columns
from ssn_probe.data.judges import Declared
from ssn_probe.data.sameness import same_words
from ssn_probe.data.sources import ForeignSet, SetFiles, find_set
from ssn_probe.data.table_checks import read_table
from ssn_probe.errors import DataError, nearest
from ssn_probe.languages import language_code
from ssn_probe.limits import read_limited
from ssn_probe.spec import Prompts
from ssn_probe.spec.node import brief
from ssn_probe.text import counted


@dataclass(frozen=True, kw_only=True, eq=False)
class PromptSet:
    """Prompts and what their card declares about them.

    `frame`: `prompt_id, language, context, split, cluster, pair_id, topic, text, reference, source`, one row per
    prompt × language; `cluster_2`, `cluster_3` where clusters cross (`ssn_probe.data.clusters`). `anchor` is the
    high-resource language; `judge` the judge that is declared, or that a recipe names instead
    (`ssn_probe.data.judges`), `digest` a SHA-256 over the files (of others: over the rows), which identifies the data
    in results. `unused` names the columns and fields of the files that nothing reads; `revision` is the commit on the
    hub, `harmless` what is known of another set that the harmless prompts come from, and `notes` what was decided when
    a set of others was read.
    """

    name: str
    frame: pl.DataFrame
    languages: tuple[str, ...]
    anchor: str | None
    judge: Declared
    max_new_tokens: int
    license: str | None
    digest: str
    unused: tuple[str, ...] = ()
    revision: str | None = None
    harmless: Mapping[str, str | None] | None = None
    notes: tuple[str, ...] = ()

    @cached_property
    def words(self) -> pl.Series:
        """What each text shares with those that say the same in the same words, by row."""
        return self.frame["text"].map_elements(same_words, pl.String)

    def select(self, split: str, context: str, language: str | None = None) -> pl.DataFrame:
        """The rows of one split and context (of one language), in the order of the file."""
        rows = self.frame.filter(split=split, context=context)
        return rows if language is None else rows.filter(language=language)


def load_prompts(node: Prompts) -> PromptSet:
    """The prompt set that a recipe names. Raises DataError for what is missing, malformed, empty or not parallel."""
    prompts = _read(node.source, "harmful")
    if node.harmless is not None:
        prompts = _with_harmless(prompts, _read(node.harmless, "harmless"))
    if node.languages is not None:
        prompts = _restrict(prompts, node.languages)
    if node.max_new_tokens is not None and node.max_new_tokens != prompts.max_new_tokens:
        digest = _derived(prompts.digest, f"max_new_tokens {node.max_new_tokens}")
        prompts = replace(prompts, max_new_tokens=node.max_new_tokens, digest=digest)
    return prompts if node.limit is None else _first(prompts, node.limit)


def check_can_identify(
    prompts: PromptSet,
    *,
    contexts: Sequence[str] = ("harmful", "harmless"),
    purpose: str = "to identify neurons with",
    otherwise: str = "",
) -> None:
    """Raises DataError unless every language has prompts of these contexts in the split *identify*.

    `purpose` says what they are needed for, and `otherwise` what to do where it can be left out.
    """
    for context in contexts:
        have = set(prompts.select("identify", context)["language"])
        missing = [language for language in prompts.languages if language not in have]
        if missing:
            raise DataError(
                f"{prompts.name} has no {context} prompts {purpose} in {', '.join(missing)}",
                f"Languages with {context} prompts in the split 'identify': {', '.join(sorted(have)) or 'none'}. "
                f"{_other_prompts(prompts, context, have)}{otherwise}{_what_was_read(prompts, have)}",
            )


def _what_was_read(prompts: PromptSet, have: Collection[str]) -> str:
    """How the set was read, where no language has any: its labels may be called otherwise."""
    return f" Of the set is noted: {'; '.join(prompts.notes)}." if prompts.notes and not have else ""


def _other_prompts(prompts: PromptSet, context: str, have: Collection[str]) -> str:
    """What to add to a command where some languages have no prompts of a context."""
    both = [language for language in prompts.languages if language in have]
    fewer = f"Leave out the others: -T languages={','.join(both)}" if both else ""
    if context != "harmless":
        return f"{fewer}." if both else "Give a set that has some."
    known = [language for language in prompts.languages if language in everyday.LANGUAGES]
    alone = "" if len(known) == len(prompts.languages) else f" -T languages={','.join(known)}"
    shipped = f"-T harmless=everyday{alone} (shipped), " if known else ""
    others = f"{shipped}-T harmless=mgsm, -T harmless=alpaca (from the hub), or -T harmless=FILE"
    return f"{fewer}, or give others: {others}." if both else f"Give the harmless prompts of another set: {others}."


def _read(source: str, role: str) -> PromptSet:
    found = find_set(source, role)
    return _own(found) if isinstance(found, SetFiles) else _foreign(found)


def _foreign(found: ForeignSet) -> PromptSet:
    """A set of others, identified by its rows, so that one set from two places is one."""
    languages = tuple(found.frame["language"].unique(maintain_order=True))
    return PromptSet(
        name=found.name,
        frame=found.frame.with_columns(source=pl.lit(found.name)),
        languages=languages,
        anchor="en" if "en" in languages else None,
        judge=None,
        max_new_tokens=64,
        license=found.license,
        digest=frame_digest(found.frame),
        unused=found.unused,
        revision=found.revision,
        notes=found.notes,
    )


def frame_digest(frame: pl.DataFrame) -> str:
    """SHA-256 over the rows of a frame in their order, 64 hexadecimal digits."""
    total = hashlib.sha256(repr(frame.columns).encode())
    for row in frame.iter_rows():
        total.update(repr(row).encode())
    return total.hexdigest()


def _own(found: SetFiles) -> PromptSet:
    name, table, card = found
    files = [(table, limits.PROMPTS), *([] if card is None else [(card, limits.CARD)])]
    contents = [read_limited(file, limit, DataError) for file, limit in files]  # once: the digest is that of the rows
    declared = {} if card is None else read_card(card, contents[1])
    frame, unused = read_table(table, contents[0], declared.get("cluster", ()))
    languages = tuple(declared.get("languages") or frame["language"].unique(maintain_order=True))
    absent = [language for language in languages if language not in frame["language"]]
    if absent:
        names = ", ".join(language[:40] for language in absent[:10]) + ", …" * (len(absent) > 10)
        raise DataError(f"{table} has no prompts in {names}", f"Add them, or edit 'languages' in {card}.")
    anchor = declared.get("anchor") or ("en" if "en" in languages else None)
    if anchor is not None and anchor not in languages:
        raise DataError(f"{card}: the anchor {anchor!r} is not a language of the set", nearest(anchor, languages))
    name = declared.get("name") or name
    return PromptSet(
        name=name,
        frame=frame.filter(pl.col("language").is_in(languages)).with_columns(source=pl.lit(name)),
        languages=languages,
        anchor=anchor,
        judge=declared.get("judge"),
        max_new_tokens=declared.get("max_new_tokens", 64),
        license=declared.get("license"),
        digest=hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in contents)).hexdigest(),
        unused=(*unused, *unused_fields(declared), *_card_of_folder(table, card)),
    )


def _card_of_folder(table: Path, card: Path | None) -> list[str]:
    """The card of a folder, of which a single file was given: it does not belong to that file."""
    beside = table.with_name("dataset.json")
    return [f"{beside.name} (the card of {table.name} is {table.stem}.json)"] if not card and beside.exists() else []


def _with_harmless(prompts: PromptSet, other: PromptSet) -> PromptSet:
    """Harmful prompts of one set with the harmless ones of another, which stay another source, whatever their names."""
    namesakes = other.name == prompts.name and other.digest != prompts.digest
    source = f"{other.name} ({other.digest[:8]})" if namesakes else other.name
    own = [(pl.lit(f"{source}:") + pl.col(name)).alias(name) for name in ("prompt_id", *cluster_columns(other.frame))]
    context = pl.col("context")
    taken = ["harmless", *(["lookalike"] if "lookalike" not in prompts.frame["context"] else [])]
    called = {one: _called(prompts, one) or one for one in other.languages}
    rows = other.frame.filter(context.is_in(taken)).with_columns(
        *own, pl.col("language").replace(called), source=pl.lit(source)
    )
    if "harmless" not in rows["context"]:
        raise DataError(f"{other.name} has no harmless prompts", "Give a set with rows of context 'harmless'.")
    kept, replaced = prompts.frame.filter(context != "harmless"), prompts.frame.filter(context == "harmless")
    frame = pl.concat([kept, rows], how="diagonal")
    frame = frame.with_columns(pl.col(cluster_columns(frame)).fill_null(pl.col("prompt_id")))
    for name in ("prompt_id", "cluster"):
        both = kept.join(rows, on=name, how="semi")[name]
        if len(both):
            raise DataError(
                f"the {name} {brief(both[0])} of {prompts.name} is what a prompt of {source} is called beside it",
                f"Let no {name} begin with {source}:",
            )
    change = f"harmless {other.digest}" + " of the same name" * namesakes
    both = _derived(prompts.digest, change + " with lookalikes" * ("lookalike" in rows["context"]))
    frame, notes = frame.filter(pl.col("language").is_in(prompts.languages)), (*prompts.notes, *other.notes)
    if replaced.height and other.digest != prompts.digest:
        count = counted(replaced["prompt_id"].n_unique(), "harmless prompt")
        notes = (f"{prompts.name}: those of {source} take the place of its own {count}", *notes)
    about = {"name": other.name, "license": other.license, "revision": other.revision, "sha256": other.digest}
    return replace(prompts, frame=frame, digest=both, notes=notes, harmless=about)


def _restrict(prompts: PromptSet, languages: tuple[str, ...]) -> PromptSet:
    for language in languages:
        if _called(prompts, language) is None:
            raise DataError(f"{prompts.name} has no language {language!r}", nearest(language, prompts.languages))
    languages = tuple(_called(prompts, language) or language for language in languages)
    if not languages or len(set(languages)) < len(languages):
        raise DataError(f"languages is {languages}", "Name at least one language, and each only once.")
    anchor = prompts.anchor if prompts.anchor in languages else None
    frame = prompts.frame.filter(pl.col("language").is_in(languages))
    digest = _derived(prompts.digest, f"languages {' '.join(languages)}")
    return replace(prompts, frame=frame, languages=languages, anchor=anchor, digest=digest)


def _called(prompts: PromptSet, language: str) -> str | None:
    """What the set calls a language: `jv` also where `jw`, `jav` or `Javanese` is asked for; None if it lacks it."""
    if language in prompts.languages:
        return language
    code = language_code(language)
    called = [one for one in prompts.languages if code is not None and language_code(one) == code]
    return called[0] if len(called) == 1 else None


def _first(prompts: PromptSet, limit: int) -> PromptSet:
    """The first `limit` ids of each split and context, the same ids in every language that has them.

    Languages that share no ids have `limit` of their own each.
    """
    key = ["split", "context", "prompt_id"]
    ids = prompts.frame.group_by(key, maintain_order=True).agg(pl.col("language"))
    taken, kept = Counter[tuple[str, str, str]](), []
    for split, context, _, languages in ids.iter_rows():
        places = [(split, context, language) for language in languages]
        kept.append(all(taken[place] < limit for place in places))
        taken.update(places if kept[-1] else ())
    ids = ids.filter(pl.Series(kept, dtype=pl.Boolean))
    frame = prompts.frame.join(ids, on=key, how="semi", maintain_order="left")
    digest = _derived(
        prompts.digest,
        f"limit {limit}" + " in each language" * any(ids.group_by("split", "context").len()["len"] > limit),
    )
    return replace(prompts, name=f"{prompts.name}, first {limit}", frame=frame, digest=digest)


def _derived(digest: str, change: str) -> str:
    return hashlib.sha256(f"{digest} {change}".encode()).hexdigest()
