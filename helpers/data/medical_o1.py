"""Medical questions with a chain of thought and an answer, in the format of medical-o1-reasoning-SFT."""

from __future__ import annotations

from datasets import Dataset

from helpers.data.rows import FILL, DataError, read_rows, skipped, text_field

O1_COLUMNS = ("Question", "Complex_CoT", "Response")


def load_medical_o1(source: str, config: str | None = None, limit: int | None = None) -> Dataset:
    """Load questions with their chains of thought.

    `source` is a `.json` or `.jsonl` file, or a data set on the Hugging Face Hub; there `config` names its part
    (`en`, `zh`). At most the first `limit` rows are used. Returns the columns `Question`, `Complex_CoT` and
    `Response`. Rows with a blank field, and questions that stood in an earlier row (a copy on the held-out side
    would be no test), are skipped, counted and printed.
    """
    table = read_rows(source, O1_COLUMNS, config, limit)
    kept: dict[str, list[str]] = {column: [] for column in O1_COLUMNS}
    blank, again, seen = [], [], set()
    for number, row in enumerate(table, start=1):
        values = [text_field(row, column, source, number) for column in O1_COLUMNS]
        question = " ".join(values[0].split())
        if not all(value.strip() for value in values):
            blank.append(number)
        elif question in seen:
            again.append(number)
        else:
            seen.add(question)
            for column, value in zip(O1_COLUMNS, values, strict=True):
                kept[column].append(value)
    if not seen:
        raise DataError(
            f"{source}: none of its {len(table):,} rows has a question, a chain of thought and a response. {FILL}"
        )
    said = skipped("blank field", blank) + (skipped("the same question again", again) if again else "")
    print(f"{source}: {len(table):,} rows, {len(seen):,} kept{said}")
    return Dataset.from_dict(kept)


def nearest(questions: list[str], text: str) -> tuple[int, float]:
    """The question most like `text`: its index, and the share of the two's character trigrams that they have in common.

    1.0 is the same text; above about 0.5 it is the same question, reworded. Raises ValueError without questions.
    """
    wanted = _trigrams(text)

    def alike(index: int) -> float:
        have = _trigrams(questions[index])
        return len(have & wanted) / (len(have | wanted) or 1)

    best = max(range(len(questions)), key=alike)
    return best, alike(best)


def _trigrams(text: str) -> set[str]:
    letters = "".join(character for character in text.lower() if character.isalnum())
    return {letters[start : start + 3] for start in range(max(1, len(letters) - 2))}
