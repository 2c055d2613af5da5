"""Only prompts whose translations are known say what languages share."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_up_effects import effects_from, prompt_table, sides

from ssn_probe.spec import Prompts, SafetyNeurons
from ssn_probe.stats.nulls.exchangeability import exchangeability
from ssn_probe.stats.nulls.label_exchange import draw_labels
from ssn_probe.stats.nulls.parallel_units import exchangeable, known_parallel, why_not_parallel
from ssn_probe.stats.nulls.permutation_null import permutation_null
from ssn_probe.stats.nulls.prompt_effects import PromptEffects

KNOWN: dict[str, tuple[dict[str, str], str]] = {
    "all": ({"p": "abc", "q": "abc"}, "pq"),
    "one language": ({"p": "a", "q": "a"}, "pq"),
    "a language lacks some": ({"p": "abc", "q": "ab", "r": "ab"}, "pqr"),
    "each lacks another": ({"p": "ab", "q": "bc", "r": "ac"}, "pqr"),
    "no id in two languages": ({"p": "a", "q": "b", "r": "c"}, ""),
    "some ids in one language": ({"p": "abc", "q": "abc", "r": "a", "s": "b"}, "pq"),
    "one id in one language, and whole others": ({"p": "abc", "q": "abc", "r": "a"}, "pqr"),
    "a typing error in one language": ({"p": "abc", "q": "ab", "r": "c"}, "pq"),
    "two sources": ({"p": "ab", "q": "ab", "r": "cd", "s": "cd"}, ""),
}


def prompts_of(spoken: dict[str, str], clusters: dict[str, str] | None = None) -> tuple[pl.DataFrame, pl.DataFrame]:
    prompts = pl.DataFrame({"prompt_id": list(spoken)})
    cluster = [(clusters or {}).get(name, name) for name in spoken]
    rows = [(name, language) for name, languages in spoken.items() for language in languages]
    columns = {"cluster": pl.Series(cluster), "pair_id": pl.lit(None, pl.String)}
    return prompts.with_columns(**columns), pl.DataFrame(rows, schema=["prompt_id", "language"], orient="row")


@pytest.mark.parametrize(("spoken", "known"), KNOWN.values(), ids=KNOWN)
def test_prompts_without_a_language_in_common_may_be_translations(spoken: dict[str, str], known: str) -> None:
    assert "".join(np.array(list(spoken))[known_parallel(*prompts_of(spoken))]) == known


def test_translations_in_one_cluster_move_together_under_any_ids() -> None:
    spoken = {"p-a": "a", "p-b": "b", "q-a": "a", "q-b": "b"}
    assert known_parallel(*prompts_of(spoken, {name: name[0] for name in spoken})).all()


def effects_of(parallel: list[bool], ids: list[str] | None = None) -> PromptEffects:
    """Prompts in turn harmful and harmless; those that are not parallel stand in one of two languages."""
    n = len(parallel)
    table = prompt_table(sides(n // 2)).with_columns(parallel=pl.Series(parallel))
    spoken = ["a b" if known else "ab"[number // 2 % 2] for number, known in enumerate(parallel)]
    names = {"prompt_id": pl.Series(ids or table["prompt_id"].to_list()), "spoken": pl.Series(spoken)}
    values = np.arange(n, dtype=np.float32)[:, None]
    return replace(effects_from(table.with_columns(**names), {("a", 0, "q"): values, ("b", 0, "q"): values}), key="k")


def test_what_is_known_is_kept_and_has_a_key_of_its_own() -> None:
    whole = effects_of([True] * 8)
    assert exchangeable(whole) is whole
    part = exchangeable(effects_of([True, True, False, True, True, True, True, True, True, True]))
    assert part.prompts["prompt_id"].to_list() == [f"p{i}" for i in range(10) if i != 2]
    assert part.read("a", 0, "q")[:3].tolist() == [[0], [1], [3]]
    assert part.key != whole.key
    assert not part.per_language


@pytest.mark.parametrize("parallel", [[False] * 40, [True] * 4 + [False] * 36])
def test_labels_are_exchanged_by_language_where_too_few_prompts_are_known(parallel: list[bool]) -> None:
    effects = effects_of(parallel)
    reason = why_not_parallel(effects)
    assert reason is not None
    assert "are not parallel" in reason
    found = exchangeable(effects)
    assert found.per_language
    assert exchangeable(found) is found
    labels, kept = draw_labels(found.prompts, 50, 0)
    for language in ("a", "b"):
        here = (found.prompts["spoken"] == language).to_numpy() & kept
        assert (labels[:, here].sum(axis=1) == found.prompts["harmful"].to_numpy()[here].sum()).all()


def test_a_label_alone_that_is_not_parallel_leaves_no_exchange() -> None:
    """As where harmless prompts of a source without common ids are joined to parallel harmful ones."""
    found = exchangeability(effects_of([True, False] * 20))
    assert found.taking_part == 0
    assert "20 of 40 identify prompts may be translations" in (found.reason or "")
    assert "and within languages no prompts are exchangeable" in (found.reason or "")


def test_ids_that_are_only_written_differently_are_told() -> None:
    ends = ("-h", "-b", "-H", "-B ")  # harmful and harmless in one language, and in the other
    ids = [f"p{number // 4}{ends[number % 4]}" for number in range(40)]
    reason = why_not_parallel(effects_of([False] * 40, ids))
    assert reason is not None
    assert "20 ids differ from others in capitals or blanks alone" in reason
    assert "capitals" not in (why_not_parallel(effects_of([False] * 40)) or "")


def own_ids(seed: int) -> PromptEffects:
    """Prompts without any difference, whose translations have similar effects and other ids."""
    random, n = np.random.default_rng(seed), 40
    harmful = [label for label in sides(n // 2) for _ in "ab"]
    common = random.normal(size=(n, 60))
    table = prompt_table(harmful).with_columns(spoken=pl.Series(["a", "b"] * n), parallel=pl.lit(value=False))
    effects = {}
    for number, language in enumerate("ab"):
        values = np.full((2 * n, 60), np.nan)
        values[number::2] = common + 0.2 * random.normal(size=common.shape)
        effects[language, 0, "o"] = values
    return effects_from(table, effects)


def test_own_sizes_hold_their_level_and_nothing_that_combines_languages_is_tested() -> None:
    """Drawn together, independent labels make the true sharing of translations look like a finding."""
    node = SafetyNeurons(Prompts("made up"), rule="paper", top=0.2)
    p: list[float] = []
    overlap: list[float] = []
    for seed in range(60):
        options = {"anchor": "a", "draws": 39, "seed": seed}
        found = permutation_null(exchangeable(own_ids(seed)), {"ms": node}, **options)
        assert found.select("statistic", "language_a").rows() == [("size", "a"), ("size", "b")]
        p += found["p"].to_list()
        together = permutation_null(own_ids(seed), {"ms": node}, **options)
        overlap += together.filter(statistic="overlap")["p"].to_list()
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2.6 * (0.05 * 0.95 / 120) ** 0.5
    assert np.mean(np.array(overlap) <= 0.05) > 0.5
