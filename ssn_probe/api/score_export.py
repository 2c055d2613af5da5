"""Effects of every neuron on every prompt of a past run, from the cache into one parquet file, never all in memory."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl
from polars.io.plugins import register_io_source

from ssn_probe.data.judges.endpoint import at_recorded_endpoint
from ssn_probe.engines.vllm_engine import engine_of_run
from ssn_probe.errors import ResultError, nearest
from ssn_probe.files import remove_half_written, write_whole
from ssn_probe.model.asking import asking_of
from ssn_probe.model.coarse_products import as_recorded
from ssn_probe.model.known import find_subject
from ssn_probe.runs.cache import Cache
from ssn_probe.runs.folder import RunFolder
from ssn_probe.spec.discovery import find_recipe
from ssn_probe.study.importance import CONTRASTED
from ssn_probe.study.plan import make_plan
from ssn_probe.study.score_rows import COLUMNS, ROWS, check_kept, effect_frames, scored_set
from ssn_probe.study.workbench import Workbench

SUFFIX = ".parquet"


def export_scores(
    run: RunFolder,
    path: str | Path,
    *,
    name: str | None = None,
    languages: Sequence[str] | None = None,
    contexts: Sequence[str] | None = None,
) -> Path:
    """Writes the effects that chose a set's neurons to a parquet file, whole or not at all; returns its path.

    One row per neuron and prompt: language, context, prompt_id, layer, site, index, effect. They are read from the
    batches that the cache keeps, and written as they are read. Measures nothing and loads no weights.

    Args:
        name: one of the run's sets; None: the only one whose effects were measured.
        languages, contexts: only these; None: all.

    Raises:
        ResultError: the file's name, a set, a language or a context that is not there, scores that the cache no longer
            holds, or a disk that cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise ResultError(f"cannot write scores to {path.name!r}", f"Give a name that ends in {SUFFIX}.")
    manifest = run.manifest()
    with at_recorded_endpoint(manifest.get("judges") or []):
        recipe = find_recipe(str(run.path / "recipe.json"), {})
        node, plan = scored_set(recipe, name), make_plan(recipe)
        known = plan.data[node.prompts].languages
        chosen = _chosen("language", languages, known), _chosen("context", contexts, CONTRASTED)
        cache = Cache(root=run.path.parent / "cache", compute=False, derive=True)
        settings = {"dtype": manifest["model"].get("dtype", "auto"), "device": "cpu", "weights": False}
        settings |= {"asking": asking_of(recipe), "cache": cache.root, "writes": False}
        subject = find_subject(recipe.model, **settings)
        subject = replace(subject, identity=as_recorded(subject.identity, manifest["model"]))
        engine = engine_of_run(manifest["options"].get("engine"), subject)
        bench = Workbench(subject=subject, data=plan.data, anchor=plan.anchor, cache=cache, engine=engine)
        check_kept(bench, node, *chosen)
        try:
            return write_whole(path, lambda temporary: _stream(temporary, effect_frames(bench, node, *chosen)))
        finally:
            remove_half_written(path)  # polars may raise an interrupt twice, and the second ends what cleans up


def _chosen(what: str, asked: Sequence[str] | None, known: Sequence[str]) -> tuple[str, ...]:
    for one in asked or ():
        if one not in known:
            raise ResultError(f"the scores have no {what} {one!r}", nearest(one, list(known)))
    return tuple(one for one in known if not asked or one in asked)


def _stream(path: Path, frames: Iterator[pl.DataFrame]) -> None:
    """Writes frames as they come, `ROWS` rows in a row group, so that readers skip what they do not ask for."""
    stopped: list[BaseException] = []

    def source(*_pushed: object) -> Iterator[pl.DataFrame]:  # nothing is pushed down where all is written
        try:
            yield from frames
        except BaseException as error:
            stopped.append(error)
            raise

    lazy = register_io_source(source, schema=COLUMNS)
    try:
        lazy.sink_parquet(path, row_group_size=ROWS, engine="streaming", maintain_order=True)
    except pl.exceptions.ComputeError:
        if stopped:  # polars 1 makes this of every error, Ctrl-C among them
            raise stopped[0] from None
        raise
