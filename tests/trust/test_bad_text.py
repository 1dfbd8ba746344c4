"""Loaders of plain text against what such a file can be: read right, or refused with its name and the mend."""

import codecs

import pytest
from closed import close
from mends import says_what_to_do

from helpers import data
from helpers.data import DataError

ONE = "id=1\nDescription\n胃痛三天。\n\nDialogue\n病人：\n吃什么药？\n医生：\n先查胃镜。\n"
TWO = ONE + ONE.replace("id=1", "id=2").replace("三天", "五天")
# name: bytes, what is said in the error (or None), how many consultations come back
CONSULTATIONS = {
    "two": (TWO.encode(), None, 2),
    "a byte order mark": (codecs.BOM_UTF8 + TWO.encode(), None, 2),
    "carriage returns and line feeds": (TWO.replace("\n", "\r\n").encode(), None, 2),
    "no line end": (TWO.rstrip().encode(), None, 2),
    "text beside the speaker": (TWO.replace("：\n", "：").encode(), None, 2),
    "English headings and speakers": (TWO.replace("病人", "Patient").replace("医生", "doctor").encode(), None, 2),
    "a section that nobody asked for": (TWO.replace("Dialogue", "Doctor faculty\n内科\n\nDialogue").encode(), None, 2),
    "no description": (TWO.replace("Description\n胃痛三天。\n", "").encode(), None, 2),
    "an unknown speaker's line goes on with the turn before": (TWO.replace("医生：\n先", "医生：\n护士：量体温。\n先").encode(), None, 2),
    "tokens of a chat template": (TWO.replace("吃什么药", "<|im_end|>{answer}</answer>").encode(), None, 2),
    "NUL characters": (TWO.replace("胃镜", "胃\0镜").encode(), None, 2),
    "one without turns among others": (f"{ONE}id=2\nDescription\n头痛。\n{ONE}".encode(), None, 2),
    "an empty file": (b"", "holds no consultation", 0),
    "blank lines only": (b"\n\n  \n", "holds no consultation", 0),
    "ids only": (b"id=1\nid=2\n", "", 0),
    "one side only": (ONE.split("医生")[0].encode(), "", 0),
    "no id": (TWO.replace("id=1\n", "", 1).encode(), "begins with 'Description'", 0),
    "a processed file": (b'[["\\u75c5\\u4eba"]]', "use load_conversations", 0),
    "a spreadsheet": (b"PK\x03\x04" + bytes(range(256)) * 9, "x.txt", 0),
    "GBK": (TWO.encode("gbk"), "is not UTF-8", 0),
    "UTF-16": (TWO.encode("utf-16"), "is not UTF-8", 0),
    "cut inside a character": (TWO.encode()[:-2], "is not UTF-8", 0),
}  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", CONSULTATIONS)
def test_consultations_are_read_right_or_refused(tmp_path, name):
    raw, says, count = CONSULTATIONS[name]
    path = tmp_path / "x.txt"
    path.write_bytes(raw)
    if says is None:
        rows = data.load_meddialog(str(path))
        assert len(rows) == count and all({"user", "assistant"} == {m["role"] for m in ms} for ms in rows["messages"])
        return
    assert_refused(data.load_meddialog, path, says)


DOCUMENTS = {
    "two": (b"One.\n\nTwo,\nlonger.\n", None, ["One.", "Two,\nlonger."]),
    "carriage returns and line feeds": (b"One.\r\n\r\nTwo.\r\n", None, ["One.", "Two."]),
    "spaces in the blank line": (b"One.\n \t\nTwo.\n", None, ["One.", "Two."]),
    "many blank lines": (b"\n\n\nOne.\n\n\n\n\nTwo.\n\n", None, ["One.", "Two."]),
    "a byte order mark": (codecs.BOM_UTF8 + b"One.", None, ["One."]),
    "a document again": (b"One.\n\nTwo.\n\nOne.", None, ["One.", "Two."]),
    "tokens of a chat template": (b"<|im_end|> {x}\n\nTwo.", None, ["<|im_end|> {x}", "Two."]),
    "a line of 20 million characters": (b"word " * 4_000_000, None, ["word " * 3_999_999 + "word"]),
    "an empty file": (b"", "holds a document", []),
    "blank lines only": (b"\n\n  \n", "holds a document", []),
    "GBK": ("中文".encode("gbk"), "is not UTF-8", []),
    "UTF-16": ("中文".encode("utf-16"), "is not UTF-8", []),
    "cut inside a character": ("中文".encode()[:-1], "is not UTF-8", []),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 9, "is not UTF-8", []),
}


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_are_read_right_or_refused(tmp_path, name):
    raw, says, texts = DOCUMENTS[name]
    path = tmp_path / "x.txt"
    path.write_bytes(raw)
    if says is None:
        assert data.load_corpus(str(path))["text"][:] == texts
        return
    assert_refused(data.load_corpus, path, says)


@pytest.mark.bad_input
@pytest.mark.parametrize("load", [data.load_meddialog, data.load_corpus])
def test_a_folder_or_a_file_that_is_not_there(tmp_path, load):
    (tmp_path / "folder.txt").mkdir()
    for name, says in {
        "gone.txt": "gone.txt: not found",
        "folder.txt": "no .txt file in this folder" if load is data.load_meddialog else "is a folder, not a file",
    }.items():
        assert_refused(load, tmp_path / name, says)


@pytest.mark.bad_input
@pytest.mark.parametrize("function", ["open", "stat"])  # the file, or its folder, is closed
@pytest.mark.parametrize(
    ("load", "name"), [(data.load_meddialog, "x.txt"), (data.load_corpus, "x.txt"), (data.load_corpus, "x.parquet")]
)
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, load, name, function):
    path = tmp_path / name
    path.write_text(ONE, encoding="utf-8")
    close(monkeypatch, path, function)
    assert_refused(load, path, f"{path}: cannot be read (Permission denied). Allow reading it, or copy it to a folder")


@pytest.mark.bad_input
def test_a_byte_is_named_by_its_place_in_the_file(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(codecs.BOM_UTF8 + TWO.encode() * 200 + b"\xce\n")
    place = f"byte {3 + 200 * len(TWO.encode()):,} (line {1 + 200 * TWO.count(chr(10)):,})"
    assert_refused(data.load_meddialog, path, f"{path}: {place} is not UTF-8. Save the file as UTF-8.")


@pytest.mark.bad_input
def test_a_corpus_in_another_form_is_refused_where_it_is_or_is_not(tmp_path):
    (tmp_path / "x.csv").write_text("text\na\n", encoding="utf-8")
    assert_refused(data.load_corpus, tmp_path / "x.csv", "is not one of .jsonl, .json, .txt, .parquet. Save the texts")
    assert_refused(data.load_corpus, tmp_path / "gone.csv", "gone.csv: not found (looked from")


@pytest.mark.bad_input
def test_a_folder_among_the_files_is_named(tmp_path):
    (tmp_path / "2011.txt").write_text(ONE, encoding="utf-8")
    (tmp_path / "2012.txt").mkdir()
    assert_refused(data.load_meddialog, tmp_path, "2012.txt: is a folder, not a file")


def assert_refused(load, path, says):
    with pytest.raises(DataError) as caught:
        load(str(path))
    assert str(path) in str(caught.value) and says in str(caught.value)
    assert says_what_to_do(str(caught.value)), caught.value
