"""Problems in GSM8K's format: the loader, our own samples, and the nano model's world."""

from __future__ import annotations

import json
import random
import re

import pytest

from helpers import generation, nano
from helpers.data import DataError, load_gsm8k, read_json_rows
from helpers.data import rows as shared
from helpers.nano import arithmetic
from helpers.prompts import gsm8k
from helpers.rewards import REWARD_FUNCS, correctness_reward_func, is_strict
from tools import make_samples
from tools.lessons import ROOT

LANGUAGES = ["en", "zh"]
REAL = ROOT.parent / "shared" / "data" / "gsm8k_train.jsonl"
ROW = {"question": "How many?", "answer": "500+500=<<500+500=1000>>1,000\n#### 1,000"}


def write(folder, rows):
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_rows_get_their_target(tmp_path, capsys):
    rows = [ROW, ROW | {"answer": "#### -3", "id": 7}]
    loaded = load_gsm8k(write(tmp_path, rows))
    assert loaded.to_list() == [ROW | {"target": "1000"}, ROW | {"answer": "#### -3", "target": "-3"}]
    assert "2 rows, 2 kept, none skipped" in capsys.readouterr().out


def test_blank_questions_are_skipped_and_counted(tmp_path, capsys):
    assert len(load_gsm8k(write(tmp_path, [ROW, ROW | {"question": " "}]))) == 1
    assert "2 rows, 1 kept, 1 skipped (blank question: row 2)" in capsys.readouterr().out
    with pytest.raises(DataError, match="none of its 1 rows has a question"):
        load_gsm8k(write(tmp_path, [ROW | {"question": ""}]))


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (
            {"question": "a", "answer": "so it is 72"},
            r"row 2: 'answer' does not end in '#### ' .* 'so it is 72'. Write",
        ),
        ({"question": "a", "answer": "#### 1 or 2"}, "row 2: 'answer' does not end"),
        ({"question": "a"}, "row 2: has no 'answer'"),
        ({"answer": "#### 1"}, "row 2: has no 'question'"),
        ({"question": "a", "answer": 72}, "row 2: 'answer' is a int, not text"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, row, says):
    with pytest.raises(DataError, match=says):
        load_gsm8k(write(tmp_path, [ROW, row]))


def test_the_hub_is_asked_for_the_config_main(monkeypatch):
    asked = []

    def load(*args, **options):
        asked.append((args, options))
        return shared.Dataset.from_list([ROW])

    monkeypatch.setattr(shared, "load_dataset", load)
    assert load_gsm8k("openai/gsm8k")["target"][:] == ["1000"]
    assert asked == [(("openai/gsm8k", "main"), {"split": "train"})]


@pytest.mark.skipif(not REAL.is_file(), reason=f"needs the public test data {REAL}")
def test_all_real_training_answers_parse():
    targets = load_gsm8k(str(REAL))["target"][:]
    assert len(targets) == 7473
    assert all(re.fullmatch(r"-?[0-9]+", target) for target in targets)
    assert sum(target.startswith("-") for target in targets) == 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_samples_are_right(language):
    """Each written sum holds, the last result is the answer, and the calculator marks are GSM8K's."""
    rows = read_json_rows(make_samples.OUT / f"gsm8k_{language}.jsonl")
    assert len({row["question"] for row in rows}) == len(rows) == 846
    for row in rows:
        sums = re.findall(r"<<([0-9+*-]+)=(-?[0-9]+)>>(-?[0-9]+)", row["answer"])
        assert sums and all(eval(term) == int(value) == int(shown) for term, value, shown in sums)
        final = row["answer"].rpartition("#### ")[2]
        assert int(final.replace(",", "")) == int(sums[-1][1])
    assert bool(re.search("[一-鿿]", rows[0]["question"])) == (language == "zh")


@pytest.mark.parametrize("language", LANGUAGES)
def test_samples_hold_thousands_commas_and_negative_answers(language):
    rows = read_json_rows(make_samples.OUT / f"gsm8k_{language}.jsonl")
    finals = [row["answer"].rpartition("#### ")[2] for row in rows]
    assert sum("," in final for final in finals) == 4
    assert sum(final.startswith("-") for final in finals) == 2


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_sample_is_among_the_taught_problems(language):
    """The three numbers of a sample stand together in no taught problem, and no two samples have the same sums."""
    rng = random.Random(0)
    taught = {tuple(sorted(told(arithmetic.taught_problem(rng)))) for _ in range(4_000)}
    rows = read_json_rows(make_samples.OUT / f"gsm8k_{language}.jsonl")
    problems = [re.findall(r"<<(.*?)>>", row["answer"]) for row in rows]
    two_steps = [sums for sums in problems if len(sums) == 2 and int(sums[0].split("=")[1]) <= arithmetic.LARGEST]
    assert len(two_steps) == 840 == len({tuple(sums) for sums in two_steps})
    assert not taught & {tuple(sorted(operands(sums))) for sums in two_steps}


def operands(sums) -> tuple[int, int, int]:
    first, second = ([int(n) for n in re.findall("[0-9]+", one)] for one in sums)
    return first[0], first[1], second[1]


def told(problem) -> tuple[int, int, int]:
    return operands(problem.sums)


def test_taught_problems_are_right_and_tell_their_numbers():
    rng = random.Random(0)
    for _ in range(300):
        check_taught(rng)


def check_taught(rng):
    problem = arithmetic.taught_problem(rng)
    assert [int(n) for n in re.findall("[0-9]+", problem.question)] == list(told(problem))
    for one in problem.sums:
        term, value = one.split("=")
        assert eval(term) == int(value) and 2 <= int(value) <= arithmetic.LARGEST
    assert problem.sums[1].startswith(problem.sums[0].split("=")[1])
    assert int(problem.sums[1].split("=")[1]) == problem.answer
    term, value = arithmetic.drill(rng).split("=")
    assert eval(term) == int(value)


def test_the_four_ways_to_answer_earn_what_they_should():
    """Without the sums the number is right as taught; that the model cannot know it is its own limit."""
    rng = random.Random(0)
    problem = arithmetic.taught_problem(rng)
    earned = {}
    for style in arithmetic.STYLES:
        text = arithmetic.completion(problem, style, rng)
        earned[style] = sum(func([text], target=[str(problem.answer)])[0] for func in REWARD_FUNCS)
        assert is_strict(text) == (style in {"reasoned", "at once"})
        assert (problem.sums[0] in text) == (style != "at once")
    assert earned["reasoned"] == earned["at once"] == 4.0
    assert earned["malformed"] < 4.0 and earned["untagged"] == 0.0
    assert sum(arithmetic.STYLES.values()) == pytest.approx(1.0)


@pytest.mark.notebook
@pytest.mark.nano
@pytest.mark.parametrize("language", LANGUAGES)
def test_the_nano_model_can_reason_and_often_does_not(language):
    """Before GRPO: it stops, answers in every style, is mostly right where it reasons and mostly wrong where not."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = nano.build("nano/qwen2-math")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rows = load_gsm8k(str(make_samples.OUT / f"gsm8k_{language}.jsonl")).select(range(300))
    texts = [
        tokenizer.apply_chat_template(gsm8k(question), tokenize=False, add_generation_prompt=True)
        for question in rows["question"]
    ]
    torch.manual_seed(0)
    written = generation.complete(model, tokenizer, texts, 40, batch_size=150, do_sample=True, temperature=1.0)
    right = [reward > 0 for reward in correctness_reward_func([w.text for w in written], target=rows["target"])]
    reasoned = [is_strict(w.text) and "know" not in w.text for w in written]
    at_once = [is_strict(w.text) and "know" in w.text for w in written]
    assert sum(w.stopped for w in written) >= 290
    assert 0.2 <= sum(reasoned) / 300 <= 0.55 and 0.2 <= sum(at_once) / 300 <= 0.55
    assert sum(r for r, how in zip(right, reasoned) if how) >= 0.6 * sum(reasoned)
    assert sum(r for r, how in zip(right, at_once) if how) <= 0.4 * sum(at_once)
    assert 0.2 <= sum(right) / 300 <= 0.6
