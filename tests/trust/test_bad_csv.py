"""Lesson 02's CSV files, as they come: each is read right, or refused with its name, the place and the mend."""

import codecs
import os
import subprocess
import sys

import pytest
from closed import close
from mends import says_what_to_do

from helpers.data import DataError, encodings, load_medical_dialogues, medical, read_medical_csv
from helpers.runtime import root

pytestmark = pytest.mark.notebook  # together they take longer than the inner loop should

HEAD = "department,title,ask,answer"
ROW = "内科,胃痛,吃饭以后胃痛怎么办？,少量多餐，忌辛辣。"
ROWS = [{"section": "内科", "title": "胃痛", "question": "吃饭以后胃痛怎么办？", "answer": "少量多餐，忌辛辣。"}]
TWO = f"{HEAD}\n{ROW}\n{ROW}\n"
LONG = f"{HEAD}\n" + f"{ROW}\n" * 40

# name: bytes, what is said in the error (or None), how many rows come back
CASES = {
    "UTF-8": (TWO.encode(), None, 2),
    "UTF-8 with a byte order mark": (codecs.BOM_UTF8 + TWO.encode(), None, 2),
    "UTF-16, little end first": (codecs.BOM_UTF16_LE + TWO.encode("utf-16-le"), None, 2),
    "UTF-16, big end first": (codecs.BOM_UTF16_BE + TWO.encode("utf-16-be"), None, 2),
    "GBK": (LONG.encode("gbk"), None, 40),
    "GB2312": (LONG.encode("gb2312"), None, 40),
    "GB18030, with a character of four bytes": (f"{LONG}内科,㐀,㐀怎么办,㐀\n".encode("gb18030"), None, 41),
    "one row": (f"{HEAD}\n{ROW}\n".encode(), None, 1),
    "one row, no line end": (f"{HEAD}\n{ROW}".encode(), None, 1),
    "carriage returns and line feeds": (TWO.replace("\n", "\r\n").encode(), None, 2),
    "carriage returns alone": (TWO.replace("\n", "\r").encode(), None, 2),
    "blank lines between": (TWO.replace("\n", "\n\n").encode(), None, 2),
    "a quoted header": (f'"department","title","ask","answer"\n{ROW}\n'.encode(), None, 1),
    "a blank behind a quoted header": (f'"department","title","ask","answer" \n{ROW}\n'.encode(), None, 1),
    "blanks between quoted headings": (f'"department" ,"title" , "ask" ,"answer"\n{ROW}\n'.encode(), None, 1),
    "a comma in a heading nobody asked for": (f'department,title,ask,answer,"a,b"\n{ROW},x\n'.encode(), None, 1),
    "spaces and capitals in the header": (f" Department , TITLE, Ask ,Answer\n{ROW}\n".encode(), None, 1),
    "a line break inside a quoted text": (f'{HEAD}\n内科,胃痛,"吃饭以后\n胃痛怎么办？",忌辛辣\n'.encode(), None, 1),
    "quotation marks doubled inside a text": (f'{HEAD}\n内科,胃痛,"他说""胃痛""",忌辛辣\n'.encode(), None, 1),
    "a text that begins with =, as a formula": (f"{HEAD}\n内科,=1+1,=cmd(),@SUM(A1)\n".encode(), None, 1),
    "an empty file": (b"", "line 1: no column ask or question. It has: nothing", 0),
    "blank lines only": (b"\n\n  \n", "line 1: no column ask or question", 0),
    "a header and no rows": (f"{HEAD}\n".encode(), "holds a header and no rows. Delete it, or put the rows in", 0),
    "no header": (f"{ROW}\n{ROW}\n".encode(), "line 1: no column ask or question. It has: 内科", 0),
    "another separator, ;": (TWO.replace(",", ";").encode(), "line 1: no column ask or question", 0),
    "another separator, tab": (TWO.replace(",", "\t").encode(), "line 1: no column ask or question", 0),
    "whole lines in quotation marks": (
        f'"{HEAD}"\n"{ROW}"\n'.encode(), "line 1: no column ask or question. It has: \"department", 0,
    ),
    "a heading with a quotation mark that is never closed": (
        f'department,title,ask,"answer\n{ROW}\n"\n{ROW}\n{ROW}\n'.encode(), "line 1: a quotation mark that is never", 0,
    ),
    "no answers": (b"department,title,ask\na,b,c\n", "line 1: no column answer", 0),
    "two columns for the question": (b"question,ask,answer\na,b,c\n", "both mean 'question'. Rename one", 0),
    "a spreadsheet renamed .csv": (b"PK\x03\x04" + bytes(range(256)) * 9, "内科.csv", 0),
    "a picture renamed .csv": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "内科.csv", 0),
    "a web page instead of the file": (b"<!DOCTYPE html><html><body>404</body></html>\n", "It has: <!DOCTYPE html>", 0),
    "a Git LFS pointer instead of the file": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:1f\nsize 9\n", "It has: version https://git-lfs", 0,
    ),
    "UTF-8 cut inside a character": (TWO.encode()[:-2], "not UTF-8", 0),
    "GBK cut inside a character": (LONG.encode("gbk").rstrip(b"\n")[:-1], "内科.csv", 0),
    "UTF-16 cut inside a character": (codecs.BOM_UTF16_LE + TWO.encode("utf-16-le")[:-1], "not UTF-16-LE", 0),
    "UTF-32": (codecs.BOM_UTF32_LE + TWO.encode("utf-32-le"), "is UTF-32", 0),
    "GBK behind a UTF-8 mark": (codecs.BOM_UTF8 + LONG.encode("gbk"), "not UTF-8", 0),
    "Big5": (LONG.replace("怎么办", "怎麼辦").replace("饭", "飯").replace("以后", "以後").encode("big5", "ignore"), "内科.csv", 0),
    "one byte of GBK in UTF-8": (TWO.encode() + b"\xce,a,b,c\n", "not UTF-8", 0),
    "too few fields in every other row": (f"{TWO}内科,a\n".encode() * 3, "wrong number of fields", 0),
    "a comma too many in half of the rows": (f"{HEAD}\n{ROW}\n{ROW},多\n".encode(), "row 3: wrong number of fields", 0),
    "a quotation mark that is never closed": (f'{HEAD}\n{ROW}\n内科,胃痛,"没有结束,好\n'.encode() + LONG.encode(), "内科.csv", 0),
    "a quotation mark at the very end": (f'{TWO}"'.encode(), "内科.csv", 0),
}  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", CASES)
def test_a_file_is_read_right_or_refused(tmp_path, capsys, name):
    raw, says, count = CASES[name]
    path = tmp_path / "内科.csv"
    path.write_bytes(raw)
    if says:
        with pytest.raises(DataError) as caught:
            read_medical_csv(path)
        assert str(path) in str(caught.value) and says in str(caught.value)
        assert says_what_to_do(str(caught.value)), caught.value
    else:
        rows = read_medical_csv(path).to_list()
        assert len(rows) == count and f"{count} rows" in capsys.readouterr().out
        if raw.count(ROW.encode()) == count:
            assert rows == ROWS * count


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_a_file_of_several_blocks_is_read_right_whatever_ends_its_lines(tmp_path, monkeypatch, end, encoding):
    monkeypatch.setattr(medical, "CSV_BLOCK", 2**10)
    monkeypatch.setattr(encodings, "BLOCK", 2**9)
    asked, path, header = [], tmp_path / "a.csv", medical._header
    path.write_bytes(LONG.replace("\n", end).replace("内科", "㐀").encode(encoding))
    monkeypatch.setattr(medical, "_header", lambda path, head: asked.append(len(head)) or header(path, head))
    assert read_medical_csv(path).to_list() == [ROWS[0] | {"section": "㐀"}] * 40
    assert asked[0] < 2**10  # not the whole file


@pytest.mark.bad_input
@pytest.mark.parametrize("start", [HEAD + ",x" * 2**10, " " * 2**11 + f"{HEAD}\n{ROW}\n", "\r" * 2**11])
def test_a_header_longer_than_a_block_is_refused(tmp_path, monkeypatch, start):
    monkeypatch.setattr(medical, "CSV_BLOCK", 2**10)
    monkeypatch.setattr(encodings, "BLOCK", 2**9)
    (tmp_path / "a.csv").write_text(start + "\r" + ROW, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=r"a\.csv, line 1: no headings that end within 1,024 bytes") as caught:
        read_medical_csv(tmp_path / "a.csv", encoding="utf-8")
    assert says_what_to_do(str(caught.value)), caught.value


@pytest.mark.bad_input
@pytest.mark.parametrize("function", ["open", "stat"])  # the file, or its folder, is closed
@pytest.mark.parametrize("load", [read_medical_csv, lambda path: load_medical_dialogues(path.parent)])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, load, function):
    path = tmp_path / "内科" / "a.csv"
    path.parent.mkdir()
    path.write_text(TWO, encoding="utf-8")
    close(monkeypatch, path, function)
    with pytest.raises(DataError) as caught:
        load(path)
    mend = "Allow reading it, or copy it to a folder of your own."
    assert str(caught.value) == f"{path}: cannot be read (Permission denied). {mend}"


@pytest.mark.bad_input
def test_a_department_that_may_not_be_read_is_not_passed_over(tmp_path, monkeypatch):
    for name in ("内科", "外科"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.csv").write_text(TWO, encoding="utf-8")
    scan = os.scandir

    def refuse(place):
        if str(place) == str(tmp_path / "外科"):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="外科: cannot be read .Permission denied.. Allow reading it"):
        load_medical_dialogues(tmp_path)


@pytest.mark.bad_input
def test_a_folder_instead_of_the_file(tmp_path):
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataError, match=r"a\.csv: is a folder, not a file.*Give a file in it"):
        read_medical_csv(tmp_path / "a.csv")


@pytest.mark.bad_input
@pytest.mark.parametrize("count", [1, 3])
def test_nul_bytes_are_characters_like_others(tmp_path, count):
    path = tmp_path / "a.csv"
    path.write_bytes(f"{HEAD}\n内科,a,b{chr(0) * count}c,好\n".encode())
    assert read_medical_csv(path)["question"][:] == ["b" + "\0" * count + "c"]


@pytest.mark.bad_input
def test_one_bad_row_in_many_is_skipped_counted_and_named(tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_text(LONG + "内科,只有两栏\n", encoding="utf-8")
    assert len(read_medical_csv(path)) == 40
    assert "skipped: 1 with a wrong number of fields (row 42; blank lines not counted)" in capsys.readouterr().out


LINE = """
import resource, sys
from helpers.data import DataError, read_medical_csv
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    print("rows", len(read_medical_csv(sys.argv[1])))
except DataError as error:
    print("refused", str(error)[:300])
unit = 2**20 if sys.platform == "darwin" else 2**10  # of bytes there, of KiB elsewhere
print("MiB", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // unit)
"""


@pytest.mark.bad_input
@pytest.mark.timeout(60)
@pytest.mark.parametrize("where", ["in the header", "in a row", "behind a quotation mark"])
def test_a_line_of_100_mb_ends_in_an_error_and_bounded_memory(tmp_path, where):
    path = tmp_path / "long.csv"
    start = {
        "in the header": "",
        "in a row": f"{HEAD}\n{ROW}\n内科,",
        "behind a quotation mark": f'{HEAD}\n{ROW}\n内科,"',
    }
    with path.open("w", encoding="utf-8") as file:
        file.write(start[where])
        for _ in range(100):
            file.write("x" * 2**20)
    said = subprocess.run([sys.executable, "-c", LINE, str(path)], cwd=root(), capture_output=True, text=True).stdout
    assert said.startswith("refused") and "long.csv" in said, said
    assert int(said.split()[-1]) < 1000, said
