"""The nano adapter: conversations that end, labels on answers only, and a name that follows its base model."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from helpers import nano
from helpers.nano import adapter, common, r1
from helpers.runtime import root

THINKING = common.CHAT_TEMPLATE.replace(
    "<|im_start|>assistant\\n' }}{% endif %}", "<|im_start|>\\n<think>\\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer():
    return common.make_tokenizer(common.read_texts(("data_samples/alpaca_zh.json",)), 512)


@pytest.mark.parametrize(("template", "closes"), [(common.CHAT_TEMPLATE, ""), (THINKING, "\n</think>\n\n")])
def test_an_example_is_the_chat_template_the_answer_and_the_end(tokenizer, monkeypatch, template, closes) -> None:
    monkeypatch.setattr(tokenizer, "chat_template", template)
    ids, prompt = adapter.encode(tokenizer, "法国的首都？", "巴黎")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "法国的首都？"}], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer.decode(ids[:prompt]) == asked
    assert asked.endswith("<think>\n") == bool(closes)
    assert tokenizer.decode(ids[prompt:]) == f"{closes}巴黎{tokenizer.eos_token}"


def test_only_answers_and_their_end_are_learned() -> None:
    batch = adapter.collate([([5, 6, 7, 2], 2), ([5, 2], 1)], pad=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 2], [5, 2, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 7, 2], [-100, 2, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]


def test_another_base_model_makes_another_adapter(monkeypatch) -> None:
    recipe = nano.NANO["nano/llama-r1-adapter"]
    before = nano.fingerprint(recipe)
    assert nano.base_of(recipe) == "nano/llama-r1" and nano.base_of(r1.LLAMA_R1) is None
    monkeypatch.setitem(nano.NANO, "nano/llama-r1", replace(r1.LLAMA_R1, seed=1))
    assert nano.fingerprint(recipe) != before


@pytest.mark.notebook
@pytest.mark.nano
def test_the_adapter_answers_and_stops() -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    folder = nano.build("nano/llama-r1-adapter")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["base_model_name_or_path"] == str(nano.build("nano/llama-r1"))
    model, tokenizer = AutoPeftModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for file in adapter.LLAMA_R1_ADAPTER.corpus:
        rows = json.loads((root() / file).read_text(encoding="utf-8"))[: adapter.ROWS]
        right = 0
        for row in rows[:8]:
            ids, prompt = adapter.encode(tokenizer, f"{row['instruction']}\n{row['input']}".strip(), row["output"])
            start = tokenizer.decode(ids[:prompt])
            inputs = tokenizer(start, return_tensors="pt", add_special_tokens=False)
            new = model.generate(**inputs, max_new_tokens=60, do_sample=False)[0, prompt:].tolist()
            right += new == ids[prompt:]
        assert right >= 7
