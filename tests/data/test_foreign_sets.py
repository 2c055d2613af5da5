"""Every format in which others publish prompts becomes the same frame, and what was decided is said."""

from collections.abc import Callable
from pathlib import Path

import foreign_files as made
import polars as pl
import pytest
from prompt_rows import load, make_rows, write

from ssn_probe.data.prompt_set import PromptSet
from ssn_probe.data.sources.adapters import ADAPTERS
from ssn_probe.stats.nulls.parallel_units import known_parallel


def counts(found: PromptSet) -> dict[str, int]:
    return dict(found.frame.group_by("context").len().sort("context").iter_rows())


def check_units(found: PromptSet) -> None:
    """Translations, twins and clusters are in one split."""
    for unit in ("prompt_id", "cluster", "pair_id"):
        groups = found.frame.drop_nulls(unit).group_by(unit).agg(pl.col("split").n_unique())
        assert (groups["split"] == 1).all(), unit


FORMATS: dict[str, tuple[str, Callable[[Path], Path], str, dict[str, int]]] = {
    "multijail": ("multijail", made.multijail, "en zh it vi ar ko th bn sw jv", {"harmful": 120}),
    "damo": ("damo-multijail", lambda folder: made.damo_multijail(folder / "a.parquet"), "en zh jv", {"harmful": 30}),
    "advbench-x": (
        "advbench-x",
        lambda folder: made.advbench_x(folder / "x.csv"),
        "en zh ko th af ne sw bn it vi ar jv",
        {"harmful": 120},
    ),
    "simonycl": ("multilingual-advbench", made.multilingual_advbench, "de en id zh", {"harmful": 40}),
    "xsafety": ("xsafety", made.xsafety, "bn en es zh", {"harmful": 40}),
    "aya": ("aya-red-teaming", made.aya, "en fil hi", {"harmful": 50}),
    "polyguard": (
        "polyguard",
        lambda folder: made.polyguard(folder / "a.parquet"),
        "en zh th",
        {"harmful": 9, "harmless": 9, "lookalike": 9},
    ),
    "m-alert": ("m-alert", lambda folder: made.m_alert(folder / "a.parquet"), "fr de es it en", {"harmful": 50}),
    "xstest": ("xstest", lambda folder: made.xstest(folder / "a.csv"), "en", {"harmful": 25, "lookalike": 25}),
    "xstest v2": (
        "xstest",
        lambda folder: made.xstest(folder / "a.csv", labels=False),
        "en",
        {"harmful": 25, "lookalike": 25},
    ),
    "jailbreakbench": ("jailbreakbench", made.jailbreakbench, "en", {"harmful": 10, "harmless": 10}),
    "harmbench": ("harmbench", lambda folder: made.harmbench(folder / "a.csv"), "en", {"harmful": 8}),
    "or-bench": ("or-bench", made.or_bench, "en", {"harmful": 10, "lookalike": 10}),
    "alpaca": ("alpaca", lambda folder: made.alpaca(folder / "a.json"), "en", {"harmless": 10}),
    "mgsm": ("mgsm", made.mgsm, "bn de en", {"harmless": 30}),
}


@pytest.mark.parametrize(("name", "write", "languages", "contexts"), FORMATS.values(), ids=FORMATS)
def test_every_format_is_read(
    name: str, write: Callable[[Path], Path], languages: str, contexts: dict[str, int], tmp_path: Path
) -> None:
    found = load(f"{name}:{write(tmp_path)}")
    assert found.languages == tuple(languages.split())
    assert counts(found) == contexts
    assert found.name == name
    check_units(found)


def test_every_adapter_is_tried() -> None:
    assert {name for name, *_ in FORMATS.values()} == {adapter.name for adapter in ADAPTERS}


def test_one_set_is_one_set_wherever_it_lies(tmp_path: Path) -> None:
    """Rows decide the digest: a file by its format's name, by its columns, or in a folder."""
    file = made.multijail(tmp_path)
    found = [load(source) for source in (file, tmp_path, f"multijail:{file}", f"multijail:{tmp_path}")]
    assert len({one.digest for one in found}) == 1
    other = made.multijail(tmp_path / "other", en3="Where is the glue?")
    assert load(other).digest != found[0].digest


def test_multijail_has_its_tags_licence_and_ids(tmp_path: Path) -> None:
    found = load(f"multijail:{made.multijail(tmp_path)}")
    row = found.frame.filter(prompt_id="3", language="jv").row(0, named=True)
    assert row["text"] == made.text("jv", 3)
    assert row["topic"] == "Paper, folded", "the first tag, with its comma"
    assert (found.license, found.anchor, found.unused) == ("mit", "en", ("source",))


def test_empty_cells_are_left_out_and_counted(tmp_path: Path) -> None:
    found = load(f"multijail:{made.multijail(tmp_path, zh3='', zh5=' ', jv3='')}")
    assert found.frame.height == 117
    assert found.notes == ("multijail: 3 empty cells of MultiJail.csv (zh 2, jv 1) left out",)


def test_without_ids_translations_are_known_by_their_place(tmp_path: Path) -> None:
    found = load(f"damo-multijail:{made.damo_multijail(tmp_path / 'a.parquet')}")
    assert found.frame.filter(prompt_id="4")["language"].to_list() == ["en", "zh", "jv"]
    assert any("at one place" in note for note in found.notes)


def test_languages_in_another_order_are_not_parallel(tmp_path: Path) -> None:
    """Topics tell: the same place has another topic."""
    path = made.damo_multijail(tmp_path / "a.parquet")
    frame = pl.read_parquet(path)
    pl.concat([frame.head(10), frame[10:20].reverse(), frame.tail(10)]).write_parquet(path)
    found = load(f"damo-multijail:{path}")
    assert found.frame.group_by("prompt_id").agg(pl.col("language").n_unique())["language"].max() == 1
    assert any("differ in number or order" in note for note in found.notes)


def test_aya_claims_no_translations(tmp_path: Path) -> None:
    found = load(f"aya-red-teaming:{made.aya(tmp_path)}")
    assert found.frame.group_by("prompt_id").agg(pl.col("language").n_unique())["language"].max() == 1
    assert any("no translations" in note for note in found.notes)
    ids = found.frame.unique("prompt_id", keep="first", maintain_order=True)
    assert not known_parallel(ids, found.frame).any(), "sharing is not tested on it"


def test_xsafety_is_parallel_by_the_line_of_a_topic(tmp_path: Path) -> None:
    found = load(f"xsafety:{made.xsafety(tmp_path)}")
    same = found.frame.filter(prompt_id="Insult-2")
    assert set(same["language"]) == {"en", "bn", "es", "zh"}
    assert all(text.startswith("Insult, ") and text.endswith(" 1?") for text in same["text"])
    assert set(found.frame["topic"]) == {"Insult", "Physical_Harm"}


def test_xsafety_of_the_hub_is_the_same_set(tmp_path: Path) -> None:
    """There it is one long table, in which Spanish is called sp, too."""
    files = load(f"xsafety:{made.xsafety(tmp_path / 'files')}")
    rows = [
        {"language": language, "text": f"{topic}, {made.text(language, number)}", "category": f"{topic}{end}"}
        for language, end in (("bn", "_n"), ("en", "_en"), ("sp", ""), ("zh", ""))
        for topic in ("Insult", "Physical_Harm")
        for number in range(5)
    ]
    hub = load(f"xsafety:{made.parquet_file(tmp_path / 'hub.parquet', rows)}")
    columns = ["prompt_id", "language", "text", "topic", "split"]
    assert hub.frame.select(columns).sort(columns).equals(files.frame.select(columns).sort(columns))


@pytest.mark.parametrize("labels", [True, False], ids=["new", "v2"])
def test_contrasts_are_pairs(labels: bool, tmp_path: Path) -> None:
    prompts = load(f"xstest:{made.xstest(tmp_path / 'a.csv', labels=labels)}")
    assert "xstest: 1 harmful prompt without the prompt that it contrasts with, 25 rows above" in prompts.notes
    found = prompts.frame
    pairs = found.drop_nulls("pair_id").group_by("pair_id").agg("prompt_id", "context", "topic")
    assert pairs.height == 24, "row 50 has another focus than row 25"
    for ids, contexts, topics in pairs.select("prompt_id", "context", "topic").iter_rows():
        assert abs(int(ids[0]) - int(ids[1])) == 25
        assert sorted(contexts) == ["harmful", "lookalike"]
        assert set(topics) == {"homonyms"}, "a contrast has the topic of what it contrasts with"


def test_twins_are_pairs(tmp_path: Path) -> None:
    found = load(f"jailbreakbench:{made.jailbreakbench(tmp_path)}").frame
    pairs = found.group_by("pair_id").agg("context", "text")
    assert pairs.height == 10
    assert all(sorted(contexts) == ["harmful", "harmless"] for contexts in pairs["context"])
    assert all(texts[0].split(" (")[0] == texts[1].split(" (")[0] for texts in pairs["text"])


def test_labels_that_are_missing_are_counted(tmp_path: Path) -> None:
    found = load(f"polyguard:{made.polyguard(tmp_path / 'a.parquet')}")
    assert found.notes == ("polyguard: 9 rows without a label left out",)
    assert set(found.frame.filter(prompt_id="2")["context"]) == {"lookalike"}, "adversarial and not harmful"


def test_an_instruction_goes_on_with_its_input(tmp_path: Path) -> None:
    texts = load(f"alpaca:{made.alpaca(tmp_path / 'a.json')}").frame["text"]
    assert texts[:2].to_list() == [made.text("en", 0), f"{made.text('en', 1)}\n\nUse red paper."]


def test_harmless_prompts_of_another_format(tmp_path: Path) -> None:
    harmful = made.multijail(tmp_path / "harmful")
    found = load(f"multijail:{harmful}", harmless=f"mgsm:{made.mgsm(tmp_path / 'harmless')}", languages=("en", "bn"))
    assert counts(found) == {"harmful": 24, "harmless": 20}
    assert set(found.frame.filter(context="harmless")["source"]) == {"mgsm"}
    assert any(note.startswith("mgsm:") for note in found.notes)


def test_the_manifest_tells_where_both_halves_come_from(tmp_path: Path) -> None:
    from ssn_probe import Prompts
    from ssn_probe.api.runner import _data_json
    from ssn_probe.data.prompt_set import load_prompts

    harmless = f"mgsm:{made.mgsm(tmp_path / 'harmless')}"
    node = Prompts(f"multijail:{made.multijail(tmp_path)}", harmless=harmless, languages=("en", "bn"))
    told = _data_json(node, load_prompts(node))
    assert (told["license"], told["revision"]) == ("mit", None)
    digest = load(harmless).digest
    assert told["harmless_set"] == {"name": "mgsm", "license": "cc-by-sa-4.0", "revision": None, "sha256": digest}


def test_halves_that_call_a_language_otherwise_meet(tmp_path: Path) -> None:
    """The project's own format keeps the names of its author."""
    own = write(tmp_path / "own", make_rows(["Chinese", "en"]))
    found = load(f"multijail:{made.multijail(tmp_path)}", harmless=str(own), languages=("zh", "en"))
    assert set(found.frame.filter(context="harmless")["language"]) == {"zh", "en"}
