"""The forms that medical data sets come in: dialogues in JSON, pairs of columns, MedDialog's text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.data import DataError, load_alpaca, load_conversations, load_meddialog, load_qa, to_alpaca
from helpers.data import rows as shared
from helpers.data.conversations import ROLES, tidy
from tools import make_samples
from tools.lessons import ROOT

REAL = ROOT.parent / "shared" / "data" / "medical_sft_1k.jsonl"
FORMS = make_samples.OUT / "forms"
ASKED = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


def write(folder, rows, name="rows.jsonl"):
    path = folder / name
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    text = "[" + ",".join(lines) + "]" if path.suffix == ".json" else "\n".join(lines)
    path.write_text(text, encoding="utf-8")
    return str(path)


# Dialogues in JSON

FILLED = dict.fromkeys(("from", "value", "role", "content"))  # as Arrow fills rows of two spellings


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {
            "conversations": [
                dict(FILLED, **{"from": "human", "value": "q"}),
                dict(FILLED, role="assistant", content="a"),
            ]
        },
        {"messages": ASKED, "id": 3},
        {"conversation": ASKED, "_id": "1", "source": "x"},
        {"data": ["问：q", "答：a"]},
        {"data": ["问: q ", "答:a"]},
        {"utterances": ["病人：q", "医生：a"]},
        {"utterances": ["patient: q", "Doctor: a"]},
        ["病人：q", "医生：a"],
    ],
)
def test_every_way_of_writing_turns_gives_the_same_messages(tmp_path, row, capsys):
    assert load_conversations(write(tmp_path, [row, row])).to_list() == [{"messages": ASKED}] * 2
    assert "2 dialogues, 2 kept, none skipped\n" in capsys.readouterr().out


def test_a_colon_inside_the_text_is_no_speaker(tmp_path):
    (row,) = load_conversations(write(tmp_path, [["问：体温：39度", "答：建议：多喝水"]]))["messages"]
    assert [message["content"] for message in row] == ["体温：39度", "建议：多喝水"]


def test_system_and_several_turns_are_kept_in_order(tmp_path):
    turns = [{"role": "system", "content": "s"}, *ASKED, *ASKED]
    assert load_conversations(write(tmp_path, [{"messages": turns}]))[0] == {"messages": turns}


def test_what_is_mended_or_skipped_is_counted(tmp_path, capsys):
    rows = [
        ["问：q", "问：more", "答：a", "问：thanks"],  # joined, cut
        ["问：q", "答： "],  # blank
        ["答：a", "问：q"],  # the answer first
        ["问：q"],  # never answered
        [],
    ]
    (row,) = load_conversations(write(tmp_path, rows))["messages"]
    assert row == [{"role": "user", "content": "q\nmore"}, {"role": "assistant", "content": "a"}]
    said = capsys.readouterr().out
    assert "5 dialogues, 1 kept, 2 skipped (blank turn: row 2, 5)" in said
    assert "2 skipped (no question before the first answer, or no answer: row 3, 4)" in said
    assert "1 turns joined to the one before" in said and "1 last questions without an answer cut off" in said


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"question": "q", "answer": "a"}, r"row 2: holds no turns.*the row has: \['question', 'answer'\].*load_qa"),
        ({"conversations": "q"}, "row 2: 'conversations' is a str, not a list"),
        ({"messages": [*ASKED, {"role": "tool", "content": "x"}]}, "row 2, turn 3: no known speaker, it has 'tool'"),
        ({"messages": [{"content": "x"}]}, "row 2, turn 1: no known speaker, it has None"),
        ({"data": ["q without a speaker", "答：a"]}, "row 2, turn 1: no known speaker, it has 'q without a speaker'"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "row 2, turn 1: its text is a list"),
        ({"messages": [3]}, "row 2, turn 1: is a int, neither"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, row, says):
    with pytest.raises(DataError, match=says):
        load_conversations(write(tmp_path, [["问：q", "答：a"], row]))


def test_nothing_usable_is_an_error(tmp_path):
    with pytest.raises(DataError, match="none of its 1 dialogues has a question and an answer"):
        load_conversations(write(tmp_path, [["答：a"]]))


def test_from_the_hub(monkeypatch):
    monkeypatch.setattr(
        shared, "load_dataset", lambda *_, **__: shared.Dataset.from_list([{"data": ["问：q", "答：a"]}])
    )
    assert load_conversations("someone/rows")["messages"][:] == [ASKED]


turns = st.lists(
    st.tuples(st.sampled_from(["user", "assistant", "system"]), st.sampled_from(["", "a", "b c"])), max_size=7
)


@settings(max_examples=200, deadline=None)
@given(st.lists(turns, min_size=1, max_size=4))
def test_tidied_dialogues_can_be_trained_on_and_lose_no_word_in_the_middle(dialogues):
    dialogues = [[{"role": role, "content": text} for role, text in dialogue] for dialogue in dialogues]
    try:
        kept = list(tidy(enumerate(dialogues), "x"))
    except DataError:
        return
    for number, messages in kept:
        roles = [message["role"] for message in messages if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
        said = [message["content"] for message in dialogues[number]]
        last = max(i for i, message in enumerate(dialogues[number]) if message["role"] == "assistant")
        assert "\n".join(message["content"] for message in messages) == "\n".join(said[: last + 1])


@pytest.mark.skipif(not REAL.is_file(), reason=f"needs the public test data {REAL}")
def test_a_thousand_real_rows_load(capsys):
    rows = load_conversations(str(REAL))
    assert len(rows) == 1000 and {len(messages) for messages in rows["messages"]} == {2}
    assert "1,000 dialogues, 1,000 kept, none skipped\n" in capsys.readouterr().out


# Question and answer in columns


@pytest.mark.parametrize("names", [("question", "answer"), ("query", "response")])
def test_pairs_under_either_name(tmp_path, names, capsys):
    pairs = [("q1", "a1"), ("q2", " "), ("q3", "a3")]
    rows = [dict(zip(names, pair)) | {"label": place} for place, pair in enumerate(pairs)]
    loaded = load_qa(write(tmp_path, rows), keep=("label",))
    assert loaded.to_list() == [
        {"question": "q1", "answer": "a1", "label": 0},
        {"question": "q3", "answer": "a3", "label": 2},
    ]
    assert "3 rows, 2 kept, 1 skipped (blank question or answer: row 2)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("rows", "keep", "says"),
    [
        ([{"instruction": "q", "output": "a"}], (), r"row 1 has the columns .*load_alpaca .*load_conv"),
        ([{"query": "q", "response": "a"}, {"query": "q"}], (), "row 2: has no 'response'"),
        ([{"query": "q", "response": 3}], (), "row 1: 'response' is a int"),
        ([{"query": "q", "response": "a"}], ("label",), r"row 1: has no \['label'\]"),
        ([{"query": "", "response": "a"}], (), "none of its 1 rows"),
    ],
)
def test_bad_pairs_are_named(tmp_path, rows, keep, says):
    with pytest.raises(DataError, match=says):
        load_qa(write(tmp_path, rows), keep=keep)


def test_pairs_from_the_hub(monkeypatch):
    data = shared.Dataset.from_list([{"id": 1, "question": "q", "answer": "a", "label": "x"}])
    asked = []
    monkeypatch.setattr(shared, "load_dataset", lambda *names, **_: asked.append(names) or data)
    assert load_qa("someone/rows", "zh").to_list() == [{"question": "q", "answer": "a"}]
    with pytest.raises(DataError, match=r"missing: \['score'\]"):
        load_qa("someone/rows", keep=("score",))
    assert asked == [("someone/rows", "zh"), ("someone/rows", None)]


def test_a_data_set_without_rows_is_refused(monkeypatch):
    monkeypatch.setattr(shared, "load_dataset", lambda *_, **__: shared.Dataset.from_list([]))
    for load in (load_qa, load_alpaca, load_conversations):
        with pytest.raises(DataError, match=r"'someone/rows' holds no rows in its split 'train'\. Choose another"):
            load("someone/rows")


# MedDialog's text

RAW = """id=1
https://example.org/1
Doctor faculty
somewhere

Description
fever
for two days

Dialogue
Patient:
q
Doctor: a
and more

Diagnosis and suggestions
rest

id=2
Description
病情

Dialogue
医生：
a
病人：
谢谢
"""


def raw(folder, text, name="2020.txt"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_sections_become_description_and_messages(tmp_path, capsys):
    loaded = load_meddialog(raw(tmp_path, RAW))
    assert loaded.to_list() == [
        {
            "description": "fever\nfor two days",
            "messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a\nand more"}],
        },
        {
            "description": "病情",  # the doctor answers the form
            "messages": [{"role": "user", "content": "病情"}, {"role": "assistant", "content": "a"}],
        },
    ]
    assert "2 dialogues, 2 kept, none skipped; 1 last questions" in capsys.readouterr().out


def test_lines_before_the_first_speaker_are_counted(tmp_path, capsys):
    before = RAW.replace("Dialogue\nPatient:", "Dialogue\n患者：胃痛\n\nNurse: hello\nPatient:")
    assert load_meddialog(raw(tmp_path, before)).to_list() == load_meddialog(raw(tmp_path, RAW, "b.txt")).to_list()
    said = capsys.readouterr().out.splitlines()
    assert [line for line in said if "speaker left out" in line] == [
        f"{tmp_path / '2020.txt'}: 2 lines before the first speaker left out (dialogue 1)"
    ]


def test_a_folder_is_read_in_order_and_descriptions_stay_with_their_dialogues(tmp_path):
    raw(tmp_path, RAW, "b.txt")
    raw(tmp_path, "id=1\nDescription\nskipped\nDialogue\nPatient:\nq\n" + RAW.replace("fever", "cough"), "a.txt")
    loaded = load_meddialog(str(tmp_path))
    assert [text.split("\n")[0] for text in loaded["description"]] == ["cough", "病情", "fever", "病情"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", r"2020\.txt: begins with '\[1\]', not with a line like 'id=1'.*load_conversations"),
        ("", "holds no consultation"),
        ("id=1\nDialogue\nPatient:\nq\n", "none of its 1 dialogues"),
    ],
)
def test_text_that_is_no_meddialog_is_refused(tmp_path, text, says):
    with pytest.raises(DataError, match=says):
        load_meddialog(raw(tmp_path, text))


def test_missing_and_wrongly_encoded_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.txt: not found"):
        load_meddialog(str(tmp_path / "x.txt"))
    with pytest.raises(DataError, match="no .txt file in this folder"):
        load_meddialog(str(tmp_path))
    (tmp_path / "x.txt").write_bytes("id=1\n病人".encode("gbk"))
    with pytest.raises(DataError, match="is not UTF-8. Save the file as UTF-8"):
        load_meddialog(str(tmp_path / "x.txt"))


# Any of them to one form


def test_each_answer_becomes_a_row_with_what_was_said_before():
    messages = [{"role": "system", "content": "s"}, *ASKED, {"role": "user", "content": "q2"}, ASKED[1]]
    assert to_alpaca(shared.Dataset.from_list([{"messages": messages}])).to_list() == [
        {"instruction": "q", "input": "system: s", "output": "a"},
        {"instruction": "q2", "input": "system: s\nuser: q\nassistant: a", "output": "a"},
    ]
    pair = {"question": "q", "answer": "a", "label": "x"}
    assert to_alpaca(shared.Dataset.from_list([pair])).to_list() == [{"instruction": "q", "input": "", "output": "a"}]
    with pytest.raises(ValueError, match="needs 'messages'"):
        to_alpaca(shared.Dataset.from_list([{"text": "x"}]))


def test_every_sample_form_loads_and_speaks_of_the_same_symptoms():
    single = to_alpaca(load_conversations(str(FORMS / "sharegpt.jsonl")))
    assert load_alpaca(str(FORMS / "alpaca.json")).to_list() == single.to_list()
    assert to_alpaca(load_qa(str(FORMS / "query_response.jsonl"))).to_list() == single.to_list()
    assert to_alpaca(load_qa(str(FORMS / "huatuo_lite.jsonl"), keep=("label",))).to_list() == single.to_list()
    assert to_alpaca(load_conversations(str(FORMS / "huatuo_v1.jsonl"))).to_list() == single.to_list()[:11]
    several = load_conversations(str(FORMS / "disc.jsonl"))
    assert load_conversations(str(FORMS / "meddialog_processed.json")).to_list() == several.to_list()
    assert {len(messages) for messages in several["messages"]} == {2, 4}
    assert len(load_meddialog(str(FORMS / "meddialog.txt"))) == 12


def test_every_speaker_has_a_role_of_chat_templates():
    assert set(ROLES.values()) == {"user", "assistant", "system"}
    assert all(name == name.lower() for name in ROLES)
