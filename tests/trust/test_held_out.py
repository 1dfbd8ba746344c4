"""Data with no more rows than are to be held out: one error that says so, in every lesson, and no library's."""

from __future__ import annotations

import re

import pytest
from datasets import Dataset

from helpers import data, report
from helpers.data.held_out import LEAST
from tests.trust.mends import says_what_to_do
from tools.lessons import load_course

pytestmark = pytest.mark.bad_input
LESSONS = load_course().lessons
CODE = {lesson.slug: "\n".join(cell.node.source for cell in lesson.cells if cell.is_code) for lesson in LESSONS}


def rows(count: int) -> Dataset:
    return Dataset.from_dict({"text": [f"{row}" for row in range(count)]})


@pytest.mark.parametrize(
    ("count", "held_out", "most"),
    [(1, 1, None), (2, 1, None), (4, 100, None), (5, 2, 1), (20, 17, 16), (20, 100, 16), (100, 100, 96)],
)
def test_too_few_rows_are_told_with_the_file_and_what_would_do(count, held_out, most):
    with pytest.raises(data.DataError) as raised:
        data.hold_out(rows(count), held_out, 3407, "my_rows.json")
    told = str(raised.value)
    assert told.startswith(f"my_rows.json: {count:,} rows to use, and HELD_OUT = {held_out:,} of them")
    assert says_what_to_do(told) and (f"Set HELD_OUT to {most} or less" in told) == (most is not None)
    if most:
        assert len(data.hold_out(rows(count), most, 3407, "my_rows.json")[1]) == most


@pytest.mark.parametrize(("count", "held_out"), [(5, 1), (100, 96), (1000, 300)])
def test_enough_rows_are_split_as_the_library_splits_them(count, held_out):
    train, kept = data.hold_out(rows(count), held_out, 3407, "my_rows.json")
    parts = rows(count).train_test_split(test_size=held_out, seed=3407)
    assert train["text"][:] == parts["train"]["text"][:] and kept["text"][:] == parts["test"]["text"][:]
    assert len(kept) == held_out and len(train) >= LEAST and not {*train["text"][:]} & {*kept["text"][:]}


# Lesson 07 holds rows of another file out, as many as it has; lesson 13 runs lesson 01's script.
@pytest.mark.parametrize("slug", [name for name in CODE if "HELD_OUT" in CODE[name] and name[:2] not in ("07", "13")])
def test_every_lesson_that_holds_rows_out_asks_whether_there_are_enough(slug):
    assert re.search(r"data\.(hold_out|check_held_out)\(", CODE[slug]) and "train_test_split" not in CODE[slug]


@pytest.mark.parametrize("slug", CODE)
def test_no_lesson_shows_a_number_of_rows_that_may_not_be_there(slug):
    assert not re.search(r"select\(range\(\d*[2-9]\)\)", CODE[slug])


@pytest.mark.parametrize("count", [1, 3, 9])
def test_a_table_shows_as_many_rows_as_there_are(count):
    assert report.side_by_side(rows(count), 3).data.count("<tr>") == min(count, 3) + 1
