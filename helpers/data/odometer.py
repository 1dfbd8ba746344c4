"""Dashboard pictures with their readings: an Excel sheet beside a folder of pictures."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from helpers.data.rows import DataError

ODOMETER_COLUMNS = ("id", "prompt", "image", "response")
ODOMETER_FIELDS = ("distance", "speed", "time", "temperature", "gear")
KM_PER_MILE = 1.609344

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
"""Field → value, in one unit each: km, km/h, "HH:MM", °C, an upper-case letter. A field that cannot be read is absent."""


def load_odometer_excel(path: str | Path, images: str | Path | None = None) -> Dataset:
    """Load a sheet with the columns `id`, `prompt`, `image` and `response`, one picture a row.

    `image` is a path relative to the sheet, or to the folder `images`. Each picture is opened once to see that it
    can be. Returns the four columns as text, `image` as an absolute path. Empty rows are skipped, counted and printed.
    Raises `DataError` for a missing or unreadable sheet, column, text or picture, with its row as Excel counts it.
    """
    path = Path(path)
    kept: dict[str, list[str]] = {column: [] for column in ODOMETER_COLUMNS}
    pictures = Path(images) if images is not None else path.parent
    if images is not None and not pictures.is_dir():
        raise DataError(f"{pictures}: no such folder of pictures (looked from {Path.cwd()}).")
    empty = []
    for number, row in enumerate(_sheet(path), start=2):  # row 1 holds the headings
        if all(value is None or not str(value).strip() for value in row.values()):
            empty.append(number)
            continue
        for column in ("id", "prompt", "image", "response"):
            text = str(row[column] if row[column] is not None else "").strip()
            if not text:
                raise DataError(f"{path}, row {number}: {column!r} is empty. Fill the cell, or delete the row.")
            kept[column].append(text if column != "image" else _picture(pictures / text, path, number))
    if not kept["id"]:
        raise DataError(f"{path}: has its headings but no rows. Add rows, or choose another sheet.")
    _unique_ids(kept["id"], path)
    skipped = f"{len(empty)} empty skipped (row {', '.join(map(str, empty[:5]))})" if empty else "none skipped"
    print(f"{path}: {len(kept['id']):,} rows, {len(set(kept['image'])):,} pictures, {skipped}")
    return Dataset.from_dict(kept)


def load_truth(path: str | Path) -> dict[str, Reading]:
    """The truth of each picture by its file name: `{"001.png": {"distance": "61923 mi", …}, …}`, values as written."""
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        return {name: _values(fields) for name, fields in entries.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: not a JSON table of picture → fields ({error}).") from None


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
    """The most frequent value of each field: the best answer of a model that does not look."""
    best = {}
    for field in ODOMETER_FIELDS:
        values = [r[field] for r in readings if field in r]
        if values:
            best[field] = max(values, key=lambda v: (sum(same_value(field, v, w) for w in values), str(v)))
    return best


def check_labels(rows: Dataset, truths: Mapping[str, Reading] | None = None) -> list[dict[str, str]]:
    """What is wrong with the responses: `id`, `image`, `field`, `label`, and what it disagrees `with`.

    Named are a field that cannot be read from a response, two rows for one picture (the same bytes, whatever the
    name) that disagree, and, where `truths` knows the picture, a response that is not true.
    """
    faults: list[dict[str, str]] = []
    seen: dict[str, tuple[str, Reading]] = {}
    for row in rows.to_list():
        name, reading = Path(row["image"]).name, parse_reading(row["response"])
        content = hashlib.sha256(Path(row["image"]).read_bytes()).hexdigest()
        other, earlier = seen.setdefault(content, (row["id"], reading))
        truth = (truths or {}).get(name, {})
        for field in ODOMETER_FIELDS:
            mine = reading.get(field)
            against = [(f"row {other}", earlier.get(field)), ("the truth", truth.get(field))]
            wrong = [
                f"{who}: {value}" for who, value in against if value is not None and not _equal(field, mine, value)
            ]
            if mine is None:
                wrong = wrong or ["the format: no such field"]
            if wrong:
                label = "–" if mine is None else str(mine)
                faults.append(
                    {"id": row["id"], "image": name, "field": field, "label": label, "with": "; ".join(wrong)}
                )
    return faults


def _equal(field: str, one: float | str | None, other: float | str) -> bool:
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


def _sheet(path: Path) -> list[dict[str, Any]]:
    """The rows of the first worksheet below its headings, by heading."""
    import openpyxl

    if not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.xlsx")) if path.parent.is_dir() else []
        raise DataError(f"{path}: not found (looked from {Path.cwd()}). Sheets there: {', '.join(near) or 'none'}.")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # a damaged zip, a foreign file: each has an error class of its own
        raise DataError(f"{path}: not an Excel workbook ({type(error).__name__}). Save it as .xlsx.") from None
    try:
        lines = list(book.worksheets[0].iter_rows(values_only=True))
    finally:
        book.close()
    headings = [str(value).strip().lower() if value is not None else "" for value in (lines[0] if lines else ())]
    missing = [column for column in ODOMETER_COLUMNS if column not in headings]
    if missing:
        has = [heading for heading in headings if heading]
        raise DataError(f"{path}, row 1: the headings are {has}; missing: {missing}. Rename or add the columns.")
    places = {column: headings.index(column) for column in ODOMETER_COLUMNS}
    return [{c: line[i] if i < len(line) else None for c, i in places.items()} for line in lines[1:]]


def _picture(picture: Path, sheet: Path, number: int) -> str:
    """The absolute path of a picture that opens, whole."""
    from PIL import Image

    if not picture.is_file():
        raise DataError(
            f"{sheet}, row {number}: the picture {picture} is not there. "
            "Paths count from the sheet's folder; give load_odometer_excel another with images=…"
        )
    try:
        with Image.open(picture) as opened:
            opened.convert("RGB")  # decodes all of it; verify() would miss a file cut short
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{sheet}, row {number}: {picture} cannot be read as a picture ({error}). Replace it."
        ) from None
    return str(picture.resolve())


def _unique_ids(ids: list[str], path: Path) -> None:
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the id {twice[0]!r} stands in {ids.count(twice[0])} rows. Give each row its own id.")
