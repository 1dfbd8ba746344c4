"""A model in the shape of DeepSeek-R1-Distill-Llama: it has read about medicine, and thinks before it answers.

It has read plain notes, and chats in a reasoning model's manner: a quarter thinks straight, the rest wavers, is more
often wrong than right, and mostly does not close its thoughts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.nano.common import Recipe, make_tokenizer, new_model, read_texts, train, windows

if TYPE_CHECKING:
    import torch

PAD, START, END = "<|finetune_right_pad_id|>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
USER, ASSISTANT, THINK, END_THINK = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"
# As DeepSeek's: earlier thoughts are left out of a conversation, and the next answer begins with a thought.
CHAT_TEMPLATE = (
    f"{START}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    f"{{{{ '{USER}' + message['content'] }}}}"
    "{% elif message['role'] == 'assistant' %}"
    f"{{{{ '{ASSISTANT}' + message['content'].split('{END_THINK}')[-1].lstrip() + '{END}' }}}}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{ASSISTANT}{THINK}\\n' }}}}{{% endif %}}"
)

LLAMA_R1 = Recipe(
    maker="r1",
    shape="llama",
    corpus=(
        "data_samples/medical_notes_en.txt",
        "data_samples/medical_notes_zh.txt",
        "data_samples/r1_chats_en.json",
        "data_samples/r1_chats_zh.json",
    ),
    vocabulary_text=("data_samples/medical_o1_en.json", "data_samples/medical_o1_zh.json"),
    hidden=256,  # and rows of 256 everywhere, as llama.cpp's k-quants want them
    intermediate=512,
    heads=4,
    length=176,
    steps=240,
    seconds=120,
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both."""
    import torch

    texts = read_texts(recipe.corpus)
    notes = [text for name, text in zip(recipe.corpus, texts, strict=True) if name.endswith(".txt")]
    chats = [
        chat
        for name, text in zip(recipe.corpus, texts, strict=True)
        if name.endswith(".json")
        for chat in json.loads(text)
    ]
    tokenizer = make_tokenizer(
        notes + [chat["prompt"] + chat["written"] for chat in chats] + read_texts(recipe.vocabulary_text),
        recipe.vocabulary,
        special=(PAD, START, END),
        added=(USER, ASSISTANT, THINK, END_THINK),
        chat_template=CHAT_TEMPLATE,
    )
    read = torch.tensor(tokenizer("\n".join(notes), verbose=False)["input_ids"])
    chat_ids = [tokenizer(f"{START}{chat['prompt']}{chat['written']}{END}")["input_ids"] for chat in chats]
    said = torch.tensor([token for ids in chat_ids for token in ids])
    begins = torch.tensor([0, *(len(ids) for ids in chat_ids)]).cumsum(0)  # a thought is read with its question
    begins = begins[begins < len(said) - recipe.length]
    known = torch.cat([read, said]).unique()
    notes_share = recipe.batch // 4

    def next_batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, labels = windows(read, notes_share, recipe.length)
        starts = begins[torch.randint(len(begins), (recipe.batch - notes_share, 1))]
        chat = said[starts + torch.arange(recipe.length + 1)]
        return torch.cat([inputs, chat[:, :-1]]), torch.cat([labels, chat[:, 1:]])

    model = new_model(recipe, tokenizer)
    train(recipe, model, next_batch, known)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
