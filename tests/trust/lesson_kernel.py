"""A lesson's notebook in one kernel, its cells executed in whatever order a person might."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from tools.build import notebook
from tools.lessons import Lesson, load_course
from tools.run import prepare

STOP_ON_SHELL_ERRORS = "get_ipython().system_raise_on_error = True"


def printed(cell: NotebookNode) -> str:
    """What a cell printed, however many messages it came in; beside warnings nothing else may have come of it."""
    assert {output.output_type for output in cell.outputs} <= {"stream"}, cell.outputs
    return "".join(output.text for output in cell.outputs if output.name == "stdout")


class Kernel:
    """A lesson's notebook, trimmed, in one kernel; every cell that is executed is kept in `notebook`, as a log."""

    def __init__(self, lesson: Lesson, folder: Path) -> None:
        course = load_course()
        self.lesson, self.folder, self.root = lesson, folder, course.root
        self.trim = lesson.trim("en") | {"OUTPUT_DIR": str(folder)}
        self.cells = [cell for cell in notebook(course, lesson, "en").cells if cell.cell_type == "code"]
        self.notebook = nbformat.v4.new_notebook()
        self.client = NotebookClient(self.notebook, timeout=1200, kernel_name="python3")

    @property
    def parameters(self) -> int:
        """The number of the parameters cell."""
        return next(n for n, cell in enumerate(self.cells) if "parameters" in cell.metadata.get("tags", []))

    def number(self, part: str) -> int:
        """The number of the one cell that holds `part`."""
        (found,) = [n for n, cell in enumerate(self.cells) if part in cell.source]
        return found

    def add(self, source: str) -> tuple[NotebookNode, int]:
        cell = new_code_cell(source)
        self.notebook.cells.append(cell)
        return cell, len(self.notebook.cells) - 1

    async def run(self, source: str) -> NotebookNode:
        cell, place = self.add(source)
        return await self.client.async_execute_cell(cell, place)

    async def run_cells(self, numbers: Iterable[int], values: dict[str, Any], times: int = 1) -> None:
        """Execute cells by number, each `times` times in a row, with `values` after the parameters cell."""
        for number in numbers:
            for _ in range(times):
                await self.run(self.cells[number].source)
                if number == self.parameters:
                    await self.run("\n".join(f"{name} = {value!r}" for name, value in values.items()))

    @property
    def pid(self) -> int:
        """The kernel's process."""
        return self.client.km.provisioner.pid

    def shows(self, leave_out: str | None = None) -> None:
        """Look for the lesson's effect in the summary that its last cell wrote, but for promises about `leave_out`."""
        figures = json.loads((self.folder / "summary.json").read_text(encoding="utf-8"))
        unseen = self.lesson.unseen(figures)
        assert [promise for promise in unseen if not leave_out or leave_out not in promise] == [], figures

    def execute(self, session: Callable[[], Awaitable[None]]) -> None:
        """Run `session` with the kernel up."""

        async def with_kernel() -> None:
            env = os.environ | {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1"}
            async with self.client.async_setup_kernel(cwd=str(self.root), env=env):
                await self.run(STOP_ON_SHELL_ERRORS)
                await session()

        prepare(self.trim)
        asyncio.run(with_kernel())
