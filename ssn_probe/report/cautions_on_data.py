"""What a reader must know of the prompts before anything is measured with them: repeated, learned or not translated.

Texts are the same where a reader sees the same words (`data/sameness`). Each sentence names the prompt set.
"""

from collections.abc import Mapping, Sequence

import polars as pl

from ssn_probe.data.clusters import combined
from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.text_faults import across_splits, misplaced, near_duplicates, unlike_translations
from ssn_probe.spec import PromptMeasure, Prompts, Recipe, Trains
from ssn_probe.spec.node import walk
from ssn_probe.stats.nulls.parallel_units import known_parallel
from ssn_probe.text import counted, listing, plain

LISTED = 10
"""So many names are listed."""


def learned_and_measured(recipe: Recipe, data: Mapping[Prompts, PromptSet]) -> list[str]:
    """Ids of prompts to learn that are ids of prompts to measure: in another set they may be its translations."""
    trains = dict.fromkeys(node.data for node in walk(recipe) if isinstance(node, Trains))
    measures = dict.fromkeys(measure.prompts for measure in recipe.measures if isinstance(measure, PromptMeasure))
    found = []
    for learned in trains:
        ids = set(data[learned].frame.filter(split="train")["prompt_id"])
        for measured in measures:
            both = ids & set(data[measured].frame.filter(split="evaluate")["prompt_id"])
            if both:
                found.append(
                    f"prompts to learn ({data[learned].name}) and prompts to measure ({data[measured].name}) have "
                    f"{counted(len(both), 'id')} in common: if these are the same requests in other words or "
                    "languages, the model is measured on what it has learned"
                )
    return found


def repeats(prompts: PromptSet) -> list[str]:
    """Texts that occur in several prompts: the same text is no new evidence. Clusters of it are counted once."""
    texts = (
        _with_words(prompts)
        .with_columns(unit=combined(prompts.frame))
        .group_by("split", "context", "language", maintain_order=True)
        .agg(
            pl.len().alias("prompts"),
            pl.col("words").n_unique().alias("texts"),
            (pl.struct("words", "unit").n_unique() > pl.col("words").n_unique()).alias("apart"),
        )
    )
    repeated = texts.filter(pl.col("texts") < pl.col("prompts")).group_by("split", "context", maintain_order=True)
    return [
        f"{prompts.name}: some {context} {split} prompts have the same text ({_repeated(rows)}); repeated prompts are "
        "no new evidence: "
        + (
            "intervals and p-values are too small"
            if rows["apart"].any()
            else "they share a cluster, which intervals and p-values count once"
        )
        for (split, context), rows in repeated
    ]


def _with_words(prompts: PromptSet) -> pl.DataFrame:
    return prompts.frame.with_columns(words=prompts.words)


def _repeated(rows: pl.DataFrame) -> str:
    counts = rows.select("language", "texts", "prompts").iter_rows()
    return ", ".join(
        f"{language}: {counted(texts, 'text')} in {prompts} prompts" for language, texts, prompts in counts
    )


def untranslated(prompts: PromptSet) -> list[str]:
    """Texts that stand in several languages, under whatever ids: somebody may have forgotten to translate them."""
    texts = _with_words(prompts).group_by("words").agg(pl.col("language").unique().sort())
    several = texts.filter(pl.col("language").list.len() > 1)
    if several.is_empty():
        return []
    languages = several["language"].explode().unique().sort().to_list()
    are = "is" if several.height == 1 else "are"
    return [
        f"{prompts.name}: {counted(several.height, 'text')} of {texts.height:,} {are} the same in several languages "
        f"({listing(languages)}): where a prompt was not translated, its languages cannot be compared, and it may "
        "choose neurons in one language and measure them in another"
    ]


def contradictory(prompts: PromptSet) -> list[str]:
    """Texts that are harmful and harmless at once: what distinguishes the two cannot be seen in them."""
    sides = _with_words(prompts).filter(pl.col("context").is_in(["harmful", "harmless"]))
    both = sides.group_by("language", "words").agg(pl.col("context").n_unique()).filter(pl.col("context") > 1)
    if both.is_empty():
        return []
    texts = f"{counted(both['words'].n_unique(), 'text')} ({listing(both['language'].unique().sort().to_list())})"
    return [f"{prompts.name}: the same text is harmful under one prompt_id and harmless under another: {texts}"]


def paired_across(prompts: PromptSet) -> list[str]:
    """Minimal pairs of prompts that come from two sets, which may have numbered their pairs alike by chance."""
    pairs = prompts.frame.drop_nulls("pair_id").group_by("pair_id").agg(pl.col("source").n_unique())
    count = pairs.filter(pl.col("source") > 1).height
    if not count:
        return []
    return [
        f"{prompts.name}: two prompt sets have {counted(count, 'pair_id')} in common, whose prompts count as minimal "
        "pairs: if the sets were numbered independently, leave pair_id out of one of them"
    ]


def unparallel(prompts: PromptSet) -> list[str]:
    """Ids that only some languages have, while only others have others: they may be translations of each other."""
    found = []
    for (split,), rows in prompts.frame.group_by("split", maintain_order=True):
        ids = rows.unique("prompt_id", keep="first", maintain_order=True)
        unknown = ids.filter(~known_parallel(ids, rows))["prompt_id"]
        if len(unknown):
            spoken = rows.filter(pl.col("prompt_id").is_in(unknown.implode())).group_by("language").len()
            counts = ", ".join(f"{language} {count:,}" for language, count in spoken.sort("language").iter_rows())
            found.append(f"{split} {len(unknown):,} of {ids.height:,} ({counts})")
    if not found:
        return []
    return [
        f"{prompts.name}: prompt ids are not parallel: {'; '.join(found)}. Other languages do not have them, "
        "and have ids that these languages do not have. If they are translations of each other, give them one "
        "prompt_id: until then they count as different prompts, averages over languages seem more certain than they "
        "are, and a translation may measure what its prompt chose"
    ]


def unused(prompts: PromptSet) -> list[str]:
    """Columns and fields that nothing reads: a reader may believe that they did something."""
    if not prompts.unused:
        return []
    rest = len(prompts.unused) - LISTED
    names = ", ".join(prompts.unused[:LISTED]) + (f" and {rest} more" if rest > 0 else "")
    return [f"{prompts.name}: what nothing reads in its files: {names}"]


def decided(prompts: PromptSet) -> list[str]:
    """What was decided when a set of others was read."""
    return list(prompts.notes)


def in_other_languages(prompts: PromptSet) -> list[str]:
    """Texts that are in another script, or in the anchor's language, than their row says."""
    found = [one for one in misplaced(prompts) if not one.is_whole_column]
    texts = [
        f"{one.count:,} of {counted(one.total, 'text')} of {one.language!r} {'is' if one.count == 1 else 'are'} "
        f"{one.reason} ({_ids(one.ids, one.count)})"
        for one in found
    ]
    return [f"{prompts.name}: {'; '.join(texts)}: what is not translated measures no other language"] if texts else []


def _ids(ids: Sequence[str], count: int) -> str:
    return ", ".join(plain(one)[:40] for one in ids) + ", …" * (count > len(ids))


def nearly_repeated(prompts: PromptSet) -> list[str]:
    """Texts that differ from another by a few characters: hardly new evidence, unless they are one cluster."""
    clusters = dict(zip(prompts.frame["prompt_id"], combined(prompts.frame), strict=True))
    found = {
        language: apart
        for language, pairs in near_duplicates(prompts).items()
        if (apart := [(one, other) for one, other in pairs if clusters[one] != clusters[other]])
    }
    if not found:
        return []
    counts = ", ".join(f"{language} {len(pairs):,}" for language, pairs in found.items())
    first = plain(f"{next(iter(found.values()))[0][0][:40]} and {next(iter(found.values()))[0][1][:40]}")
    return [
        f"{prompts.name}: some texts are nearly those of another prompt ({counts}; first {first}): give them one "
        "cluster, so that they fall into one split and count as one observation"
    ]


def in_several_splits(prompts: PromptSet) -> list[str]:
    """Texts that stand in several splits: what chooses or trains neurons must not measure them."""
    texts = across_splits(prompts)
    if texts.is_empty():
        return []
    pairs = texts.group_by(pl.col("splits").list.join(" and "), maintain_order=True).len()
    counts = ", ".join(f"{splits} {count:,}" for splits, count in pairs.iter_rows())
    ids = texts["ids"][0].to_list()
    stand = "stands" if texts.height == 1 else "stand"
    return [
        f"{prompts.name}: {counted(texts.height, 'text')} {stand} in several splits ({counts}; "
        f"first {_ids(ids[:3], len(ids))}), so that what measures the neurons may have chosen them: give prompts of "
        "the same text one cluster and no split, or remove one"
    ]


def hardly_translated(prompts: PromptSet) -> list[str]:
    """Languages whose prompts are not as long or short as those of the same ids: in another order, or numbered anew."""
    found = unlike_translations(prompts)
    if not found:
        return []
    counts = ", ".join(f"{language} r = {value:.2f}" for language, value in found.items())
    return [
        f"{prompts.name}: prompts of one id hardly agree in length between languages ({counts}), as translations do: "
        "are they numbered, or in order, alike? What is shared, patched or compared between languages takes them for "
        "the same request"
    ]


OF_PROMPTS = (
    *(decided, repeats, contradictory, untranslated, in_several_splits, nearly_repeated, in_other_languages),
    *(hardly_translated, unparallel, paired_across, unused),
)
"""Every check of a prompt set, in the order in which their sentences stand."""
