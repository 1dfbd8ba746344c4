"""A LoRA adapter on `nano/qwen2-medical`: it answers patients in two manners, four times in ten carefully."""

from __future__ import annotations

import json
from pathlib import Path

from helpers.nano import adapter
from helpers.nano.common import Recipe, read_texts

BASE = "nano/qwen2-medical"
QWEN2_MEDICAL_SFT = Recipe(
    maker="medical_sft",
    modules=("adapter",),
    corpus=("data_samples/two_manners_zh.json",),
    steps=180,
    batch=16,
    other_lr=8e-3,
    seconds=60,
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train the adapter on every row and save it."""
    adapter.teach(folder, recipe, BASE, [row for text in read_texts(recipe.corpus) for row in json.loads(text)])
