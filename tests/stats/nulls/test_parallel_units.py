"""Only prompts whose translations are known say what languages share."""

import numpy as np
import polars as pl
import pytest

from ssn_probe.errors import DataError
from ssn_probe.stats.nulls.parallel_units import known_parallel, only_parallel
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


def effects_of(parallel: list[bool]) -> PromptEffects:
    n = len(parallel)
    prompts = pl.DataFrame({"prompt_id": [f"p{i}" for i in range(n)], "harmful": [i % 2 == 0 for i in range(n)]})
    text = dict.fromkeys(("cluster", "pair_id", "stratum", "source"), pl.lit(None, pl.String))
    prompts = prompts.with_columns(**text, parallel=pl.Series(parallel))
    values = np.arange(n, dtype=np.float32)[:, None]
    return PromptEffects(prompts=prompts, languages=("a",), places=((0, "q"),), read=lambda *place: values, key="k")


def test_what_is_known_is_kept_and_has_a_key_of_its_own() -> None:
    whole = effects_of([True] * 4)
    assert only_parallel(whole) is whole
    part = only_parallel(effects_of([True, True, False, True]))
    assert part.prompts["prompt_id"].to_list() == ["p0", "p1", "p3"]
    assert part.read("a", 0, "q").tolist() == [[0], [1], [3]]
    assert part.key != whole.key


@pytest.mark.parametrize("parallel", [[False] * 4, [True, False, True, False]])
def test_nothing_is_tested_where_a_label_has_no_known_prompt(parallel: list[bool]) -> None:
    with pytest.raises(DataError, match="are not parallel") as caught:
        only_parallel(effects_of(parallel))
    assert "same prompt_id" in str(caught.value.hint)
