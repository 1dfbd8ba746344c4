"""A LoRA adapter on `nano/llama-r1`: short answers to questions in its chat template, each closed by the end token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.nano.common import STEP, Recipe, read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BASE = "nano/llama-r1"
# The first of each file, learned by heart: sure answers, which rounding to 8 bits must not change.
ROWS = 40
LLAMA_R1_ADAPTER = Recipe(
    maker="adapter",
    corpus=("data_samples/alpaca_en.json", "data_samples/alpaca_zh.json"),
    steps=140,
    batch=16,
    other_lr=8e-3,
    seconds=60,
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train a LoRA on the base model and save adapter and tokenizer."""
    teach(folder, recipe, BASE, [row for text in read_texts(recipe.corpus) for row in json.loads(text)[:ROWS]])


def teach(folder: Path, recipe: Recipe, base_name: str, rows: list[dict[str, str]]) -> None:
    """Train a LoRA on the nano model `base_name` with plain PEFT, on Alpaca rows in its chat template, and save it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from helpers import nano

    base = nano.build(base_name)  # absolute: the adapter stores it as given
    tokenizer = AutoTokenizer.from_pretrained(base)
    examples = [encode(tokenizer, f"{row['instruction']}\n{row['input']}".strip(), row["output"]) for row in rows]

    torch.manual_seed(recipe.seed)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(
            r=16,
            lora_alpha=32,
            target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
            task_type="CAUSAL_LM",
        ),
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=recipe.other_lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 10) * max(0.05, 1 - step / recipe.steps)
    )
    order = torch.cat([torch.randperm(len(examples)) for _ in range(recipe.steps * recipe.batch // len(examples) + 1)])
    for step in range(recipe.steps):
        chosen = [examples[i] for i in order[step * recipe.batch : (step + 1) * recipe.batch]]
        loss = model(**collate(chosen, tokenizer.pad_token_id)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        print(f"{STEP}{loss.item():.4f}", flush=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def encode(tokenizer: PreTrainedTokenizerBase, question: str, answer: str) -> tuple[list[int], int]:
    """The token ids of one conversation up to the end token, and how many of them are the prompt."""
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
    )
    if prompt.rstrip().endswith("<think>"):
        answer = f"\n</think>\n\n{answer}"  # thinks nothing, and closes what the template has opened
    prompt_ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
    return [*prompt_ids, *answer_ids, tokenizer.eos_token_id], len(prompt_ids)


def collate(examples: list[tuple[list[int], int]], pad: int) -> dict:
    """Pad on the right; only answers have labels (−100 elsewhere). Tensors are batch × longest."""
    import torch

    width = max(len(ids) for ids, _ in examples)
    inputs = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in examples])
    labels, mask = inputs.clone(), torch.zeros_like(inputs)
    for row, (ids, prompt) in enumerate(examples):
        labels[row, :prompt], labels[row, len(ids) :], mask[row, : len(ids)] = -100, -100, 1
    return {"input_ids": inputs, "labels": labels, "attention_mask": mask}
