"""A csv as MultiJail is published, and a harmless half in the same form: lighthouses, and other things."""

import csv
from importlib.resources import files
from pathlib import Path

import polars as pl


def write_halves(folder: Path, languages: tuple[str, ...] = ("en", "es", "fr"), rows: int = 60) -> None:
    """Writes mine.csv and harmless.csv, with a byte-order mark and tags that are a list's text, commas inside."""
    frame = pl.read_parquet(str(files("ssn_probe.data.lighthouses") / "prompts.parquet"))
    for name, context in (("mine", "harmful"), ("harmless", "harmless")):
        kept = frame.filter(pl.col("context") == context, pl.col("language").is_in(languages))
        wide = kept.pivot("language", index="prompt_id", values="text", maintain_order=True)
        wide = wide.unique(subset="en", maintain_order=True).gather_every(max(1, 150 // rows)).head(rows)
        with (folder / f"{name}.csv").open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "source", "tags", *languages])
            for place, row in enumerate(wide.iter_rows(named=True)):
                writer.writerow([place, "made up", "['a topic', 'another']", *(row[one] for one in languages)])
