"""A base model before continued pre-training: it has read everyday text, and of medicine a page or two."""

from helpers.nano import text
from helpers.nano.common import Recipe

QWEN2_READER = Recipe(
    maker="reader",
    modules=("text",),
    corpus=(
        *text.QWEN2.corpus,
        "data_samples/medical_glimpse_en.txt",
        "data_samples/medical_glimpse_zh.txt",
    ),
    vocabulary_text=("data_samples/domain_en.jsonl", "data_samples/domain_zh.jsonl"),  # its words, not its facts
    steps=500,
    seconds=90,
)

make = text.make
