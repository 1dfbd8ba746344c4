"""Notes on the places of an invented town, this year's and next year's, and questions about them.

No model can know the answers: the names are those that `nano/qwen2-town` is never taught, the values are drawn here.
"""

from __future__ import annotations

import json
import random

from helpers.nano import town

PLACES = 60  # a language


def places(language: str) -> list[dict[str, str]]:
    """A name, the note of this year and the note of the next, in which every value has changed."""
    return [_notes(language, one, after, rng) for one, after, rng in _drawn(language)]


def questions(language: str) -> list[dict[str, str]]:
    """For each field of each place: the question, the same reworded, and the value in both years."""
    rows = []
    for one, after, _ in _drawn(language):
        for field in town.FIELDS:
            asked, reworded = (town.question(language, one, field, wording) for wording in range(2))
            values = {"value": one.values[field], "value_after": after.values[field]}
            rows.append({"place": one.name(language), "question": asked, "reworded": reworded} | values)
    return rows


def _drawn(language: str) -> list[tuple[town.Place, town.Place, random.Random]]:
    rng = random.Random(f"town {language}")
    names = [(a, b) for a in town.FIRST[language] for b in town.SECOND[language] if town.kept_back((a, b))]
    drawn = []
    for number, words in enumerate(rng.sample(names, PLACES)):
        one = town.place(language, rng, words)
        after = town.place(language, rng, words)
        while any(one.values[field] == after.values[field] for field in town.FIELDS):
            after = town.place(language, rng, words)
        drawn.append((one, after, random.Random(f"{language} {number}")))
    return drawn


def _notes(language: str, one: town.Place, after: town.Place, rng: random.Random) -> dict[str, str]:
    return {
        "place": one.name(language),
        "note": town.note(language, one, rng),
        "note_after": town.note(language, after, rng),
    }


def files() -> dict[str, bytes]:
    """Notes and questions by file name."""
    tables = {}
    for language in town.LANGUAGES:
        tables[f"town_notes_{language}.json"] = places(language)
        tables[f"town_questions_{language}.json"] = questions(language)
    return {name: (json.dumps(rows, ensure_ascii=False, indent=1) + "\n").encode() for name, rows in tables.items()}
