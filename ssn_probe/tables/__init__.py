"""Tables that others wrote, read without repairing anything: what is ambiguous is an error that names the line.

Readers differ on damaged tables: one swallows lines behind an unclosed quote, another takes the first of two columns of
one name, and neither says so. Here every row, cell and name is accounted for, or the table is refused.
"""

from ssn_probe.tables.column_names import check_names, unused_names
from ssn_probe.tables.csv_table import csv_table
from ssn_probe.tables.json_lines import json_lines
from ssn_probe.tables.json_table import json_table
from ssn_probe.tables.parquet_table import parquet_table
from ssn_probe.tables.unreadable import UNREADABLE

__all__ = ["UNREADABLE", "check_names", "csv_table", "json_lines", "json_table", "parquet_table", "unused_names"]
