import shutil
from pathlib import Path

import pytest

from tools.lessons import Course, load_course

TESTS = Path(__file__).parent


@pytest.fixture
def tiny(tmp_path: Path) -> Course:
    """A course of one lesson without a model, in a folder of its own."""
    shutil.copytree(TESTS / "tiny_course", tmp_path / "course")
    return load_course(tmp_path / "course")
