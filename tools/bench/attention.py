"""What attention costs at a length that has not come before, with cuDNN's kernels and without.

    python -m tools.bench.attention --out benchmarks/records/attention_h200.json   (a GPU; no network)

Generating, each new token is a new length; in training, nearly every batch has a width of its own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tools.bench import records

BATCH, HEADS, HEAD = 8, 28, 128  # Qwen2.5-7B's, keys and values repeated for all heads as transformers does
LENGTHS = range(128, 448, 8)
WARM = (64, 72)  # the first call of a process loads the kernels
ROUNDS = 3  # processes: a length is new to each
SETTINGS = {
    "batch": BATCH, "heads": HEADS, "head_dim": HEAD,
    "shortest": LENGTHS[0], "longest": LENGTHS[-1], "lengths": len(LENGTHS),
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One way that attention is called, and whether cuDNN may take it."""

    name: str
    training: bool = False  # forward and backward, of whole rows; else one new token against all before it
    padded: bool = False  # with a mask
    cudnn: bool = True


def sides() -> Iterator[Side]:
    for cudnn in (True, False):
        yield Side("a token", cudnn=cudnn)
        yield Side("a token, padded rows", padded=True, cudnn=cudnn)
        yield Side("a training step's layer", training=True, cudnn=cudnn)
        yield Side("a training step's layer, padded rows", training=True, padded=True, cudnn=cudnn)


def measure(side: Side, path: str) -> dict[str, Any]:
    """Mean milliseconds of one call at lengths that are new, and at the same lengths once more."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.enable_cudnn_sdp(side.cudnn)

    def ready() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def call(length: int) -> float:
        def tensor(rows: int) -> torch.Tensor:
            shape = (BATCH, HEADS, rows, HEAD)
            return torch.randn(shape, device=device, dtype=torch.bfloat16, requires_grad=side.training)

        query, key, value = tensor(length if side.training else 1), tensor(length), tensor(length)
        mask = None
        if side.padded:
            mask = torch.ones(BATCH, 1, query.shape[2], length, dtype=torch.bool, device=device)
            mask[0, :, :, :3] = False
        began = ready()
        # Without a mask a training row is causal; a single new token sees all before it.
        causal = side.training and mask is None
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, mask, is_causal=causal)
        if side.training:
            out.sum().backward()
        return 1000 * (ready() - began)

    for length in WARM:
        call(length)
    new, again = ([call(length) for length in LENGTHS] for _ in range(2))
    return asdict(side) | {"new_ms": round(sum(new) / len(new), 3), "again_ms": round(sum(again) / len(again), 3)}


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """At a new length, cuDNN's milliseconds over those of the kernels that take its place."""
    by = {(row["name"], row["cudnn"]): row["new_ms"] for row in rows}
    return {name: round(by[name, True] / by[name, False], 1) for name, cudnn in by if not cudnn and (name, True) in by}


def main() -> int:
    parser = records.parser(__doc__, "attention", ROUNDS)
    options = parser.parse_args()
    if records.one_side(options, Side, measure):
        return 0
    record = records.new(
        "attention at a length that has not come before",
        f"{BATCH} rows, {HEADS} heads of {HEAD}, lengths from {LENGTHS.start} to {LENGTHS[-1]}, bfloat16",
        f"milliseconds a call, the mean over all lengths; the median of {options.rounds} rounds",
        SETTINGS,
        ("torch",),
    )
    return records.run_sides("tools.bench.attention", record, [*sides()], "", options, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
