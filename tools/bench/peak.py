"""What holds the GPU's memory at the peak of a training step, told by torch's own history of allocations."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

PLACES = 15
GIB = 2**30
# What the Python calls that led to an allocation give away, the first that fits. Calls are "file:function". What the
# engine of the backward pass allocates by itself has none.
KINDS = {
    "unpacked_gib": r"dequant",
    "loss_gib": r"cross_entropy|_losses|chunked|log_prob|lm_head",
    "optimizer_gib": r"optimizer|optim/",
    "recomputed_gib": r"unpack_hook|recompute|checkpoint\w*\.py:backward",
    "kept_gib": r":forward",
}


def at_peak(events: Iterable[Mapping[str, Any]], before: int) -> tuple[int, Counter[tuple[str, ...]]]:
    """Of `before` bytes those still held at the peak of `events`, and bytes allocated since then by call stack.

    `events` are a device's trace in `torch.cuda.memory._snapshot()`; of blocks older than it only the end is known.
    """
    events = [event for event in events if event["action"] in ("alloc", "free_completed")]
    held = most = before
    peak, sizes = -1, dict[int, int]()
    for place, event in enumerate(events):
        if event["action"] == "alloc":
            sizes[event["addr"]] = event["size"]
            held += event["size"]
        else:
            held -= sizes.pop(event["addr"], event["size"])
        if held > most:
            most, peak = held, place
    live = dict[int, Mapping[str, Any]]()
    for event in events[: peak + 1]:
        if event["action"] == "alloc":
            live[event["addr"]] = event
        elif live.pop(event["addr"], None) is None:
            before -= event["size"]
    since = Counter[tuple[str, ...]]()
    for event in live.values():
        since[tuple(f"{frame['filename']}:{frame['name']}" for frame in event.get("frames", ()))] += event["size"]
    return before, since


def kinds(before: int, since: Mapping[tuple[str, ...], int], loaded: int) -> dict[str, Any]:
    """GiB at the peak: weights (`loaded` bytes), what is held between steps beside them, each kind, all; and the places.

    A place is the innermost call that is not torch's own.
    """
    of = dict.fromkeys((*KINDS, "gradients_gib"), 0)
    places = Counter[str]()
    for calls, size in since.items():
        text = "\n".join(calls)
        of[next((kind for kind, pattern in KINDS.items() if re.search(pattern, text)), "gradients_gib")] += size
        own = next((call for call in calls if "/torch/" not in call), calls[0] if calls else "the backward pass")
        places[_place(own)] += size
    of = {"weights_gib": loaded, "between_steps_gib": before - loaded} | of
    return {
        **{name: round(size / GIB, 2) for name, size in of.items()},
        "peak_gib": round(sum(of.values()) / GIB, 2),
        "places": {place: round(size / GIB, 3) for place, size in places.most_common(PLACES)},
    }


def _place(call: str) -> str:
    """The end of "file:function", from where the package or the working folder begins: no folder of this machine."""
    if "/torchinductor" in call:
        return "compiled by torch"  # files and folders of hashes
    homes = [home for home in sys.path if home and call.startswith(f"{home}/")]
    return "/".join(call.removeprefix(max(homes, key=len, default="")).strip("/").split("/")[-3:])


def recorder(skip: int) -> Any:
    """A trainer callback that looks at the step after the first `skip` and ends the training after it.

    `before` and `since` are then as `at_peak` returns them.
    """
    import torch
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == skip:
                torch.cuda.synchronize()
                self.allocated = torch.cuda.memory_allocated()
                torch.cuda.memory._record_memory_history(stacks="python", clear_history=True)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == skip + 1:
                torch.cuda.synchronize()
                trace = torch.cuda.memory._snapshot()["device_traces"][torch.cuda.current_device()]
                torch.cuda.memory._record_memory_history(enabled=None)
                self.before, self.since = at_peak(trace, self.allocated)
                control.should_training_stop = True

    return Recorder()
