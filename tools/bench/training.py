"""What the benches that train share: the layers that get an adapter, and a clock for the steps."""

from __future__ import annotations

import time
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
