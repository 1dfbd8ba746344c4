"""What a piece of work costs: seconds, and memory at its peak; measured here, estimated by `estimate_vram`."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import torch

from helpers.vram import GIB, estimate_vram

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

__all__ = ["GIB", "Cost", "empty", "estimate_vram", "free", "track"]


@dataclass
class Cost:
    """Filled in by `track`: wall-clock seconds and peak memory in GiB on `device`."""

    device: str = "CPU"
    seconds: float = 0.0
    start_gib: float = 0.0
    peak_gib: float = 0.0

    def __str__(self) -> str:
        kind = "GPU memory" if self.device == "GPU" else "process memory"
        return f"{self.seconds:.1f} s, {kind} {self.start_gib:.2f} GiB before, {self.peak_gib:.2f} GiB at the peak"


@contextmanager
def track() -> Iterator[Cost]:
    """Measure the block: on a GPU what torch allocated there, else the process' resident memory.

    with memory.track() as cost:
        trainer.train()
    print(cost)
    """
    cost = Cost()
    began = time.perf_counter()
    if torch.cuda.is_available():
        cost.device = "GPU"
        cost.start_gib = torch.cuda.memory_allocated() / GIB
        torch.cuda.reset_peak_memory_stats()
        try:
            yield cost
        finally:
            torch.cuda.synchronize()
            cost.peak_gib = torch.cuda.max_memory_allocated() / GIB
            cost.seconds = time.perf_counter() - began
        return
    process, done = psutil.Process(), threading.Event()
    cost.start_gib = cost.peak_gib = process.memory_info().rss / GIB

    def watch() -> None:
        # The kernel's own peak (ru_maxrss) covers the whole life of the process, so sample this block's.
        while not done.wait(0.05):
            cost.peak_gib = max(cost.peak_gib, process.memory_info().rss / GIB)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield cost
    finally:
        done.set()
        watcher.join()
        cost.seconds = time.perf_counter() - began


def free(*names: str) -> None:
    """Delete these variables of the notebook, where they are, and give back all that nothing holds any more.

    memory.free("model", "trainer")   # both: a trainer holds its model, too

    What IPython holds unasked goes first: the outputs in `Out` and `_`, and the last error with its traceback, whose
    frames keep all that was at work when memory ran out (so `%debug` has nothing to look at afterwards). Then what
    only bitsandbytes and Unsloth still hold of a model, which is most of it.
    """
    variables = sys._getframe(1).f_globals
    for name in names:
        variables.pop(name, None)
    for name in ("last_exc", "last_value", "last_traceback", "last_type"):
        vars(sys).pop(name, None)
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is not None:
        _forget(shell)
    if "bitsandbytes" in sys.modules:
        _drop_launch_plans()
    with _registered_weakly():
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def empty(model: torch.nn.Module) -> None:
    """Take the weights out of a model that is done with, where `del` does not reach: a library refers to it, too."""
    for module in model.modules():
        module._parameters, module._buffers = {}, {}


def _forget(shell: InteractiveShell) -> None:
    """Have IPython let go of what cells ended in, be it a result or an error."""
    shell.last_execution_result = None
    shell.InteractiveTB.tb = None
    if shell.displayhook.do_full_cache:
        shell.displayhook.flush()
        shell.push({"_": "", "__": "", "___": ""}, interactive=False)  # else the table of hidden names keeps them


def _drop_launch_plans() -> None:
    """Have Unsloth plan the launches of its 4-bit kernels anew, when a model next generates.

    A plan lies with the weight's scales and may hold the transposed weight. Such a view refers to the weight where a
    collection does not look, so weight, scales, plan and view keep one another, and the whole layer, for good. And all
    plans share room for one unpacked weight, the largest so far.
    """
    from bitsandbytes.functional import QuantState

    getattr(sys.modules.get("unsloth.kernels.utils"), "_SCRATCH", {}).clear()
    for thing in gc.get_objects():
        if type(thing) is QuantState:
            for name in [name for name in vars(thing) if name.startswith("_unsloth")]:
                delattr(thing, name)


@contextmanager
def _registered_weakly() -> Iterator[None]:
    """Around a collection: bitsandbytes keeps none of the embeddings that only it refers to.

    Trainer registers each model's, so that an 8-bit optimizer has 32 bits for them, and nobody takes them out again.
    """
    if "bitsandbytes" not in sys.modules:
        yield
        return
    from bitsandbytes.optim import GlobalOptimManager

    registered = GlobalOptimManager.get_instance().module_weight_config_triple
    entries = [(weakref.ref(module), name, config) for module, name, config in registered]
    registered.clear()
    yield
    alive = ((module(), name, config) for module, name, config in entries)
    registered.extend(entry for entry in alive if entry[0] is not None)
