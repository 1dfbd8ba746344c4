"""The dashboard sheet: what is read, what is refused and how it is said, how answers are parsed and compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import Workbook, load_workbook
from PIL import Image

from helpers import data
from helpers.data import odometer
from helpers.data.odometer import KM_PER_MILE, ODOMETER_FIELDS, parse_reading, same_value
from helpers.nano import dashboards
from helpers.runtime import root
from tools.samples import odometer as samples

SAMPLES = root() / "data_samples" / "odometer"
GOOD = "total distance: 61923 mi\nspeed: 34 mph\ntime: 14:30\ntemperature: 27 °F\ngear: P"
HEADINGS = ["id", "prompt", "image", "response"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, told apart by their colour, and room for a sheet."""
    for name, colour in [("a.png", "red"), ("b.png", "green"), ("c.png", "blue")]:
        Image.new("RGB", (28, 28), colour).save(tmp_path / name)
    return tmp_path


def sheet(folder: Path, *rows: list, headings: list[str] = HEADINGS) -> Path:
    book = Workbook()
    for row in [headings, *rows]:
        book.active.append(row)
    book.save(folder / "sheet.xlsx")
    return folder / "sheet.xlsx"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_samples_load_and_tell_the_truth_but_for_the_planted_row(language: str, capsys) -> None:
    rows = data.load_odometer_excel(SAMPLES / f"odometer_{language}.xlsx")
    assert rows.column_names == HEADINGS and len(rows) == samples.COUNT + 1
    assert f"{samples.COUNT + 1} rows, {samples.COUNT} pictures, none skipped" in capsys.readouterr().out
    faults = data.check_labels(rows, data.load_truth(SAMPLES / "truth.json"))
    assert {fault["id"] for fault in faults} == {str(samples.COUNT + 1)}
    assert [fault["field"] for fault in faults] == ["temperature", "gear"]
    assert all("row 4: " in fault["with"] and "the truth: " in fault["with"] for fault in faults)


def test_the_first_row_is_the_first_picture() -> None:
    first = data.load_odometer_excel(SAMPLES / "odometer_en.xlsx")[0]
    entry = json.loads((SAMPLES / "truth.json").read_text(encoding="utf-8"))["001.png"]
    assert first["image"] == str(SAMPLES / "pictures" / "001.png")
    assert first["response"].splitlines() == [
        f"{name}: {entry[field]}" for name, field in zip(samples.LABELS["en"], ODOMETER_FIELDS)
    ]


def test_empty_rows_are_counted_and_named(folder: Path, capsys) -> None:
    rows = data.load_odometer_excel(
        sheet(folder, [1, "read", "a.png", GOOD], [None, " ", None, None], [2, "read", "b.png", GOOD])
    )
    assert rows["id"] == ["1", "2"]
    assert "2 rows, 2 pictures, 1 empty skipped (row 3)" in capsys.readouterr().out


def test_headings_in_any_order_and_more_of_them(folder: Path) -> None:
    path = sheet(folder, ["x", GOOD, "a.png", "read", 7], headings=["note", "Response", "image ", "prompt", "ID"])
    assert data.load_odometer_excel(path).to_list() == [
        {"id": "7", "prompt": "read", "image": str(folder / "a.png"), "response": GOOD}
    ]


def test_pictures_in_a_folder_of_their_own(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    shutil.move(folder / "a.png", folder / "elsewhere")
    path = sheet(folder, [1, "read", "a.png", GOOD])
    with pytest.raises(data.DataError, match="row 2: the picture .*a.png is not there"):
        data.load_odometer_excel(path)
    assert data.load_odometer_excel(path, images=folder / "elsewhere")["image"] == [str(folder / "elsewhere" / "a.png")]
    with pytest.raises(data.DataError, match="no such folder of pictures"):
        data.load_odometer_excel(path, images=folder / "nowhere")


@pytest.mark.parametrize("column", range(4))
def test_an_empty_cell_is_named_with_its_row(folder: Path, column: int) -> None:
    row: list = [2, "read", "b.png", GOOD]
    row[column] = "  " if column else None
    with pytest.raises(data.DataError, match=rf"sheet\.xlsx, row 3: '{HEADINGS[column]}' is empty"):
        data.load_odometer_excel(sheet(folder, [1, "read", "a.png", GOOD], row))


@pytest.mark.parametrize("left", [0, 40, -500], ids=["empty", "header only", "cut short"])
def test_a_corrupt_picture_is_named_with_its_row(folder: Path, left: int) -> None:
    noise = Image.effect_noise((64, 64), 90)
    noise.save(folder / "b.png")
    whole = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(whole[:left])
    with pytest.raises(data.DataError, match=r"row 3: .*b\.png cannot be read as a picture"):
        data.load_odometer_excel(sheet(folder, [1, "read", "a.png", GOOD], [2, "read", "b.png", GOOD]))


def test_a_missing_column_names_what_is_there(folder: Path) -> None:
    path = sheet(folder, [1, "read", "a.png", GOOD], headings=["id", "question", "image", "response"])
    with pytest.raises(data.DataError, match=r"row 1: the headings are \['id', 'question'.*missing: \['prompt'\]"):
        data.load_odometer_excel(path)


def test_other_bad_sheets(folder: Path) -> None:
    with pytest.raises(data.DataError, match=r"no\.xlsx: not found .*Sheets there: none"):
        data.load_odometer_excel(folder / "no.xlsx")
    (folder / "text.xlsx").write_text("id,prompt,image,response\n")
    with pytest.raises(data.DataError, match="not an Excel workbook"):
        data.load_odometer_excel(folder / "text.xlsx")
    with pytest.raises(data.DataError, match="no rows"):
        data.load_odometer_excel(sheet(folder))
    with pytest.raises(data.DataError, match="'1' stands in 2 rows"):
        data.load_odometer_excel(sheet(folder, [1, "read", "a.png", GOOD], [1, "read", "b.png", GOOD]))


def test_units_become_one() -> None:
    assert parse_reading(GOOD) == {
        "distance": round(61923 * KM_PER_MILE, 2),
        "speed": round(34 * KM_PER_MILE, 2),
        "time": "14:30",
        "temperature": -2.78,
        "gear": "P",
    }


@pytest.mark.parametrize(
    ("text", "reading"),
    [
        ("总里程：１２，３４５ km\n车速：57 公里/小时\n挡位：d挡", {"distance": 12345.0, "speed": 57.0, "gear": "D"}),
        ('```json\n{"speed": "57 km/h", "gear": "R"}\n```', {"speed": 57.0, "gear": "R"}),
        ('{"odometer": 61923, "Temperature": -4.5}', {"distance": 61923.0, "temperature": -4.5}),
        ("- **Speed**: 60 km/h.\n* gear: N", {"speed": 60.0, "gear": "N"}),
        ("time: 2:05 PM", {"time": "14:05"}),
        ("time: 12:05 am", {"time": "00:05"}),
        ("temperature: +45 ℃", {"temperature": 45.0}),
        ("temperature: −3 °C", {"temperature": -3.0}),
        ("", {}),
        ("[1, 2]", {}),
        ("The speed is 57 km/h.", {}),  # prose is no table
        ("speed: fast\ngear: Q\ntime: 25:00\ntemperature: -", {}),
        ("time: 13:30 pm", {}),
        ("time: 12:60", {}),
        ("speed: -5 km/h", {}),
        ("distance: 12 34 km", {}),
        ("distance: 1,23 km", {}),
        ("gear: D\ngear: N", {}),  # both cannot be true
        ("gear: D\ngear: d", {"gear": "D"}),
        ("gear: D\ngear: Q", {}),
    ],
)
def test_answers(text: str, reading: dict) -> None:
    assert parse_reading(text) == reading


@given(
    st.text()
    | st.lists(st.sampled_from(["speed", ": ", "5", "\n", "{", "}", '"', "gear", "D", "：", "-"])).map("".join)
)
def test_parsing_is_total(text: str) -> None:
    assert set(parse_reading(text)) <= set(ODOMETER_FIELDS)


def test_deeply_nested_json_is_no_answer() -> None:
    assert parse_reading("[" * 100_000) == {}


@given(st.integers(), st.sampled_from(["en", "zh"]))
def test_every_drawn_reading_is_read_back(seed: int, language: str) -> None:
    import random

    reading = dashboards.random_reading(random.Random(seed))
    read = parse_reading(samples.response(reading, language))
    factor = KM_PER_MILE if reading.unit == "mi" else 1
    assert list(read) == list(ODOMETER_FIELDS)
    assert read["distance"] == pytest.approx(reading.distance * factor, abs=0.01)
    assert read["speed"] == pytest.approx(reading.speed * factor, abs=0.01)
    assert (read["time"], read["gear"]) == (reading.time, reading.gear)
    celsius = (reading.temperature - 32) * 5 / 9 if reading.degrees == "F" else reading.temperature
    assert read["temperature"] == pytest.approx(celsius, abs=0.01)


def test_values_agree_within_what_a_needle_can_show() -> None:
    assert same_value("speed", 57.0, 60.0) and not same_value("speed", 57.0, 60.1)
    assert same_value("distance", 100.0, 100.5) and not same_value("distance", 100.0, 101.0)
    assert not same_value("temperature", 45.0, 4.5)
    assert not same_value("gear", "N", "P") and not same_value("time", "10:00", "10:01")
    assert not same_value("gear", None, None), "an absent field is never right"


def test_accuracy_is_by_field() -> None:
    truth = parse_reading(GOOD)
    half = {field: truth[field] for field in ("gear", "time")} | {"speed": truth["speed"] + 50}
    assert data.field_accuracy([truth, half], [truth, truth]) == {
        "distance": 0.5,
        "speed": 0.5,
        "time": 1.0,
        "temperature": 0.5,
        "gear": 1.0,
    }
    with pytest.raises(ValueError, match="1 readings for 2"):
        data.field_accuracy([truth], [truth, truth])
    with pytest.raises(ValueError, match="0 readings for 0"):
        data.field_accuracy([], [])


def test_majority_is_the_most_frequent_value() -> None:
    readings = [{"gear": "P", "speed": 0.0}, {"gear": "D", "speed": 50.0}, {"gear": "P", "speed": 51.0}]
    assert data.majority(readings) == {"gear": "P", "speed": 51.0}
    assert data.majority([]) == {}


@given(st.lists(st.integers(0, 40).map(lambda n: n / 4), max_size=12), st.sampled_from(ODOMETER_FIELDS[:2]))
def test_majority_is_found_as_by_comparing_all_with_all(values: list[float], field: str) -> None:
    most = max(values, key=lambda v: (sum(same_value(field, v, w) for w in values), str(v)), default=None)
    assert data.majority([{field: value} for value in values]).get(field) == most


@pytest.mark.timeout(20)
def test_majority_of_many_distances_takes_no_time_quadratic_in_them() -> None:
    values = [float(n) for n in range(50_000)]
    assert data.majority([{"distance": value} for value in values]) == {"distance": 9999.0}  # the last as a text


def test_rows_that_disagree_are_named_whatever_the_pictures_are_called(folder: Path) -> None:
    shutil.copy(folder / "a.png", folder / "same.png")
    wrong = GOOD.replace("gear: P", "gear: N")
    path = sheet(folder, [1, "r", "a.png", GOOD], [2, "r", "b.png", wrong], [3, "r", "same.png", wrong])
    (fault,) = data.check_labels(data.load_odometer_excel(path))
    assert fault == {"id": "3", "image": "same.png", "field": "gear", "label": "N", "with": "row 1: P"}


def test_rows_are_compared_with_the_first_that_has_the_field(folder: Path) -> None:
    answers = [GOOD.replace("speed: 34 mph\n", ""), "speed: 10 km/h", "speed: 90 km/h"]
    path = sheet(folder, *[[number, "r", "a.png", answer] for number, answer in enumerate(answers, start=1)])
    faults = data.check_labels(data.load_odometer_excel(path))
    (found,) = [fault for fault in faults if fault["field"] == "speed" and fault["id"] != "1"]
    assert found == {"id": "3", "image": "a.png", "field": "speed", "label": "90.0", "with": "row 2: 10.0"}
    assert {fault["with"] for fault in faults if fault["field"] == "gear"} == {"row 1: P"}


def test_a_response_without_a_field_is_named(folder: Path) -> None:
    path = sheet(folder, [1, "r", "a.png", GOOD.replace("gear: P", "gear: ?")])
    (fault,) = data.check_labels(data.load_odometer_excel(path))
    assert (fault["field"], fault["label"], fault["with"]) == ("gear", "–", "the format: no such field")


def test_truth_must_be_a_table(tmp_path: Path) -> None:
    (tmp_path / "truth.json").write_text('["a.png"]')
    with pytest.raises(data.DataError, match="not a JSON table"):
        data.load_truth(tmp_path / "truth.json")
    with pytest.raises(data.DataError, match="none.json"):
        data.load_truth(tmp_path / "none.json")


def test_sheets_hold_what_the_generator_says_and_no_clock() -> None:
    rows = samples.rows([r for r, *_ in samples.drawn(5, 1)], "zh")
    one, other = samples.sheet(rows), samples.sheet(rows)
    assert one == other
    path = SAMPLES / "odometer_zh.xlsx"
    lines = list(load_workbook(path).active.iter_rows(values_only=True))
    assert lines[0] == ("id", "prompt", "image", "response")
    assert lines[-1][2] == lines[samples.WRONG + 1][2] and lines[-1][3] != lines[samples.WRONG + 1][3]


def test_the_planted_row_differs_for_any_reading() -> None:
    reading = dashboards.Reading(1000, "km", 0, "10:00", 7, "C", "N")
    readings = [reading] * samples.WRONG + [replace(reading, gear="P")]
    wrong = parse_reading(samples.rows(readings, "en")[-1][3])
    assert (wrong["gear"], wrong["temperature"]) == ("N", 70.0)
    assert parse_reading(samples.rows([reading] * 4, "en")[-1][3])["gear"] == "P"
    assert len(samples.rows(readings, "en", wrong=None)) == len(readings)


def test_names_are_unambiguous() -> None:
    names = [name for known in odometer.NAMES.values() for name in known]
    assert len(set(names)) == len(names)
