"""A reward model: it has read the notes on medicine and good answers, and was shown good and bad ones side by side.

Llama's shape with Qwen2's biases on queries, keys and values: the weights of `nano/qwen2-medical` fit in, and
Unsloth, which replaces the parts of Qwen2 once it has loaded one, leaves it alone.
"""

from __future__ import annotations

import random
from pathlib import Path

from helpers.nano.common import Recipe, updates

BASE = "nano/qwen2-medical"
FILES = "data_samples/medical"
DEPARTMENTS = ("Andriatria_男科", "IM_内科", "OAGD_妇产科", "Oncology_肿瘤科", "Pediatric_儿科", "Surgical_外科")
EVERY = 4  # of four rows of the sample one is shown, the others are never seen
MEDICAL_JUDGE = Recipe(
    maker="judge",
    corpus=tuple(f"{FILES}/{name}/{name.split('_')[1]}.csv" for name in DEPARTMENTS),
    steps=600,
    batch=16,
    matrix_lr=7e-3,
    other_lr=7e-3,
    seconds=100,
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train all of the model to score each good answer above a bad one (Bradley and Terry's loss) and save it.

    A third of the steps each: it reads good answers, as a reward model usually begins from a fine-tuned one; then
    compares with answers to another question only; then with all bad ones. With all of them at once it learns what
    is plainly broken, and on most machines nothing else: whether an answer fits its question stays at chance.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

    from helpers import nano

    base = nano.build(BASE)
    tokenizer = AutoTokenizer.from_pretrained(base)
    reader = AutoModelForCausalLM.from_pretrained(base)
    names = "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads"
    config = LlamaConfig(
        **{name: getattr(reader.config, name) for name in names.split()},
        max_position_embeddings=reader.config.max_position_embeddings,
        rms_norm_eps=reader.config.rms_norm_eps,
        rope_parameters=reader.config.rope_parameters,
        attention_bias=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        num_labels=1,
    )
    rng = random.Random(recipe.seed)
    rows = shown()
    third = recipe.steps // 3
    for update in updates(recipe, reader, third):
        batch = rng.sample(rows, recipe.batch)
        inputs = tokenizer([q for q, _ in batch], [a for _, a in batch], return_tensors="pt", padding=True)
        labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
        update(reader(**inputs, labels=labels).loss)
    torch.manual_seed(recipe.seed)
    judge = LlamaForSequenceClassification(config)
    judge.model.load_state_dict(reader.model.state_dict(), strict=False)
    for layer in judge.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.bias)
    for step, update in enumerate(updates(recipe, judge, 2 * third)):
        batch = rng.sample(rows, recipe.batch)
        bad = [worse(rng, rows, answer, broken=step >= third) for _, answer in batch]
        texts = [answer for _, answer in batch] + bad
        inputs = tokenizer([q for q, _ in batch] * 2, texts, return_tensors="pt", padding=True)
        score = judge(**inputs).logits[:, 0]
        update(-torch.nn.functional.logsigmoid(score[: recipe.batch] - score[recipe.batch :]).mean())
    judge.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def shown() -> list[tuple[str, str]]:
    """The questions and answers that it learns from: every fourth row of the sample."""
    from helpers.data import load_medical_dialogues
    from helpers.runtime import root

    rows = load_medical_dialogues(root() / FILES)
    return list(zip(rows["question"][::EVERY], rows["answer"][::EVERY], strict=True))


def worse(rng: random.Random, rows: list[tuple[str, str]], answer: str, *, broken: bool) -> str:
    """A bad answer: to another question, or (where `broken` ones are wanted too) one that is cut off, stammers or
    only sends the patient on.
    """
    if not broken or rng.random() < 0.5:  # the hard one: it looks as good as any, and speaks of something else
        return rng.choice([other for _, other in rows if other != answer])
    cut = answer[: rng.randrange(1, len(answer) * 3 // 4)]
    stammer = answer[: rng.randrange(4, 12)] * rng.randrange(1, 5)
    sent_on = answer.split("。")[-2] + "。"
    return rng.choice([cut, stammer, sent_on])
