"""Beginnings of sentences with several endings, of which one is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.data.rows import DataError, read_json_rows, text_field


def load_quiz(path: str | Path) -> list[dict[str, Any]]:
    """Rows with a `beginning` and a list of `endings`, the true one first, from a `.json` or `.jsonl` file.

    Raises `DataError` for a blank beginning or ending, for fewer than two endings, and for one that stands twice.
    """
    rows = []
    for number, row in enumerate(read_json_rows(path), start=1):
        beginning, endings = text_field(row, "beginning", str(path), number), row.get("endings")
        if not isinstance(endings, list) or not all(isinstance(text, str) and text.strip() for text in endings):
            raise DataError(
                f"{path}, row {number}: 'endings' is no list of texts. Write two or more, the true one first."
            )
        if len(set(endings)) < max(2, len(endings)) or not beginning.strip():
            raise DataError(
                f"{path}, row {number}: needs a beginning, and two or more endings that differ. Write them."
            )
        rows.append({"beginning": beginning, "endings": endings})
    print(f"{path}: {len(rows):,} questions")
    return rows
