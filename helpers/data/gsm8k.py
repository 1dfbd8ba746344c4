"""Grade-school word problems in GSM8K's format."""

from datasets import Dataset

from helpers.data.rows import FILL, DataError, from_hub, is_file, read_json_rows, skipped, text_field
from helpers.rewards import extract_gsm8k_answer

GSM8K_COLUMNS = ("question", "answer")


def load_gsm8k(source: str) -> Dataset:
    """Load problems in GSM8K's format.

    `source` is a `.jsonl` or `.json` file, or the name of a data set on the Hugging Face Hub (its config `main`).
    Each row has a `question` and an `answer`: a solution in words that ends in `#### N`. Returns both columns and
    `target`, the bare number N as text, without thousands commas. Rows with a blank question are skipped, counted
    and printed; a solution without a final number raises `DataError`.
    """
    rows = read_json_rows(source) if is_file(source) else from_hub(source, GSM8K_COLUMNS, config="main")
    kept: dict[str, list[str]] = {column: [] for column in (*GSM8K_COLUMNS, "target")}
    blank = []
    for number, row in enumerate(rows, start=1):
        question, answer = (text_field(row, column, source, number) for column in GSM8K_COLUMNS)
        if not question.strip():
            blank.append(number)
            continue
        target = extract_gsm8k_answer(answer)
        if target is None:
            raise DataError(
                f"{source}, row {number}: 'answer' does not end in '#### ' and one number, but in {answer[-40:]!r}. "
                "Write the final number after ####, or delete the row."
            )
        for column, value in zip(kept, (question, answer, target)):
            kept[column].append(value)
    if not kept["question"]:
        raise DataError(f"{source}: none of its {len(rows):,} rows has a question. {FILL}")
    print(f"{source}: {len(rows):,} rows, {len(kept['question']):,} kept" + skipped("blank question", blank))
    return Dataset.from_dict(kept)
