"""Cells that run again: each of them at once, all of them from the parameters on, and one that was interrupted."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest
from lesson_kernel import Kernel, printed
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from tools.lessons import Lesson, load_course

COURSE = load_course()
SHOWN = ("01", "02")  # the cheap ones, which show their effect the last time through in every `make test`
ONCE = ("10", "12", "13")  # the dear ones, whose cells run again there with all the others only
# Where nothing but the absence of errors is looked for.
SMALLER = {"MAX_STEPS": 3, "PT_STEPS": 3, "SFT_STEPS": 3, "DPO_STEPS": 3, "EVAL_STEPS": 3}
SMALLER |= {"HELD_OUT": 8, "ASKED": 4, "SERVED": 2, "REQUESTS": 2, "CALIBRATION_ROWS": 8, "VOTES": 2}
KEPT = {"13": {"MAX_STEPS"}}  # one of its processes dies between two checkpoints
HOLD = """\
import gc, weakref, torch
held = [weakref.ref(thing) for thing in gc.get_objects() if issubclass(type(thing), torch.nn.Parameter)]
"""
LEFT = "gc.collect()\nprint([tuple(thing().shape) for thing in held if thing() is not None])"

pytestmark = [pytest.mark.notebook, pytest.mark.nano, pytest.mark.interruption]


def smaller(lesson: Lesson) -> dict[str, Any]:
    """`SMALLER`, as far as the lesson has such a parameter."""
    names = SMALLER.keys() & lesson.parameters.keys() - KEPT.get(lesson.number, set())
    return {name: SMALLER[name] for name in names if isinstance(lesson.parameters[name], int)}


@pytest.mark.parametrize(
    ("lesson", "shown"),
    [
        *(pytest.param(lesson, lesson.number in SHOWN, id=lesson.slug) for lesson in COURSE.lessons),
        *(
            pytest.param(lesson, True, id=f"{lesson.slug}-shown", marks=pytest.mark.weekly)
            for lesson in COURSE.lessons
            if lesson.number not in SHOWN
        ),
    ],
)
def test_every_cell_runs_twice_and_all_of_them_again_from_the_parameters(lesson, shown, tmp_path):
    kernel = Kernel(lesson, tmp_path)
    cells = range(len(kernel.cells))
    quick = kernel.trim | smaller(lesson)
    again = kernel.trim if shown else quick

    async def session() -> None:
        await kernel.run_cells(cells, quick, times=1 if lesson.number in ONCE and not shown else 2)
        (tmp_path / "summary.json").unlink()
        await kernel.run(HOLD)
        freeing = [number for number in cells[kernel.parameters :] if "memory.free(" in kernel.cells[number].source][:1]
        loaded = freeing[0] + 1 if freeing else len(cells)
        await kernel.run_cells(cells[kernel.parameters : loaded], again)
        assert printed(await kernel.run(LEFT)) == "[]\n"  # of the first run's weights, so that no two models must fit
        await kernel.run_cells(cells[loaded:], again)

    kernel.execute(session)
    assert (tmp_path / "summary.json").is_file()
    if shown:
        kernel.shows()


def test_the_training_cell_that_was_interrupted_runs_again(tmp_path):
    kernel = Kernel(COURSE.lesson("01"), tmp_path)
    training, cells = kernel.number("trainer.train()"), range(len(kernel.cells))

    async def interrupted() -> None:
        """The training cell, interrupted as the notebook's button does it, in the middle of its third step or so."""
        cell, place = kernel.add(kernel.cells[training].source)
        running = asyncio.ensure_future(kernel.client.async_execute_cell(cell, place))
        while steps(cell) < 2:
            assert not running.done()
            await asyncio.sleep(0.05)
        await kernel.client.km.interrupt_kernel()
        with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
            await running

    async def session() -> None:
        await kernel.run_cells(cells[:training], kernel.trim)
        await interrupted()
        await kernel.run_cells(cells[training:], kernel.trim)
        kernel.shows(leave_out="loss_start")  # the interrupted steps have taught it something already
        # A second demo for the next class: everything goes by one call, though it was interrupted in the middle.
        await interrupted()
        await kernel.run("import weakref\nheld = [weakref.ref(thing) for thing in (model, trainer, trainer.optimizer)]")
        freed = await kernel.run('memory.free("model", "trainer")\nprint([thing() for thing in held])')
        assert printed(freed) == "[None, None, None]\n"

    kernel.execute(session)


def steps(cell: NotebookNode) -> int:
    """The last step that the progress bar shows."""
    shown = re.findall(r"\[\s*(\d+)/60 ", json.dumps(cell.outputs))
    return int(shown[-1]) if shown else 0
