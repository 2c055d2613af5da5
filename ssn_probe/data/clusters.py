"""Which prompts are not independent: those that share a label in `cluster`, or in a column that crosses it.

A request that is an action on an object resembles the others of its action and those of its object. Then `cluster` has
the one and `cluster_2` the other, and intervals are over both. What may not be in two splits is the combination of all
columns, since every split has prompts of most actions and objects.
"""

import polars as pl

CLUSTERS = ("cluster", "cluster_2", "cluster_3")
"""The columns, in the frame of a prompt set and in the tables of a run; most sets have the first alone."""


def cluster_columns(frame: pl.DataFrame) -> list[str]:
    """The columns of clusters that a frame has; one without any label is none."""
    here = (name for name in CLUSTERS if name in frame.columns)
    return [name for name in here if name == CLUSTERS[0] or frame[name].null_count() < max(frame.height, 1)]


def combined(frame: pl.DataFrame) -> pl.Series:
    """One label for what is equal in all columns of clusters: what stays in one split. A single column is itself."""
    return frame.select(pl.concat_str(cluster_columns(frame), separator=" × ").alias("cluster")).to_series()
