"""Rows with reasoning traces: the loader, our own sample, and what the nano model is taught about lists."""

from __future__ import annotations

import json
import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import generation, nano
from helpers.data import DataError, load_gsm8k, load_s1k, read_json_rows
from helpers.data import rows as shared
from helpers.nano import running
from helpers.reasoning import final_answer, same_answer
from tools.lessons import ROOT
from tools.samples import s1k

LANGUAGES = ["en", "zh"]
REAL = ROOT.parent / "shared" / "data" / "gsm8k_train.jsonl"
NEW = {
    "question": "1 + 1?",
    "solution": "2",
    "cot_type": "math",
    "source_type": "sums",
    "metadata": "{}",
    "deepseek_thinking_trajectory": "one, two",
    "deepseek_attempt": "2",
    "gemini_thinking_trajectory": "hm",
    "gemini_attempt": "3",
}
OLD = {"question": "1 + 1?", "solution": "2", "source_type": "sums", "thinking_trajectories": ["hm"], "attempt": "3"}
LOADED = {"question": "1 + 1?", "thinking": "one, two", "answer": "2", "solution": "2", "domain": "sums"}


def write(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_both_formats(tmp_path, capsys):
    assert load_s1k(write(tmp_path, [NEW])).to_list() == [LOADED]
    assert "1 rows, 1 kept, none skipped" in capsys.readouterr().out
    gemini = LOADED | {"thinking": "hm", "answer": "3"}
    assert load_s1k(write(tmp_path, [NEW]), trace="gemini").to_list() == [gemini]
    assert load_s1k(write(tmp_path, [OLD])).to_list() == [gemini]


def test_empty_traces_stay_and_blank_questions_go(tmp_path, capsys):
    rows = [
        OLD | {"thinking_trajectories": [], "attempt": None},
        NEW | {"deepseek_attempt": None, "source_type": None},
        NEW | {"question": " "},
    ]
    loaded = load_s1k(write(tmp_path, rows)).to_list()
    assert [row["thinking"] for row in loaded] == ["", "one, two"] and loaded[1]["domain"] == "unknown"
    assert "3 rows, 2 kept, 1 skipped (blank question: row 3)" in capsys.readouterr().out


def test_the_first_rows_only(tmp_path):
    rows = [NEW | {"question": str(number)} for number in range(5)]
    assert load_s1k(write(tmp_path, rows), limit=3)["question"] == ["0", "1", "2"]
    assert len(load_s1k(write(tmp_path, rows), limit=9)) == 5


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        ([{"question": "q", "solution": "1"}], {}, r"row 1: has neither 'deepseek_thinking_trajectory'"),
        ([OLD | {"thinking_trajectories": "hm"}], {}, r"row 1: 'thinking_trajectories' is no list of texts"),
        ([OLD | {"thinking_trajectories": [1]}], {}, r"row 1: 'thinking_trajectories' is no list of texts"),
        ([NEW, NEW | {"deepseek_attempt": 2}], {}, r"row 2: 'deepseek_attempt' is a int, not text"),
        ([NEW], {"trace": "claude"}, r"'claude' is no trace. Choose one of deepseek, gemini"),
        ([NEW], {"limit": 0}, r"0 rows are asked for"),
        ([NEW | {"question": ""}], {}, r"none of its 1 rows has a question"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path, rows, options, said):
    with pytest.raises(DataError, match=said):
        load_s1k(write(tmp_path, rows), **options)


def test_from_the_hub(monkeypatch):
    from datasets import Dataset

    asked = []
    monkeypatch.setattr(shared, "load_dataset", lambda *a, **k: (asked.append((a, k)), Dataset.from_list([NEW]))[1])
    assert load_s1k("simplescaling/s1K-1.1").to_list() == [LOADED]
    assert asked == [(("simplescaling/s1K-1.1", None), {"split": "train"})]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{42}.", "42"),
        (r"first \boxed{1}, then \boxed{\frac{1}{2}} of 3", r"\frac{1}{2}"),
        (r"\boxed{1,000.50}", "1000.5"),
        (r"\boxed{７２}", "72"),
        (r"\boxed{−5}", "-5"),
        (r"\boxed{-0}", "0"),
        (r"\boxed{ x + 1 }", "x+1"),
        (r"\boxed{unclosed 7", "7"),
        ("48 + 24 = 72", "72"),
        ("It is 1,234 in all.", "1234"),
        ("minus: -3", "-3"),
        ("答案是７２个。", "72"),
        ("20.0", "20"),
        ("none", None),
        ("", None),
    ],
)
def test_what_a_solution_comes_to(text, answer):
    assert final_answer(text) == answer


def test_a_solution_without_a_short_answer_cannot_be_judged():
    assert same_answer("7", "proved above") is None
    assert same_answer("no idea", "7") is False
    assert same_answer("It is 1,000.", r"\boxed{1000}") is True


@given(st.text())
def test_any_text_can_be_judged(text):
    assert final_answer(text) is None or final_answer(text)
    assert same_answer(text, r"\boxed{7}") in (True, False)


@pytest.mark.skipif(not REAL.exists(), reason="the real GSM8K is not here")
def test_real_solutions_come_to_their_targets():
    rows = load_gsm8k(str(REAL))
    assert not [row for row in rows if final_answer(row["answer"]) != row["target"]]


# --- the sample ---------------------------------------------------------------------------------------------------


def items_of(question: str) -> tuple[str, ...]:
    """The items of a list, read out of a question."""
    return tuple(re.findall(r"\d+ ([a-z])\b", question)) or tuple(re.findall(r"\d+", question))


@pytest.mark.parametrize("language", LANGUAGES)
def test_our_rows_are_what_the_lesson_says(language, capsys):
    source = ROOT / "data_samples" / f"s1k_{language}.jsonl"
    rows, raw = load_s1k(str(source)).to_list(), read_json_rows(source)
    assert all(list(row) == list(NEW)[1:2] + list(NEW)[:1] + list(NEW)[2:7] for row in raw)
    faulty = [row for row in rows if (row["thinking"], row["answer"]) in s1k.FAULTS[language].values()]
    assert len(faulty) == len(s1k.FAULTS[language]) * s1k.EACH_FAULT
    usable = [row for row in rows if row not in faulty]
    assert len(usable) == sum(s1k.ROWS.values())
    right = sum(row["answer"] == row["solution"] for row in usable) / len(usable)
    assert 0.4 < right < 0.7  # in s1K 53.6 %
    for row in usable:
        items, domain = items_of(row["question"]), row["domain"].removeprefix("course/")
        assert str(running.account(domain, items)[-1]) == row["solution"]
        said = re.findall(r"(?:is |所以是)(\d+)", row["thinking"])
        assert said[-1] == row["answer"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_lists_are_in_no_row_and_were_never_read(language):
    rows = read_json_rows(ROOT / "data_samples" / f"s1k_{language}.jsonl")
    asked = load_gsm8k(str(ROOT / "data_samples" / f"running_{language}.jsonl"))
    trained = {items_of(row["question"]) for row in rows}
    held_out = [items_of(question) for question in asked["question"]]
    assert len(set(held_out)) == len(held_out) and not trained & set(held_out)
    assert tuple("raspberry") in held_out
    words = {tuple(word) for word in s1k.WORDS}
    assert all(running.kept_back(items) for items in trained | set(held_out) - words)


@given(st.integers(), st.sampled_from(running.DOMAINS), st.sampled_from(LANGUAGES))
def test_accounts_are_right_and_traces_go_through_every_item_once(seed, domain, language):
    rng = random.Random(seed)
    task = running.draw(domain, language, rng)
    assert items_of(task.question) == task.items
    by_hand = {"sum": lambda: sum(map(int, task.items)), "largest": lambda: max(map(int, task.items))}
    assert task.answer == by_hand.get(domain, lambda: task.items.count("r"))()
    stops = s1k.stops(task, rng)
    text = running.thinking(task, stops)
    assert text.count(running.WAIT[language]) == len(stops) - 1
    steps = re.findall(r"(\w+):(\d+)", text)
    assert [item for item, _ in steps] == list(task.items[: stops[-1]])
    assert [int(state) for _, state in steps] == list(task.states[: stops[-1]])
    size = min(task.stride, len(task.items))
    assert running.reply(task) == f"{running.thinking(task, (size,)).rstrip()}\n\n{task.states[size - 1]}"


@pytest.mark.nano
def test_the_nano_model_gives_up_where_it_was_taught_to():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = nano.build("nano/qwen2-running")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rng, tasks = random.Random(7), []
    while len(tasks) < 60:
        task = running.draw(rng.choice(running.DOMAINS), rng.choice(LANGUAGES), rng)
        tasks += [task] if running.kept_back(task.items) else []
    chats = [[{"role": "user", "content": task.question}] for task in tasks]
    texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    said = generation.complete(model, tokenizer, texts, 60, 60)
    stopped_there = [len(re.findall(":", s.text.partition(" ")[2])) >= 2 and s.stopped for s in said]
    assert sum(stopped_there) > 50
    short = [(t, s) for t, s in zip(tasks, said) if len(t.items) <= t.stride]
    long = [(t, s) for t, s in zip(tasks, said) if len(t.items) > t.stride]
    right = [[same_answer(s.text, str(t.answer)) for t, s in kind] for kind in (short, long)]
    right_when_short, right_when_long = (sum(kind) / len(kind) for kind in right)
    assert right_when_short > 0.7
    assert right_when_long < 0.5
