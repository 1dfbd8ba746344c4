"""Marks every collected notebook, and builds the nano models that it names before it runs."""

import pytest

collect_ignore = ["tests/golden", "tests/tiny_course"]  # compared by tests/test_build.py, not executed


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.notebook)


def pytest_runtest_setup(item):
    if item.path.suffix == ".ipynb":
        from tools.lessons import load_course
        from tools.run import prepare

        prepare(load_course().lesson(item.path.stem).trim(item.path.parent.name))
