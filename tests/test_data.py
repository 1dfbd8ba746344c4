import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.data import DataError, load_alpaca
from helpers.data import rows as shared

ROW = {"instruction": "Add.", "input": "1 and 2", "output": "3"}


def write(folder, text, name="rows.json"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def test_keeps_rows_in_order_and_says_how_many(tmp_path, capsys):
    rows = [ROW, {"instruction": "Sing.", "output": "La."}, {"instruction": "Hm", "input": None, "output": "…"}]
    dataset = load_alpaca(write(tmp_path, json.dumps(rows)))
    assert dataset.to_list() == [{"input": "", **row} | {"input": row.get("input") or ""} for row in rows]
    assert "3 rows, 3 kept, none skipped" in capsys.readouterr().out


def test_reads_json_lines_with_a_bom_and_blank_lines(tmp_path):
    lines = "\ufeff" + json.dumps(ROW) + "\n\n" + json.dumps(ROW) + "\n"
    assert len(load_alpaca(write(tmp_path, lines, "rows.jsonl"))) == 2


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path):
    row = ROW | {"output": "one\u2028two\x85three"}
    lines = json.dumps(row, ensure_ascii=False) + "\r\n" + json.dumps(ROW) + "\r\n"
    assert load_alpaca(write(tmp_path, lines, "rows.jsonl")).to_list() == [row, ROW]


def test_blank_rows_are_skipped_counted_and_numbered(tmp_path, capsys):
    rows = [ROW, ROW | {"output": "  "}, ROW, ROW | {"instruction": ""}]
    assert len(load_alpaca(write(tmp_path, json.dumps(rows)))) == 2
    assert "4 rows, 2 kept, 2 skipped (blank instruction or output: row 2, 4)" in capsys.readouterr().out


def test_extra_columns_are_left_out(tmp_path):
    dataset = load_alpaca(write(tmp_path, json.dumps([ROW | {"id": 7}])))
    assert dataset.column_names == ["instruction", "input", "output"]


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        ('[{"instruction": "a"', "x.json", r"x\.json, line 1, column 21: not JSON"),
        ('[\n{"a": 1},\n{"a" 1}]', "x.json", r"x\.json, line 3, column 6: not JSON"),
        ('{"a": 1}\n{"a": 2}', "x.json", r"Name the file \.jsonl"),
        ('{"a": 1}\n\n{"a": }', "x.jsonl", r"x\.jsonl, line 3, column 7: not JSON"),
        ("", "x.json", "holds no rows"),
        ("[]", "x.json", "holds no rows"),
        ("", "x.jsonl", "holds no rows"),
        ('{"rows": []}', "x.json", r"holds one dict, not a list of rows. Wrap"),
        ('["a"]', "x.json", "row 1: is a str, not an object"),
        ("[null]", "x.json", "row 1: is a NoneType"),
        ("中文".encode("gbk"), "x.json", "byte 0 is not UTF-8. Save the file as UTF-8"),
        (json.dumps([ROW, {"instruction": "a"}]), "x.json", r"row 2: has no 'output'. Add the text, or delete the row"),
        (json.dumps([{"output": "a"}]), "x.json", "row 1: has no 'instruction'"),
        (json.dumps([ROW, ROW | {"output": 3}]), "x.json", "row 2: 'output' is a int, not text"),
        (json.dumps([ROW | {"input": ["a"]}]), "x.json", "row 1: 'input' is a list, not text"),
        (json.dumps([ROW | {"output": " "}]), "x.json", "none of its 1 rows has both"),
    ],
)
def test_bad_files_name_the_place_and_the_mend(tmp_path, content, name, says):
    with pytest.raises(DataError, match=says):
        load_alpaca(write(tmp_path, content, name))


def test_a_missing_file_lists_its_neighbours(tmp_path):
    write(tmp_path, json.dumps([ROW]), "alpaca_en.json")
    with pytest.raises(DataError, match=r"alpaca\.json: not found .* there is: alpaca_en\.json"):
        load_alpaca(str(tmp_path / "alpaca.json"))
    with pytest.raises(DataError, match="there is no folder"):
        load_alpaca(str(tmp_path / "nowhere" / "alpaca.json"))


def test_the_hub_out_of_reach_names_the_data_set_and_the_mend(monkeypatch):
    def fail(*args, **options):
        raise ConnectionError("Couldn't reach 'someone/rows' on the Hub\nmore")

    monkeypatch.setattr(shared, "load_dataset", fail)
    with pytest.raises(DataError, match=r"'someone/rows' could not be loaded .* Couldn't reach[^\n]*\n.*HF_ENDPOINT"):
        load_alpaca("someone/rows")


def test_a_data_set_of_another_format_is_refused(monkeypatch):
    other = shared.Dataset.from_dict({"text": ["a"]})
    monkeypatch.setattr(shared, "load_dataset", lambda *args, **options: other)
    with pytest.raises(DataError, match=r"has the columns \['text'\]; missing: .*'output'"):
        load_alpaca("someone/rows")


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({"instruction": texts, "input": texts, "output": texts}), min_size=1, max_size=8))
def test_any_text_survives_and_nothing_is_lost_silently(tmp_path_factory, rows):
    path = write(tmp_path_factory.mktemp("rows"), json.dumps(rows))
    kept = [row for row in rows if row["instruction"].strip() and row["output"].strip()]
    if kept:
        assert load_alpaca(path).to_list() == kept
    else:
        with pytest.raises(DataError, match="none of its"):
            load_alpaca(path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_end_in_rows_or_a_data_error(tmp_path_factory, content):
    path = write(tmp_path_factory.mktemp("bytes"), content)
    try:
        load_alpaca(path)
    except DataError as error:
        assert "rows.json" in str(error)
