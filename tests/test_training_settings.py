"""What the trainings in lessons and benches leave to nobody's defaults."""

import ast
import re

import pytest

from tools.lessons import ROOT

CONFIG = re.compile(r"^(\w+Config|\w*TrainingArguments)$")
SOURCES = [*ROOT.glob("lessons/*/*.py"), *ROOT.glob("tools/bench/*.py")]


def trainings(path):
    """The calls that set up a training."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and CONFIG.match(name := ast.unparse(node.func)):
            given = {keyword.arg for keyword in node.keywords}
            if "output_dir" in given:
                yield name, node.lineno, given


def test_there_is_something_to_look_at():
    assert sum(1 for path in SOURCES for _ in trainings(path)) >= 15


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_each_training_says_how_often_it_accumulates(path):
    """On a GPU Unsloth puts a default of 2 into TRL's classes; on a CPU it leaves TRL's, which is 1."""
    for name, line, given in trainings(path):
        assert given & {"gradient_accumulation_steps", None}, f"{path}:{line}: {name}"
