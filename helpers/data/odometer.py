"""Dashboard pictures with their readings: an Excel sheet beside a folder of pictures."""

from __future__ import annotations

import hashlib
import json
import os
import re
import unicodedata
import warnings
import zipfile
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from itertools import accumulate
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from helpers.data.rows import ALLOW, DataError, allowed, first_few, there_is
from helpers.pictures import check_picture

if TYPE_CHECKING:
    from openpyxl import Workbook
    from openpyxl.worksheet._read_only import ReadOnlyWorksheet

ODOMETER_COLUMNS = ("id", "prompt", "image", "response")
ODOMETER_FIELDS = ("distance", "speed", "time", "temperature", "gear")
KM_PER_MILE = 1.609344
MOST_XML = 128 * 2**20
"""Bytes that the tables of a workbook may unpack to. Enough for all the rows that Excel has, formatted and empty."""
SHRINKS = 4
"""How many times smaller a zip may make what passes for a picture."""
TABLE = 'Write {"001.png": {"distance": "61923 mi", …}, …}, each name once, and save it as UTF-8.'
ENOUGH_EMPTY = 10_000
"""Empty rows one after another that end a sheet: Excel can hold a million that were only ever formatted."""

NAMES = {
    "distance": (
        "total distance",
        "distance",
        "total mileage",
        "mileage",
        "odometer",
        "odo",
        "总里程",
        "里程",
        "里程数",
    ),
    "speed": ("current speed", "speed", "当前车速", "车速", "速度", "时速"),
    "time": ("current time", "time", "clock", "当前时间", "时间", "时钟"),
    "temperature": ("outside temperature", "temperature", "temp", "车外温度", "室外温度", "环境温度", "温度", "气温"),
    "gear": ("gear position", "gear", "当前挡位", "当前档位", "挡位", "档位"),
}
"""What a field is called in an answer, in English and Chinese."""
_FIELD = {name: field for field, names in NAMES.items() for name in names}

Reading = dict[str, float | str]
"""Field → value, in one unit each: km, km/h, "HH:MM", °C, an upper-case letter. An unreadable field is absent."""


def load_odometer_excel(path: str | Path, images: str | Path | None = None) -> Dataset:
    """Load a sheet with the columns `id`, `prompt`, `image` and `response`, one picture a row.

    Read is the first visible worksheet with these headings, hidden rows too; formulas count as Excel last saw them.
    `image` is a path relative to the workbook, or to the folder `images`. Each picture is opened once to see that it
    can be. Returns the four columns as text, `image` as an absolute path. Empty rows are skipped, counted and printed;
    after 10,000 of them the sheet is taken to be at its end.
    Raises `DataError` for a missing or unreadable sheet, column, text or picture, with its row as Excel counts it.
    """
    path = Path(path)
    pictures = Path(images) if images is not None else path.parent
    with allowed(pictures):
        if images is not None and not pictures.is_dir():
            raise DataError(f"{pictures}: no such folder of pictures (looked from {Path.cwd()}). Check `images`.")
    rows, left_out = _sheet(path)
    for number, row in rows.items():
        row["image"] = _picture(row["image"], pictures, path, number)
    _unique_ids(rows, path)
    kept = {column: [row[column] for row in rows.values()] for column in ODOMETER_COLUMNS}
    print(f"{path}: {len(rows):,} rows, {len(set(kept['image'])):,} pictures, {left_out}")
    return Dataset.from_dict(kept)


def load_truth(path: str | Path) -> dict[str, Reading]:
    """The truth of each picture by its file name: `{"001.png": {"distance": "61923 mi", …}, …}`, values as written.

    A field that is absent or null is not known. Raises `DataError` for a file that is no such table, and for a picture
    with a value that cannot be read, or with none.
    """
    path = Path(path)
    if not there_is(path):
        raise DataError(f"{path}: not found (looked from {Path.cwd()}). Check the path.")
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a JSON table of picture → fields ({error}). {TABLE}") from None
    if not isinstance(entries, dict) or not entries or not all(isinstance(f, dict) for f in entries.values()):
        raise DataError(f"{path}: not a JSON table of picture → fields. {TABLE}")
    truths = {}
    for name, fields in entries.items():
        known = {field: str(fields[field]) for field in ODOMETER_FIELDS if fields.get(field) is not None}
        truths[name] = _values(known)
        for field in known.keys() - truths[name].keys():
            raise DataError(f"{path}, {name}: no {field} can be read from {known[field]!r}. Correct it, or write null.")
        if not known:
            raise DataError(
                f"{path}, {name}: has none of the fields {', '.join(ODOMETER_FIELDS)}. It has: {list(fields)}. "
                "Write one, or delete the entry."
            )
    return truths


def parse_reading(text: str) -> Reading:
    """Read an answer: `field: value` a line, or a JSON object; English or Chinese names, km or miles, °C or °F.

    Total on any text: what is not there, not of its kind, or given twice with two values is left out.
    """
    text = unicodedata.normalize("NFKC", text)  # ：→ :, ℃ → °C, ５ → 5
    try:
        found = json.loads(re.sub(r"^\s*```(?:json)?|```\s*$", "", text))
        pairs = list(found.items()) if isinstance(found, dict) else []
    except (ValueError, RecursionError):
        pairs = [line.split(":", 1) for line in text.splitlines() if ":" in line]
    values: dict[str, set] = {}
    for name, value in pairs:
        field = _FIELD.get(re.sub(r"[\s_]+", " ", str(name)).strip(" -*#\"'•").lower())
        if field:
            values.setdefault(field, set()).add(_value(field, str(value)))
    return {field: found.pop() for field, found in values.items() if len(found) == 1 and None not in found}


def same_value(field: str, one: float | str | None, other: float | str | None) -> bool:
    """Whether two values of a field agree: distances to half a kilometre, speeds to 3 km/h (a needle), °C to half."""
    if one is None or other is None:
        return False
    tolerance = {"distance": 0.5, "speed": 3.0, "temperature": 0.5}.get(field)
    return one == other if tolerance is None else abs(float(one) - float(other)) <= tolerance


def field_accuracy(readings: Sequence[Reading], truths: Sequence[Reading]) -> dict[str, float]:
    """The share of pictures whose field was read right, field by field; a field that is absent counts as wrong."""
    if len(readings) != len(truths) or not truths:
        raise ValueError(f"{len(readings)} readings for {len(truths)} truths: one each, and at least one, are needed.")
    return {
        field: sum(same_value(field, r.get(field), t.get(field)) for r, t in zip(readings, truths)) / len(truths)
        for field in ODOMETER_FIELDS
    }


def majority(readings: Sequence[Reading]) -> Reading:
    """Of each field the value that agrees with most readings: the best answer of a model that does not look."""
    best = {}
    for field in ODOMETER_FIELDS:
        counts = Counter(r[field] for r in readings if field in r)
        values = sorted(counts)  # what agrees with one of them lies side by side
        before = [0, *accumulate(counts[value] for value in values)]
        found = []
        for place, value in enumerate(values):
            first = bisect_left(values, True, hi=place, key=lambda v: same_value(field, value, v))
            end = bisect_left(values, True, lo=place, key=lambda v: not same_value(field, value, v))
            found.append((before[end] - before[first], str(value), value))
        if found:
            best[field] = max(found)[2]
    return best


def check_labels(rows: Dataset, truths: Mapping[str, Reading] | None = None) -> list[dict[str, str]]:
    """What is wrong with the responses: `id`, `image`, `field`, `label`, and what it disagrees `with`.

    Named are a field that cannot be read from a response, two rows for one picture (the same bytes, whatever the
    name) that disagree, and, where `truths` knows the picture, a response that is not true.
    """
    faults: list[dict[str, str]] = []
    seen: dict[str, dict[str, tuple[str, float | str]]] = {}  # by picture and field: the first row that has it
    for row in rows.to_list():
        name, reading = Path(row["image"]).name, parse_reading(row["response"])
        content = hashlib.sha256(Path(row["image"]).read_bytes()).hexdigest()
        earlier = seen.setdefault(content, {})
        truth = (truths or {}).get(name, {})
        for field in ODOMETER_FIELDS:
            mine = reading.get(field)
            other, value = earlier.get(field, ("", None))
            against = [(f"row {other}", value), ("the truth", truth.get(field))]
            wrong = [f"{who}: {value}" for who, value in against if value is not None and not _equal(mine, value)]
            if mine is None:
                wrong = wrong or ["the format: no such field"]
            else:
                earlier.setdefault(field, (row["id"], mine))
            if wrong:
                label = "–" if mine is None else str(mine)
                faults.append(
                    {"id": row["id"], "image": name, "field": field, "label": label, "with": "; ".join(wrong)}
                )
    return faults


def _equal(one: float | str | None, other: float | str) -> bool:
    """Labels must agree exactly; rounding of units aside."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < 0.01
    return one == other


def _values(fields: Mapping[str, Any]) -> Reading:
    read = {field: _value(field, unicodedata.normalize("NFKC", str(text))) for field, text in fields.items()}
    return {field: value for field, value in read.items() if value is not None}


_NUMBER = r"([+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[+-]?\d+(?:\.\d+)?)"
_PATTERNS = {
    "distance": re.compile(_NUMBER + r"\s*(km|kilometers?|kilometres?|公里|千米|mi|miles?|英里)?"),
    "speed": re.compile(_NUMBER + r"\s*(km/h|kph|kmh|公里/小时|公里/时|千米/小时|mph|mi/h|英里/小时)?"),
    "temperature": re.compile(_NUMBER + r"\s*(°\s*c|c|摄氏度|°\s*f|f|华氏度|°|度)?"),
    "time": re.compile(r"(\d{1,2}):(\d{2})(?::\d{2})?\s*(am|pm|a\.m\.|p\.m\.)?"),
    "gear": re.compile(r"([prndslmb]|[1-9])(?:\s*(?:挡|档|gear))?"),
}


def _value(field: str, text: str) -> float | str | None:
    """One field's value in the unit that `Reading` names, or None when the text is no such value."""
    text = text.strip().rstrip(".。;,，").replace("−", "-").lower()
    match = _PATTERNS[field].fullmatch(text) if field in _PATTERNS else None
    if match is None:
        return None
    if field == "gear":
        return match[1].upper()
    if field == "time":
        return _clock(int(match[1]), int(match[2]), (match[3] or "")[:1])
    number, unit = float(match[1].replace(",", "")), match[2] or ""
    if field == "temperature":
        return round((number - 32) * 5 / 9, 2) if unit.endswith("f") or unit == "华氏度" else number
    if number < 0:
        return None
    return round(number * KM_PER_MILE, 2) if unit.startswith(("mi", "mph", "英里")) else number


def _clock(hour: int, minute: int, half: str) -> str | None:
    """A time of 24 hours; None for one that no clock shows."""
    if minute > 59 or hour > 23 or (half and not 1 <= hour <= 12):
        return None
    if half:
        hour = hour % 12 + (12 if half == "p" else 0)
    return f"{hour:02}:{minute:02}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} stands there twice")
    return table


def _sheet(path: Path) -> tuple[dict[int, dict[str, str]], str]:
    """The filled rows below the headings, as texts by number and heading, and what of the workbook was left out."""
    from openpyxl import load_workbook

    books: list[Workbook] = []
    try:
        _could_be_workbook(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of openpyxl, on styles and extensions that only matter to a writer
            for data_only in (True, False):  # what formulas came to, and where there are some
                books.append(load_workbook(path, read_only=True, data_only=data_only))
            return _read(path, *books)
    except DataError:
        raise
    except PermissionError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}). Close it in Excel, allow reading it, or copy it to a folder "
            "of your own."
        ) from None
    except Exception as error:  # a damaged zip, a foreign file: each has an error class of its own
        raise DataError(
            f"{path}: not an Excel workbook, or a damaged one ({type(error).__name__}). "
            "Open it in Excel and save it as .xlsx."
        ) from None
    finally:
        for book in books:
            book.close()


def _could_be_workbook(path: Path) -> None:
    """Refuse what openpyxl would say too little about, or would unpack without end."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder. Name the .xlsx file in it.")
    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.xlsx")) if path.parent.is_dir() else []
        raise DataError(
            f"{path}: not found (looked from {Path.cwd()}). Sheets there: {', '.join(near) or 'none'}. Check the path."
        )
    with path.open("rb") as file:
        if file.read(8) == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
            raise DataError(
                f"{path}: is protected by a password, or an .xls of before 2007. Open it in Excel and save it as .xlsx "
                "without a password."
            )
        if zipfile.is_zipfile(file):
            # Pictures are not counted. They hardly shrink in a zip; what does is taken for a table, wherever it lies.
            size = sum(
                part.file_size
                for part in zipfile.ZipFile(file).infolist()
                if "/media/" not in part.filename or part.file_size > SHRINKS * part.compress_size
            )
            if size > MOST_XML:
                raise DataError(
                    f"{path}: unpacks to {size / 2**20:,.0f} MiB of tables; {MOST_XML // 2**20} at most. "
                    "Copy the filled rows into a new workbook."
                )


def _read(path: Path, shown: Workbook, written: Workbook) -> tuple[dict[int, dict[str, str]], str]:
    visible = [sheet for sheet in shown.worksheets if sheet.sheet_state == "visible"]
    if not visible:
        raise DataError(f"{path}: has no visible worksheet. Add one with the columns {', '.join(ODOMETER_COLUMNS)}.")
    headed = [(sheet, *_headings(sheet)) for sheet in visible]
    having = [(s, row, names) for s, row, names in headed if set(ODOMETER_COLUMNS) <= set(names)]
    sheet, first, names = having[0] if having else headed[0]
    where = f"{path}, row {first}" if len(visible) == 1 else f"{path}, sheet {sheet.title!r}, row {first}"
    has = [name for name in names if name]
    if missing := [column for column in ODOMETER_COLUMNS if column not in names]:
        raise DataError(f"{where}: the headings are {has}; missing: {missing}. Rename or add the columns.")
    if twice := [column for column in ODOMETER_COLUMNS if names.count(column) > 1]:
        raise DataError(f"{where}: the headings are {has}; {twice[0]!r} stands there twice. Rename one of them.")

    places = {column: names.index(column) for column in ODOMETER_COLUMNS}
    other = written[sheet.title]
    other.reset_dimensions()
    below = {"min_row": first + 1, "max_col": max(places.values()) + 1}
    rows, empty, last = {}, [], first
    for number, (seen, behind) in enumerate(zip(sheet.iter_rows(**below), other.iter_rows(**below)), start=first + 1):
        texts = {c: _text(seen[i], behind[i], f"{path}, row {number}", c) for c, i in places.items()}
        if not any(texts.values()):
            empty.append(number)
            if number - last >= ENOUGH_EMPTY:
                break
            continue
        for column, text in texts.items():
            if not text:
                raise DataError(
                    f"{path}, row {number}: {column!r} is empty. Fill the cell, or delete the row; of merged cells "
                    "only the first holds the text: unmerge them."
                )
        rows[number], last = texts, number
    if not rows:
        raise DataError(f"{path}: has its headings but no rows. Add rows, or choose another sheet.")
    left_out = f"{len(empty):,} empty skipped (row {first_few(empty)})" if empty else "none skipped"
    if empty and empty[-1] - last >= ENOUGH_EMPTY:
        left_out += f", nothing read after row {empty[-1]:,}"
    if len(shown.worksheets) > 1:
        others = [s.title + (" (hidden)" if s not in visible else "") for s in shown.worksheets if s is not sheet]
        left_out += f"; sheet {sheet.title!r} alone, not {', '.join(others)}"
    return rows, left_out


def _headings(sheet: ReadOnlyWorksheet) -> tuple[int, list[str]]:
    """The first filled row's number and its texts, without the blanks and full-width letters that eyes pass over."""
    sheet.reset_dimensions()  # some programs write A1 there, whatever the sheet holds
    for number, row in enumerate(sheet.iter_rows(values_only=True, max_row=ENOUGH_EMPTY), start=1):
        texts = [unicodedata.normalize("NFKC", "" if value is None else str(value)) for value in row]
        names = [re.sub("[\u200b\ufeff]", "", text).strip().lower() for text in texts]
        if any(names):
            return number, names
    return 1, []


def _text(shown: Any, written: Any, where: str, column: str) -> str:
    """A cell's text. Raises `DataError` where Excel shows another than the file holds, or none."""
    value = shown.value
    if shown.data_type == "e":
        raise DataError(f"{where}: {column!r} is the error {value}. Correct the formula, or write the text itself.")
    if value is None and written.data_type == "f":
        raise DataError(
            f"{where}: {column!r} is a formula whose result was not saved. Open the sheet in Excel and save it, or "
            "write the text itself."
        )
    if isinstance(value, (date, time, timedelta)):
        raise DataError(
            f"{where}: {column!r} is a date or time ({value}), which Excel shows in a form of its own. Format the cell "
            "as text, and write it again."
        )
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"{value:.15g}"  # Excel's own precision
    return "" if value is None else str(value).replace("_x000D_", "").strip()  # a carriage return, as Excel spells it


def _picture(text: str, folder: Path, sheet: Path, number: int) -> str:
    """The absolute path of a picture that opens, whole."""
    short = text if len(text) <= 200 else text[:200] + "…"
    try:
        picture = _find(text, folder)
    except PermissionError as error:
        fault = f"{folder / short} cannot be read ({error.strerror}). {ALLOW}"
        raise DataError(f"{sheet}, row {number}: {fault}") from None
    if picture is None:
        if re.match(r"https?://", text):
            fault = f"{short} is a web address. Download the picture, and write the path of its file."
        elif PureWindowsPath(text).drive and os.name != "nt":
            fault = (
                f"{short} is a path on a Windows computer. Bring the pictures here, and write the path from the "
                "sheet's folder, for example pictures/001.png."
            )
        else:
            fault = (
                f"the picture {folder / short} is not there. "
                "Paths count from the sheet's folder. Correct it, or name the pictures' folder: images=…"
            )
        raise DataError(f"{sheet}, row {number}: {fault}")
    try:
        check_picture(picture)
    except ValueError as error:
        raise DataError(f"{sheet}, row {number}: {error}") from None
    return picture.resolve().as_posix()


def _find(text: str, folder: Path) -> Path | None:
    """The file that `text` names: exactly, with / for Windows' \\, or but for case and how Unicode spells é.

    Raises PermissionError where it is in none of the folders that may be looked into, and one may not.
    """
    closed = None
    for place in (folder / text, folder / text.replace("\\", "/")):
        try:
            if place.is_file():
                return place
            same = [p for p in place.parent.iterdir() if _spelling(p) == _spelling(place) and p.is_file()]
        except PermissionError as error:
            closed = error
            continue
        except OSError:  # no such folder, a name too long
            continue
        if len(same) == 1:
            return same[0]
    if closed:
        raise closed
    return None


def _spelling(path: Path) -> str:
    return unicodedata.normalize("NFC", path.name).casefold()


def _unique_ids(rows: Mapping[int, Mapping[str, str]], path: Path) -> None:
    by_id: dict[str, list[int]] = {}
    for number, row in rows.items():
        by_id.setdefault(row["id"], []).append(number)
    for name, numbers in by_id.items():
        if len(numbers) > 1:
            stands = f"stands in {len(numbers)} rows ({first_few(numbers)})"
            raise DataError(f"{path}: the id {name!r} {stands}. Give each row its own id.")
