"""Marks every collected notebook, and builds the nano model once before the first of them runs."""

import pytest

collect_ignore = ["tests/golden", "tests/tiny_course"]  # compared by tests/test_build.py, not executed


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.notebook)


def pytest_runtest_setup(item):
    if item.path.suffix == ".ipynb":
        from helpers import nano

        nano.build()  # here rather than in a cell, so that each notebook's own time is what it takes
