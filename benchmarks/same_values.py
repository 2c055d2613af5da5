"""`python -m benchmarks.same_values OLD NEW`: do two results folders hold the same values, bit for bit?

For every recipe the newest finished run of either folder: each table is compared column by column, runs of an older
schema version as they are read today. Exits with 1 where something differs.
"""

import sys
from pathlib import Path

from ssn_probe.runs.folder import RunFolder, runs


def newest(root: Path) -> dict[str, RunFolder]:
    """Recipe → its newest finished run."""
    finished = [run for run in runs(root) if run.manifest()["status"] == "done"]
    return {run.manifest()["recipe"]: run for run in reversed(finished)}


def differences(old: RunFolder, new: RunFolder) -> list[str]:
    """What differs between the tables of two runs, in words."""
    found = []
    names = [sorted(path.stem for path in run.path.glob("*.parquet")) for run in (old, new)]
    if names[0] != names[1]:
        found.append(f"tables {names[0]} and {names[1]}")
    for name in sorted(set(names[0]) & set(names[1])):
        ours, theirs = old.table(name), new.table(name)
        if ours.schema != theirs.schema:
            found.append(f"{name}: columns {dict(ours.schema)} and {dict(theirs.schema)}")
        else:
            found += [f"{name}.{column}" for column in ours.columns if not ours[column].equals(theirs[column])]
    keys = [run.manifest()["key"] for run in (old, new)]
    return found + (["the key"] if keys[0] != keys[1] else [])


def main(old: str, new: str) -> int:
    before, after = newest(Path(old)), newest(Path(new))
    different = 0
    for recipe in sorted(before):
        found = differences(before[recipe], after[recipe]) if recipe in after else ["not run"]
        different += bool(found)
        print(f"{recipe}: {'; '.join(found) or 'the same values'}")  # noqa: T201
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
