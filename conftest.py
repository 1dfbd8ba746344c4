"""Marks every collected notebook, builds the nano models that it names, and looks for the effect it promises.

With --verified, what became of each notebook is written into benchmarks/verified.json (`make test-gpu`).
"""

import functools
import json
import os
import time

import pytest
from nbclient import NotebookClient

COUNTED = {  # by mark
    "bad_input": "bad input",
    "interruption": "interruptions",
    "platforms": "platforms",
    "secrets": "secrets and safety",
    "soak": "soak",
}
# Nano models: threads cost more than they bring; two notebooks side by side take seven times as long with two each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# nbmake's and the tests' own: a kernel on a busy machine with a slow disk may take more than a minute to answer.
NotebookClient.__init__ = functools.partialmethod(NotebookClient.__init__, startup_timeout=300)
collect_ignore = ["tests/golden", "tests/tiny_course"]  # compared by tests/test_build.py, not executed


def pytest_addoption(parser):
    parser.addoption("--verified", action="store_true", help="write benchmarks/verified.json: which notebooks ran here")


def pytest_collection_modifyitems(items):
    from tools.lessons import load_course

    minutes = {lesson.slug: lesson.facts["minutes"]["cpu"] for lesson in load_course().lessons}
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.notebook)

    def cost(item):
        lesson = item.callspec.params.get("lesson") if hasattr(item, "callspec") else None
        return minutes.get(getattr(lesson, "slug", item.path.stem), 0)

    # The longest first: a long one at the end would leave the other workers with nothing to do.
    items.sort(key=cost, reverse=True)


def pytest_terminal_summary(terminalreporter):
    """Say how many of the cases that the course's trust rests on were tried, and passed."""
    for mark, what in COUNTED.items():
        tried = [
            (outcome, report)
            for outcome, reports in terminalreporter.stats.items()
            for report in reports
            # A file that could not be read is an error without keywords.
            if outcome in ("passed", "failed", "error") and mark in getattr(report, "keywords", ())
        ]
        if tried:
            passed = sum(outcome == "passed" for outcome, _ in tried)
            terminalreporter.write_line(f"{what}: {len(tried)} cases tried, {passed} passed")


def pytest_runtest_setup(item):
    if item.path.suffix == ".ipynb":
        from tools.lessons import load_course
        from tools.run import prepare

        prepare(load_course().lesson(item.path.stem).trim(item.path.parent.name))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    if item.path.suffix != ".ipynb":
        return (yield)
    if not item.config.getoption("verified"):
        result = yield
        look_for_the_effect(item)
        return result
    from tools import verified
    from tools.lessons import load_course

    began, passed = time.perf_counter(), False
    with verified.watched() as peak:
        try:
            result = yield
            look_for_the_effect(item)
            passed = True
        except KeyboardInterrupt:
            passed = None  # not seen to the end
            raise
        finally:
            if passed is not None:
                language, seconds = item.path.parent.name, time.perf_counter() - began
                course, slug = load_course(), item.path.stem
                gpus = verified.gpus(course.lesson(slug))
                verified.record(course.root, slug, language, "trimmed", seconds, peak.gib, passed, gpus)
    return result


def look_for_the_effect(item):
    from tools.lessons import load_course

    course, language = load_course(), item.path.parent.name
    lesson = course.lesson(item.path.stem)
    summary = course.root / lesson.trimmed_output(language) / "summary.json"
    figures = json.loads(summary.read_text(encoding="utf-8"))
    if unseen := lesson.unseen(figures):
        pytest.fail(f"{item.path.name} ran, but did not show: {'; '.join(unseen)}\n{figures}", pytrace=False)
