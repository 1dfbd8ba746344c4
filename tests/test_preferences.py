"""Preference pairs: the loader's forms and errors, the sample pairs, the DPO log, and the nano model that meets them."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import nano, report
from helpers.data import DataError, load_preferences
from helpers.data import preferences as loader
from helpers.data import rows as shared
from helpers.runtime import root
from tools.lessons import ROOT
from tools.samples import preferences as samples

REAL_DATA = ROOT.parent / "shared" / "data" / "dpo_zh_demo.json"
ASKED = [{"role": "user", "content": "q"}]
PAIR = {"prompt": ASKED, "chosen": "good", "rejected": "bad"}


def said(speaker, text):
    return {"from": speaker, "value": text}


def write(folder, rows, name="rows.json"):
    path = folder / name
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


# The forms

ANSWERS = {"chosen": "good", "rejected": "bad"}
MESSAGES = {name: [{"role": "assistant", "content": text}] for name, text in ANSWERS.items()}
FORMS = {
    "sharegpt": {"conversations": [said("human", "q")], "chosen": said("gpt", "good"), "rejected": said("gpt", "bad")},
    "speakers by other names": {
        "conversations": [said("用户", "q")],
        "chosen": said("GPT", "good"),
        "rejected": said("助手", "bad"),
    },
    "as Arrow fills it": {
        "prompt": [said("human", "q") | {"role": None, "content": None}],
        "chosen": [{"role": "assistant", "content": "good", "from": None, "value": None}],
        "rejected": "bad",
    },
    "texts": {"prompt": "q", **ANSWERS},
    "messages": {"prompt": ASKED, **MESSAGES},
    "whole conversations": {name: ASKED + answer for name, answer in MESSAGES.items()},
    "prompt and whole conversations": {"prompt": "q", **{name: ASKED + answer for name, answer in MESSAGES.items()}},
    "responses": {"system": "", "history": [], "question": "q", "response_chosen": "good", "response_rejected": "bad"},
    "responses, no history": {"history": None, "question": "q", "response_chosen": "good", "response_rejected": "bad"},
    "alpaca": {"instruction": "q", "input": "", **ANSWERS},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_reads_alike(tmp_path, form):
    assert load_preferences(write(tmp_path, [FORMS[form]])).to_list() == [PAIR]


def test_earlier_turns_and_the_system_text_come_first_and_in_order(tmp_path):
    turns = [said("human", "a"), said("gpt", "b"), said("human", "c"), said("gpt", "d"), said("human", "q")]
    answers = {"chosen": said("gpt", "good"), "rejected": said("gpt", "bad")}
    responses = FORMS["responses"] | {"system": "s", "history": [["a", "b"], ["c", "d"]]}
    rows = [
        {"conversations": [said("system", "s"), *turns], **answers},
        {"system": "s", "conversations": turns, **answers},
        responses,
    ]
    expected = [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "q")]
    for row in rows:
        (pair,) = load_preferences(write(tmp_path, [row])).to_list()
        assert [(message["role"], message["content"]) for message in pair["prompt"]] == expected
        assert (pair["chosen"], pair["rejected"]) == ("good", "bad")
    alpaca = {"instruction": "Count.", "input": "1, 2", **ANSWERS}
    (pair,) = load_preferences(write(tmp_path, [alpaca])).to_list()
    assert pair["prompt"] == [{"role": "user", "content": "Count.\n1, 2"}]


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_the_form_changes_no_character(question, chosen, rejected):
    sharegpt = samples.sharegpt(question, chosen, rejected)
    expected = ([{"role": "user", "content": question}], chosen, rejected)
    assert (
        loader._pair(sharegpt, "rows", 1)
        == expected
        == loader._pair(samples.prompted(*expected_texts(sharegpt)), "", 1)
    )


def expected_texts(row):
    return row["conversations"][0]["value"], row["chosen"]["value"], row["rejected"]["value"]


def test_what_teaches_nothing_is_skipped_and_counted(tmp_path, capsys):
    def row(question, chosen="good", rejected="bad"):
        return {"prompt": question, "chosen": chosen, "rejected": rejected}

    rows = [row("a"), row("b", " "), row("c", rejected=""), row("d", "x", " x\n"), row(" a ", "other"), row("e")]
    assert load_preferences(write(tmp_path, rows))["prompt"][:] == [
        [{"role": "user", "content": text}] for text in ("a", "e")
    ]
    out = capsys.readouterr().out
    assert "6 rows, 2 pairs kept" in out
    assert "2 skipped (blank text: row 2, 3)" in out
    assert "1 skipped (chosen equals rejected: row 4), 1 skipped (the same prompt again: row 5)" in out
    assert len(load_preferences(write(tmp_path, rows), limit=4)) == 1
    assert "none skipped" not in out and load_preferences(write(tmp_path, rows[:1])) is not None
    assert "1 pairs kept, none skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"instruction": "q", "output": "a"}, r"row 2: is no preference pair. Known forms: .*It has: \['instruction'"),
        ({**ANSWERS}, "row 2: has no prompt"),
        ({"prompt": "q", "chosen": "a"}, "row 2: is no preference pair"),
        ({"prompt": "q", "chosen": "a", "rejected": None}, "row 2: 'rejected' is no list of messages"),
        ({"question": "q", "response_chosen": "a"}, "row 2: has no 'response_rejected'"),
        ({**FORMS["responses"], "history": [["a"]]}, "row 2: a turn in 'history' is no pair"),
        ({**FORMS["responses"], "history": [["a", None]]}, "row 2: a turn in 'history' is no pair"),
        ({**FORMS["responses"], "history": 5}, r"row 2: 'history' is a int, not a list of turns\. Mend"),
        ({**FORMS["responses"], "history": "a"}, "row 2: 'history' is a str, not a list of turns"),
        (
            {**FORMS["sharegpt"], "conversations": [said("tool", "q")]},
            "row 2: unknown speaker 'tool' in 'conversations'",
        ),
        ({**FORMS["sharegpt"], "conversations": []}, "row 2: the prompt must end with what the user says"),
        ({**FORMS["sharegpt"], "conversations": "q"}, "row 2: 'conversations' is no list of messages"),
        ({**FORMS["sharegpt"], "conversations": [said("gpt", "q")]}, "row 2: the prompt must end with what the user"),
        ({**FORMS["sharegpt"], "chosen": said("human", "a")}, "row 2: 'chosen' is not what the assistant says"),
        ({**FORMS["sharegpt"], "chosen": said("gpt", None)}, "row 2: a message of 'gpt' in 'chosen' has no text"),
        ({**FORMS["whole conversations"], "chosen": MESSAGES["chosen"]}, "row 2: chosen and rejected answer different"),
        (
            {**FORMS["messages"], "chosen": [{"role": "user", "content": "z"}, *MESSAGES["chosen"]]},
            "another conversation",
        ),
    ],
)
def test_bad_rows_name_the_place_and_the_mend(tmp_path, row, says):
    with pytest.raises(DataError, match=says):
        load_preferences(write(tmp_path, [{"prompt": "first", **ANSWERS}, row]))


def test_no_pair_at_all_and_a_bad_limit(tmp_path):
    with pytest.raises(DataError, match="none of its 1 rows is a pair of two different answers"):
        load_preferences(write(tmp_path, [{"prompt": "q", "chosen": "a", "rejected": "a"}]))
    with pytest.raises(DataError, match="0 rows are asked for"):
        load_preferences(write(tmp_path, [FORMS["texts"]]), limit=0)


def test_from_the_hub_the_config_is_asked_for(monkeypatch):
    asked = []

    def load(*arguments, **options):
        asked.append((arguments, options))
        return shared.Dataset.from_list(
            [FORMS["sharegpt"] | {"conversations": [said("human", str(n))]} for n in range(3)]
        )

    monkeypatch.setattr(shared, "load_dataset", load)
    assert len(load_preferences("someone/pairs", "zh", limit=2)) == 2
    assert asked == [(("someone/pairs", "zh"), {"split": "train"})]


@pytest.mark.skipif(not REAL_DATA.is_file(), reason=f"needs the public test data in {REAL_DATA}")
def test_real_pairs_load(capsys):
    pairs = load_preferences(str(REAL_DATA))
    assert "300 rows, 289 pairs kept, 11 skipped (the same prompt again: row" in capsys.readouterr().out
    assert {message["role"] for pair in pairs for message in pair["prompt"]} == {"system", "user"}


# The sample pairs


def test_sample_pairs_differ_in_what_the_lesson_counts():
    texts = {name: load_preferences(str(root() / "data_samples" / name)) for name in
             ("preferences_sharegpt.json", "preferences_prompt.jsonl")}  # fmt: skip
    questions = [pair["prompt"][0]["content"] for pairs in texts.values() for pair in pairs]
    assert len(questions) == len(set(questions)) == 2 * 69 * samples.PAIRS
    wanted, unwanted = re.compile("请到.+?就诊"), re.compile("包好|根治|秘方|不用去医院|不用检查")
    for pairs in texts.values():
        assert all(wanted.search(c) and not unwanted.search(c) for c in pairs["chosen"])
        assert all(unwanted.search(r) and not wanted.search(r) for r in pairs["rejected"])
        lengths = [sum(map(len, pairs[name])) / len(pairs) for name in ("chosen", "rejected")]
        assert 0.8 < lengths[0] / lengths[1] < 1.25  # so that length is not what is preferred


def test_sft_rows_hold_both_manners_and_none_of_the_pairs_questions():
    rows = json.loads((root() / "data_samples" / "two_manners_zh.json").read_text("utf-8"))
    careful = sum("就诊" in row["output"] for row in rows)
    assert careful / len(rows) == samples.CAREFUL / samples.ANSWERS < 0.5
    pairs = load_preferences(str(root() / "data_samples" / "preferences_sharegpt.json"))
    assert not {row["instruction"] for row in rows} & {pair["prompt"][0]["content"] for pair in pairs}


# What the lesson says it measured


def test_the_readings_quote_the_recorded_peaks():
    record = json.loads((root() / "benchmarks/records/dpo_memory.json").read_text("utf-8"))
    peaks = {(row["bits"], row["reference"]): row["peak_gib"] for row in record["rows"]}
    for bits, name in ((4, ("weights in 4 bits", "权重 4 比特")), (16, ("weights in 16 bits", "权重 16 位"))):
        cells = [f"{peaks[bits, reference]:.1f}" for reference in ("none: SFT", "second model", "adapter copy")]
        for language, head in zip(("en", "zh"), name):
            reading = (root() / f"lessons/09_dpo/reading.{language}.md").read_text("utf-8")
            assert f"| {head} | {' | '.join(cells)} |" in reading
    lesson = (root() / "lessons/09_dpo/lesson.py").read_text("utf-8")
    assert f"{peaks[4, 'second model']:.1f} GiB" in lesson and f"{peaks[4, 'adapter copy']:.1f}" in lesson


# What DPO logs


def dpo_log(steps):
    names = (
        "rewards/margins",
        "rewards/accuracies",
        "rewards/chosen",
        "rewards/rejected",
        "logps/chosen",
        "logps/rejected",
    )
    log = []
    for step in range(1, steps + 1):
        log.append({"step": step, "loss": 1 / step, **{name: step + number for number, name in enumerate(names)}})
        if step % 2 == 0:
            log.append({"step": step, "eval_loss": 9.0, **{f"eval_{name}": -step for name in names}})
    return [*log, {"step": steps, "train_runtime": 9.0}]


def test_preferences_are_one_row_a_step_and_held_out_apart():
    log = dpo_log(4)
    table = report.preferences(log)
    assert list(table.index) == [1, 2, 3, 4] and table["margins"].tolist() == [1, 2, 3, 4]
    assert table.loc[2].to_dict() == {"loss": 0.5, "margins": 2, "accuracies": 3, "chosen": 4, "rejected": 5,
                                      "logps/chosen": 6, "logps/rejected": 7}  # fmt: skip
    held_out = report.preferences(log, held_out=True)
    assert list(held_out.index) == [2, 4] and held_out["logps/rejected"].tolist() == [-2, -4]
    assert held_out["loss"].tolist() == [9, 9]
    with pytest.raises(ValueError, match="holds no margins"):
        report.preferences([{"step": 1, "loss": 1.0}])


def test_preference_plot_draws_steps_their_mean_and_held_out_dots():
    figure = report.preference_plot(dpo_log(4))
    titles = ["loss", "margin", "accuracy", "implicit reward", "log-probability"]
    assert [axes.get_title() for axes in figure.axes] == titles
    steps, smooth, dots = figure.axes[1].lines
    assert list(steps.get_ydata()) == [1, 2, 3, 4] and smooth.get_ydata()[-1] == 2.5
    assert list(dots.get_xdata()) == [2, 4] and dots.get_linestyle() == "None"
    assert [text.get_text() for text in figure.axes[4].get_legend().get_texts()] == ["chosen", "rejected"]
    without = [entry for entry in dpo_log(3) if "eval_loss" not in entry]
    assert len(report.preference_plot(without).axes[0].lines[2].get_xdata()) == 0


# The nano model


@pytest.mark.notebook
@pytest.mark.nano
def test_after_sft_it_answers_in_both_manners_and_stops():
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer, set_seed

    from helpers.generation import complete

    folder = nano.build("nano/qwen2-medical-sft")
    model, tokenizer = AutoPeftModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    pairs = load_preferences(str(root() / "data_samples" / "preferences_sharegpt.json")).select(range(60))
    texts = [
        tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True) for prompt in pairs["prompt"]
    ]
    set_seed(0)
    with torch.no_grad():
        answers = complete(model, tokenizer, texts, 80, 60, do_sample=True, temperature=1.0)
    assert sum(answer.stopped for answer in answers) >= 55
    careful = sum("就诊" in answer.text for answer in answers)
    assert 12 <= careful <= 45
    with open(folder / "adapter_config.json", encoding="utf-8") as file:
        assert json.load(file)["base_model_name_or_path"] == str(nano.build("nano/qwen2-medical"))
