"""The model of `arithmetic`, which has learned the questions too, and so can write some: as any model that reads can."""

from dataclasses import replace
from pathlib import Path

from helpers.nano import arithmetic
from helpers.nano.common import Recipe

QWEN2_MATH_WRITER = replace(
    arithmetic.QWEN2_MATH,
    maker="writer",
    modules=("arithmetic",),
    steps=500,  # a hundred more than without, for the questions
    seconds=130,
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both."""
    arithmetic.make(folder, recipe, asks=0.25)
