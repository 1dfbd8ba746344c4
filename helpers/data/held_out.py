"""Rows that are kept away from training."""

from __future__ import annotations

from pathlib import Path

from datasets import Dataset

from helpers.data.rows import DataError

LEAST = 4  # rows to train on


def hold_out(rows: Dataset, held_out: int, seed: int, source: str | Path) -> tuple[Dataset, Dataset]:
    """Shuffle by `seed` and split: the rows to train on, and `held_out` rows that are not.

    Raises `DataError`, which names `source`, where fewer than `LEAST` rows would be left to train on.
    """
    check_held_out(len(rows), held_out, source)
    parts = rows.train_test_split(test_size=held_out, seed=seed)
    return parts["train"], parts["test"]


def check_held_out(count: int, held_out: int, source: str | Path, what: str = "rows") -> None:
    """Raise `DataError` unless `held_out` of `count` leave `LEAST` to train on; `what` they are called."""
    most = count - LEAST
    if held_out > most:
        less = f"Set HELD_OUT to {most:,} or less, or add {what}." if most > 0 else f"Add {what}."
        raise DataError(
            f"{source}: {count:,} {what} to use, and HELD_OUT = {held_out:,} of them; at least {LEAST} should be left to "
            f"train on. {less}"
        )
