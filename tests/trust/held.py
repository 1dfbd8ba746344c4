"""What a Python process holds on to; imported by the kernel of test_soak.py."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections import Counter
from typing import Any

import psutil
import torch
from torch._subclasses import FakeTensor

from helpers import memory

MIB = 1024**2
LARGEST = 12
OF_TORCH = ("compile_worker", "resource_tracker")  # processes that libraries keep for good


def warm_up() -> None:
    """Multiply once on the GPU, forwards and back: cuBLAS keeps a workspace for each thread that has done so."""
    if torch.cuda.is_available():
        layer = torch.nn.Linear(64, 64, device="cuda")
        for dtype in (torch.float32, torch.bfloat16):
            layer.to(dtype)(torch.ones(64, 64, device="cuda", dtype=dtype)).sum().backward()


def release() -> None:
    """Collect what nothing refers to any more, and give the memory back: to the GPU, and from malloc to the system."""
    gc.collect()  # twice: finalizers of the first round let go of more
    memory.free()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def reading() -> dict[str, Any]:
    """Memory in MiB, and how many open files, threads and child processes there are, after a collection.

    `tensors` is the memory of the tensors that Python objects refer to, each storage counted once, and `largest` says
    how many of which kind take the most of it. On a GPU `allocated` and `reserved` are what torch holds there, and
    `peak` the most it had allocated since the last reading.
    """
    release()
    storages, kinds = {}, {}
    for thing in gc.get_objects():
        # Not isinstance, which would wake lazy modules and proxies.
        kind = type(thing)
        if not issubclass(kind, torch.Tensor) or issubclass(kind, FakeTensor) or thing.device.type == "meta":
            continue
        try:
            storage = thing.untyped_storage()
            place = thing.device, storage.data_ptr()
        except (NotImplementedError, RuntimeError):  # without a storage: sparse
            continue
        storages[place] = storage.nbytes()
        kinds[place] = f"{kind.__name__} {tuple(thing.shape)} {thing.dtype} {thing.device}"
    process = psutil.Process()
    children = [" ".join(child.cmdline()) for child in process.children(recursive=True)]
    found = {
        "resident": process.memory_info().rss / MIB,
        "tensors": sum(storages.values()) / MIB,
        "largest": Counter(kinds[place] for place in sorted(storages, key=storages.get)[-LARGEST:]),
        "files": process.num_fds() if hasattr(process, "num_fds") else process.num_handles(),
        "threads": process.num_threads(),
        "children": sum(not any(part in child for part in OF_TORCH) for child in children),
    }
    if torch.cuda.is_available():
        found["allocated"] = torch.cuda.memory_allocated() / MIB
        found["reserved"] = torch.cuda.memory_reserved() / MIB
        found["peak"] = torch.cuda.max_memory_allocated() / MIB
        torch.cuda.reset_peak_memory_stats()
    return found


def show() -> None:
    """Print the reading as one line of JSON."""
    print(json.dumps(reading()))
