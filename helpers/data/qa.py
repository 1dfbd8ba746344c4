"""Questions and answers in two columns, under either of their usual names."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from helpers.data.rows import FILL, DataError, from_hub, is_file, read_json_rows, skipped, text_field

PAIRS = (("question", "answer"), ("query", "response"))
"""The columns of Huatuo26M-Lite and those of ShenNong_TCM_Dataset."""


def load_qa(source: str, config: str | None = None, keep: Sequence[str] = ()) -> Dataset:
    """Load single questions with their answers.

    `source` is a `.json` or `.jsonl` file, or the name of a data set on the Hugging Face Hub (there `config` names its
    part, if it has several), with one of the pairs of columns in `PAIRS`. Returns the columns `question` and
    `answer`, and those named in `keep` (`label`, say) as they are. Rows with a blank question or answer are skipped,
    counted and printed. Raises `DataError` where a column to keep holds values of several types.
    """
    rows = read_json_rows(source) if is_file(source) else from_hub(source, tuple(keep), config)
    pair = next((pair for pair in PAIRS if set(pair) <= set(rows[0])), None)
    if pair is None:
        wanted = " or ".join(" and ".join(map(repr, names)) for names in PAIRS)
        raise DataError(
            f"{source}: row 1 has the columns {list(rows[0])}; wanted are {wanted}. Rename them, or use "
            "load_alpaca for 'instruction' and 'output', load_conversations for dialogues."
        )
    kept: dict[str, list] = {column: [] for column in ("question", "answer", *keep)}
    blank, numbers = [], []
    for number, row in enumerate(rows, start=1):
        question, answer = (text_field(row, column, source, number) for column in pair)
        if not (question.strip() and answer.strip()):
            blank.append(number)
            continue
        if missing := [column for column in keep if column not in row]:
            raise DataError(
                f"{source}, row {number}: has no {missing}, which `keep` names. Add it, or name others. "
                f"It has: {list(row)}."
            )
        numbers.append(number)
        for column, value in zip(kept, (question, answer, *(row[column] for column in keep))):
            kept[column].append(value)
    if not kept["question"]:
        raise DataError(f"{source}: none of its {len(rows):,} rows has both a question and an answer. {FILL}")
    for column in keep:
        _check_one_type(kept[column], numbers, column, source)
    print(f"{source}: {len(rows):,} rows, {len(kept['question']):,} kept" + skipped("blank question or answer", blank))
    return Dataset.from_dict(kept)


def _check_one_type(values: list[Any], numbers: list[int], column: str, source: str) -> None:
    """Raise `DataError` for values that Arrow puts into no column: with the row of the first that does not fit."""
    if _fits(values):
        return
    place = bisect_left(range(len(values)), True, key=lambda last: not _fits(values[: last + 1]))
    value, before = values[place], next((value for value in values[:place] if value is not None), None)
    shown = repr(value) if len(repr(value)) <= 40 else repr(value)[:40] + "…"
    fault = f"{column!r} is {shown}"
    if not _fits([value]):
        fault += ", which no column can hold"
    elif type(value) is type(before):
        fault += ", which holds other types than in the rows before it"
    else:
        fault += f" ({type(value).__name__}), where the rows before it have {type(before).__name__}"
    raise DataError(
        f"{source}, row {numbers[place]}: {fault}. Write the values of this column in one form in all rows, as texts "
        "say, or leave it out of `keep`."
    )


def _fits(values: list[Any]) -> bool:
    try:
        Dataset.from_dict({"values": values})
    except (pa.ArrowException, OverflowError, TypeError):
        return False
    return True
