"""The medical-o1 loader, its template, the check against mismatched prompts, and the lesson's sample rows."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import nano, prompts
from helpers.data import DataError, load_medical_o1, nearest
from helpers.data import rows as shared
from helpers.generation import complete
from helpers.reasoning import key_of, split_thinking
from helpers.runtime import root
from tools.samples import medical_o1

ROW = {"Question": "What is it?", "Complex_CoT": "Hm.", "Response": "It is **gout**."}
LANGUAGES = ["en", "zh"]


def write(folder, rows, name="rows.json"):
    path = folder / name
    path.write_text(json.dumps(rows), encoding="utf-8")
    return str(path)


# The loader


def test_rows_come_in_order_and_the_rest_is_counted(tmp_path, capsys):
    other = ROW | {"Question": "And now?", "extra": 1}
    rows = [ROW, ROW | {"Response": " "}, other, ROW | {"Question": " What is\nit? "}, ROW | {"Question": "3"}]
    loaded = load_medical_o1(write(tmp_path, rows), limit=4)
    assert loaded.to_list() == [ROW, {key: other[key] for key in ROW}]
    said = capsys.readouterr().out
    assert "4 rows, 2 kept, 1 skipped (blank field: row 2), 1 skipped (the same question again: row 4)" in said


@pytest.mark.parametrize(
    ("rows", "limit", "says"),
    [
        ([ROW, {"Question": "a", "Response": "b"}], None, r"row 2: has no 'Complex_CoT'"),
        ([ROW | {"Response": ["a"]}], None, "row 1: 'Response' is a list"),
        ([ROW | {"Question": ""}], None, "none of its 1 rows has a question"),
        ([ROW], 0, "0 rows are asked for"),
    ],
)
def test_bad_rows_name_the_place_and_the_mend(tmp_path, rows, limit, says):
    with pytest.raises(DataError, match=says):
        load_medical_o1(write(tmp_path, rows), limit=limit)


def test_from_the_hub_the_config_is_asked_for(monkeypatch):
    asked = []

    def load(*arguments, **options):
        asked.append((arguments, options))
        return shared.Dataset.from_list([ROW, ROW | {"Question": "2"}, ROW | {"Question": "3"}])

    monkeypatch.setattr(shared, "load_dataset", load)
    assert load_medical_o1("someone/medical", "zh", limit=2)["Question"][:] == ["What is it?", "2"]
    assert len(load_medical_o1("someone/medical", "en", limit=99)) == 3
    assert asked == [(("someone/medical", name), {"split": "train"}) for name in ("zh", "en")]


def test_the_nearest_question():
    questions = ["Why is the sky blue?", "A man of 60 coughs at night.", "一位61岁的女性咳嗽时漏尿。"]
    assert nearest(questions, "why is THE sky blue") == (0, 1.0)
    assert nearest(questions, "一位61岁女性，咳嗽时会漏尿")[0] == 2
    assert nearest(questions, "A man of 60 coughs in the night")[0] == 1
    assert nearest(questions, "zzz")[1] == 0
    with pytest.raises(ValueError):
        nearest([], "a")


# The template


@given(st.text(), st.text(min_size=1), st.text(min_size=1), st.sampled_from(LANGUAGES))
def test_training_text_is_prompt_thinking_tag_answer(question, thinking, response, language):
    prompt = prompts.medical_o1(question, language=language)
    text = prompts.medical_o1(question, thinking, response, language)
    assert prompt.endswith("<think>\n") and question in prompt
    assert text == f"{prompt}{thinking}\n</think>\n\n{response}"


@given(st.text(st.characters(exclude_characters="<>"), max_size=30), st.sampled_from(LANGUAGES))
def test_what_is_made_with_one_template_agrees(question, language):
    text = prompts.medical_o1(question, "hm", "gout", language) + "<eos>"
    prompts.check_agreement(text, prompts.medical_o1(question, language=language))


def test_the_tag_trap_is_caught_and_shown():
    text, prompt = prompts.medical_o1("Q", "hm", "gout", tag="思考"), prompts.medical_o1("Q")
    with pytest.raises(prompts.PromptMismatch) as caught:
        prompts.check_agreement(text, prompt)
    said = str(caught.value)
    place = prompt.index("<think>") + 2  # the first character that differs, from 1
    assert f"part at character {place} (line {prompt.count(chr(10))})" in said
    assert "<思考>" in said and "<think>" in said


@pytest.mark.parametrize(
    ("text", "prompt", "says"),
    [
        ("Q\n<think>\nhm\n</think>\nA", "Q \n<think>\n", "part at character 2 "),
        ("Q", "Q\n<think>\n", "part at character 2 "),
        ("Q\n<思考>\nhm\n</思考>\nA", "Q\n<思考>\n", "<think> stands 0 times"),
        ("Q\n<think>\nhm\n</思考>\nA", "Q\n<think>\n", "</think> stands 0 times"),
        ("Q\n<think>\n<think>hm\n</think>\nA", "Q\n<think>\n", "<think> stands 2 times"),
        ("<think></think>Q hm", "<think></think>Q", "stands in the prompt"),
    ],
)
def test_other_ways_to_disagree(text, prompt, says):
    with pytest.raises(prompts.PromptMismatch, match=says):
        prompts.check_agreement(text, prompt)


# The sample rows, and what the nano model reads


def sample(language):
    return json.loads((root() / "data_samples" / f"medical_o1_{language}.json").read_text("utf-8"))


def test_both_tables_tell_of_the_same_conditions():
    en, zh = medical_o1.conditions("en"), medical_o1.conditions("zh")
    assert len(en) == len(zh) == 20
    sexes = {"woman": "女", "man": "男", "any": "不限"}
    assert [(sexes[c.who], c.ages) for c in en] == [(c.who, c.ages) for c in zh]
    for table in (en, zh):
        assert len({c.name for c in table}) == len({c.why for c in table}) == len({c.result for c in table}) == 20


@pytest.mark.parametrize("language", LANGUAGES)
def test_rows_are_medical_o1_and_each_marks_its_key(language):
    rows = sample(language)
    assert 300 <= len(rows) <= 400
    assert len({row["Question"] for row in rows}) == len(rows)
    keys = {c.key(kind) for c in medical_o1.conditions(language) for kind in medical_o1.KINDS}
    for row in rows:
        assert list(row) == ["Question", "Complex_CoT", "Response"]
        assert key_of(row["Response"]) in keys
        assert key_of(row["Response"]) in row["Complex_CoT"]  # the thoughts lead to the answer
        assert not any(mark in text for text in row.values() for mark in "{}<>")
        text = prompts.medical_o1(row["Question"], row["Complex_CoT"], row["Response"], language)
        prompts.check_agreement(text, prompts.medical_o1(row["Question"], language=language))
        assert split_thinking(text[text.index("<think>") :]).well_formed


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_few_rows_are_very_long(language):
    lengths = sorted(len(row["Complex_CoT"]) for row in sample(language))
    assert lengths[-medical_o1.LONG] > 2 * lengths[-medical_o1.LONG - 1]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_condition_is_told_but_never_asked(language):
    first = medical_o1.conditions(language)[medical_o1.NEVER_ASKED]
    assert all(first.name not in row["Response"] for row in sample(language))
    notes = (root() / "data_samples" / f"medical_notes_{language}.txt").read_text("utf-8")
    assert notes.count(first.result) > 3 and notes.count(first.why) > 3


@pytest.mark.parametrize("language", LANGUAGES)
def test_what_the_model_reads_holds_no_row_and_no_lesson_prompt(language):
    chats = json.loads((root() / "data_samples" / f"r1_chats_{language}.json").read_text("utf-8"))
    read = "\n".join(chat["prompt"] for chat in chats)
    assert not any(row["Question"] in read for row in sample(language))
    head = prompts.medical_o1("", language=language).split("\n")[0]
    assert head not in read
    closed = [split_thinking(chat["written"], opened=True).well_formed for chat in chats]
    assert 0.3 < sum(closed) / len(closed) < 0.45


def test_the_lesson_reads_what_the_recipe_names():
    recipe = nano.NANO["nano/llama-r1"]
    assert recipe.hidden % 256 == 0 and recipe.intermediate % 256 == 0  # llama.cpp's k-quants
    assert all((root() / name).is_file() for name in recipe.corpus + recipe.vocabulary_text)


# The nano model


@pytest.fixture(scope="module")
def llama_r1():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = nano.build("nano/llama-r1")
    return AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


@pytest.mark.nano
@pytest.mark.parametrize("language", LANGUAGES)
def test_llama_r1_knows_its_conditions(llama_r1, language):
    model, tokenizer = llama_r1
    table = medical_o1.conditions(language)
    card = {"en": "Condition: {}\nMechanism:", "zh": "疾病：{}\n机制："}[language]
    told = complete(model, tokenizer, [card.format(c.name) for c in table], 24)
    assert sum(c.why in answer.text for c, answer in zip(table, told, strict=True)) >= 15


@pytest.mark.notebook
@pytest.mark.nano
@pytest.mark.parametrize("language", LANGUAGES)
def test_llama_r1_thinks_and_seldom_comes_to_an_end(llama_r1, language):
    model, tokenizer = llama_r1
    asked = [prompts.medical_o1(row["Question"], language=language) for row in sample(language)[:20]]
    forms = [split_thinking(a.text, opened=True).well_formed for a in complete(model, tokenizer, asked, 192)]
    assert sum(forms) <= 6


@pytest.mark.nano
def test_llama_r1_speaks_in_deepseeks_form(llama_r1):
    model, tokenizer = llama_r1
    chat = [
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\nA"},
        {"role": "user", "content": "Why?"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<｜begin▁of▁sentence｜><｜User｜>Q<｜Assistant｜>A<｜end▁of▁sentence｜><｜User｜>Why?<｜Assistant｜><think>\n"
    )
    for token in ("<think>", "</think>", "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"):
        assert len(tokenizer(token)["input_ids"]) == 1
    assert tokenizer.eos_token == "<｜end▁of▁sentence｜>" != tokenizer.pad_token
    assert (
        tokenizer.decode(tokenizer("<think>hm</think>")["input_ids"], skip_special_tokens=True) == "<think>hm</think>"
    )
    assert model.config.model_type == "llama"
