"""The course as its sources say it: course.toml, and the lesson.toml and lesson.py of each lesson."""

from __future__ import annotations

import ast
import math
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jupytext
from IPython.core.inputtransformer2 import TransformerManager
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ("en", "zh")
REQUIRED = {"title", "summary", "needs", "minutes", "trim", "effect"}


class LessonError(ValueError):
    """A lesson whose source is wrong; the message names the file, the line and the mend."""


@dataclass(frozen=True)
class Course:
    """What course.toml says."""

    root: Path
    repository: str
    branch: str
    slugs: tuple[str, ...]

    @cached_property
    def lessons(self) -> list[Lesson]:
        return [Lesson(self.root / "lessons" / slug) for slug in self.slugs]

    def lesson(self, name: str) -> Lesson:
        """A lesson by its number or slug: `1`, `01` and `01_alpaca_sft` are the same."""
        number = name.zfill(2)
        for lesson in self.lessons:
            if name == lesson.slug or lesson.slug.startswith(f"{number}_"):
                return lesson
        raise LessonError(f"No lesson {name!r}. There are: {', '.join(self.slugs)}.")


def load_course(root: Path = ROOT) -> Course:
    """Read course.toml; every folder under lessons/ must be named there, and the other way round."""
    path = root / "course.toml"
    facts = _toml(path)
    for key in ("repository", "branch", "lessons"):
        if key not in facts:
            raise LessonError(f"{path}: {key!r} is missing.")
    there = {p.name for p in (root / "lessons").iterdir() if p.is_dir() and not p.name.startswith((".", "_"))}
    if extra := sorted(there - set(facts["lessons"])):
        raise LessonError(f"{path}: lessons/{extra[0]} is not in `lessons`. Add it there, where it is to be taught.")
    if absent := sorted(set(facts["lessons"]) - there):
        raise LessonError(f"{path}: `lessons` names {absent[0]!r}, but there is no folder lessons/{absent[0]}.")
    return Course(root, facts["repository"], facts["branch"], tuple(facts["lessons"]))


@dataclass(frozen=True)
class Cell:
    """A cell of lesson.py and the line its marker stands on (from 1)."""

    node: NotebookNode
    line: int

    @property
    def is_code(self) -> bool:
        return self.node.cell_type == "code"

    @property
    def language(self) -> str | None:
        return self.node.metadata.get("lang")


@dataclass(frozen=True)
class Lesson:
    """One folder under lessons/, read when first asked and checked as it is read."""

    folder: Path

    @property
    def slug(self) -> str:
        return self.folder.name

    @property
    def number(self) -> str:
        return self.slug.split("_", 1)[0]

    @property
    def source(self) -> Path:
        return self.folder / "lesson.py"

    @cached_property
    def facts(self) -> dict[str, Any]:
        """lesson.toml: title, summary, needs, minutes, trim, effect."""
        path = self.folder / "lesson.toml"
        facts = _toml(path)
        if missing := sorted(REQUIRED - facts.keys()):
            raise LessonError(f"{path}: [{missing[0]}] is missing.")
        for key in ("title", "summary"):
            for language in LANGUAGES:
                if not facts[key].get(language):
                    raise LessonError(f"{path}, line {_line(path, key)}: [{key}] has no {language!r}.")
        return facts

    @property
    def card(self) -> str:
        """The GPU that `[minutes]` are expected on: "T4", "2 × T4", or "24 GB" where a T4's 14.7 do not suffice."""
        needs = self.facts["needs"]
        return "24 GB" if needs["vram_gb"] > 14 else "2 × T4" if needs.get("several_gpus") else "T4"

    @property
    def gpu_minutes(self) -> str:
        """Minutes expected on a GPU, and on which where that is no T4."""
        minutes = self.facts["minutes"]["gpu"]
        return f"{minutes}" if self.card == "T4" else f"{minutes} ({self.card})"

    @cached_property
    def cells(self) -> list[Cell]:
        """The cells of lesson.py, each Markdown cell with its language, in pairs."""
        if not self.source.is_file():
            raise LessonError(f"{self.source}: not found; a lesson is a lesson.py and a lesson.toml.")
        lines = self.source.read_text(encoding="utf-8").splitlines()
        markers = [number for number, line in enumerate(lines, start=1) if f"{line} ".startswith("# %% ")]
        nodes = jupytext.read(self.source, fmt="py:percent").cells
        if len(nodes) != len(markers):
            raise LessonError(
                f"{self.source}, line 1: start the file with a cell marker (# %%); put nothing before it."
            )
        cells = [Cell(node, line) for node, line in zip(nodes, markers)]
        self._check_markdown(cells)
        self._check_code(cells)
        return cells

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The names and real values of the cell tagged `parameters`."""
        tagged = [cell for cell in self.cells if "parameters" in cell.node.metadata.get("tags", [])]
        if len(tagged) != 1:
            where = f", line {tagged[1].line}" if tagged else ", line 1"
            raise LessonError(
                f'{self.source}{where}: {len(tagged)} cells are tagged; mark one: # %% tags=["parameters"]'
            )
        values = {}
        for statement in ast.parse(tagged[0].node.source).body:
            line = tagged[0].line + statement.lineno
            try:
                (target,) = statement.targets  # type: ignore[attr-defined]
                values[target.id] = ast.literal_eval(statement.value)  # type: ignore[attr-defined]
            except (AttributeError, ValueError):
                raise LessonError(
                    f"{self.source}, line {line}: a parameter is NAME = a plain value; compute in a later cell, "
                    "because the trim changes the values after this one has run."
                ) from None
        if "OUTPUT_DIR" not in values:
            raise LessonError(f"{self.source}, line {tagged[0].line}: OUTPUT_DIR is missing: where the lesson writes.")
        return values

    def trim(self, language: str) -> dict[str, Any]:
        """The small values for `language`: [trim], then [trim.en] or [trim.zh] over it."""
        path = self.folder / "lesson.toml"
        table = self.facts["trim"]
        shared = {name: value for name, value in table.items() if name not in LANGUAGES}
        for name, value in [*shared.items(), *(item for lang in LANGUAGES for item in table.get(lang, {}).items())]:
            where = f"{path}, line {_line(path, name)}: trim {name}"
            if name not in self.parameters:
                raise LessonError(
                    f"{where}: the parameters cell does not define it. It has: {', '.join(self.parameters)}."
                )
            if fault := value_fault(value, self.parameters[name]):
                raise LessonError(f"{where} = {value!r}: {fault}")
        return shared | table.get(language, {})

    def trimmed_output(self, language: str) -> str:
        """OUTPUT_DIR under nbmake: two languages executed side by side must not write into one folder."""
        return f"{self.parameters['OUTPUT_DIR']}-{language}"

    def unseen(self, figures: dict[str, Any]) -> list[str]:
        """What [effect] promises of a trimmed run and its figures do not show."""
        unseen = []
        for promise in self.facts["effect"]["trimmed"]:
            try:
                seen = eval(promise, {"__builtins__": {}}, figures)
            except (NameError, SyntaxError, TypeError) as error:
                path = self.folder / "lesson.toml"
                raise LessonError(f"{path}: effect {promise!r}: {error}. The figures: {', '.join(figures)}.") from None
            if not seen:
                unseen.append(promise)
        return unseen

    def _check_markdown(self, cells: list[Cell]) -> None:
        waiting: Cell | None = None  # a Markdown cell whose other language must come next
        for cell in [*cells, None]:
            text = cell is not None and not cell.is_code
            if text and cell.language not in LANGUAGES:
                raise LessonError(
                    f"{self.source}, line {cell.line}: this Markdown cell names no language. "
                    'Write: # %% [markdown] lang="zh" (or "en").'
                )
            if waiting and not (text and cell.language != waiting.language):
                other = next(language for language in LANGUAGES if language != waiting.language)
                raise LessonError(
                    f"{self.source}, line {waiting.line}: no {other!r} cell follows this {waiting.language!r} cell."
                )
            waiting = cell if text and not waiting else None

    def _check_code(self, cells: list[Cell]) -> None:
        for cell in filter(lambda cell: cell.is_code, cells):
            try:
                ast.parse(TransformerManager().transform_cell(cell.node.source))
            except SyntaxError as error:
                raise LessonError(f"{self.source}, line {cell.line + (error.lineno or 1)}: {error.msg}.") from None


def value_fault(value: Any, real: Any) -> str | None:
    """What keeps `value` from standing in for the parameter `real`; None when nothing does.

    nbmake executes a mock as `NAME = 'value'` without escaping (1.5.5), so some texts cannot pass.
    """
    if isinstance(value, str) and any(sign in value for sign in "'\\\n\r"):
        return "nbmake cannot inject a text with an apostrophe, a backslash or a line break. Write it without."
    if not isinstance(value, (str, int, float, list, dict, type(None))):
        return f"nbmake cannot inject a {type(value).__name__}. Use a text, a number, true or false, a list or a table."
    if isinstance(value, float) and not math.isfinite(value):
        return "nbmake cannot inject this number. Use a finite one."
    kinds = (int, float) if isinstance(real, float) else type(real)
    if (
        value is None
        or real is None
        or (isinstance(value, kinds) and isinstance(value, bool) == isinstance(real, bool))
    ):
        return None
    return f"is a {type(value).__name__}, the parameters cell has a {type(real).__name__} ({real!r})."


def _toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise LessonError(f"{path}: not found.") from None
    except tomllib.TOMLDecodeError as error:
        raise LessonError(f"{path}: {error}.") from None


def _line(path: Path, name: str) -> int:
    """The line of a TOML file on which a key or a table stands (from 1)."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.split("=")[0].strip().strip("[]") == name:
            return number
    return 1
