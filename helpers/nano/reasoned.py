"""The control for `arithmetic`: the same model, taught reasoned answers only. GRPO then has no better way to choose."""

from dataclasses import replace
from pathlib import Path

from helpers.nano import arithmetic
from helpers.nano.common import Recipe

QWEN2_MATH_REASONED = replace(
    arithmetic.QWEN2_MATH,
    maker="reasoned",
    modules=("arithmetic",),
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both."""
    arithmetic.make(folder, recipe, {"reasoned": 1.0})
