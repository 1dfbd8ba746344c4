"""Questions and answers in two columns, under either of their usual names."""

from __future__ import annotations

from collections.abc import Sequence

from datasets import Dataset

from helpers.data.rows import FILL, DataError, from_hub, is_file, read_json_rows, skipped, text_field

PAIRS = (("question", "answer"), ("query", "response"))
"""The columns of Huatuo26M-Lite and those of ShenNong_TCM_Dataset."""


def load_qa(source: str, config: str | None = None, keep: Sequence[str] = ()) -> Dataset:
    """Load single questions with their answers.

    `source` is a `.json` or `.jsonl` file, or the name of a data set on the Hugging Face Hub (there `config` names its
    part, if it has several), with one of the pairs of columns in `PAIRS`. Returns the columns `question` and
    `answer`, and those named in `keep` (`label`, say) as they are. Rows with a blank question or answer are skipped,
    counted and printed.
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
    blank = []
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
        for column, value in zip(kept, (question, answer, *(row[column] for column in keep))):
            kept[column].append(value)
    if not kept["question"]:
        raise DataError(f"{source}: none of its {len(rows):,} rows has both a question and an answer. {FILL}")
    print(f"{source}: {len(rows):,} rows, {len(kept['question']):,} kept" + skipped("blank question or answer", blank))
    return Dataset.from_dict(kept)
