"""Nothing stays behind: all lessons one after another in one kernel, and lesson 01 ten times in a row.

One kernel means one CUDA context, one set of Unsloth's patches, one Python heap. Between two lessons `%reset` takes the
names, and `memory.free()` gives back what they held. What cuBLAS keeps for good (a workspace for each thread that
multiplies) is there before the first lesson; nothing else may stay. All lessons are trimmed, and take few steps: what
stays after eight stays after sixty.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import held
import numpy as np
import pytest
import torch
from lesson_kernel import printed
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from helpers import llama_cpp
from tools.build import notebook
from tools.lessons import ROOT, Lesson, load_course
from tools.run import prepare

GPU = torch.cuda.is_available()
COURSE = load_course()
STEPS = {"MAX_STEPS": 8, "PT_STEPS": 8, "SFT_STEPS": 8, "DPO_STEPS": 8}
# Loading its first model on a GPU, Unsloth gives transformers' classes forwards of its own; llm-compressor traces none.
FIRST = COURSE.lesson("10")
PLANNED = {"13_scale_out"}  # crashes at a step of its own choice
TIMES = 10
WITHIN = 1.05
A_TENSOR = 0.1  # MiB; the smallest nano model has ten times that
GROWTH = 1.0  # MiB an execution; measured on a CPU: 0.13, give or take 0.4; a nano model that stays is 2 or more

pytestmark = [pytest.mark.notebook, pytest.mark.nano, pytest.mark.soak]
if not GPU:
    pytestmark.append(pytest.mark.weekly)  # 16 minutes

Reading = dict[str, Any]


@contextmanager
def kernel(folder: Path) -> Iterator[tuple[Reading, Callable[[Lesson], Reading]]]:
    """A kernel: what it holds at the start, and what runs a lesson there, clears up and tells what it still holds.

    Readings are kept in `folder`, one a line, with what the kernel itself says.
    """
    llama_cpp.use("index")  # lesson 06's, read when unsloth is imported
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    client = NotebookClient(new_notebook(), kernel_name="python3", timeout=1200)

    def execute(sources: list[str]) -> NotebookNode:
        client.nb = new_notebook(cells=[new_code_cell(source) for source in sources])
        for place, cell in enumerate(client.nb.cells):
            client.execute_cell(cell, place)
        return client.nb.cells[-1]

    def read(lesson: str, seconds: float, sources: Sequence[str]) -> Reading:
        found = json.loads(printed(execute([*sources, "import held; held.show()"])))
        with (folder / "readings.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({"lesson": lesson, "seconds": round(seconds)} | found) + "\n")
        return found

    def run(lesson: Lesson) -> Reading:
        few = {} if lesson.slug in PLANNED else {name: STEPS[name] for name in STEPS.keys() & lesson.parameters}
        values = lesson.trim("en") | few | {"OUTPUT_DIR": str(folder / lesson.slug)}
        prepare(values)
        sources = []
        for cell in notebook(COURSE, lesson, "en").cells:
            if cell.cell_type == "code":
                own = values.items() if "parameters" in cell.metadata.get("tags", []) else ()
                sources.append("\n".join([cell.source, *(f"{name} = {value!r}" for name, value in own)]))
        began = time.perf_counter()
        try:
            execute(sources)
        finally:
            found = read(lesson.slug, time.perf_counter() - began, ["%reset -f"])
        return found

    with (folder / "kernel.log").open("wb") as log, client.setup_kernel(cwd=str(ROOT), env=env, stdout=log, stderr=log):
        # Unsloth before transformers, which lesson 10 imports without it.
        yield read("start", 0, ["import unsloth", "import held; held.warm_up()"]), run


def assert_back(found: Reading, start: Reading) -> None:
    assert found["children"] == 0, found
    assert found["tensors"] <= start["tensors"] + A_TENSOR, (found, start)
    if GPU:
        assert found["allocated"] <= WITHIN * start["allocated"], (found, start)


@pytest.fixture(scope="module")
def readings(tmp_path_factory) -> dict[str, tuple[Reading, Reading | CellExecutionError]]:
    """For each lesson what was held at the start, and after it (or what stopped it)."""
    found: dict[str, tuple[Reading, Reading | CellExecutionError]] = {}
    with kernel(tmp_path_factory.mktemp("all")) as (start, run):
        for lesson in [FIRST, *(one for one in COURSE.lessons if one != FIRST)]:
            try:
                found[lesson.slug] = start, run(lesson)
            except CellExecutionError as error:  # the others have their turn
                found[lesson.slug] = start, error
    return found


@pytest.mark.parametrize("slug", COURSE.slugs)
def test_what_a_lesson_held_comes_back(readings, slug):
    start, found = readings[slug]
    if isinstance(found, CellExecutionError):
        raise found
    assert_back(found, start)


def test_ten_times_lesson_01_holds_no_more_than_once(tmp_path):
    with kernel(tmp_path) as (start, run):
        found = [run(COURSE.lesson("01")) for _ in range(TIMES)]
    for one in found:
        assert_back(one, start)
    table = json.dumps(found, indent=1)
    assert found[-1]["files"] <= found[1]["files"] and found[-1]["threads"] <= found[1]["threads"], table
    if not GPU:  # there the driver's own share of this memory moves
        settled = [one["resident"] for one in found[2:]]
        growth, _ = np.polyfit(range(len(settled)), settled, 1)
        assert growth < GROWTH, f"{growth:.2f} MiB an execution\n{table}"


def test_what_stays_is_seen():
    before = held.reading()
    kept = torch.nn.Linear(1024, 1024, bias=False)
    kept.loop = kept  # goes with a collection, not before
    assert held.reading()["tensors"] == pytest.approx(before["tensors"] + 4, abs=0.01)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    one = held.reading()
    assert one["children"] == before["children"] + 1 and one["files"] > before["files"]
    process.communicate(b"\n")
    del kept
    after = held.reading()
    assert (after["tensors"], after["children"]) == (before["tensors"], before["children"])
