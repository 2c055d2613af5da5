"""Contract 2: what a set means per language, and its algebra, against Python sets."""

import json
from collections.abc import Callable, Mapping
from operator import and_, or_, sub
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssn_probe.errors import DataError, RecipeError
from ssn_probe.files import sha256
from ssn_probe.neurons import EVERY, KEYS, SCHEMA, SITES, NeuronSet, checked_site, neuron_set, read_neurons

Neuron = tuple[int, str, int]
Model = Mapping[str, Mapping[Neuron, float | None]]

quick = settings(deadline=None, max_examples=60)
LANGUAGES = ("en", "de", "sw")
neurons = st.tuples(st.integers(0, 1), st.sampled_from(["q", "ffn"]), st.integers(0, 2))
scores = st.none() | st.integers(-2, 2).map(float)
per_language = st.fixed_dictionaries({language: st.dictionaries(neurons, scores, max_size=6) for language in LANGUAGES})
language_free = st.fixed_dictionaries({EVERY: st.dictionaries(neurons, scores, max_size=6)})
OPERATORS: list[Callable[[Any, Any], Any]] = [and_, or_, sub]


def build(model: Model) -> NeuronSet:
    rows = [(language, *neuron, score) for language, some in model.items() for neuron, score in some.items()]
    return NeuronSet(neuron_set(rows).frame, (EVERY,) if EVERY in model else LANGUAGES)


def members(neurons: NeuronSet, language: str) -> set[Neuron]:
    rows = list(neurons.neurons(language).select("layer", "site", "index").iter_rows())
    assert len(rows) == len(set(rows)), "a neuron stands twice"
    return set(rows)


def scored(neurons: NeuronSet) -> dict[tuple[Any, ...], float | None]:
    return {row[:4]: row[4] for row in neurons.frame.select(*KEYS, "score").iter_rows()}


@quick
@given(st.sampled_from(OPERATORS), per_language | language_free, per_language | language_free)
def test_operators_act_language_by_language_and_spread_a_language_free_set(
    operator: Callable[[Any, Any], Any], one: Model, other: Model
) -> None:
    found, free = operator(build(one), build(other)), EVERY in one and EVERY in other
    assert found.language_free == free
    for language in ("any language",) if free else LANGUAGES:
        mine, theirs = (set(model[EVERY if EVERY in model else language]) for model in (one, other))
        assert members(found, language) == operator(mine, theirs)
    assert set(found.languages) == ({EVERY} if free else set(LANGUAGES))
    assert found.frame.schema == SCHEMA
    assert found.frame.select(KEYS).equals(found.frame.select(KEYS).sort(KEYS))


@quick
@given(per_language, per_language)
def test_the_left_side_keeps_its_scores(one: Model, other: Model) -> None:
    left, right = build(one), build(other)
    assert scored(left & right).items() <= scored(left).items()
    assert scored(left - right).items() <= scored(left).items()
    assert scored(left | right) == scored(right) | scored(left)


@quick
@given(per_language, st.sampled_from(LANGUAGES))
def test_of_one_language_applies_in_every_language(model: Model, language: str) -> None:
    found = build(model).of(language)
    assert found.language_free
    assert all(members(found, any_language) == set(model[language]) for any_language in (*LANGUAGES, "xx"))


@quick
@given(per_language)
def test_union_holds_each_neuron_once_with_its_mean_score(model: Model) -> None:
    found = build(model).union()
    assert found.language_free
    assert members(found, "xx") == set().union(*model.values())
    for (_, *neuron), score in scored(found).items():
        mine = [some[tuple(neuron)] for some in model.values() if tuple(neuron) in some]  # type: ignore[index]
        known = [one for one in mine if one is not None]
        assert score == (pytest.approx(sum(known) / len(known)) if known else None)


@quick
@given(
    per_language,
    st.none() | st.lists(st.integers(0, 2)),
    st.none() | st.lists(st.sampled_from(SITES)),
    st.none() | st.lists(st.sampled_from(LANGUAGES), min_size=1, unique=True),
)
def test_only(model: Model, layers: list[int] | None, sites: list[str] | None, languages: list[str] | None) -> None:
    found = build(model).only(layers=layers, sites=sites, languages=languages)
    assert found.languages == (LANGUAGES if languages is None else tuple(languages))
    for language in found.languages:
        assert members(found, language) == {
            (layer, site, index)
            for layer, site, index in model[language]
            if (layers is None or layer in layers) and (sites is None or site in sites)
        }


@quick
@given(per_language)
def test_without_strongest_drops_the_highest_score_and_the_first_of_a_tie(model: Model) -> None:
    """A neuron without a score is never the strongest while another has one."""
    found = build(model).without_strongest()
    for language in LANGUAGES:
        some = model[language]
        order = sorted(some, key=lambda neuron: (some[neuron] is None, -(some[neuron] or 0.0), neuron))
        assert members(found, language) == set(order[1:])
    assert found.languages == LANGUAGES


@quick
@given(per_language)
def test_equality_ignores_the_order_of_rows_and_the_scores(model: Model) -> None:
    one = build(model)
    other = NeuronSet(one.frame.reverse().with_columns(score=pl.lit(9.0)), tuple(reversed(one.languages)))
    assert one == other
    assert one & other == one
    assert len(one) == sum(map(len, model.values()))
    assert one != NeuronSet(one.frame, ("en", "de"))
    assert one != neuron_set([("en", 7, "q", 2, None)])
    assert one != "en"


def test_of_rows_in_any_order_the_first_of_each_neuron_stays() -> None:
    rows = [("en", 1, "q", 3, 0.5), ("de", 0, "q", 9, 1.0), ("en", 1, "ffn", 3, 2.0), ("en", 1, "q", 3, None)]
    assert neuron_set(rows).frame.rows() == [rows[1], rows[2], rows[0]]
    assert neuron_set(rows[::-1]).frame.rows() == [rows[1], rows[2], rows[3]]
    assert neuron_set([]).frame.schema == SCHEMA


def test_counts_give_the_module_mix() -> None:
    rows = [("en", 0, "q", 1, None), ("en", 3, "q", 1, None), ("en", 0, "ffn", 1, None), ("de", 0, "o", 0, None)]
    assert neuron_set(rows).counts().rows() == [("de", "o", 1), ("en", "ffn", 1), ("en", "q", 2)]


SET = neuron_set([("english", 0, "q", 1, 0.5), ("german", 0, "q", 1, 0.5)])


def test_a_language_that_the_set_does_not_know_is_an_error_with_the_nearest() -> None:
    for ask in (SET.neurons, SET.of, lambda language: SET.only(languages=["german", language])):
        with pytest.raises(RecipeError, match="no language 'englsh'") as caught:
            ask("englsh")
        assert "'english'" in (caught.value.hint or "")


@pytest.mark.parametrize("operator", OPERATORS)
def test_sets_over_different_languages_do_not_combine(operator: Callable[[Any, Any], Any]) -> None:
    with pytest.raises(RecipeError, match="do not combine") as caught:
        operator(SET, SET.only(languages=["german"]))
    assert ".only(languages=" in (caught.value.hint or "")


def test_sites() -> None:
    assert [checked_site(site) for site in SITES] == ["q", "k", "v", "o", "ffn"]
    with pytest.raises(RecipeError, match="unknown site 'mlp'") as caught:
        SET.only(sites=["mlp"])
    assert "q, k, v, o, ffn" in (caught.value.hint or "")


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_file_reads_back_as_the_set(suffix: str, tmp_path: Path) -> None:
    rows = [("en", 0, "q", 1, 0.25), ("de", 2, "ffn", 7, -1.0), ("en", 0, "q", 2, None)]
    path, written = tmp_path / f"set{suffix}", neuron_set(rows)
    written.frame.write_csv(path) if suffix == ".csv" else written.frame.write_parquet(path)
    found = read_neurons(path)
    assert found == written
    assert scored(found) == scored(written)
    assert found.languages == ("de", "en")


def test_a_file_needs_no_score_and_may_hold_more(tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text("note,index,site,layer,language\nx,1,q,0,en\nx,1,q,0,en\n", encoding="utf-8")
    assert scored(read_neurons(str(path))) == {("en", 0, "q", 1): None}


BAD_FILES = {
    "no column": ("language,layer,site\nen,0,q\n", r"lacks the columns \['index'\]"),
    "word for a layer": ("language,layer,site,index\nen,first,q,1\n", "not a whole number"),
    "too large": ("language,layer,site,index\nen,0,q,99999999999\n", "cannot be neurons"),
    "no layer": ("language,layer,site,index\nen,,q,1\n", None),
    "no language": ("language,layer,site,index\n,0,q,1\n", None),
    "negative": ("language,layer,site,index\nen,0,q,-1\n", None),
    "fraction": ("language,layer,site,index\nen,0,q,1.7\n", None),
    "no rows": ("language,layer,site,index\n", None),
    "empty": ("", "cannot read"),
    "an unknown site": ("language,layer,site,index\nen,0,mlp,1\n", "unknown site 'mlp'"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_with_something_else_is_one_clear_error(text: str, message: str | None, tmp_path: Path) -> None:
    path = tmp_path / "set.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises((DataError, RecipeError), match=message) as caught:
        read_neurons(path)
    assert "site" in str(message) or str(path) in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_table_of_a_run_with_several_sets_says_how_to_take_one(ending: str, tmp_path: Path) -> None:
    rows = [{"set": name, "language": "en", "layer": 0, "site": "q", "index": 1, "score": 0.5} for name in ("ms", "ss")]
    rows[0]["score"], path = 1.5, tmp_path / f"neurons.{ending}"
    getattr(pl.DataFrame(rows), f"write_{ending}")(path)
    with pytest.raises(DataError, match="several scores") as caught:
        read_neurons(path)
    assert "filter(set='ss')" in (caught.value.hint or "")
    pl.DataFrame(rows).filter(set="ss").write_parquet(tmp_path / "ss.parquet")
    assert read_neurons(tmp_path / "ss.parquet").frame["score"].to_list() == [0.5]


@pytest.mark.parametrize("name", ["missing.csv", "missing.parquet", "set.pkl", ""])
def test_a_file_that_cannot_be_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "set.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(DataError, match="annot read"):
        read_neurons(tmp_path / name)


def test_a_file_of_a_run_is_the_one_that_the_run_wrote(tmp_path: Path) -> None:
    file = tmp_path / "neurons.csv"
    file.write_text("language,layer,site,index\nen,0,ffn,1\n", encoding="utf-8")
    manifest = {"files": {file.name: sha256(file)}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    read_neurons(file)
    file.write_text("language,layer,site,index\nen,0,ffn,3\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"neurons\.csv changed since the run wrote it"):
        read_neurons(file)
    (tmp_path / "manifest.json").write_text('{"files": []}', encoding="utf-8")
    read_neurons(file)
