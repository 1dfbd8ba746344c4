"""Workbooks and truths as people hand them in: read right, or refused in one sentence with the file, the row and the mend."""

from __future__ import annotations

import json
import re
import time
import tracemalloc
import unicodedata
import zipfile
from collections.abc import Callable
from datetime import date, datetime
from datetime import time as clock
from html import escape
from pathlib import Path

import pytest
from closed import close
from mends import says_what_to_do
from openpyxl import Workbook
from openpyxl.cell.rich_text import CellRichText, TextBlock
from openpyxl.cell.text import InlineFont
from openpyxl.chart import BarChart, Reference
from PIL import Image

from helpers import data
from helpers.data import DataError

pytestmark = pytest.mark.notebook  # together they take longer than the inner loop should

ANSWER = "speed: 34 mph\ngear: P"
HEADINGS = ["id", "prompt", "image", "response"]
ROW = [1, "read", "a.png", ANSWER]
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # how an .xls begins, and a workbook with a password


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Room for a workbook, beside two pictures."""
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "pictures/b.png"):
        Image.new("RGB", (28, 28), "white").save(tmp_path / name)
    return tmp_path


def but(**cells) -> list:
    """The good row with other cells."""
    return [cells.get(name, value) for name, value in zip(HEADINGS, ROW)]


def sheet(*rows: list, headings: list = HEADINGS, change: Callable[[Workbook], object] | None = None):
    """Writes a workbook: rows below the headings, then what `change` does to it."""

    def write(folder: Path) -> Path:
        book = Workbook()
        for row in [headings, *rows]:
            book.active.append(row)
        if change:
            change(book)
        book.save(folder / "sheet.xlsx")
        return folder / "sheet.xlsx"

    return write


def parts(change: Callable[[str], str | bytes], *rows: list, part: str = "xl/worksheets/sheet1.xml"):
    """Writes a workbook of these rows (or the good one) whose XML is `change`d, as other programs would write it."""

    def write(folder: Path) -> Path:
        path = sheet(*(rows or [ROW]))(folder)
        with zipfile.ZipFile(path) as archive:
            texts = {name: archive.read(name) for name in archive.namelist()}
        before, texts[part] = texts[part], change(texts[part].decode())
        assert texts[part] != before.decode()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, text in texts.items():
                archive.writestr(name, text)
        return path

    return write


def cell(place: str, inner: str, kind: str = "str"):
    """Writes a workbook with one cell in XML, among those of the good row."""
    return parts(
        lambda xml: re.sub(rf'<c r="{place}".*?</c>', f'<c r="{place}" t="{kind}">{inner}</c>', xml, flags=re.DOTALL)
    )


def raw(content: bytes, name: str = "sheet.xlsx"):
    def write(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def other(name: str, content: str = "<html/>"):
    """Writes a zip that holds something else."""

    def write(folder: Path) -> Path:
        with zipfile.ZipFile(folder / "sheet.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, content)
        return folder / "sheet.xlsx"

    return write


def cut(folder: Path, share: float = 0.6) -> Path:
    path = sheet(ROW)(folder)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def flipped(folder: Path) -> Path:
    """A workbook with some bytes of its sheet overwritten, as by a bad memory stick."""
    path = sheet(*[but(id=n) for n in range(99)])(folder)
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("xl/worksheets/sheet1.xml").header_offset + 200
    content = bytearray(path.read_bytes())
    content[at : at + 50] = bytes(50)
    path.write_bytes(content)
    return path


def bomb(part: str, packed: int = 0):
    """Writes a workbook that says of one part that it unpacks to 300 MiB, out of so many MiB."""

    def write(folder: Path) -> Path:
        path = sheet(ROW)(folder)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(part, " ")
            archive.getinfo(part).file_size = 300 * 2**20
            archive.getinfo(part).compress_size += packed * 2**20
        return path

    return write


def twins(folder: Path) -> Path:
    """A picture that could be either of two, if capitals do not count."""
    Image.new("RGB", (28, 28)).save(folder / "A.png")
    return sheet(but(image="A.PNG"))(folder)


def charts_only(book: Workbook) -> None:
    chart = BarChart()
    chart.add_data(Reference(book.active, min_col=1, min_row=1))
    book.create_chartsheet().add_chart(chart)
    book.remove(book.active)


def titled(title: str, *rows: list):
    """Adds a sheet."""

    def change(book: Workbook) -> None:
        added = book.create_sheet(title)
        for row in rows:
            added.append(row)

    return change


def hide_the_first(book: Workbook) -> None:
    book.worksheets[0].sheet_state = "hidden"
    titled("Data", HEADINGS, but(id=2))(book)


def hide_the_only_rows(book: Workbook) -> None:
    book.worksheets[0].sheet_state = "hidden"
    titled("Notes", ["by whom", "when"])(book)


LAUGHS = '<!DOCTYPE l [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi")
)

REFUSED = {
    "a formula whose result was not saved": (sheet(but(response='="gear: "&"P"')), "row 2: 'response' is a formula"),
    "a row of formulas only": (sheet(ROW, ["=A2+1", "=B2", "=C2", "=D2"]), "row 3: 'id' is a formula"),
    "a prompt merged over two rows": (
        sheet(ROW, but(id=2), change=lambda book: book.active.merge_cells("B2:B3")), "row 3: 'prompt' is empty", "unmerge",
    ),
    "#REF! as the picture": (cell("C2", "<f>Z9</f><v>#REF!</v>", "e"), "row 2: 'image' is the error #REF!"),
    "#N/A as the answer": (cell("D2", "<v>#N/A</v>", "e"), "row 2: 'response' is the error #N/A"),
    "an id that Excel took for a date": (sheet(but(id=date(2026, 3, 4))), "row 2: 'id' is a date", "as text"),
    "a time as the answer": (sheet(but(response=clock(14, 30))), "row 2: 'response' is a date or time (14:30:00)"),
    "a date that no calendar has": (
        parts(lambda xml: re.sub("<v>46000</v>", "<v>9999999999</v>", xml), but(id=datetime(2025, 12, 9))),
        "row 2: 'id' is the error",
    ),
    "a picture that is not there": (sheet(ROW, but(id=2, image="z.png")), "row 3: the picture", "z.png is not there", "images=…"),
    "an absolute path to nothing": (sheet(but(image="/nowhere/a.png")), "row 2: the picture /nowhere/a.png is not there"),
    ".. and nothing there": (sheet(but(image="../../z/a.png")), "row 2: the picture", "is not there"),
    r"a path from C:\ ": (sheet(but(image=r"C:\Users\li\a.png")), r"row 2: C:\Users\li\a.png is a path on a Windows computer"),
    r"a path from \\server": (sheet(but(image=r"\\server\cars\a.png")), "row 2:", "on a Windows computer"),
    "a web address": (sheet(but(image="https://example.org/a.png")), "row 2: https://example.org/a.png", "Download"),
    "a folder as the picture": (sheet(but(image="pictures")), "row 2: the picture", "is not there"),
    "the answer in the picture's column": (sheet(but(image="speed " * 2000)), "row 2: the picture", "is not there"),
    "two pictures of nearly this name": (twins, "row 2: the picture", "A.PNG is not there"),
    "one id three times": (sheet(ROW, but(id="1 "), but(id=1.0)), "the id '1' stands in 3 rows (2, 3, 4)"),
    "one heading twice": (
        sheet([*ROW, "b.png"], headings=[*HEADINGS, "ＩＭＡＧＥ "]), "row 1: the headings", "'image' stands there twice",
    ),
    "headings on none of two sheets": (
        sheet(headings=["prompt", "image"], change=titled("More", ["id"])), "sheet 'Sheet', row 1", "missing: ['id', 'response']",
    ),
    "rows on a hidden sheet only": (sheet(ROW, change=hide_the_only_rows), "row 1", "missing: ['id', 'prompt'"),
    "charts only": (sheet(change=charts_only), "no visible worksheet"),
    "a title above the headings": (
        sheet(HEADINGS, ROW, headings=["Dashboards, March"]), "row 1: the headings are ['dashboards, march']",
    ),
    "headings only": (sheet(), "no rows"),
    "headings and blanks": (sheet([None, " ", None, "\n"]), "no rows"),
    "no cell at all": (sheet(headings=[]), "row 1: the headings are []"),
    "0 bytes": (raw(b""), "not an Excel workbook"),
    "an .xls by another name": (raw(OLE + bytes(5000)), "an .xls of before 2007", "save it as .xlsx"),
    "a password": (raw(OLE + bytes(504) + "EncryptedPackage".encode("utf-16-le") + bytes(500)), "without a password"),
    "a CSV by another name": (raw("id,prompt,image,response\n1,读,a.png,x\n".encode("gbk")), "not an Excel workbook"),
    "a CSV by its own name": (raw(b"id,prompt\n", "sheet.csv"), "not an Excel workbook", "save it as .xlsx"),
    "a web page by another name": (raw(b"<html><table><tr><td>id</td></tr></table></html>"), "not an Excel workbook"),
    "a zip cut short": (cut, "not an Excel workbook, or a damaged one"),
    "a zip of something else": (other("word/document.xml"), "not an Excel workbook"),
    "a sheet with bytes overwritten": (flipped, "damaged"),
    "XML cut short": (parts(lambda xml: xml[:-40]), "damaged"),
    "entities that unfold without end": (
        parts(lambda xml: LAUGHS + "]>" + xml.replace(">read<", ">&i;<").replace("<t>", "<t>&i;")), "damaged",
    ),
    "a text that the workbook lacks": (cell("B2", "<v>77</v>", "s"), "damaged"),
    "a number of 5,000 digits": (cell("A2", f"<v>{'9' * 5000}</v>", "n"), "damaged"),
    "a part of 300 MiB": (bomb("xl/worksheets/sheet9.xml"), "unpacks to 300 MiB", "into a new workbook"),
    "a part of 300 MiB among the pictures": (bomb("xl/media/s.xml"), "unpacks to 300 MiB", "into a new workbook"),
    "a folder": (lambda folder: folder / "pictures", "is a folder"),
    "a file that is not there": (lambda folder: sheet(ROW)(folder).with_name("shet.xlsx"), "Sheets there: sheet.xlsx"),
    "a name of 5,000 letters": (lambda folder: folder / ("x" * 5000 + ".xlsx"), "xlsx"),
}  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", REFUSED)
def test_a_workbook_is_refused_with_the_place_and_the_mend(folder: Path, name: str) -> None:
    make, *says = REFUSED[name]
    path = make(folder)
    with pytest.raises(DataError) as caught:
        data.load_odometer_excel(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and all(part in message for part in says), message
    assert says_what_to_do(message), message
    assert message.rstrip().endswith((".", "…")) and len(message) < len(str(path)) + 1000


def mac(folder: Path) -> Path:
    """A picture whose é is two characters, as macOS writes names, and a workbook where it is one."""
    (folder / "a.png").rename(folder / unicodedata.normalize("NFD", "relevé.png"))
    return sheet(but(image=unicodedata.normalize("NFC", "relevé.png")))(folder)


def moved(name: str, cells: Callable[[Path], str]):
    """Writes a workbook whose picture is called `name`."""

    def write(folder: Path) -> Path:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / "a.png").rename(folder / name)
        return sheet(but(image=cells(folder)))(folder)

    return write


def hidden_row(book: Workbook) -> None:
    book.active.row_dimensions[2].hidden = True


def blanks_first(book: Workbook) -> None:
    book.active.insert_rows(1, 3)


def sized(ref: str):
    return parts(lambda xml: re.sub('<dimension ref="[^"]*"', f'<dimension ref="{ref}"', xml))


RICH = CellRichText("speed: ", TextBlock(InlineFont(b=True), "34 mph"), "\ngear: P")
FAR = '<row r="1048576"><c r="XFD1048576" t="n"><v>1</v></c></row>'
NUMBERED = '<row><c t="inlineStr"><is><t>'
BARE = "</row>".join(
    NUMBERED + '</t></is></c><c t="inlineStr"><is><t>'.join(escape(str(c)) for c in row) + "</t></is></c>"
    for row in (HEADINGS, ROW)
)

# What comes of it: the cells of the first row that differ from the good one, and what is printed.
READ = {
    "a formula with its result": (cell("D2", f'<f>"x"</f><v>{ANSWER}</v>'), {}, "1 rows, 1 pictures, none skipped"),
    "a link to the picture": (cell("C2", '<f>HYPERLINK("a.png")</f><v>a.png</v>'), {}, "1 rows"),
    "a number as the answer": (sheet(but(response=61923)), {"response": "61923"}, "1 rows"),
    "a number with what a float adds": (sheet(but(response=0.1 + 0.2)), {"response": "0.3"}, "1 rows"),
    "a whole number with a point": (cell("A2", "<v>1.0</v>", "n"), {"id": "1"}, "1 rows"),
    "TRUE": (sheet(but(response=True)), {"response": "TRUE"}, "1 rows"),
    "bold words in a cell": (sheet(but(response=RICH)), {}, "1 rows"),
    "carriage returns": (sheet(but(response=ANSWER.replace("\n", "_x000D_\n"))), {}, "1 rows"),
    "spaces about everything": (sheet([" 1", "read ", "\ta.png\n", f" {ANSWER} \xa0"]), {}, "1 rows"),
    "headings full-width, padded, with a mark": (sheet(ROW, headings=["\ufeffＩＤ", "Prompt\u3000", "IMAGE\xa0", "ｒesponse"]), {}, "1 rows"),
    "three rows above the headings": (sheet(ROW, change=blanks_first), {}, "1 rows, 1 pictures, none skipped"),
    "blank rows between": (sheet([], [None, " "], ROW, [], but(id=2)), {}, "2 rows, 1 pictures, 3 empty skipped (row 2, 3, 5)"),
    "a hidden row": (sheet(ROW, but(id=2), change=hidden_row), {}, "2 rows"),
    "a hidden sheet before": (sheet(ROW, change=hide_the_first), {"id": "2"}, "sheet 'Data' alone, not Sheet (hidden)"),
    "a sheet of notes before": (
        sheet(headings=["Read me"], change=titled("Data", HEADINGS, ROW)), {}, "sheet 'Data' alone, not Sheet",
    ),
    "a second sheet like the first": (
        sheet(ROW, change=titled("Old", HEADINGS, but(id=9))), {}, "1 rows, 1 pictures, none skipped; sheet 'Sheet' alone, not Old",
    ),
    "a size that says A1": (sized("A1"), {}, "1 rows"),
    "a size that says everything": (sized("A1:XFD1048576"), {}, "1 rows"),
    "a lone cell in the last corner": (
        parts(lambda xml: xml.replace("</sheetData>", FAR + "</sheetData>")), {}, "10,000 empty skipped (row 3, 4, 5, 6, 7, …), nothing read after row 10,002",
    ),
    "cells that do not say where they stand": (
        parts(lambda xml: re.sub("<sheetData>.*</sheetData>", lambda _: f"<sheetData>{BARE}</row></sheetData>", xml, flags=re.DOTALL)), {}, "1 rows",
    ),
    "an absolute path": (moved("pictures/c.png", lambda folder: str(folder / "pictures/c.png")), {"image": "pictures/c.png"}, "1 pictures"),
    "backslashes": (moved("pictures/c.png", lambda _: r"pictures\c.png"), {"image": "pictures/c.png"}, "1 pictures"),
    "backslashes after a point": (moved("pictures/c.png", lambda _: r".\pictures\c.png"), {"image": "pictures/c.png"}, "1 pictures"),
    "a detour by ..": (sheet(but(image="pictures/../a.png")), {}, "1 pictures"),
    "capitals, as Windows allows": (sheet(but(image="A.PNG")), {}, "1 pictures"),
    "an accent in two characters": (mac, {"image": unicodedata.normalize("NFD", "relevé.png")}, "1 pictures"),
    "a Chinese name with blanks": (moved("仪表盘 （一）.png", lambda _: "仪表盘 （一）.png"), {"image": "仪表盘 （一）.png"}, "1 pictures"),
    "pictures of 300 MiB in the sheet": (bomb("xl/media/image1.png", packed=290), {}, "1 rows"),
    "a Chinese name of the workbook": (lambda folder: sheet(ROW)(folder).rename(folder / "仪表盘 表.XLSX"), {}, "仪表盘 表.XLSX: 1 rows"),
}  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", READ)
def test_a_workbook_is_read_right_and_what_was_left_out_is_said(folder: Path, name: str, capsys) -> None:
    make, cells, said = READ[name]
    path = make(folder)
    first = data.load_odometer_excel(path)[0]
    wanted = {"id": "1", "prompt": "read", "image": "a.png", "response": ANSWER} | cells
    assert first == wanted | {"image": str(folder / wanted["image"])}
    assert said in capsys.readouterr().out


@pytest.mark.bad_input
@pytest.mark.timeout(20)
def test_a_million_formatted_rows_cost_neither_time_nor_memory(folder: Path, capsys) -> None:
    rows = f"<row>{'<c/>' * 4}</row>" * (2**20 - 2)  # all that Excel has
    path = parts(lambda xml: xml.replace("</sheetData>", rows + "</sheetData>"))(folder)
    tracemalloc.start()
    began = time.process_time()
    try:
        assert len(data.load_odometer_excel(path)) == 1
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()
    assert time.process_time() - began < 10  # seconds; tracemalloc's own cost among them
    assert "nothing read after row 10,002" in capsys.readouterr().out


def truth(**fields) -> bytes:
    return json.dumps({"a.png": {"speed": "34 mph", "gear": "P"} | fields}).encode()


BAD_TRUTHS = {
    "empty": (b"", "not a JSON table"),
    "no pictures": (b"{}", "not a JSON table"),
    "a list": (b'[{"a.png": {}}]', "not a JSON table", 'Write {"001.png"'),
    "a list of fields": (b'{"a.png": ["34 mph"]}', "not a JSON table"),
    "null for the fields": (b'{"a.png": null}', "not a JSON table"),
    "cut short": (truth()[:-3], "not a JSON table"),
    "GBK": ('{"仪表.png": {"gear": "P"}}'.encode("gbk"), "not a JSON table", "utf-8"),
    "UTF-16": (truth().decode().encode("utf-16"), "not a JSON table", "utf-8"),
    "brackets without end": (b"[" * 100_000, "not a JSON table"),
    "a number of 5,000 digits": (b'{"a.png": {"speed": ' + b"9" * 5000 + b"}}", "not a JSON table"),
    "a picture twice": (b'{"a.png": {"gear": "P"}, "a.png": {"gear": "N"}}', "'a.png' stands there twice"),
    "a field twice": (b'{"a.png": {"gear": "P", "gear": "N"}}', "'gear' stands there twice"),
    "a value in words": (truth(speed="fast"), "a.png: no speed can be read from 'fast'"),
    "a gear that no car has": (truth(gear="X"), "a.png: no gear can be read from 'X'"),
    "an hour that no clock shows": (truth(time="25:00"), "a.png: no time can be read from '25:00'"),
    "NaN": (truth(speed=float("nan")), "a.png: no speed can be read from 'nan'"),
    "a list for a value": (truth(speed=[34, "mph"]), "a.png: no speed can be read from"),
    "fields by other names": (b'{"a.png": {"Gang": "P"}}', "a.png: has none of the fields", "['Gang']"),
    "all unknown": (b'{"a.png": {"gear": null}}', "a.png: has none of the fields"),
}


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BAD_TRUTHS)
def test_a_truth_is_refused_with_its_name(tmp_path: Path, name: str) -> None:
    content, *says = BAD_TRUTHS[name]
    path = tmp_path / "truth.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        data.load_truth(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and all(part in message for part in says) and len(message) < 1000, message
    assert says_what_to_do(message), message


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("name", "says"),
    [("folder.json", "is a folder, not a file"), ("gone.json", "not found"), ("x" * 5000, "not found")],
)
def test_a_truth_that_is_no_file(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(DataError, match=f"{name}: {says}") as caught:
        data.load_truth(tmp_path / name)
    assert says_what_to_do(str(caught.value)), caught.value


@pytest.mark.bad_input
@pytest.mark.parametrize("function", ["open", "stat"])  # the file, or its folder, is closed
@pytest.mark.parametrize(
    ("load", "mend"), [(data.load_truth, "Allow reading it, or copy it"), (data.load_odometer_excel, "Close it in Excel, allow")]
)  # fmt: skip
def test_a_table_that_may_not_be_read(folder: Path, monkeypatch, load: Callable, mend: str, function: str) -> None:
    path = sheet(ROW)(folder)
    close(monkeypatch, path, function)
    with pytest.raises(DataError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: cannot be read (Permission denied). {mend}"), caught.value


@pytest.mark.bad_input
@pytest.mark.parametrize(
    ("content", "known"),
    [
        (b"\xef\xbb\xbf" + truth(), {"speed": 54.72, "gear": "P"}),  # Notepad's mark
        (truth(speed=34), {"speed": 34.0, "gear": "P"}),
        (truth(speed=None, look={"night": True}), {"gear": "P"}),
        ('{"a.png": {"speed": "５４ km/h"}}'.encode(), {"speed": 54.0}),
    ],
    ids=["a byte order mark", "a number", "null for what is not known", "full-width digits"],
)
def test_a_truth_is_read(tmp_path: Path, content: bytes, known: dict) -> None:
    (tmp_path / "truth.json").write_bytes(content)
    assert data.load_truth(tmp_path / "truth.json") == {"a.png": known}
