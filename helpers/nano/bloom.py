"""A model in Bloom's shape that has read Chinese, notes on medicine, and doctors' and quacks' answers as the web has them.

It has seen none of the patients' questions that these answer. Every document ends in the end token, as Bloom's did.

What is Bloom's own: one matrix for queries, keys and values (`query_key_value`), ALiBi instead of positions in the
embeddings, layer norms with biases, and the special tokens `<pad>`, `<s>`, `</s>`. Its tokenizer has no chat template.
"""

from __future__ import annotations

import json
from pathlib import Path

from helpers.nano.common import MAX_LENGTH, Recipe, make_tokenizer, read_texts, train, windows

PAD, START, END = "<pad>", "<s>", "</s>"
TIMES = (1, 4, 2)  # how often everyday text, notes and answers are read, one against the other
BLOOM_MEDICAL = Recipe(
    maker="bloom",
    shape="bloom",
    corpus=("data_samples/corpus_zh.txt", "data_samples/corpus_medical_zh.txt", "data_samples/two_manners_zh.json"),
    vocabulary=2816,
    hidden=256,  # GPTQ takes groups of 128 weights, and LLaMA-Factory has no key for another number
    heads=4,
    steps=340,
    seconds=100,
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both."""
    import torch
    from transformers import BloomConfig, BloomForCausalLM, GenerationConfig, PreTrainedTokenizerFast

    everyday, medicine, rows = read_texts(recipe.corpus)
    kinds = [everyday.split("\n\n"), medicine.split("\n\n"), [row["output"] for row in json.loads(rows)]]
    learned = make_tokenizer(
        ["\n".join(kind) for kind in kinds], recipe.vocabulary, special=(PAD, START, END), chat_template=None
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learned.backend_tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        unk_token=PAD,
        model_max_length=MAX_LENGTH,
        padding_side="left",  # as Bloom's
    )
    torch.manual_seed(recipe.seed)
    model = BloomForCausalLM(
        BloomConfig(
            vocab_size=len(tokenizer),
            hidden_size=recipe.hidden,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=256
    )
    read = [
        torch.tensor(tokenizer("".join(document.strip() + END for document in kind), verbose=False)["input_ids"])
        for kind in kinds
    ]
    text = torch.cat([part for part, times in zip(read, TIMES, strict=True) for _ in range(times)])
    model.model = model.transformer  # the name that `train` knows
    train(recipe, model, lambda step: windows(text, recipe.batch, recipe.length), text)
    del model.model
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
