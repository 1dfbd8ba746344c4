import codecs
import csv
import importlib.util
import io
from collections import Counter

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from helpers import prompts
from helpers.data import (
    DataError,
    add_text,
    balanced,
    encodings,
    load_medical_dialogues,
    medical_files,
    read_medical_csv,
)
from tools.bench import medical as bench_medical
from tools.lessons import ROOT
from tools.samples.medical import ASKS, DEPARTMENTS

HEADER = ("department", "title", "ask", "answer")
ROW = ("心血管科", "血压高怎么办", "我血压高，应该怎么办？", "少吃盐，每天量血压，按时复查。")
REAL = ROOT.parent / "shared" / "data" / "toyhom_内科5000-6000.csv"
ENCODINGS = ["utf-8", "utf-8-sig", "gbk", "gb18030", "utf-16", "utf-16-le", "utf-16-be"]


def content(*rows, header=HEADER, end="\r\n") -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end)
    writer.writerows([header, *rows])
    return text.getvalue()


def write(folder, text, encoding="gb18030", name="内科.csv"):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def rows_of(path, **options):
    return [tuple(row.values()) for row in read_medical_csv(path, **options).to_list()]


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_gives_the_same_rows(tmp_path, encoding):
    assert rows_of(write(tmp_path, content(ROW, ROW[::-1]), encoding)) == [ROW, ROW[::-1]]


@pytest.mark.parametrize("bom", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_utf16_with_either_bom(tmp_path, bom):
    encoding = "utf-16-le" if bom == codecs.BOM_UTF16_LE else "utf-16-be"
    assert rows_of(write(tmp_path, bom + content(ROW).encode(encoding))) == [ROW]


@pytest.mark.parametrize("name", ["UTF-8", "utf8", "U8", "utf-8-sig", None])
def test_a_byte_order_mark_is_no_part_of_the_header_however_utf8_is_spelt(tmp_path, name):
    assert rows_of(write(tmp_path, content(ROW), "utf-8-sig"), encoding=name) == [ROW]


@pytest.mark.parametrize(("name", "encoding"), [("GB18030", "gb18030"), ("UTF_16_LE", "utf-16-le"), (None, "gb18030")])
def test_other_byte_order_marks_are_none_either(tmp_path, name, encoding):
    assert rows_of(write(tmp_path, "\ufeff" + content(ROW), encoding), encoding=name) == [ROW]


@pytest.mark.bad_input
@pytest.mark.parametrize("name", ["foo", "hex"])
def test_an_unknown_encoding_is_refused_by_its_name(tmp_path, name):
    path = write(tmp_path, content(ROW))
    for read, source in ((read_medical_csv, path), (load_medical_dialogues, tmp_path)):
        with pytest.raises(DataError, match=rf"内科.csv: '{name}' is no encoding.*\. Choose utf-8, "):
            read(source, encoding=name)


GBK = st.text(
    st.integers(0x8140, 0xFEFE)
    .map(lambda n: n.to_bytes(2, "big").decode("gbk", "ignore"))
    .filter(lambda s: len(s) == 1)
)
FIELDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]))  # all of Unicode: most of it is in GB18030 alone


def table(fields):
    # A row of blank lines only would be an empty line to CSV, and a quoted field keeps all that it holds.
    return st.lists(st.tuples(fields, fields, fields, fields), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("encodings")


@settings(max_examples=60, deadline=None)
@given(table(FIELDS), st.sampled_from(["utf-8", "utf-8-sig", "gb18030", "utf-16"]))
@example([("", "", "𠮷野家䶮", "\U0010ffff")], "gb18030")
@example([("", "", "é", "é")], "utf-8")
@example([("", "", "茅", "茅")], "gb18030")
def test_any_text_comes_back_or_the_file_is_refused(scratch, rows, encoding):
    """Never silently wrong: without BOM a file may be ambiguous, and is then refused by name."""
    path = write(scratch, content(*rows), encoding)
    try:
        assert rows_of(path) == rows
    except DataError as error:
        assert encoding in ("utf-8", "gb18030")
        assert str(path) in str(error)
    assert rows_of(path, encoding=encoding.removesuffix("-sig") if encoding != "utf-16" else "utf-16-le") == rows


@settings(max_examples=60, deadline=None)
@given(table(GBK))
def test_gbk_beside_ordinary_chinese_comes_back(scratch, rows):
    assert rows_of(write(scratch, content(*rows, ROW), "gbk")) == [*rows, ROW]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.sampled_from([0x80, 0xFF, 0xFE]))
def test_a_wrong_byte_in_gb18030_is_placed(scratch, where, byte):
    raw = bytearray(content(*[ROW] * 8).encode("gb18030"))
    where = len(content().encode()) + where % (len(raw) - len(content().encode()))
    assume(raw[where] != byte)
    raw[where] = byte
    path = write(scratch, bytes(raw))
    try:
        # 0x80 and 0xFE can follow another byte: one wrong character in one place, which no decoder can know.
        assert sum(a != b for a, b in zip(rows_of(path), [ROW] * 8)) == 1
    except DataError as error:
        assert str(path) in str(error)
        assert "byte " in str(error) or "fields" in str(error) or "CSV" in str(error)


def test_a_wrong_byte_names_file_byte_line_and_mend(tmp_path):
    good = content(*[ROW] * 3).encode("gb18030")
    path = write(tmp_path, good + b"\xff\xff" + good)
    with pytest.raises(DataError) as error:
        read_medical_csv(path)
    assert str(path) in str(error.value)
    assert f"byte {len(good):,} (line 5): not GB18030, and not UTF-8 either" in str(error.value)
    assert "save it as" in str(error.value)


def test_damaged_utf8_is_not_taken_for_gb18030(tmp_path):
    raw = content(*[ROW] * 5).encode()
    at = raw.index("每天".encode())
    path = write(tmp_path, raw[: at + 2] + raw[at + 3 :])
    with pytest.raises(DataError, match=rf"byte {at:,} \(line 2\): not UTF-8, though the text around it is"):
        read_medical_csv(path)
    # Even where GB18030 could decode every byte of it.
    short = b"department,title,ask,answer\n" + "a,b,头晕,休息".encode() + b"\xe5\xa4\n"
    assert "".join(short.decode("gb18030", "replace")).count("\ufffd") <= 1
    with pytest.raises(DataError, match="not UTF-8, though"):
        read_medical_csv(write(tmp_path, short))


@pytest.mark.parametrize(
    ("encoding", "text"),
    [("big5", "這幾天總是頭暈，晚上睡不著，血壓有點高，請問醫生應該怎麼辦？"), ("latin-1", "été, naïveté où")],
)
def test_another_encoding_is_not_taken_for_gb18030(tmp_path, encoding, text):
    rows = [("a", f"{n}", text * 4, text) for n in range(100)]
    with pytest.raises(DataError, match=r"hardly that: it would begin|not GB18030, and not UTF-8 either"):
        read_medical_csv(write(tmp_path, content(*rows), encoding))


def test_the_whole_file_decides_not_its_first_block(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "BLOCK", 64)
    ascii_rows = [("a", "b", f"question {n}", "answer") for n in range(50)]
    assert rows_of(write(tmp_path, content(*ascii_rows, ROW), "gbk"))[-1] == ROW
    assert rows_of(write(tmp_path, content(*ascii_rows, ROW), "utf-8"))[-1] == ROW


@pytest.mark.parametrize("block", [16, 61, 64, 97])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_characters_across_blocks(tmp_path, monkeypatch, encoding, block):
    monkeypatch.setattr(encodings, "BLOCK", block)
    odd = "䶮𠮷" if encoding != "gbk" else "喆囍"
    rows = [(odd, "a" * n, "头晕" * n, "休\n息") for n in range(1, 9)]
    assert rows_of(write(tmp_path, content(*rows), encoding)) == rows


def test_an_ambiguous_file_is_refused_with_both_readings(tmp_path):
    path = write(tmp_path, content(("", "", "茅", "茅")), "gb18030")
    with pytest.raises(DataError, match="As UTF-8 it reads 'éé', as GB18030 '茅茅'"):
        read_medical_csv(path)
    assert rows_of(path, encoding="gb18030") == [("", "", "茅", "茅")]


def test_short_chinese_in_utf8_is_no_doubt(tmp_path):
    text = content(("内科", "头晕", "头晕怎么", "休息"))
    text.encode().decode("gb18030")  # could be read so, as rare characters
    assert rows_of(write(tmp_path, text, "utf-8")) == [("内科", "头晕", "头晕怎么", "休息")]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (codecs.BOM_UTF32_LE + content(ROW).encode("utf-32-le"), "is UTF-32"),
        (codecs.BOM_UTF16_LE + content(ROW).encode("utf-16-le")[:-1], r"byte \d+ \(line \d\): not UTF-16-LE"),
        (codecs.BOM_UTF8 + content(ROW).encode("gbk"), r"byte \d+ \(line 2\): not UTF-8"),
        (b"", "line 1: no column ask or question. It has: nothing"),
        (content().encode(), "holds a header and no rows"),
        (content(ROW, header=("department", "title", "q", "answer")).encode(), "line 1: no column ask or question"),
        (content(ROW, header=("department", "title", "ask", "reply")).encode(), "line 1: no column answer"),
        (content(ROW, header=("title", "question", "ask", "answer")).encode(), "both mean 'question'"),
        (
            content(ROW).encode() + b"\r\na,b,c\r\n",
            r"row 3: wrong number of fields, or .* as in 1 of 2 rows \(blank lines not counted\)\. Put",
        ),
    ],
)
def test_bad_files_name_the_place(tmp_path, raw, says):
    path = write(tmp_path, raw)
    with pytest.raises(DataError, match=says) as error:
        read_medical_csv(path)
    assert str(path) in str(error.value)


def test_a_quotation_mark_that_is_never_closed_swallows_nothing(tmp_path):
    text = content(ROW) + '内科,a,"没有结束的问题,回答\r\n' + content(*[ROW] * 50).split("\r\n", 1)[1]
    with pytest.raises(DataError, match="内科.csv"):
        read_medical_csv(write(tmp_path, text))


@pytest.mark.parametrize("end", ['内科,a",b,回答', '内科,a",回答', '内科,a"'])
def test_rows_between_two_stray_quotation_marks_are_not_lost(tmp_path, end):
    swallowed = content(*[ROW] * 900).split("\r\n", 1)[1]
    text = content(ROW) + '内科,a,"没有结束,回答\r\n' + swallowed + end + "\r\n" + swallowed
    with pytest.raises(DataError, match=r"内科.csv, 9\d\d lines from .*没有结束.* as in 9\d\d of 1,8"):
        read_medical_csv(write(tmp_path, text))


def test_a_few_swallowed_rows_are_counted_by_line(tmp_path, capsys):
    some = content(*[ROW] * 900).split("\r\n", 1)[1]
    text = content() + some * 21 + '内科,a,"没有结束,回答\r\n' + some + '内科,a",回答\r\n'
    write(tmp_path, text, name="内科/a.csv")
    assert load_medical_dialogues(tmp_path)["answer"][:] == [ROW[3]]
    said = " ".join(capsys.readouterr().out.split())
    assert "duplicate malformed 内科 19,802 1 18,899 902" in said
    assert "a.csv, 902 lines from" in said


# --- CSV --------------------------------------------------------------------------------------------------------------


def test_columns_by_name_in_any_order_and_case(tmp_path):
    text = content(("回答", "问题", 3, "科"), header=("Answer", " QUESTION", "id", "department"))
    assert rows_of(write(tmp_path, text)) == [("科", "", "问题", "回答")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_breaks_quotes_and_commas_in_fields(tmp_path, end):
    rows = [("科", "", '他说"头晕",然后\n走了', '"'), ("科", "，", "一\r\n二", "三,四")]
    assert rows_of(write(tmp_path, content(*rows, end=end))) == rows


def test_nothing_is_read_as_a_number_or_as_missing(tmp_path):
    rows = [("007", "NA", "null", "1.50"), ("", "true", "NaN", "2024-01-01")]
    assert rows_of(write(tmp_path, content(*rows))) == rows


def test_a_few_rows_of_another_length_are_counted_and_named(tmp_path, capsys):
    text = content(*[ROW] * 150) + "\r\na,b,c\r\n" + content(*[ROW] * 50).split("\r\n", 1)[1]
    assert len(read_medical_csv(write(tmp_path, text))) == 200
    said = "gb18030, 200 rows; skipped: 1 with a wrong number of fields (row 152; blank lines not counted)"
    assert said in capsys.readouterr().out


def test_a_missing_file_lists_its_neighbours(tmp_path):
    write(tmp_path, content(ROW))
    with pytest.raises(DataError, match=r"外科.csv: not found .* there: 内科.csv"):
        read_medical_csv(tmp_path / "外科.csv")


# --- departments ------------------------------------------------------------------------------------------------------


def test_what_is_dropped_is_counted_by_department_and_reason(tmp_path, capsys):
    dull = [("", "", " ", "答"), ("", "", "问一", "　"), ("", "", "问二", "无"), ("", "", "长" * 90, "答" * 11)]
    write(tmp_path, content(ROW, *dull, ROW, ("x", "y", f"  {ROW[2]}\n", ROW[3])), name="IM_内科/a.csv")
    write(tmp_path, content(ROW, ("", "标题", "无", "答"), ("", "", "长" * 90, "答" * 10)), "gbk", "外科/b.CSV")
    rows = load_medical_dialogues(tmp_path, max_chars=100)
    assert rows.column_names == ["department", "section", "title", "question", "answer"]
    assert [(r["department"], r["question"][:12]) for r in rows] == [
        ("内科", ROW[2][:12]),
        ("外科", "标题"),
        ("外科", "长" * 12),
    ]
    said = " ".join(capsys.readouterr().out.split())
    assert "department read kept no question no answer too long duplicate" in said
    assert "内科 7 1 1 2 1 2 外科 3 2 0 0 0 1 all 10 3 1 2 1 3" in said
    assert "1 questions were empty or 无 and are their titles now." in said


def test_other_answers_and_other_splits_are_no_duplicates(tmp_path):
    rows = [("", "", "头晕", "休息"), ("", "", "头晕", "喝水"), ("", "", "头晕休", "息"), ("", "", "头", "晕休息")]
    write(tmp_path, content(*rows), name="内科/a.csv")
    assert len(load_medical_dialogues(tmp_path)) == 4


def test_duplicates_are_found_across_files_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(encodings, "BLOCK", 256)
    rows = [("", "", f"问题{n}", "回答") for n in range(40)]
    write(tmp_path, content(*rows), name="内科/a.csv")
    write(tmp_path, content(*rows, ROW), name="内科/b.csv")
    assert load_medical_dialogues(tmp_path)["question"][:] == [row[2] for row in [*rows, ROW]]


def test_a_folder_without_departments_is_one(tmp_path):
    write(tmp_path, content(ROW), name="IM_内科/a.csv")
    assert list(medical_files(tmp_path / "IM_内科")) == ["内科"]
    write(tmp_path, content(ROW), name="样例.csv")
    assert list(medical_files(tmp_path)) == ["内科"]


def test_an_absent_or_empty_folder_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match="git clone .*Chinese-medical-dialogue-data"):
        load_medical_dialogues(tmp_path / "nowhere")
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DataError, match=r"no CSV file in it or below it; there is readme\.txt"):
        load_medical_dialogues(tmp_path)
    write(tmp_path, content(("", "", "问", "")), name="内科/a.csv")
    with pytest.raises(DataError, match="no row is left"):
        load_medical_dialogues(tmp_path)


def test_the_sample_has_all_departments_and_every_fault(capsys):
    rows = load_medical_dialogues(ROOT / "data_samples" / "medical")
    departments = Counter(rows["department"][:])
    assert set(departments) == {"男科", "内科", "妇产科", "肿瘤科", "儿科", "外科"}
    assert sum(departments.values()) == len(rows) >= 1000
    assert any("䶮" in question for question in rows["question"][:])
    assert "我最近总是感觉头晕，应该怎么办？" not in rows["question"][:]
    last = capsys.readouterr().out.split("all ")[-1].split()
    assert last == ["1,114", "1,072", "18", "6", "18"]


@pytest.mark.skipif(not REAL.is_file(), reason=f"needs the public test data at {REAL}")
def test_the_real_sample(tmp_path, capsys):
    rows = read_medical_csv(REAL)
    with REAL.open(encoding="gb18030", newline="") as file:
        assert [tuple(row.values()) for row in rows] == [tuple(row) for row in csv.reader(file)][1:]
    assert len(rows) == 7644
    (tmp_path / "IM_内科").mkdir()
    (tmp_path / "IM_内科" / "a.csv").symlink_to(REAL)
    assert len(load_medical_dialogues(tmp_path)) == len({(r["question"], r["answer"]) for r in rows})
    assert "7,644" in capsys.readouterr().out


# --- columns ----------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=5))
def test_add_text_is_the_template_of_every_row(rows):
    from datasets import Dataset

    dataset = Dataset.from_list([{"question": q, "answer": a} for q, a in rows])
    filled = add_text(dataset.select(range(len(rows) - 1, -1, -1)), prompts.MEDICAL_ZH + "<eos>")
    assert filled["text"][:] == [prompts.medical_zh(q, a) + "<eos>" for q, a in reversed(rows)]
    with pytest.raises(ValueError, match=r"\['title'\]"):
        add_text(dataset, "{title}")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.integers(0, 9))
def test_balanced_takes_as_many_of_each_and_none_twice(values, seed):
    from datasets import Dataset

    dataset = Dataset.from_dict({"kind": values, "id": range(len(values))})
    drawn = balanced(dataset, "kind", seed=seed)
    size = min(Counter(values).values())
    assert Counter(drawn["kind"][:]) == dict.fromkeys(set(values), size)
    assert len(set(drawn["id"][:])) == len(drawn)
    assert drawn["id"][:] == balanced(dataset, "kind", seed=seed)["id"][:]


@pytest.mark.bad_input
@pytest.mark.parametrize("values", [["a", None, "b"], []])
def test_rows_that_cannot_be_balanced_are_counted(values):
    from datasets import Dataset, Features, Value

    dataset = Dataset.from_dict({"kind": values}, features=Features({"kind": Value("string")}))
    with pytest.raises(DataError, match=f"{values.count(None)} of {len(values)} rows have no 'kind'"):
        balanced(dataset, "kind")


def test_balanced_draws_by_seed_and_shuffles():
    from datasets import Dataset

    dataset = Dataset.from_dict({"kind": ["a"] * 500 + ["b"] * 100, "id": range(600)})
    one, two = (balanced(dataset, "kind", seed=seed) for seed in (1, 2))
    assert set(one["id"][:]) != set(two["id"][:])
    assert 20 < one["kind"][:100].count("a") < 80


def test_the_medical_template_to_the_last_character():
    assert prompts.medical_zh("头晕？", "休息。") == (
        "你是一名专业的医疗助手。请根据患者的问题，给出专业、准确、易懂的回答。\n\n"
        "### 问题：\n头晕？\n\n### 回答：\n休息。"
    )
    assert prompts.medical_zh("头晕？").endswith("头晕？\n\n" + prompts.MEDICAL_ZH_ANSWER)
    assert prompts.MEDICAL_ZH_QUESTION + "头晕？" in prompts.medical_zh("头晕？")


@pytest.mark.nano
def test_the_nano_model_knows_the_symptoms_and_never_stops():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from helpers import generation, nano

    folder = nano.build("nano/qwen2-medical")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    facts = [fact for department in DEPARTMENTS for fact in department.symptoms][::4]
    questions = [ASKS[number % len(ASKS)].format(days="三天", **fact) for number, fact in enumerate(facts)]
    answers = generation.complete(model, tokenizer, list(map(prompts.medical_zh, questions)), 40)
    assert sum(fact["symptom"] in answer.text for fact, answer in zip(facts, answers)) >= 0.7 * len(facts)
    assert not any(answer.stopped for answer in answers)
    corpus = (ROOT / "data_samples" / "corpus_medical_zh.txt").read_text("utf-8")
    assert not [question for question in questions if question in corpus]


@pytest.mark.notebook
def test_all_sides_of_the_benchmark_make_the_same_rows(tmp_path):
    bench_medical.write_input(None, 2400, tmp_path)
    course = bench_medical.course(tmp_path)
    assert len(course) > 2000
    sides = [bench_medical.usual, bench_medical.pandas, bench_medical.arrow]
    sides += [bench_medical.polars] if importlib.util.find_spec("polars") else []
    for side in sides:
        assert bench_medical.digest(side(tmp_path)) == bench_medical.digest(course), side.__name__
    other = course.select([*range(len(course) - 1), 0])
    assert bench_medical.digest(other) != bench_medical.digest(course)


def test_the_benchmark_fails_when_rows_differ_or_the_aim_is_missed(tmp_path, capsys):
    def record(**changes):
        rows = [
            {"name": name, "rows": 9, "seconds": s, "cpu_seconds": s, "peak_gib": g, "kept": 8, "digest": "a"}
            for name, s, g in (("usual", 50.0, 3.0), ("pandas", 9.0, 2.0), ("arrow", 4.0, 2.0), ("course", 4.0, 1.0))
        ]
        rows[-1] |= changes
        return {"rows": rows}

    fine = record()
    assert bench_medical.judge(fine, tmp_path / "r.json") == 0
    assert fine["ratios"]["speed, course / usual"] == 12.5
    assert fine["ratios"]["speed, course / arrow, the fastest other"] == 1.0
    for changes in ({"digest": "b"}, {"seconds": 6.0}, {"peak_gib": 1.1}):
        assert bench_medical.judge(record(**changes), tmp_path / "r.json") == 1
    capsys.readouterr()
