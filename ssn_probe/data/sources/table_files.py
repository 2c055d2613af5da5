"""The tables of a folder or a file that others wrote, read strictly, with what their names say."""

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ssn_probe import limits
from ssn_probe.errors import DataError, first_line, is_library_failure
from ssn_probe.limits import read_limited
from ssn_probe.spec.node import brief
from ssn_probe.tables import csv_table, json_table, parquet_table
from ssn_probe.text import listing

READ = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
OTHERS = (".arrow", ".gz", ".zip", ".zst", ".xz", ".bz2")
"""Files that datasets reads, too."""
ABOUT = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "dataset.json", "package.json")
"""Files beside tables that are none."""
SHARD = re.compile(r"-\d{5}-of-\d{5}(-[0-9a-f]{8,})?$")
MOST_FILES = 10_000


class Table(NamedTuple):
    """A table, the file or folder it comes from, and its label: folders, configuration, split and name of the file."""

    path: Path
    label: str
    frame: pl.DataFrame


def read_folder(folder: Path, patterns: Sequence[str], names: Sequence[str], config: str | None = None) -> list[Table]:
    """The tables of a folder: a saved data set, those that its README.md declares, or all that fit the patterns.

    `names`: the columns of csv and tsv files without a header. `config`: one of the configurations of README.md.
    """
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        return _saved(folder)
    declared = {} if patterns else _declared(folder)
    if declared:
        chosen = _chosen(folder, declared, config)
        return [
            Table(folder / file, f"{label}/{Path(file).with_suffix('').as_posix()}", read_file(folder / file, names))
            for label, wanted in chosen
            for file in _matching(folder, wanted)
        ]
    files = _matching(folder, patterns)
    if files:
        return [
            Table(folder / file, Path(file).with_suffix("").as_posix(), read_file(folder / file, names))
            for file in files
        ]
    if patterns:
        raise DataError(f"{folder} has none of the files {', '.join(patterns)}", "Give the folder that holds them.")
    if not any(path.suffix in OTHERS for path in folder.rglob("*")):
        raise DataError(
            f"{folder} has no prompts: it holds no table ({', '.join(READ)})",
            "Give a folder with prompts.parquet (or .jsonl, .csv) and dataset.json, or with tables of others.",
        )
    return _with_datasets(folder, config)


def read_file(path: Path, names: Sequence[str] = ()) -> pl.DataFrame:
    """One table; `names`: its columns, if it is a csv or tsv file without a header."""
    content = read_limited(path, limits.PROMPTS, DataError)
    match path.suffix.lower():
        case ".csv" | ".tsv" as suffix:
            separator = "," if suffix == ".csv" else "\t"
            return csv_table(path, content, None, _begins_with_a_number, separator=separator, names=names)[0]
        case ".json" | ".jsonl" as suffix:
            return json_table(path, content, lines=suffix == ".jsonl")
        case ".parquet":
            _, columns = parquet_table(path, content, ())
            return _with_class_names(parquet_table(path, content, columns)[0], _features(content))
    raise DataError(f"no prompts can be read from {path}: it is no table", f"Give one of {', '.join(READ)}.")


def _features(content: bytes) -> dict[str, Any]:
    """What datasets wrote about the columns of a parquet file."""
    try:
        said = json.loads(pl.read_parquet_metadata(io.BytesIO(content)).get("huggingface", "{}"))
        return dict(said["info"]["features"])
    except (ValueError, LookupError, TypeError):
        return {}


def _with_class_names(frame: pl.DataFrame, features: Mapping[str, Any]) -> pl.DataFrame:
    """The frame with names in place of the numbers of a ClassLabel of datasets."""
    classes = {name: one.get("names") for name, one in features.items() if isinstance(one, dict)}
    return frame.with_columns(
        pl.col(name).replace_strict(dict(enumerate(names)), default=None, return_dtype=pl.String)
        for name, names in classes.items()
        if isinstance(names, list) and name in frame.columns and frame[name].dtype.is_integer()
    )


def _begins_with_a_number(cells: dict[str, str]) -> bool:
    """A line within a cell that could be a row: its first cell is an id, and there are several."""
    return len(cells) > 2 and next(iter(cells.values())).strip().isdigit()


def _matching(folder: Path, patterns: Sequence[str]) -> list[str]:
    """The readable files of a folder, in the order of the patterns and then by name."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() in READ and path.name not in ABOUT and not any(p.startswith(".") for p in inside.parts):
            found.append(inside.as_posix())
    if len(found) > MOST_FILES:
        raise DataError(f"{folder} has {len(found):,} tables", "Give a folder with fewer, or one file.")
    wanted = [file for pattern in patterns or ("*",) for file in found if fnmatch(file, pattern)]
    return list(dict.fromkeys(wanted))


def _declared(folder: Path) -> dict[str, list[tuple[str, list[str]]]]:
    """The configurations of README.md: name → (its split, patterns of its files)."""
    from huggingface_hub import DatasetCard

    readme = folder / "README.md"
    if not readme.exists():
        return {}
    try:
        about = read_limited(readme, limits.CARD, DataError).decode("utf-8-sig")
        if not about.startswith("---"):
            return {}
        card = DatasetCard(about)
        configs = [config for config in card.data.get("configs") or [] if "data_files" in config]
        return {config["config_name"]: list(_splits(config["data_files"])) for config in configs}
    except Exception as error:
        if not is_library_failure(error) or isinstance(error, DataError):
            raise
        hint = "Correct its first lines, or remove it: then all tables of the folder are read."
        raise DataError(f"cannot read {readme}: {first_line(error)}", hint) from error


def _splits(files: Any) -> Iterable[tuple[str, list[str]]]:
    for one in files if isinstance(files, list) else [files]:
        path = one.get("path", "") if isinstance(one, dict) else one
        split = str(one.get("split", "")) if isinstance(one, dict) else ""
        yield split, [path] if isinstance(path, str) else list(path)


def _chosen(
    folder: Path, declared: dict[str, list[tuple[str, list[str]]]], config: str | None
) -> list[tuple[str, list[str]]]:
    """The splits of the chosen configuration, or of all where each is a language."""
    from ssn_probe.languages import language_code

    if config is None and len(declared) > 1 and not all(map(language_code, declared)):
        hint = f"Name one: NAME:{next(iter(declared))}."
        raise DataError(f"{folder.name} has several configurations: {', '.join(declared)}", hint)
    if config is not None and config not in declared:
        raise DataError(f"there is no configuration {brief(config)}", f"There are {listing(list(declared))}.")
    names = list(declared) if config is None else [config]
    return [(f"{name}/{split}", patterns) for name in names for split, patterns in declared[name]]


def _saved(folder: Path) -> list[Table]:
    """What `save_to_disk` of datasets wrote: one data set, or several splits."""
    from datasets import DatasetDict, load_from_disk

    found = _from_library(folder, lambda: load_from_disk(str(folder)))
    splits = dict(found) if isinstance(found, DatasetDict) else {folder.name: found}
    return [Table(folder, str(name), _whole(split)) for name, split in splits.items()]


def _with_datasets(folder: Path, config: str | None) -> list[Table]:
    """A folder without tables that are read here, as `load_dataset` reads it."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    loaded = _from_library(folder, lambda: load_dataset(str(folder), config))
    return [Table(folder, str(name), _whole(split)) for name, split in loaded.items()]


def _whole(split: Any) -> pl.DataFrame:
    """All rows of a split of datasets, in its order."""
    frame = split.to_polars()
    assert isinstance(frame, pl.DataFrame)
    return _with_class_names(frame, split.features.to_dict())


def _from_library(folder: Path, load: Any) -> Any:
    try:
        return load()
    except BaseException as error:
        if not is_library_failure(error):
            raise
        hint = f"Give a folder with tables ({', '.join(READ)}), or one that `save_to_disk` of datasets wrote."
        raise DataError(f"cannot read {folder} as a data set: {first_line(error)}", hint) from error


def as_text(column: pl.Series, where: Path) -> pl.Series:
    """A column as text: whole numbers without a point, lists as JSON."""
    kind = column.dtype
    if kind.is_float():
        column = column.fill_nan(None)
        if ((column.abs() < 2**53) & (column == column.round())).all():
            column = column.cast(pl.Int64)
    if kind.is_nested():
        rows = [None if row is None else json.dumps(row, ensure_ascii=False, default=str) for row in column.to_list()]
        return pl.Series(column.name, rows, pl.String)
    try:
        return column.cast(pl.String)
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{where}: {column.name} is {kind}, which is no text", "Write it as text.") from error
