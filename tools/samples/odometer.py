"""Drawn dashboards with a sheet in each language, and the truth: `data_samples/odometer/`."""

from __future__ import annotations

import io
import json
import random
import re
import zipfile
from dataclasses import asdict, replace
from datetime import datetime

from helpers import prompts
from helpers.nano import dashboards
from helpers.nano.dashboards import FIELDS, Look, Reading

COUNT = 120
SEED = 42
HARD = 0.1
LABELS = {
    "en": ("total distance", "speed", "time", "temperature", "gear", ": "),
    "zh": ("总里程", "车速", "时间", "温度", "挡位", "："),
}
WRONG = 3  # the picture, counted from 0, that a second row describes wrongly, as in the published sheet
Row = tuple[str, str, str, str]


def drawn(count: int, seed: int, hard: float = HARD) -> list[tuple[Reading, Look, bytes]]:
    """`count` readings, how each is drawn, and the picture as PNG; the same seed draws the same pictures."""
    rng = random.Random(seed)
    result = []
    for _ in range(count):
        reading, look = dashboards.random_reading(rng), dashboards.random_look(rng, hard)
        picture, buffer = dashboards.draw(reading, look, rng), io.BytesIO()
        picture.quantize(64, dither=0).save(buffer, "PNG", optimize=True)
        result.append((reading, look, buffer.getvalue()))
    return result


def response(reading: Reading, language: str) -> str:
    """One field a line, in the language's words."""
    *names, colon = LABELS[language]
    return "\n".join(f"{name}{colon}{dashboards.value(reading, field)}" for name, field in zip(names, FIELDS))


def rows(readings: list[Reading], language: str, wrong: int | None = WRONG) -> list[Row]:
    """A row a picture, and one more for the picture `wrong`: gear and temperature as nobody checked them."""
    table = [
        (str(number), prompts.ODOMETER[language], name(number), response(reading, language))
        for number, reading in enumerate(readings, start=1)
    ]
    if wrong is None:
        return table
    reading = readings[wrong]
    other = "P" if reading.gear == "N" else "N"
    careless = replace(reading, gear=other, temperature=reading.temperature * 10)
    row = (str(len(table) + 1), prompts.ODOMETER[language], name(wrong + 1), response(careless, language))
    return [*table, row]


def name(number: int) -> str:
    """The file name of a picture, counted from 1, relative to the sheet."""
    return f"pictures/{number:03}.png"


def sheet(table: list[Row]) -> bytes:
    """An .xlsx with the headings id, prompt, image, response; the same bytes each time."""
    from openpyxl import Workbook

    book = Workbook()
    page = book.active
    page.title = "odometer"
    page.append(("id", "prompt", "image", "response"))
    for row in table:
        page.append(row)
    for column, width in zip("ABCD", (6, 44, 22, 34), strict=True):
        page.column_dimensions[column].width = width
    book.properties.created = datetime(2026, 1, 1)
    book.properties.creator = "llm-finetuning-course"
    buffer = io.BytesIO()
    book.save(buffer)
    return _timeless(buffer.getvalue())


def _timeless(archive: bytes) -> bytes:
    """The zip without the hour at which it was written, and stored: packed bytes depend on the zlib at hand."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry == "docProps/core.xml":
                content = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>2026-01-01T00:00:00Z", content)
            new.writestr(zipfile.ZipInfo(entry, (2026, 1, 1, 0, 0, 0)), content)
    return buffer.getvalue()


def truth(drawings: list[tuple[Reading, Look, bytes]]) -> bytes:
    """What each picture shows, and how it was drawn, as JSON with a picture a line."""
    lines = []
    for number, (reading, look, _) in enumerate(drawings, start=1):
        fields = {field: dashboards.value(reading, field) for field in FIELDS}
        entry = json.dumps(fields | {"look": asdict(look)}, ensure_ascii=False)
        lines.append(f"{json.dumps(name(number).rpartition('/')[2])}: {entry}")
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def files() -> dict[str, bytes]:
    """Pictures, a sheet in each language and the truth, by file name."""
    drawings = drawn(COUNT, SEED)
    written = {f"odometer/{name(number)}": png for number, (*_, png) in enumerate(drawings, start=1)}
    for language in LABELS:
        written[f"odometer/odometer_{language}.xlsx"] = sheet(rows([r for r, *_ in drawings], language))
    return written | {"odometer/truth.json": truth(drawings)}
