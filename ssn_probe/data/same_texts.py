"""Prompts with the same text belong into one split: what chooses or trains neurons must not measure them."""

import polars as pl

from ssn_probe.data.connected import connected
from ssn_probe.data.sameness import same_words


def joined_by_text(frame: pl.DataFrame) -> pl.DataFrame:
    """The prompts with one `cluster` for those that share a text, in whatever language; a declared split stays.

    The cluster is that of the first of them.
    """
    if "split" in frame.columns and frame["split"].null_count() < frame.height:
        return frame
    given = [pl.col("cluster")] if "cluster" in frame.columns else []
    frame = frame.with_columns(pl.coalesce(*given, "prompt_id").alias("cluster"))
    words = frame["text"].map_elements(same_words, pl.String)
    units, texts = (column.rank("dense").to_numpy().astype(int) - 1 for column in (frame["cluster"], words))
    together = connected(units.max() + texts.max() + 2, units, texts + units.max() + 1)
    component = pl.Series("component", together[units])
    return frame.with_columns(component).with_columns(pl.col("cluster").first().over("component")).drop("component")
