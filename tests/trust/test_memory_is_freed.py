"""One call frees what a notebook's variables hold, whatever else IPython holds it by."""

from __future__ import annotations

import json
import os
from typing import Any

import nbformat
import pytest
import torch
from lesson_kernel import printed
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell

from helpers import memory
from tools.lessons import ROOT

pytestmark = pytest.mark.interruption
MODEL = """\
import weakref

import torch

from helpers import memory


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(512, 512)
        self.itself = [self]  # as real ones: in a circle

    def forward(self, x):
        hidden = self.layer(x)
        raise torch.OutOfMemoryError("CUDA out of memory.") from KeyError(hidden)


class Trainer:
    def __init__(self, model):
        self.model = model
        self.optimizer = torch.optim.AdamW(model.parameters())

    def train(self):
        try:
            self.model(torch.ones(1, 512))
        except torch.OutOfMemoryError:
            raise RuntimeError("the step failed")  # the first error stays behind it, as its context


device = "cuda" if torch.cuda.is_available() else "cpu"
model = Model().to(device)
trainer = Trainer(model)
watched = {name: weakref.ref(thing) for name, thing in
           {"model": model, "trainer": trainer, "layer": model.layer, "optimizer": trainer.optimizer}.items()}
"""
HELD_BY = {
    "nothing else": [],
    "the output of a cell": ["model"],
    "a part in the output of a cell": ["model.layer", "trainer.optimizer", "1 + 1"],
    "the traceback of a failed step": ["trainer.train()"],
    "two failed steps, and another error since": ["trainer.train()", "trainer.train()", "1 / 0"],
    "an attribute that is not there": ["trainer.model.trian()"],
    "an interrupted cell": ["held = None\nfor held in [model]:\n    raise KeyboardInterrupt", "del held"],
    "an error within a magic": ["%time trainer.train()"],
    "an error while it was shown": ["type(model).__repr__ = lambda self: 1 / 0\nmodel"],
}


STILL_THERE = "[name for name, thing in watched.items() if thing() is not None]"


def execute(*sources: str) -> dict[str, Any]:
    """Run cells in one kernel, whatever they end in; the last prints JSON."""
    notebook = nbformat.v4.new_notebook(cells=[new_code_cell(source) for source in sources])
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    NotebookClient(notebook, timeout=300, kernel_name="python3", allow_errors=True).execute(cwd=str(ROOT), env=env)
    return json.loads(printed(notebook.cells[-1]))


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What of the model was left after the one call, by what had held it; all in one kernel, one after another."""
    sources = ["import gc, json\nfound = {}"]
    for name, cells in HELD_BY.items():
        sources += [MODEL, *cells, 'memory.free("model", "trainer")', f"found[{name!r}] = {STILL_THERE}"]
    sources += [MODEL, "trainer.train()", "del model, trainer", f"gc.collect()\nfound['deleted'] = {STILL_THERE}"]
    sources += [MODEL, "kept = model.layer", 'memory.free("model", "trainer", "nowhere")\nmemory.free("model")']
    sources += ["found['names'] = [name for name in ('kept', 'model') if name in globals()]", "41 + 1", "_ + 1"]
    sources.append(f"found['kept'], found['sum'] = {STILL_THERE}, _")
    return execute(*sources, "print(json.dumps(found))")


@pytest.mark.notebook  # a kernel
@pytest.mark.parametrize("holder", HELD_BY)
def test_nothing_of_the_model_is_left(found, holder):
    assert found[holder] == []


@pytest.mark.notebook
def test_after_an_error_del_is_not_enough(found):
    assert found["deleted"] == ["model", "trainer", "layer", "optimizer"]


@pytest.mark.notebook
def test_other_variables_stay_a_name_that_is_not_there_is_passed_over_and_outputs_count_on(found):
    assert found["names"] == ["kept"] and found["kept"] == ["layer"] and found["sum"] == 43


def test_outside_a_notebook_it_deletes_the_callers_variables():
    module = {"memory": memory, "model": torch.nn.Linear(2, 2)}
    exec("memory.free('model')", module)
    assert "model" not in module


FILL = """\
torch.cuda.set_per_process_memory_fraction(0.05)


def fill():
    blocks = [model.layer.weight]
    while True:
        blocks.append(torch.ones(2**26, device="cuda"))  # 0.25 GiB


fill()
"""


@pytest.mark.notebook
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_memory_is_back_after_it_ran_out():
    free = 'full = torch.cuda.memory_allocated()\nmemory.free("model", "trainer")'
    look = "import json\nprint(json.dumps([full, torch.cuda.memory_allocated(), torch.cuda.memory_reserved()]))"
    full, allocated, reserved = execute(MODEL, "model", FILL, free, look)
    assert full >= 2**28 and allocated <= 2**24 and reserved <= 2**26
