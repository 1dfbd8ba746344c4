"""Loaders: one per data set format, each returning a `datasets.Dataset`, none guessing.

What cannot be used raises `DataError`, which names the file, the row and the mend.
What is skipped is counted and printed.
"""

from helpers.data.alpaca import load_alpaca
from helpers.data.odometer import (
    check_labels,
    field_accuracy,
    load_odometer_excel,
    load_truth,
    majority,
    parse_reading,
)
from helpers.data.rows import DataError, read_json_rows

__all__ = [
    "DataError",
    "check_labels",
    "field_accuracy",
    "load_alpaca",
    "load_odometer_excel",
    "load_truth",
    "majority",
    "parse_reading",
    "read_json_rows",
]
