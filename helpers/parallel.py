"""Arithmetic of many GPUs: what each holds, what they send one another, how often to save, what a token costs.

Sources: ZeRO (arXiv 1910.02054) for what each process keeps, Patarasuk and Yuan (2009, doi 10.1016/j.jpdc.2008.09.002)
for the ring all-reduce, Young (1974, doi 10.1145/361147.361115) and Daly (2006, doi 10.1016/j.future.2004.11.016) for
the time between checkpoints. GiB are 2**30 bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from helpers import report, vram

Strategy = Literal["ddp", "zero1", "zero2", "zero3", "fsdp"]
STRATEGIES: tuple[Strategy, ...] = ("ddp", "zero1", "zero2", "zero3", "fsdp")
WEIGHT, GRADIENT, OPTIMIZER = 2, 2, 12
"""Bytes a trained parameter in mixed precision: 16-bit weight and gradient; 32-bit weight and Adam's two moments."""


def states_gib(parameters: float, strategy: Strategy = "ddp", gpus: int = 1, frozen_bytes: float = 0) -> float:
    """What one GPU holds of `parameters` that are trained with Adam in mixed precision, in GiB; no activations.

    DDP keeps 2 + 2 + 12 bytes a parameter on every GPU. ZeRO-1 shares out the optimizer's 12, ZeRO-2 also the
    gradient, ZeRO-3 also the weight; FSDP2 is ZeRO-3. `frozen_bytes` are weights that are read and not trained (all
    but the adapter, of LoRA): only ZeRO-3 shares those. Raises ValueError for an unknown strategy or no GPU.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; there are: {', '.join(STRATEGIES)}.")
    if gpus < 1:
        raise ValueError(f"{gpus} GPUs: 1 or more are needed.")
    shared = STRATEGIES.index(strategy)
    optimizer = OPTIMIZER / (gpus if shared >= 1 else 1)
    gradient = GRADIENT / (gpus if shared >= 2 else 1)
    parts = gpus if shared >= 3 else 1
    return (parameters * (WEIGHT / parts + gradient + optimizer) + frozen_bytes / parts) / vram.GIB


def states_table(model: str | Path | vram.Shape, gpus: Iterable[int], rank: int = 16) -> pd.DataFrame:
    """GiB that each GPU holds before the first activation: a row a way to train, a column a number of GPUs."""
    shape, gpus = vram.read_shape(model), list(gpus)
    adapter = shape.lora(rank)
    kinds = {
        ("QLoRA", "ddp"): (adapter, vram.weight_bytes(shape, 4)),
        ("QLoRA", "fsdp"): (adapter, vram.weight_bytes(shape, 4)),
        ("LoRA", "ddp"): (adapter, vram.weight_bytes(shape, 16)),
        ("LoRA", "fsdp"): (adapter, vram.weight_bytes(shape, 16)),
        **{("all weights", strategy): (shape.parameters, 0) for strategy in ("ddp", "zero1", "zero2", "fsdp")},
    }
    rows = {
        key: [states_gib(trained, key[1], n, frozen) for n in gpus]  # type: ignore[arg-type]
        for key, (trained, frozen) in kinds.items()
    }
    index = pd.MultiIndex.from_tuples(rows, names=["trained", "strategy"])
    return pd.DataFrame(list(rows.values()), index=index, columns=pd.Index(gpus, name="GPUs"))


def states_plot(table: pd.DataFrame, cards: Mapping[str, float] = vram.GPUS) -> report.Figure:
    """The rows of `states_table` over the number of GPUs, with a line for each card's memory."""
    figure = report.Figure(figsize=(9, 4.2), layout="constrained")
    axes = figure.subplots()
    styles = {"QLoRA": ":", "LoRA": "--", "all weights": "-"}
    for (trained, strategy), values in table.iterrows():
        axes.plot(table.columns, values, styles[trained], marker=".", label=f"{trained}, {strategy}")
    for name, gib in cards.items():
        axes.axhline(gib, color="lightgrey", linewidth=1, zorder=0)
        axes.annotate(name, (table.columns[0], gib), (-20, 2), textcoords="offset points", fontsize=8)
    axes.set(xlabel="GPUs", ylabel="GiB on each", xscale="log", yscale="log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xticks(list(table.columns), [str(n) for n in table.columns])
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def all_reduce_bytes(numbers: float, processes: int, bytes_each: int = 4) -> float:
    """Bytes that each process sends (and receives) in a ring all-reduce: 2 (N − 1) / N times the data."""
    return 2 * (processes - 1) / processes * numbers * bytes_each


def efficiency(one: float, many: float, gpus: int) -> float:
    """Tokens a second of `gpus` GPUs over as many times those of one; 1 is perfect."""
    return many / (one * gpus)


def checkpoint_interval(write_seconds: float, hours_between_failures: float, hosts: int = 1) -> float:
    """Seconds between checkpoints that lose least: √(2 · C · M), C the time to write one, M the mean time to a failure.

    `hours_between_failures` are one host's; with `hosts` of them something fails that much more often. Young's formula,
    good while C is small against M: Daly's further terms matter above a tenth.
    """
    if min(write_seconds, hours_between_failures, hosts) <= 0:
        raise ValueError("the time to write, the hours between failures and the hosts must be more than 0.")
    return math.sqrt(2 * write_seconds * hours_between_failures * 3600 / hosts)


def lost_share(interval: float, write_seconds: float, hours_between_failures: float, hosts: int = 1) -> float:
    """The share of time lost with a checkpoint each `interval` seconds: writing them, and doing again what was lost."""
    mean = hours_between_failures * 3600 / hosts
    return write_seconds / interval + interval / 2 / mean


def price_per_million(tokens_per_s: float, price_per_gpu_hour: float, gpus: int = 1, useful: float = 1) -> float:
    """Price of a million trained tokens; `useful` is the share of paid time in which the GPUs trained."""
    return price_per_gpu_hour * gpus / 3600 / (tokens_per_s * useful) * 1e6


def run_table(runs: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Records that `launch.Watch` wrote, one row each: processes, rows seen, tokens, last loss, tokens a second."""
    rows = {}
    for name, run in runs.items():
        late = slice(len(run["seconds"]) // 4, None)  # the first steps warm up
        rows[name] = {
            "processes": run["processes"],
            "tokens": sum(run["tokens"]),
            "tokens/s": round(sum(run["tokens"][late]) / sum(run["seconds"][late])),
            "last loss": run["losses"][-1],
            "weights alike on all": len(set(run["weights"])) == 1,
        }
    return pd.DataFrame.from_dict(rows, orient="index")
