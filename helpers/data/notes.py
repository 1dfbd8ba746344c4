"""Notes to look things up in, and questions that they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.data.rows import DataError, read_json_rows, text_field
from helpers.scores import mentions

NOTE_COLUMNS = ("place", "note", "note_after")
QUESTION_COLUMNS = ("place", "question", "reworded", "value", "value_after")


def load_notes(path: str | Path) -> dict[str, dict[str, str]]:
    """Notes by the `place` that they are about: `note`, and `note_after`, the same a year later.

    Raises `DataError` for a missing or blank field, and for a place that has two notes.
    """
    notes: dict[str, dict[str, str]] = {}
    for number, row in enumerate(read_json_rows(path), start=1):
        fields = _filled(row, NOTE_COLUMNS, path, number)
        if fields["place"] in notes:
            raise DataError(f"{path}, row {number}: {fields['place']!r} has a note already. Join the two.")
        notes[fields["place"]] = fields
    return notes


def load_questions(path: str | Path, notes: dict[str, dict[str, str]]) -> list[dict[str, str]]:
    """Questions about the places of `notes`: in two wordings, with the value that answers them, now and a year later.

    Raises `DataError` for a missing or blank field, for a place without a note, and for a value that its note does not
    hold: a question that cannot be answered from the notes would count against every method.
    """
    questions = []
    for number, row in enumerate(read_json_rows(path), start=1):
        fields = _filled(row, QUESTION_COLUMNS, path, number)
        if fields["place"] not in notes:
            raise DataError(
                f"{path}, row {number}: there is no note on {fields['place']!r}. Write one, or drop the row."
            )
        for value, note in (("value", "note"), ("value_after", "note_after")):
            if not mentions(notes[fields["place"]][note], fields[value]):
                raise DataError(
                    f"{path}, row {number}: {fields[value]!r} ({value}) does not stand in its {note}. Correct either."
                )
        questions.append(fields)
    return questions


def _filled(row: dict[str, Any], columns: tuple[str, ...], path: str | Path, number: int) -> dict[str, str]:
    fields = {column: text_field(row, column, str(path), number) for column in columns}
    if blank := [column for column, text in fields.items() if not text.strip()]:
        raise DataError(f"{path}, row {number}: {blank[0]!r} is blank. Fill it, or delete the row.")
    return fields
