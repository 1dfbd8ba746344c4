"""Every loader of JSON against every fault that a file can have: one `DataError` with the file's name and the mend."""

import ast
import importlib
import json
from pathlib import Path

import pytest
from closed import close
from mends import says_what_to_do

from helpers import data
from helpers.data import DataError
from helpers.runtime import root

SAMPLES = root() / "data_samples"
LOADERS = {
    "alpaca": (data.load_alpaca, "alpaca_en.json"),
    "conversations": (data.load_conversations, "forms/sharegpt.jsonl"),
    "corpus": (data.load_corpus, "domain_en.jsonl"),
    "gsm8k": (data.load_gsm8k, "gsm8k_en.jsonl"),
    "medical_o1": (data.load_medical_o1, "medical_o1_en.json"),
    "notes": (data.load_notes, "town_notes_en.json"),
    "preferences": (data.load_preferences, "preferences_prompt.jsonl"),
    "qa": (data.load_qa, "forms/query_response.jsonl"),
    "questions": (
        lambda path: data.load_questions(path, data.load_notes(SAMPLES / "town_notes_en.json")), "town_questions_en.json",
    ),
    "quiz": (data.load_quiz, "medical_quiz_en.jsonl"),
    "s1k": (data.load_s1k, "s1k_en.jsonl"),
}  # fmt: skip


def sample(name: str) -> list[dict]:
    return data.read_json_rows(SAMPLES / LOADERS[name][1])[:3]


# What is wrong: the file's name and bytes made from three good rows, and what the error says.
FAULTS = {
    "empty": (lambda rows: ("x.json", b""), "holds no rows"),
    "blank": (lambda rows: ("x.jsonl", b" \n\n"), "holds no rows"),
    "an empty list": (lambda rows: ("x.json", b"[]"), "holds no rows"),
    "one object": (lambda rows: ("x.json", b'{"data": []}'), "Wrap the rows in [ … ]"),
    "a list of texts": (lambda rows: ("x.json", b'["a", "b"]'), "row 1"),
    "a null among the rows": (lambda rows: ("x.json", json.dumps([*rows, None]).encode()), "row 4"),
    "cut short": (lambda rows: ("x.json", json.dumps(rows).encode()[:-9]), "not JSON"),
    "a comma too many": (lambda rows: ("x.json", json.dumps(rows)[:-1].encode() + b",]"), "not JSON"),
    "single quotation marks": (lambda rows: ("x.json", str(rows).encode()), "not JSON"),
    "lines in a .json": (lambda rows: ("x.json", "\n".join(map(json.dumps, rows)).encode()), "Name the file .jsonl"),
    "lines with commas in a .json": (lambda rows: ("x.json", ",\n".join(map(json.dumps, rows)).encode()), "Wrap them in ["),
    "lines with commas in a .jsonl": (
        lambda rows: ("x.jsonl", ",\n".join(map(json.dumps, rows)).encode()), "Delete the comma behind each row",
    ),
    "two objects on a line of a .jsonl": (
        lambda rows: ("x.JSONL", " ".join(map(json.dumps, rows)).encode()), "Put each object on a line of its own",
    ),
    "a table": (lambda rows: ("x.csv", b"question,answer\na,b\n"), ".jsonl"),
    "a workbook": (lambda rows: ("x.xlsx", b"PK\x03\x04" + bytes(range(256))), ".jsonl"),
    "a bad line in a .jsonl": (lambda rows: ("x.jsonl", json.dumps(rows[0]).encode() + b"\n{"), "line 2"),
    "GBK": (lambda rows: ("x.json", json.dumps([{"a": "中文"}], ensure_ascii=False).encode("gbk")), "is not UTF-8"),
    "cut inside a character": (lambda rows: ("x.json", '[{"a": "中'.encode()[:-1]), "is not UTF-8"),
    "UTF-16": (lambda rows: ("x.json", json.dumps(rows).encode("utf-16")), "is not UTF-8"),
    "brackets without end": (lambda rows: ("x.json", b"[" * 100_000), "nested"),
    "a number of 5,000 digits": (lambda rows: ("x.json", b'[{"a": ' + b"9" * 5000 + b"}]"), "x.json"),
    "NaN for a row": (lambda rows: ("x.json", b"[NaN]"), "row 1"),
    "half a character": (
        lambda rows: ("x.json", json.dumps([rows[0], {name: "\ud83d" for name in rows[0]}]).encode()), "row 2",
    ),
    "other fields": (lambda rows: ("x.json", b'[{"foo": "a", "bar": "b"}]'), "row 1"),
    "numbers for texts": (lambda rows: ("x.json", json.dumps([dict.fromkeys(rows[0], 7)]).encode()), "row 1"),
    "lists for texts": (lambda rows: ("x.json", json.dumps([{name: [[]] for name in rows[0]}]).encode()), "row 1"),
    "blank texts": (lambda rows: ("x.json", json.dumps([dict.fromkeys(rows[0], " ")]).encode()), "x.json"),
}  # fmt: skip


@pytest.mark.bad_input
@pytest.mark.timeout(20)
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("loader", LOADERS)
def test_a_faulty_file_is_refused_with_its_name(tmp_path, loader, fault):
    make, says = FAULTS[fault]
    name, raw = make(sample(loader))
    path = tmp_path / name
    path.write_bytes(raw)
    with pytest.raises(DataError) as caught:
        LOADERS[loader][0](str(path))
    assert str(path) in str(caught.value) and says in str(caught.value)
    assert says_what_to_do(str(caught.value)), caught.value
    assert len(str(caught.value)) < 2000


@pytest.mark.bad_input
@pytest.mark.parametrize("loader", LOADERS)
def test_a_folder_or_a_file_that_is_not_there(tmp_path, loader):
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "folder.json" / "x.jsonl").write_text("")
    gone = "not found (looked from"
    for name, says in {
        "folder.json": "is a folder, not a file. In it there is: x.jsonl. Give a file in it",
        **dict.fromkeys(("gone.json", "my_rows.csv", "my_rows.TSV", "my_rows.xlsx", "my_rows.txt", "a.parquet"), gone),
        "x" * 5000 + ".json": gone,
    }.items():
        with pytest.raises(DataError) as caught:
            LOADERS[loader][0](str(tmp_path / name))
        assert str(caught.value).startswith(f"{tmp_path / name}: {says}"), caught.value
        assert says_what_to_do(str(caught.value)), caught.value


@pytest.mark.bad_input
@pytest.mark.parametrize("loader", [name for name in LOADERS if name != "corpus"])
@pytest.mark.parametrize("name", ["there.csv", "there.parquet", "there.txt", "gone.csv", "gone.txt"])
def test_a_table_where_only_json_is_read(tmp_path, loader, name):
    for there in ("there.csv", "there.parquet", "there.txt"):
        (tmp_path / there).write_bytes(b"question,answer\na,b\n")
    with pytest.raises(DataError, match=r"Save the rows as \.json or \.jsonl: only these are read here") as caught:
        LOADERS[loader][0](str(tmp_path / name))
    assert str(tmp_path / name) in str(caught.value) and "download" not in str(caught.value)


@pytest.mark.bad_input
@pytest.mark.parametrize("function", ["open", "stat"])  # the file, or its folder, is closed
@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("name", ["x.json", "x.jsonl", "rows"])
def test_a_file_that_may_not_be_read(tmp_path, monkeypatch, loader, name, function):
    path = tmp_path / name
    path.write_text(json.dumps(sample(loader)))
    close(monkeypatch, path, function)
    with pytest.raises(DataError) as caught:
        LOADERS[loader][0](str(path))
    mend = "Allow reading it, or copy it to a folder of your own."
    assert str(caught.value) == f"{path}: cannot be read (Permission denied). {mend}"


# The values of a column to keep, and what is said of which row.
MIXED = {
    "a text among numbers": ([1, None, 2, "x", 3], "row 5: 'label' is 'x' (str), where the rows before it have int"),
    "a number among texts": (["x", 1], "row 3: 'label' is 1 (int), where the rows before it have str"),
    "a number of 31 digits": ([1, 10**30], f"row 3: 'label' is {10**30}, which no column can hold"),
    "a text in a list of numbers": ([[1], ["x"]], "row 3: 'label' is ['x'], which holds other types than"),
    "an object and a list": ([{"a": 1}, ["x" * 99]], "row 3: 'label' is ['xxx"),
}


@pytest.mark.bad_input
@pytest.mark.parametrize("name", MIXED)
def test_a_column_to_keep_has_values_of_one_type(tmp_path, name):
    labels, says = MIXED[name]
    rows = [{"question": "", "answer": "skipped", "label": [{}]}]
    rows += [{"question": "a", "answer": "b", "label": label} for label in labels]
    path = tmp_path / "x.json"
    path.write_text(json.dumps(rows))
    assert len(data.load_qa(str(path))) == len(labels)
    with pytest.raises(DataError) as caught:
        data.load_qa(str(path), keep=("label",))
    assert f"{path}, {says}" in str(caught.value) and says_what_to_do(str(caught.value)), caught.value
    assert len(str(caught.value)) < 500


@pytest.mark.bad_input
def test_a_column_to_keep_may_mix_what_one_type_holds(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps([{"question": "a", "answer": "b", "label": label} for label in (1, None, 1.5)]))
    assert data.load_qa(str(path), keep=("label",))["label"][:] == [1.0, None, 1.5]


def written(module: Path) -> dict[str, str]:
    """The texts of the errors that a loader's source raises, by their line; constants filled in, other values as ….

    Left out are those that other code makes or ends; the tables of faults reach these.
    """
    constants, texts = vars(importlib.import_module(f"helpers.data.{module.stem}")), {}

    def text(part: ast.expr) -> str:
        if isinstance(part, ast.Constant):
            return part.value
        value = constants.get(getattr(getattr(part, "value", None), "id", None))
        return value if isinstance(value, str) else "…"

    for node in ast.walk(ast.parse(module.read_text("utf-8"))):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DataError":
            whole = "".join(map(text, getattr(node.args[0], "values", [node.args[0]])))
            if not whole.endswith("…"):
                texts[f"{module.name}:{node.lineno}"] = whole
    return texts


@pytest.mark.bad_input
def test_every_error_of_the_loaders_says_what_to_do():
    texts = {
        place: text for module in Path(data.__file__).parent.glob("[!_]*.py") for place, text in written(module).items()
    }
    assert len(texts) > 60
    assert {place: text for place, text in texts.items() if not says_what_to_do(text)} == {}


@pytest.mark.bad_input
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("loader", LOADERS)
def test_good_rows_come_back_from_either_form_and_line_end(tmp_path, loader, end):
    rows, load = sample(loader), LOADERS[loader][0]
    lines, whole = tmp_path / "x.jsonl", tmp_path / "x.json"
    lines.write_bytes(("\ufeff" + end.join(map(json.dumps, rows)) + end).encode())
    whole.write_bytes(json.dumps(rows, indent=1).replace("\n", end).encode())
    one, other = (load(str(path)) for path in (lines, whole))
    assert (one if isinstance(one, dict | list) else one.to_list()) == (
        other if isinstance(other, dict | list) else other.to_list()
    )
    assert len(one) == len(rows)


@pytest.mark.bad_input
def test_the_last_of_two_equal_names_counts_as_in_json_everywhere(tmp_path):
    path = tmp_path / "x.json"
    path.write_text('[{"instruction": "a", "output": "old", "output": "new"}]')
    assert data.load_alpaca(str(path))["output"][:] == ["new"]
