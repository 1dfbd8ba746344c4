"""What a Python process holds on to; imported by the kernel of test_soak.py."""

from __future__ import annotations

import ctypes
import gc
import json
import sys

import psutil
import torch

from helpers import memory

MIB = 1024**2
OF_TORCH = ("compile_worker", "resource_tracker")  # processes that libraries keep for good


def release() -> None:
    """Collect what nothing refers to any more, and give the memory back: to the GPU, and from malloc to the system."""
    gc.collect()  # twice: finalizers of the first round let go of more
    memory.free()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def reading() -> dict[str, float]:
    """Memory in MiB, and how many open files, threads and child processes there are, after a collection.

    `tensors` is the memory of the tensors that Python objects refer to, each storage counted once. On a GPU
    `allocated` and `reserved` are what torch holds there, and `peak` the most it had allocated since the last reading.
    """
    release()
    storages = {}
    for thing in gc.get_objects():
        # Not isinstance, which would wake lazy modules and proxies.
        if issubclass(type(thing), torch.Tensor) and thing.device.type != "meta":
            try:
                storage = thing.untyped_storage()
                storages[thing.device, storage.data_ptr()] = storage.nbytes()
            except (NotImplementedError, RuntimeError):  # without a storage: sparse, or fake
                continue
    process = psutil.Process()
    children = [" ".join(child.cmdline()) for child in process.children(recursive=True)]
    found = {
        "resident": process.memory_info().rss / MIB,
        "tensors": sum(storages.values()) / MIB,
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
