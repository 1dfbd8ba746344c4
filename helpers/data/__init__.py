"""Loaders: one per data set format, each returning a `datasets.Dataset`, none guessing.

What cannot be used raises `DataError`, which names the file, the row and the mend.
What is skipped is counted and printed.
"""

from helpers.data.alpaca import load_alpaca
from helpers.data.medical_o1 import load_medical_o1, nearest
from helpers.data.rows import DataError, read_json_rows

__all__ = ["DataError", "load_alpaca", "load_medical_o1", "nearest", "read_json_rows"]
