"""The attention kernel that Unsloth trains packed rows with."""

import inspect
from typing import Any


def offer_packed() -> bool:
    """Let Unsloth, imported next, take torch's kernel for packed rows from torch 2.11 on; whether it is there.

    Without it, and without xformers or FlashAttention, each sample is cut out of its row and attended to alone: a step
    then takes 1.26 times as long (`benchmarks/records/sft_h200.json`). Unsloth knows the kernel by the argument
    `enable_gqa`, which torch 2.12 added. The one of 2.11 takes fewer key-value heads than query heads as well, as its
    FlashAttention always has, so there is nothing for the argument to do. Older kernels stay as they are.
    """
    try:
        import torch.nn.attention.varlen as module
    except ImportError:
        return False
    kernel = module.varlen_attn
    known = inspect.signature(kernel).parameters
    if "window_size" not in known:
        return False
    if "enable_gqa" not in known:

        def varlen_attn(*args: Any, window_size: tuple[int, int] = (-1, -1), enable_gqa: bool = False, **others: Any):
            return kernel(*args, window_size=window_size, **others)

        module.varlen_attn = varlen_attn
    return True
