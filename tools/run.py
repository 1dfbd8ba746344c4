"""Execute one lesson's notebook with papermill, trimmed unless told otherwise."""

from __future__ import annotations

import ast
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import DeadKernelError
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError
from papermill.translators import PythonTranslator, papermill_translators

from helpers import hub
from tools.build import notebook
from tools.lessons import Course, Lesson, LessonError, value_fault


class ReadableTranslator(PythonTranslator):
    """Writes a text parameter as a person would: papermill's own turns 数 into an escape."""

    @classmethod
    def translate_escaped_str(cls, str_val: Any) -> str:
        return repr(str_val)


papermill_translators.register("python", ReadableTranslator)


@dataclass(frozen=True)
class Run:
    """What came of a run: the executed notebook, its page, seconds, the lesson's summary, the failure if any."""

    notebook: Path
    page: Path
    seconds: float
    summary: dict[str, Any]
    failure: str | None


def prepare(values: dict[str, Any]) -> None:
    """What a notebook on a nano model wants before it starts: the model, built where its progress is seen."""
    for name in nano_models(values):
        hub.resolve_model(name)


def nano_models(values: dict[str, Any]) -> set[str]:
    """The nano models that parameters name."""
    return {value for value in values.values() if isinstance(value, str) and value.startswith(hub.NANO)}


def run(course: Course, lesson: Lesson, language: str, values: dict[str, Any], folder: Path | None = None) -> Run:
    """Execute the notebook with `values` in place of its parameters; keep its output even when a cell fails.

    Everything lands in `folder` (default runs/SLUG-LANGUAGE): the executed notebook, its HTML page,
    and what the lesson itself writes, unless `values` moves OUTPUT_DIR.
    """
    folder = (folder or default_folder(course, lesson.slug, language)).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    values = {"OUTPUT_DIR": str(folder / "outputs"), **values}
    executed, page = folder / "notebook.ipynb", folder / "notebook.html"
    summary = course.root / values["OUTPUT_DIR"] / "summary.json"
    for old in (executed, page, summary):
        old.unlink(missing_ok=True)

    source = folder / "source.ipynb"
    nbformat.write(notebook(course, lesson, language), source)
    began, failure = time.perf_counter(), None
    try:
        papermill.execute_notebook(
            source,
            executed,
            parameters=values,
            kernel_name="python3",
            start_timeout=300,  # seconds; a busy machine with a slow disk takes more than papermill's minute
            cwd=course.root,
            coalesce_streams=True,
            extra_arguments=["--log-level=ERROR"],
        )
    except PapermillExecutionError as error:
        failure = f"Cell {error.exec_count} failed:\n\n{_indent(error.source)}\n\n{error.ename}: {error.evalue}"
    except DeadKernelError:
        failure = "The kernel died, most likely for want of memory. What it had done until then is in the notebook."
    finally:
        seconds = time.perf_counter() - began
        source.unlink()
        if executed.is_file():
            _page(executed, page)
    figures = json.loads(summary.read_text(encoding="utf-8")) if summary.is_file() else {}
    return Run(executed, page, seconds, figures, failure)


def default_folder(course: Course, slug: str, language: str) -> Path:
    """Where `run` puts a lesson's notebook, its page and its outputs."""
    return course.root / "runs" / f"{slug}-{language}"


def left_by_runs(course: Course, lesson: Lesson, language: str) -> dict[str, str]:
    """Parameters that name what another lesson leaves in outputs/, where `run` has left it; not from a nano model."""
    found = {}
    for name, value in lesson.parameters.items():
        if name != "OUTPUT_DIR" and isinstance(value, str) and value.startswith("outputs/"):
            slug, _, rest = value.removeprefix("outputs/").partition("/")
            folder = default_folder(course, slug, language)
            path, executed = folder / "outputs" / rest, folder / "notebook.ipynb"
            if path.exists() and executed.is_file() and not (course.root / value).exists():
                made_with = json.loads(executed.read_text(encoding="utf-8"))["metadata"]["papermill"]["parameters"]
                if not nano_models(made_with):
                    found[name] = str(path)
    return found


def parse_settings(lesson: Lesson, settings: list[str]) -> dict[str, Any]:
    """Turn `NAME=VALUE` texts into parameter values; a path that is there becomes absolute.

    Raises `LessonError` for a name that the lesson's parameters cell does not define, or a value
    of another kind than the one there.
    """
    values: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or name not in lesson.parameters:
            raise LessonError(
                f"--set {setting}: lesson {lesson.number} has {', '.join(lesson.parameters)}; write NAME=VALUE."
            )
        real = lesson.parameters[name]
        value: Any = text
        if not isinstance(real, str):
            try:
                value = ast.literal_eval({"true": "True", "false": "False", "none": "None"}.get(text.lower(), text))
            except (ValueError, SyntaxError):
                pass  # value_fault says what was wanted
            if fault := value_fault(value, real):
                raise LessonError(f"--set {setting}: {fault}")
        elif Path(text).is_file() or os.sep in text and Path(text).exists():
            value = str(Path(text).resolve())  # the notebook changes into the course's folder
        values[name] = value
    return values


def _page(executed: Path, page: Path) -> None:
    html, _ = HTMLExporter(template_name="lab").from_filename(str(executed))
    page.write_text(html, encoding="utf-8")


def _indent(source: str) -> str:
    return "\n".join(f"    {line}" for line in source.splitlines())
