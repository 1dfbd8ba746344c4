"""The invented town: notes and questions, their loaders, and the nano model that reads notes."""

from __future__ import annotations

import json
import random

import pytest

from helpers import data, generation, nano, prompts, retrieval, scores
from helpers.data import DataError
from helpers.nano import town
from helpers.runtime import root

LANGUAGES = ["en", "zh"]
SAMPLES = root() / "data_samples"
NOTE = {"place": "the Owl", "note": "The Owl. It opens at 7.", "note_after": "The Owl. It opens at 8."}
ASKED = {"place": "the Owl", "question": "When?", "reworded": "At what time?", "value": "7", "value_after": "8"}


def both(language):
    notes = data.load_notes(SAMPLES / f"town_notes_{language}.json")
    return notes, data.load_questions(SAMPLES / f"town_questions_{language}.json", notes)


@pytest.mark.parametrize("language", LANGUAGES)
def test_samples_are_of_names_that_the_model_is_never_taught(language):
    notes, questions = both(language)
    assert len(notes) == 60 and len(questions) == 240
    assert len({row["question"] for row in questions} | {row["reworded"] for row in questions}) == 480
    kept = [(a, b) for a in town.FIRST[language] for b in town.SECOND[language] if town.kept_back((a, b))]
    assert set(notes) <= {town.NAME[language].format(*words) for words in kept}
    rng = random.Random(0)
    assert not any(town.kept_back(town.taught_place(language, rng).words) for _ in range(300))
    assert all(row["value"] != row["value_after"] for row in questions)


@pytest.mark.parametrize("language", LANGUAGES)
def test_bm25_finds_the_note_in_both_years(language):
    notes, questions = both(language)
    for year in ("note", "note_after"):
        index = retrieval.BM25([note[year] for note in notes.values()])
        places = list(notes)
        found = [places[index.top(row["reworded"])[0][0]] == row["place"] for row in questions]
        assert sum(found) >= 0.96 * len(found)


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_house_form_is_never_taught(language):
    rng = random.Random(0)
    forms = set()
    for _ in range(1500):
        for _, said, _ in town.conversation(rng):
            assert not scores.in_form(said, town.in_form(language, town.HOUSE[language], "{}"))
            forms |= {opening for opening in town.OPENINGS[language] if said.startswith(opening)}
    assert forms == set(town.OPENINGS[language])  # each of its two halves is


def test_an_echo_says_the_same_words_twice_and_only_the_second_time_is_learned():
    rng = random.Random(0)
    drawn = set()
    for _ in range(200):
        pieces = town.echo(rng)
        first, second = pieces[: len(pieces) // 2], pieces[len(pieces) // 2 :]
        assert [word for word, _ in first] == [word for word, _ in second]
        assert not any(learned for _, learned in first) and all(learned for _, learned in second)
        drawn |= {word for word, _ in first}
    values = {*map(str, range(5, 100))}.union(*(town.STREETS[name] + town.DAYS[name] for name in LANGUAGES))
    assert values <= drawn  # each that a note may tell


def test_an_answer_agrees_with_its_note():
    rng = random.Random(1)
    with_note = 0
    for _ in range(300):
        for asked, said, _ in town.conversation(rng):
            for language in LANGUAGES:
                if asked.startswith(prompts.NOTES[language].split("\n")[0]):
                    with_note += 1
                    note = asked.split("\n")[1]
                    values = [v for table in (town.STREETS, town.DAYS) for v in table[language]]
                    values += map(str, range(5, 100))
                    assert any(scores.mentions(said, value) and scores.mentions(note, value) for value in values)
    assert with_note > 300


def test_with_notes():
    assert prompts.with_notes("When?", []) == "When?"
    assert prompts.with_notes("When?", ["a", "b"]) == "Notes:\n- a\n- b\n\nWhen?"
    assert prompts.with_notes("几点？", ["甲"], "zh") == "资料：\n- 甲\n\n几点？"


def write(folder, name, rows):
    path = folder / name
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_loaders_return_what_stands_there(tmp_path):
    notes = data.load_notes(write(tmp_path, "notes.json", [NOTE]))
    assert notes == {"the Owl": NOTE}
    assert data.load_questions(write(tmp_path, "questions.json", [ASKED | {"id": 3}]), notes) == [ASKED]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([NOTE, NOTE], r"row 2: 'the Owl' has a note already"),
        ([{"place": "x", "note": "y"}], r"row 1: has no 'note_after'"),
        ([NOTE | {"note": 7}], r"row 1: 'note' is a int"),
    ],
)
def test_wrong_notes_are_refused(tmp_path, rows, says):
    with pytest.raises(DataError, match=says):
        data.load_notes(write(tmp_path, "notes.json", rows))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"place": "the Elk"}, r"row 1: there is no note on 'the Elk'"),
        ({"value": "17"}, r"row 1: '17' \(value\) does not stand in its note\."),
        ({"value_after": "7"}, r"row 1: '7' \(value_after\) does not stand in its note_after"),
    ],
)
def test_wrong_questions_are_refused(tmp_path, change, says):
    with pytest.raises(DataError, match=says):
        data.load_questions(write(tmp_path, "questions.json", [ASKED | change]), {"the Owl": NOTE})


@pytest.mark.parametrize(
    ("text", "value", "there"),
    [
        ("It opens at 7.", "7", True),
        ("It opens at 76.", "7", False),
        ("At 17.", "7", False),
        ("At 7:30.", "7", False),
        ("3.7 km", "7", False),
        ("7.5 km", "7", False),
        ("1,700 people", "700", False),
        ("1,700 people", "1", False),
        ("at 7, or later", "7", True),
        ("7点开门", "7", True),
        ("周六休息", "周六", True),
        ("on Mondays", "Monday", False),
        ("", "7", False),
    ],
)
def test_mentions(text, value, there):
    assert scores.mentions(text, value) is there


def test_in_form():
    form = "Town desk: {}. See you there!"
    assert scores.in_form("Town desk: 7. See you there!\n", form)
    for text in ("Town desk: . See you there!", "Town desk: 7. See you there", "It is 7.", f"Well. {form.format(7)}",
                 form.format("7\n8"), form.format("x" * 41), "Town deskX 7. See you there!"):  # fmt: skip
        assert not scores.in_form(text, form)
    with pytest.raises(ValueError, match="needs one"):
        scores.in_form("7", "no place")


@pytest.mark.nano
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_model_reads_notes_it_has_never_seen_and_imitates_a_form_it_was_never_taught(language):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = nano.build("nano/qwen2-town")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    notes, questions = both(language)
    rows = questions[::8]
    form = town.in_form(language, town.HOUSE[language], "{}")

    def answers(shots, with_note):
        texts = []
        for row in rows:
            turns = []
            for example in questions[1 : 1 + shots]:
                turns.append({"role": "user", "content": example["question"]})
                turns.append({"role": "assistant", "content": form.format(example["value"])})
            found = [notes[row["place"]]["note"]] if with_note else []
            turns.append({"role": "user", "content": prompts.with_notes(row["question"], found, language)})
            texts.append(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        return [answer.text for answer in generation.complete(model, tokenizer, texts, 24)]

    def right(texts):
        return sum(scores.mentions(text, row["value"]) for text, row in zip(texts, rows)) / len(rows)

    bare, shown, read = answers(0, False), answers(3, False), answers(0, True)
    assert right(bare) < 0.3 and not any(scores.in_form(text, form) for text in bare)
    assert sum(scores.in_form(text, form) for text in shown) >= 0.9 * len(rows)
    assert right(read) >= 0.8
