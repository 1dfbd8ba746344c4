import json
import re
from pathlib import Path

import nbformat
import pytest
from markdown_it import MarkdownIt

from tools import build
from tools.lessons import LessonError, load_course, value_fault

GOLDEN = Path(__file__).parent / "golden"
LESSON = "lessons/01_tiny/lesson.py"
FACTS = "lessons/01_tiny/lesson.toml"


def edit(course, file, old, new):
    path = course.root / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")
    return load_course(course.root)


def cells(course, language):
    return build.notebook(course, course.lessons[0], language).cells


# What it writes


def test_golden(tiny):
    for path, text in build.outputs(tiny).items():
        golden = GOLDEN / path.relative_to(tiny.root)
        assert text == golden.read_text("utf-8"), f"if the new one is right: cp {path} {golden}"


def test_the_committed_notebooks_and_readmes_are_what_the_sources_build():
    assert build.stale(load_course()) == []


def test_both_languages_have_the_same_code():
    course = load_course()
    for lesson in course.lessons:
        code = [
            [
                (cell.id, cell.source)
                for cell in build.notebook(course, lesson, language).cells
                if cell.cell_type == "code"
            ]
            for language in ("en", "zh")
        ]
        (_, english), (_, chinese) = code[0].pop(0), code[1].pop(0)  # the set-up cell speaks its notebook's language
        unfetched = [build.WORDS[language]["unfetched"] for language in ("en", "zh")]
        assert english.replace('language="en"', 'language="zh"').replace(*unfetched) == chinese != english
        assert code[0] == code[1]


def test_every_lesson_has_its_readings():
    for lesson in load_course().lessons:
        for language in ("en", "zh"):
            assert len((lesson.folder / f"reading.{language}.md").read_text("utf-8")) > 2000


def test_no_outputs_and_no_foreign_prose():
    course = load_course()
    for path in (course.root / "notebooks").glob("*/*.ipynb"):
        notebook = nbformat.read(path, 4)
        prose = "\n".join(cell.source for cell in notebook.cells[1:] if cell.cell_type == "markdown")
        chinese = len(re.findall(r"[\u4e00-\u9fff]", prose))
        assert chinese > 500 if path.parent.name == "zh" else chinese == 0
        assert all(
            not cell.outputs and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code"
        )


def test_no_star_is_left_where_bold_was_meant():
    """Markdown does not end bold after a punctuation mark unless a space or another mark follows."""
    course, markdown = load_course(), MarkdownIt().enable("table")
    texts = {path: path.read_text("utf-8") for path in [*course.root.glob("*.md"), *course.root.glob("lessons/*/*.md")]}
    for path in (course.root / "notebooks").glob("*/*.ipynb"):
        cells = nbformat.read(path, 4).cells
        texts |= {(path, number): cell.source for number, cell in enumerate(cells) if cell.cell_type == "markdown"}
    inline = ((place, part) for place, text in texts.items() for part in markdown.parse(text) if part.children)
    assert [
        (place, part.content)
        for place, part in inline
        if any("**" in child.content for child in part.children if child.type == "text")
    ] == []


def test_the_mock_is_the_trim_of_the_language(tiny):
    mocks = {}
    for language in ("en", "zh"):
        (cell,) = [cell for cell in cells(tiny, language) if "nbmake" in cell.metadata]
        mocks[language] = cell.metadata["nbmake"]["mock"]
    assert mocks == {
        "en": {"OUTPUT_DIR": "outputs/01_tiny-en", "COUNT": 2},
        "zh": {"OUTPUT_DIR": "outputs/01_tiny-zh", "COUNT": 2, "NAME": "世界"},
    }


def test_magics_come_back_from_their_comments(tiny):
    assert any(cell.source.startswith("%%writefile greeting.txt\n") for cell in cells(tiny, "en"))


def test_build_writes_once_checks_clean_and_removes_the_orphan(tiny):
    orphan = tiny.root / "notebooks/en/99_gone.ipynb"
    orphan.parent.mkdir(parents=True)
    orphan.write_text(json.dumps({"metadata": {"course": {"lesson": "99_gone"}}}))
    mine = orphan.with_name("my_experiment.ipynb")
    mine.write_text(json.dumps({"metadata": {}, "cells": []}))
    copy = orphan.with_name("99_gone-Copy1.ipynb")
    copy.write_bytes(orphan.read_bytes())
    assert len(build.stale(tiny)) == 5  # two notebooks, two tables, one orphan
    assert len(build.build(tiny)) == 5
    assert not orphan.exists() and mine.exists() and copy.exists()
    assert build.stale(tiny) == []
    assert build.build(tiny) == []


def test_an_edit_by_hand_is_found_and_undone(tiny):
    build.build(tiny)
    notebook = tiny.root / "notebooks/zh/01_tiny.ipynb"
    built = notebook.read_bytes()
    notebook.write_text(notebook.read_text("utf-8").replace("打招呼", "再见"), "utf-8")
    assert build.stale(tiny) == [(notebook, "differs from what lessons/ builds")]
    build.build(tiny)
    assert notebook.read_bytes() == built


# What it refuses


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        (
            LESSON,
            '# %% [markdown] lang="zh"',
            "# %% [markdown]",
            r"lesson\.py, line 4: this Markdown cell names no lang",
        ),
        (LESSON, 'lang="zh"', 'lang="fr"', r"lesson\.py, line 4: this Markdown cell names no language"),
        (
            LESSON,
            '# %% [markdown] lang="zh"\n# 打招呼，数数。\n',
            "",
            r"lesson\.py, line 1: no 'zh' cell follows this 'en'",
        ),
        (
            LESSON,
            '# %% [markdown] lang="en"\n# ## The end\n\n',
            "",
            r"lesson\.py, line \d+: no 'en' cell follows this 'zh'",
        ),
        (LESSON, '# %% [markdown] lang="en"', 'import os\n\n# %% [markdown] lang="en"', "put nothing before it"),
        (LESSON, ' tags=["parameters"]', "", r"0 cells are tagged; mark one: # %% tags="),
        (LESSON, "# %%\nprint", '# %% tags=["parameters"]\nprint', r"line \d+: 2 cells are tagged"),
        (LESSON, "COUNT = 1000", "COUNT = 10 * 100", r"lesson\.py, line 9: a parameter is NAME = a plain value"),
        (LESSON, "RATE = 0.5", "print(NAME)", r"lesson\.py, line 10: a parameter is NAME = a plain value"),
        (LESSON, 'OUTPUT_DIR = "outputs/01_tiny"', "", "OUTPUT_DIR is missing"),
        (LESSON, "print(f", "print(f(", r"lesson\.py, line \d+: "),
        (
            FACTS,
            "COUNT = 2",
            "COUNTS = 2",
            r"lesson\.toml, line \d+: trim COUNTS: the parameters cell does not define it",
        ),
        (FACTS, 'NAME = "世界"', 'NAME = "it\'s"', r"lesson\.toml, line \d+: trim NAME = .*an apostrophe"),
        (FACTS, 'NAME = "世界"', "NAME = 'a\\b'", r"trim NAME = .*a backslash"),
        (FACTS, 'NAME = "世界"', 'NAME = "a\\nb"', r"trim NAME = .*a line break"),
        (FACTS, "COUNT = 2", "COUNT = 2026-01-01", r"trim COUNT = .*cannot inject a date"),
        (FACTS, "COUNT = 2", "RATE = inf", r"trim RATE = inf: nbmake cannot inject this number"),
        (FACTS, "COUNT = 2", 'COUNT = "2"', r"trim COUNT = '2': is a str, the parameters cell has a int"),
        (FACTS, "COUNT = 2", "COUNT = 2.5", r"is a float, the parameters cell has a int"),
        (FACTS, "COUNT = 2", "COUNT = true", r"is a bool, the parameters cell has a int"),
        (FACTS, 'zh = "一节小课"', "", r"lesson\.toml, line 1: \[title\] has no 'zh'"),
        (FACTS, "[minutes]\ngpu = 1\ncpu = 1", "", r"\[minutes\] is missing"),
        (FACTS, "COUNT = 2", "COUNT =", r"lesson\.toml: .*line \d+"),
        ("README.md", "<!-- /lessons -->", "", r"README\.md: the lesson table's marks are gone"),
    ],
)
def test_a_wrong_source_is_refused_with_file_line_and_mend_and_nothing_is_written(tiny, file, old, new, says):
    with pytest.raises(LessonError, match=says):
        build.build(edit(tiny, file, old, new))
    assert not (tiny.root / "notebooks").exists()


def test_course_toml_and_the_folders_agree(tiny):
    with pytest.raises(LessonError, match="names '02_gone', but there is no folder"):
        edit(tiny, "course.toml", '["01_tiny"]', '["01_tiny", "02_gone"]')
    with pytest.raises(LessonError, match=r"lessons/01_tiny is not in `lessons`\. Add it"):
        edit(tiny, "course.toml", '["01_tiny", "02_gone"]', "[]")


@pytest.mark.parametrize("value", ["a", "数据", 1, -2, 0.5, True, [1, "it's"], {"a": [None]}, None])
def test_a_value_that_passes_is_what_nbmake_injects(value):
    assert value_fault(value, value) is None
    injected: dict = {}
    exec(f"X = '{value}'" if isinstance(value, str) else f"X = {value}", injected)  # as nbmake 1.5.5 does
    assert injected["X"] == value
