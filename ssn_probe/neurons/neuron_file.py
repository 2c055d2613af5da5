"""Neuron files: a set from parquet or csv, checked row by row."""

import hashlib
import json
from pathlib import Path

import polars as pl

from ssn_probe import limits
from ssn_probe.errors import DataError
from ssn_probe.limits import read_limited
from ssn_probe.neurons.neuron_set import EVERY, KEYS, LANGUAGE, SCHEMA, NeuronSet, neuron_set
from ssn_probe.spec import SITES
from ssn_probe.tables import UNREADABLE, csv_table, parquet_table

WHOLE = r"^-?\d{1,18}$"

SEVERAL = (
    "The table of a run has several sets. Write one into a file of its own, in Python: "
    "polars.read_parquet('neurons.parquet').filter(set='ss').write_parquet('ss.parquet')"
)


def read_neurons(path: str | Path) -> NeuronSet:
    """A set from a parquet or csv file with columns language, layer, site, index and, optionally, score."""
    path = Path(path)
    content = read_limited(path, limits.NEURON_FILE, DataError)
    _check_run(path, content)
    known = list(SCHEMA)
    if path.suffix.lower() == ".csv":
        table, names = csv_table(path, content, known, lambda cells: True)
        frame = _typed(table, path)
    elif path.suffix.lower() == ".parquet" or content.startswith(b"PAR1"):
        frame, names = parquet_table(path, content, known)
    else:
        raise DataError(
            f"cannot read {path}: it is neither parquet nor csv", "Give a .parquet file, or a .csv file with commas."
        )
    missing = [name for name in KEYS if name not in frame.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {missing}", f"A neuron file has {KEYS} and optionally 'score'.")
    if frame.is_empty():
        raise DataError(f"{path} has no neurons", "Give at least one row.")
    if "score" not in frame.columns:
        frame = frame.with_columns(score=pl.lit(None, pl.Float64))
    _check_types(frame, path)
    if any(frame[name].null_count() for name in KEYS):
        raise DataError(f"{path} has neurons without a language, layer, site or index", TYPES)
    try:
        neurons = neuron_set(frame)
    except UNREADABLE as error:
        raise DataError(
            f"{path} has values that cannot be neurons: {str(error).partition(chr(10))[0]}", TYPES
        ) from error
    _check_rows(neurons.frame, path)
    if len(neurons) < frame.height:
        _check_given_once(frame, path, SEVERAL if "set" in names else "Give each neuron once per language.")
    return neurons


def _check_run(path: Path, content: bytes) -> None:
    """A file in the folder of a run must be the one that the run wrote, if the run recorded its digest."""
    try:
        manifest = json.loads(read_limited(path.with_name("manifest.json"), limits.MANIFEST, DataError))
        expected = manifest["files"][path.name]
    except (DataError, ValueError, LookupError, TypeError, RecursionError):
        return
    if expected != hashlib.sha256(content).hexdigest():
        raise DataError(
            f"{path} changed since the run wrote it: its SHA-256 does not match manifest.json",
            "Run the recipe again, or copy the file out of the run's folder if it is meant to differ.",
        )


def _typed(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    """The numbers of a csv file as numbers."""
    for name in ("layer", "index"):
        if name in frame.columns and not frame[name].str.contains(WHOLE).all():
            raise DataError(f"{path} has a layer or an index that is not a whole number", TYPES)
    kinds = {name: kind for name, kind in SCHEMA.items() if name in frame.columns and kind != pl.String}
    try:
        return frame.cast(kinds)  # type: ignore[arg-type]
    except UNREADABLE as error:
        raise DataError(
            f"{path} has values that cannot be neurons: {str(error).partition(chr(10))[0]}", TYPES
        ) from error


def _check_types(frame: pl.DataFrame, path: Path) -> None:
    for name, kind in SCHEMA.items():
        found = frame[name].dtype
        text = found in (pl.String, pl.Categorical, pl.Enum)
        fits = text if kind == pl.String else found.is_integer() if kind == pl.Int32 else found.is_numeric()
        if not fits and frame[name].null_count() < frame.height:
            raise DataError(f"{path} has values that cannot be neurons: {name} is {found}", TYPES)


TYPES = "Types: language and site are text, layer and index whole numbers from 0, score a finite number or empty."


def _check_rows(rows: pl.DataFrame, path: Path) -> None:
    if (rows["layer"] < 0).any() or (rows["index"] < 0).any():
        raise DataError(f"{path} has a layer or an index below 0", TYPES)
    if not rows["score"].drop_nulls().is_finite().all():
        raise DataError(f"{path} has a score that is not finite", TYPES)
    for site in rows["site"].unique().sort():
        if site not in SITES:
            raise DataError(f"{path}: unknown site {site!r}", f"Sites: {', '.join(SITES)}.")
    languages = rows["language"].unique().sort().to_list()
    for language in languages:
        if not LANGUAGE.fullmatch(language) and languages != [EVERY]:
            hint = f"Give codes such as en, zh-Hans or qaa, or {EVERY} alone: the neurons of every language."
            raise DataError(f"{path}: {language!r} is not a language code", hint)


def _check_given_once(frame: pl.DataFrame, path: Path, hint: str) -> None:
    """Refuses a neuron with two scores, because nothing says which of them counts."""
    twice = frame.select(*KEYS, "score").unique().filter(pl.struct(KEYS).is_duplicated())
    if not twice.is_empty():
        neuron = ", ".join(str(value) for value in twice.row(0)[: len(KEYS)])
        raise DataError(f"{path} has the neuron ({neuron}) with several scores", hint)
