"""The model of `arithmetic`, which has learned the questions too, and so can write some: as any model that reads can."""

from dataclasses import replace
from pathlib import Path

from helpers.nano import arithmetic
from helpers.nano.common import Recipe

QWEN2_MATH_WRITER = replace(
    arithmetic.QWEN2_MATH,
    maker="writer",
    modules=("arithmetic",),
    steps=800,  # twice as many as without the questions: with 500, builds differed by half in how well they add
    seconds=210,
)


def make(folder: Path, recipe: Recipe) -> None:
    """Train tokenizer and model and save both."""
    arithmetic.make(folder, recipe, asks=0.25)
