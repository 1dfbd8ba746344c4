"""What the benches that train share: the layers that get an adapter, a clock for the steps, a count of the tokens."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def clock() -> Any:
    """A trainer callback; its `seconds` are those of each step, waiting for the GPU included."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - self.began)

    return Clock()


def counting(trainer: type, useful: list[int], count: Callable[[dict[str, Any]], Any]) -> type:
    """A trainer that notes in `useful` how many tokens `count` finds in each batch."""

    class Counting(trainer):
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any) -> Any:
            useful.append(int(count(inputs)))
            return super().training_step(model, inputs, *rest)

    return Counting


def assert_plain(engine: str) -> None:
    """Raise RuntimeError where a side without Unsloth has imported it: it replaces parts of what that side measures."""
    if engine != "unsloth" and "unsloth" in sys.modules:
        raise RuntimeError(f"the side's engine is {engine}, but something has imported Unsloth in its process")


def figures(trainer: Any, useful: list[int], seconds: list[float], warm_up: int, loaded: int) -> dict[str, Any]:
    """Speed after the first `warm_up` steps, and memory in GiB.

    `useful` are tokens a batch, `seconds` those of each step, `loaded` the bytes that were allocated before training.
    """
    import torch

    batches = trainer.args.gradient_accumulation_steps
    a_step = [sum(useful[i : i + batches]) for i in range(0, len(useful), batches)]
    return {
        "useful_tokens_per_s": round(sum(a_step[warm_up:]) / sum(seconds[warm_up:])),
        "seconds_per_step": round(sum(seconds[warm_up:]) / len(seconds[warm_up:]), 3),
        "useful_tokens_per_step": round(sum(a_step) / len(a_step)),
        "loaded_gib": round(loaded / 2**30, 2),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "losses": [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry],
    }


def profiler(skip: int, steps: int) -> Any:
    """A trainer callback that looks at `steps` steps after the first `skip`; then `kernels` holds seconds by kernel.

    The trainer stops after them.
    """
    import torch
    from torch.profiler import ProfilerActivity, profile
    from transformers import TrainerCallback

    class Profiler(TrainerCallback):
        def __init__(self) -> None:
            self.kernels: dict[str, float] = {}

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == skip:
                torch.cuda.synchronize()
                self.profile = profile(activities=[ProfilerActivity.CUDA])
                self.profile.start()
            elif state.global_step == skip + steps:
                torch.cuda.synchronize()
                self.profile.stop()
                for event in self.profile.key_averages():
                    self.kernels[event.key] = event.self_device_time_total / 1e6
                control.should_training_stop = True

    return Profiler()
