"""Instruction data in the Alpaca format."""

from datasets import Dataset

from helpers.data.rows import FILL, DataError, from_hub, is_file, read_json_rows, skipped, text_field

ALPACA_COLUMNS = ("instruction", "input", "output")


def load_alpaca(source: str) -> Dataset:
    """Load instruction data in the Alpaca format.

    `source` is a `.json` or `.jsonl` file, or the name of a data set on the Hugging Face Hub.
    Returns the columns `instruction`, `input` (may be empty) and `output`, all text. Rows whose
    instruction or output is blank are skipped, counted and printed.
    """
    if is_file(source):
        rows = read_json_rows(source)
    else:
        rows = from_hub(source, ALPACA_COLUMNS)
    kept: dict[str, list[str]] = {column: [] for column in ALPACA_COLUMNS}
    blank = []
    for number, row in enumerate(rows, start=1):
        values = [text_field(row, column, source, number, optional=column == "input") for column in ALPACA_COLUMNS]
        if not (values[0].strip() and values[2].strip()):
            blank.append(number)
            continue
        for column, value in zip(ALPACA_COLUMNS, values):
            kept[column].append(value)
    if not kept["output"]:
        raise DataError(f"{source}: none of its {len(rows):,} rows has both an instruction and an output. {FILL}")
    print(f"{source}: {len(rows):,} rows, {len(kept['output']):,} kept" + skipped("blank instruction or output", blank))
    return Dataset.from_dict(kept)
