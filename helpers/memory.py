"""What a piece of work costs: seconds, and memory at its peak; measured here, estimated by `estimate_vram`."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch

from helpers.vram import GIB, estimate_vram

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


def free() -> None:
    """Give back what no variable holds any more; delete yours (`del model, trainer`) first."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def empty(model: torch.nn.Module) -> None:
    """Take the weights out of a model that is done with, where `del` does not reach: a library refers to it, too."""
    for module in model.modules():
        module._parameters, module._buffers = {}, {}
