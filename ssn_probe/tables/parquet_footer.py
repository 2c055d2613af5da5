"""The footer of a parquet file: how many rows it has, and what its columns take when they are decompressed.

A file of kilobytes can hold gigabytes, and polars tells the rows but not the sizes. So the footer is read here: a
struct in Thrift's compact protocol, with the field numbers of `parquet.thrift` (Apache Parquet).
"""

import struct
from collections import Counter
from mmap import mmap
from typing import Any

MAGIC = b"PAR1"
DEEPEST = 20
"""Structs within one another; the format needs half as many."""
FILE_ROWS, FILE_GROUPS, GROUP_COLUMNS, COLUMN_METADATA, COLUMN_PATH, COLUMN_BYTES = 3, 4, 1, 3, 3, 6
"""FileMetaData.num_rows and .row_groups, RowGroup.columns, ColumnChunk.meta_data, ColumnMetaData.path_in_schema and
.total_uncompressed_size."""


def rows_and_bytes(content: bytes | mmap) -> tuple[int, Counter[str]]:
    """The number of rows, and the uncompressed bytes of every top-level column. Raises ValueError where it has none."""
    if len(content) < 12 or content[:4] != MAGIC or content[-4:] != MAGIC:
        raise ValueError("it does not begin and end as parquet does")
    length = int.from_bytes(content[-8:-4], "little")
    if not 0 < length <= len(content) - 12:
        raise ValueError("its footer is damaged")
    try:
        footer = _Compact(content[-8 - length : -8]).struct()
        sizes: Counter[str] = Counter()
        for group in footer[FILE_GROUPS]:
            for column in group[GROUP_COLUMNS]:
                about = column[COLUMN_METADATA]
                sizes[about[COLUMN_PATH][0].decode()] += about[COLUMN_BYTES]
        return int(footer[FILE_ROWS]), sizes
    except (LookupError, TypeError, AttributeError, struct.error) as error:
        raise ValueError("its footer is damaged") from error


class _Compact:
    """Thrift's compact protocol: structs as dicts by field number."""

    def __init__(self, content: bytes):
        self.content = content
        self.at = 0

    def byte(self) -> int:
        self.at += 1
        return self.content[self.at - 1]

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.content) - self.at:
            raise IndexError(count)
        self.at += count
        return self.content[self.at - count : self.at]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise IndexError(shift)

    def integer(self) -> int:
        zigzag = self.varint()
        return (zigzag >> 1) ^ -(zigzag & 1)

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > DEEPEST:
            raise IndexError(depth)
        found, number = {}, 0
        while head := self.byte():
            number = number + (head >> 4) if head >> 4 else self.integer()
            kind = head & 0x0F
            found[number] = kind == 1 if kind in (1, 2) else self.value(kind, depth)
        return found

    def value(self, kind: int, depth: int) -> Any:
        match kind:
            case 1 | 2 | 3:
                return self.byte()
            case 4 | 5 | 6:
                return self.integer()
            case 7:
                return self.take(8)
            case 8:
                return self.take(self.varint())
            case 9 | 10:
                return self.sequence(depth)
            case 12:
                return self.struct(depth + 1)
        raise TypeError(kind)  # maps do not occur in a footer

    def sequence(self, depth: int) -> list[Any]:
        head = self.byte()
        count = head >> 4 if head >> 4 < 15 else self.varint()
        if count > len(self.content) - self.at:
            raise IndexError(count)
        return [self.value(head & 0x0F, depth + 1) for _ in range(count)]
