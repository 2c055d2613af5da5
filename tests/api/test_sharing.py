"""`ssn-probe share`: what a data set made of a run holds, what it must not hold, and who can read it."""

import errno
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import polars as pl
import pytest
from click.testing import CliRunner
from pages import STUDIES, written

from ssn_probe.api.sharing import share
from ssn_probe.cli.commands import main
from ssn_probe.errors import RemoteError, ResultError
from ssn_probe.files import sha256, write_json, write_table
from ssn_probe.report.rerun_command import shared_rerun
from ssn_probe.report.sharing.private import without_paths
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.discovery import find_recipe

SECRET = "/home/somebody/secret data/prompts"
HARMFUL = "how it is done, in full"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of prompts with a licence, whose manifest knows where they lie, and who answered what."""
    study = STUDIES["smallest"]()
    run = written(tmp_path_factory.mktemp("run") / "one", study)
    samples = run.table("samples")
    harmful = pl.when(context="harmful").then(pl.lit(HARMFUL)).otherwise(pl.lit("answer " * 40))
    write_table(run.path / "samples.parquet", samples.with_columns(response=harmful))
    manifest = run.manifest()
    manifest["warnings"] = [f"The file {SECRET} cannot be read; https://ndif.lab.example:5000/x said so"]
    manifest["arguments"] = {"data": SECRET}
    manifest["model"] = {name: value for name, value in manifest["model"].items() if name != "digest"}  # of the hub
    manifest["data"] = [one | {"source": "organism", "license": "Apache-2.0"} for one in manifest["data"]]
    write_json(run.path / "manifest.json", manifest)
    return run


def with_data(run: RunFolder, folder: Path, **changes: Any) -> RunFolder:
    """The same run, whose prompts are others."""
    import shutil

    shutil.copytree(run.path, folder)
    manifest = run.manifest()
    write_json(folder / "manifest.json", manifest | {"data": [one | changes for one in manifest["data"]]})
    return replace(run, path=folder)


def whole_text(folder: Path) -> str:
    files = [path for path in folder.rglob("*") if path.suffix in (".json", ".md", ".html", ".svg")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def test_every_table_loads_offline_as_it_was(made: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    share(made, str(tmp_path / "to"))
    names = datasets.get_dataset_config_names(str(tmp_path / "to"))
    assert set(names) == {path.stem for path in made.path.glob("*.parquet") if made.table(path.stem).height}
    for name in names:
        loaded = datasets.load_dataset(str(tmp_path / "to"), name, cache_dir=str(tmp_path / "cache"))["train"]
        assert loaded.num_rows == made.table(name).height
        assert loaded.column_names == made.table(name).columns
    assert datasets.load_dataset(str(tmp_path / "to"), cache_dir=str(tmp_path / "cache"))["train"].num_rows == (
        made.table("summary").height
    )


def test_no_path_no_host_and_no_response_to_a_harmful_request(made: RunFolder, tmp_path: Path) -> None:
    share(made, str(tmp_path / "to"))
    text, samples = whole_text(tmp_path / "to"), pl.read_parquet(tmp_path / "to/tables/samples.parquet")
    for word in (SECRET, "/home/", "somebody", "ndif.lab.example", str(tmp_path), HARMFUL):
        assert word not in text, word
    assert "The file prompts cannot be read; HOST said so" in text
    assert samples.filter(context="harmful")["response"].null_count() == samples.filter(context="harmful").height > 0
    others = samples.filter(pl.col("context") != "harmful")["response"]
    assert others.str.len_chars().max() in (None, 80)
    assert samples.drop("response", "reason", "error").equals(made.table("samples").drop("response", "reason", "error"))


def test_whole_texts_only_where_asked_and_allowed(made: RunFolder, tmp_path: Path) -> None:
    share(made, str(tmp_path / "to"), with_text=True)
    assert HARMFUL in pl.read_parquet(tmp_path / "to/tables/samples.parquet")["response"].to_list()
    assert "may be harmful" in (tmp_path / "to/README.md").read_text(encoding="utf-8")
    share(made, str(tmp_path / "to"))
    assert HARMFUL not in pl.read_parquet(tmp_path / "to/tables/samples.parquet")["response"].to_list()
    closed = with_data(made, tmp_path / "closed", source="my prompts", license=None)
    with pytest.raises(ResultError, match="names no licence"):
        share(closed, str(tmp_path / "texts"), with_text=True)
    share(closed, str(tmp_path / "texts"))
    assert pl.read_parquet(tmp_path / "texts/tables/samples.parquet")["response"].drop_nulls().is_empty()


def test_croissant_names_every_file_and_column(made: RunFolder, tmp_path: Path) -> None:
    share(made, str(tmp_path))
    found = json.loads((tmp_path / "croissant.json").read_text(encoding="utf-8"))
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    for file in found["distribution"]:
        assert sha256(tmp_path / file["contentUrl"]) == file["sha256"]
    fields = {records["name"]: [one["name"] for one in records["field"]] for records in found["recordSet"]}
    assert fields == {
        path.stem: made.table(path.stem).columns for path in made.path.glob("*.parquet") if made.table(path.stem).height
    }


def test_a_folder_with_something_else_stays_as_it_is(made: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ResultError, match="holds something else"):
        share(made, str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(ResultError, match="is a file"):
        share(made, str(tmp_path / "mine.txt"))
    unfinished = with_data(made, tmp_path / "run")
    write_json(unfinished.path / "manifest.json", unfinished.manifest() | {"status": "failed"})
    with pytest.raises(ResultError, match="is not done"):
        share(unfinished, str(tmp_path / "to"))


@dataclass
class Hub:
    """What HfApi is asked to do. `private`: whether the repository is."""

    private: bool = True
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def create_repo(self, name: str, **options: Any) -> str:
        self.asked.append((name, options))
        return f"https://hub.example/{name}"

    def repo_info(self, _name: str, **_options: Any) -> "Hub":
        return self

    def upload_folder(self, *, folder_path: Path, **options: Any) -> None:
        self.asked.append((str(sorted(path.name for path in folder_path.iterdir())), options))


def test_the_hub_gets_it_only_after_a_yes(made: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr("huggingface_hub.HfApi", lambda: hub)
    with pytest.raises(RemoteError, match="private:\n  tables/") as error:
        share(made, "hub:me/study")
    assert "--yes" in str(error.value.hint)
    assert hub.asked == []
    assert share(made, "hub:me/study", yes=True).where == "https://hub.example/me/study"
    (name, made_with), (files, sent_with) = hub.asked
    assert (name, made_with["private"], made_with["repo_type"]) == ("me/study", True, "dataset")
    assert (sent_with["repo_id"], sent_with["repo_type"]) == ("me/study", "dataset")
    assert "croissant.json" in files
    hub.private = False
    with pytest.raises(RemoteError, match="exists on the hub, and is public"):
        share(made, "hub:me/study", yes=True)
    assert len(hub.asked) == 3, "nothing was uploaded"


def test_the_command_says_what_it_wrote(made: RunFolder, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["share", str(made.path), "--to", str(tmp_path / "to")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "tables/summary.parquet: " in done.output
    assert done.output.endswith(f"Written to {tmp_path / 'to'}\n")


@pytest.mark.parametrize(
    ("text", "shared"),
    [
        ("/home/me/my data", "my data"),
        ("~/models/llama", "llama"),
        (r"C:\Users\me\data.csv", "data.csv"),
        ("python:/home/me/judge.py@verdicts", "python:judge.py@verdicts"),
        ("cannot read '/home/me/x.csv': no such file", "cannot read 'x.csv': no such file"),
        ("read/write, 3/4, and ss/ms stay", "read/write, 3/4, and ss/ms stay"),
        ("http://127.0.0.1:5000/status", "HOST"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
    ],
)
def test_paths_and_hosts_lose_what_is_private(text: str, shared: str) -> None:
    assert without_paths({"a": [text]}) == {"a": [shared]}


def again(run: RunFolder, folder: Path) -> str:
    """What a reader of the data set is told of running it again; the card and the page say the same."""
    share(run, str(folder))
    card = (folder / "README.md").read_text(encoding="utf-8").partition("## Run it again")[2].partition("## ")[0]
    page = (folder / "report.html").read_text(encoding="utf-8").partition('id="run-it-again">')[2].partition("</p>")[0]
    [told, command] = [line.strip() for line in card.splitlines() if line.strip()]
    assert page.endswith(told)
    assert command.startswith("ssn-probe run ")
    return told


def test_what_is_needed_to_run_it_again_is_said(made: RunFolder, tmp_path: Path) -> None:
    """The prompts are not in it, and nobody else has the folder where it was run."""
    assert again(made, tmp_path / "to") == "In this folder; the new run appears beside it:"
    hub = with_data(made, tmp_path / "hub", source="owner/name", revision="0123abc")
    assert again(hub, tmp_path / "from-hub") == "In this folder; the new run appears beside it:"
    mine = with_data(made, tmp_path / "mine", source=f"{SECRET}.csv", harmless="mild.csv")
    assert again(mine, tmp_path / "from-file") == (
        "The command needs what is not part of this data set: the prompts of prompts.csv and the prompts of mild.csv. "
        "In this folder, with them under these names in it:"
    )


def test_a_shipped_recipe_with_files_of_somebodys_is_run_again_where_they_are() -> None:
    given = {"data": "mine.csv", "model": "a folder", "judge": "python:mine.py@judge"}
    recipe = find_recipe("identify_ms", given)
    data = {"source": "mine.csv", "harmless": "everyday", "revision": None, "harmless_set": {"revision": None}}
    found = shared_rerun(recipe, {"arguments": given, "options": {}, "data": [data], "model": {"digest": "0"}})
    assert found.command.startswith("ssn-probe run identify_ms -T data=mine.csv ")
    assert found.where == (
        "The command needs what is not part of this data set: the prompts of mine.csv, the model a folder and "
        "the judge python:mine.py@judge. In a folder that has them under these names:"
    )
    plain = find_recipe("identify_ms", {"top": "0.01"})
    organism = {"source": "organism", "harmless": None, "revision": None, "harmless_set": None}
    known = {"arguments": {"top": "0.01"}, "options": {}, "data": [organism], "model": {"digest": "0"}}
    assert shared_rerun(plain, known).where == "Anywhere:"


def test_where_it_fails_nothing_stays(made: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ssn_probe.api.sharing.write_text", full)
    with pytest.raises(ResultError, match="No space left"):
        share(made, str(tmp_path / "to"))
    assert not list((tmp_path / "to").iterdir())


def test_figures_that_no_run_writes_are_one_error(made: RunFolder, tmp_path: Path) -> None:
    damaged = with_data(made, tmp_path / "damaged")
    figures = [pl.lit(float("nan")).alias(name) for name in ("value", "low", "high")]
    write_table(damaged.path / "summary.parquet", damaged.table("summary").with_columns(figures))
    with pytest.raises(ResultError, match="its tables are not those that a run writes"):
        share(damaged, str(tmp_path / "to"))
    assert not list((tmp_path / "to").iterdir())
