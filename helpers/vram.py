"""How much GPU memory a model takes: worked out from its shape, before anything is downloaded.

Every term is a count of numbers times bytes a number. Sources: ZeRO (arXiv 1910.02054) for what training keeps per
parameter, QLoRA (arXiv 2305.14314) for 4-bit weights, "Reducing Activation Recomputation" (arXiv 2205.05198) for what
the backward pass needs. GiB are 2**30 bytes; T is the number of tokens in a batch (batch × length).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from helpers.runtime import Stop

GIB = 2**30

Method = Literal["inference", "lora", "qlora", "full"]
Engine = Literal["unsloth", "transformers"]
Optimizer = Literal["adamw", "adamw_fused", "adamw_8bit"]

NF4 = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes a weight: 4 bits, an 8-bit scale for 64 weights, a 32-bit scale for 256 scales; 4.127 bits in all."""
WORKSPACE_GIB = 0.06
"""What cuBLAS takes for itself inside torch's count (two workspaces of 32 MiB on a Hopper GPU)."""
CONTEXT_GIB = 0.6
"""What the CUDA context takes outside torch's count; it comes on top when you ask whether a card suffices."""


class ShapeError(Stop, ValueError):
    """A model's shape that cannot be read; the message says what is missing."""


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder that memory depends on; the names are those of `config.json`, shortened."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool  # input and output embeddings are one matrix
    head: int = 0  # width of an attention head; 0: hidden / heads
    biases: bool = False  # Qwen2's queries, keys and values have them

    @property
    def kv(self) -> int:
        """Width of the keys of one token in one layer."""
        return self.kv_heads * (self.head or self.hidden // self.heads)

    @property
    def queries(self) -> int:
        return self.heads * (self.head or self.hidden // self.heads)

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """The seven projections of a layer: (in, out)."""
        h, f = self.hidden, self.intermediate
        return {
            "q": (h, self.queries),
            "k": (h, self.kv),
            "v": (h, self.kv),
            "o": (self.queries, h),
            "gate": (h, f),
            "up": (h, f),
            "down": (f, h),
        }

    @property
    def linear(self) -> int:
        """Parameters in the layers' projections: what 4 and 8 bits apply to."""
        return self.layers * sum(i * o for i, o in self.matrices.values())

    @property
    def embeddings(self) -> int:
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def parameters(self) -> int:
        """All of them, to the last norm and bias."""
        biases = self.layers * (self.queries + 2 * self.kv) if self.biases else 0
        return self.linear + self.embeddings + (2 * self.layers + 1) * self.hidden + biases

    def lora(self, rank: int) -> int:
        """Parameters of an adapter on all seven projections."""
        return self.layers * sum(rank * (i + o) for i, o in self.matrices.values())


def _qwen(*numbers: int, tied: bool = False) -> Shape:
    return Shape(*numbers, tied=tied, biases=True)


SHAPES: dict[str, Shape] = {
    "Qwen2.5-0.5B": _qwen(896, 4864, 24, 14, 2, 151936, tied=True),
    "Qwen2.5-1.5B": _qwen(1536, 8960, 28, 12, 2, 151936, tied=True),
    "Qwen2.5-3B": _qwen(2048, 11008, 36, 16, 2, 151936, tied=True),
    "Qwen2.5-7B": _qwen(3584, 18944, 28, 28, 4, 152064),
    "Llama-3.1-8B": Shape(4096, 14336, 32, 32, 8, 128256, tied=False),
    "Qwen2.5-14B": _qwen(5120, 13824, 48, 40, 8, 152064),
    "Qwen2.5-32B": _qwen(5120, 27648, 64, 40, 8, 152064),
    "Llama-3.1-70B": Shape(8192, 28672, 80, 64, 8, 128256, tied=False),
    "Qwen2.5-72B": _qwen(8192, 29568, 80, 64, 8, 152064),
}
"""Shapes of models that the lessons speak of, from their published `config.json`."""

GPUS = {"T4": 14.7, "RTX 4090": 23.6, "A100 80GB": 79.3, "H200": 139.8}
"""GiB that a program can have of each card."""


def read_shape(model: str | Path | Mapping[str, Any] | Shape) -> Shape:
    """The shape of a model: a name in `SHAPES`, a folder or file with a `config.json`, or its content.

    Raises `ShapeError` for an unknown name, a file that cannot be read, and a config without a number that is needed.
    """
    if isinstance(model, Shape):
        return model
    if isinstance(model, str) and model in SHAPES:
        return SHAPES[model]
    if isinstance(model, (str, Path)):
        path = Path(model)
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise ShapeError(f"{model}: neither a config.json nor one of {', '.join(SHAPES)}.")
        try:
            model = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:  # not JSON, or not even UTF-8
            raise ShapeError(f"{path}: cannot be read as JSON ({error}). Download or save it again.") from None
    # A vision model keeps the language model's numbers apart.
    config = (model.get("text_config") or model) if isinstance(model, Mapping) else model
    if not isinstance(config, Mapping):
        raise ShapeError(f"the config is a {type(config).__name__}, not an object with named numbers.")
    names = {
        "hidden": "hidden_size",
        "intermediate": "intermediate_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "vocabulary": "vocab_size",
    }
    if missing := [name for name in names.values() if not config.get(name)]:
        raise ShapeError(f"the config has no {missing[0]}; a decoder with gated MLPs (Llama, Qwen, Mistral) has it.")
    numbers = {ours: config[theirs] for ours, theirs in names.items()}
    kind = str(config.get("model_type", model.get("model_type", "")))
    return Shape(
        **numbers,
        kv_heads=config.get("num_key_value_heads") or numbers["heads"],
        tied=bool(config.get("tie_word_embeddings", model.get("tie_word_embeddings", False))),
        head=config.get("head_dim") or 0,
        biases=kind.startswith(("qwen2", "qwen2_5")),
    )


@dataclass(frozen=True)
class Estimate:
    """Where the memory goes, in GiB. The parts from `gradients` on do not all peak at once: `total` is the peak."""

    weights: float
    adapter: float
    optimizer: float
    gradients: float
    activations: float
    logits: float
    kv_cache: float
    overhead: float
    total: float

    def fits(self, gpu_gib: float) -> bool:
        """Whether a card of this size holds it, with its CUDA context."""
        return self.total + CONTEXT_GIB <= gpu_gib


def estimate_vram(
    model: str | Path | Mapping[str, Any] | Shape,
    method: Method = "qlora",
    *,
    bits: Literal[4, 8, 16, 32] | None = None,
    engine: Engine = "unsloth",
    optimizer: Optimizer = "adamw_8bit",
    batch: int = 2,
    length: int = 2048,
    new_tokens: int = 0,
    checkpointing: bool = True,
    rank: int = 16,
) -> Estimate:
    """The peak of GPU memory, part by part, in GiB as torch counts them.

    `model` is what `read_shape` takes. `bits` are those of the loaded weights: 4 for qlora, else 16 unless you say;
    32 with `full` is mixed precision: 32-bit weights, computed with in 16 bits. `engine` is Unsloth (its own LoRA and
    loss kernels; not for `full` and `inference`, which are plain transformers) or transformers + PEFT. `batch` rows of
    `length` tokens are in memory at once; of inference, `length` is the prompt and `new_tokens` what is written.
    Raises ValueError for a combination that does not exist.
    """
    shape = read_shape(model)
    bits = bits or (4 if method == "qlora" else 16)
    _check(method, bits, engine, optimizer, batch, length, rank)
    if method == "inference":
        return _inference(shape, bits, batch, length, new_tokens)
    if method == "full":
        return _training(shape, method, bits, "transformers", optimizer, batch * length, checkpointing, rank)
    return _training(shape, method, bits, engine, optimizer, batch * length, checkpointing, rank)


def _inference(shape: Shape, bits: int, batch: int, length: int, new_tokens: int) -> Estimate:
    weights, number = weight_bytes(shape, bits), max(2, bits // 8)  # below 16 bits, the computing is in 16
    cache = 2 * number * shape.layers * shape.kv * batch * (length + new_tokens)  # keys and values
    # The prompt goes through one layer at a time: the MLP's gate, up and product, and the hidden states around it.
    working = batch * length * number * (3 * shape.intermediate + 2 * shape.hidden)
    matrix = _expanded(shape, bits)
    parts = {"weights": weights, "kv_cache": cache, "activations": working, "overhead": matrix}
    return _estimate(parts, sum(parts.values()))


def _training(
    shape: Shape, method: str, bits: int, engine: str, optimizer: str, tokens: int, checkpointing: bool, rank: int
) -> Estimate:
    lora, plain = method != "full", engine == "transformers"
    trained = shape.lora(rank) if lora else shape.parameters
    # Preparing a quantized model for training, PEFT turns all else into 32 bits, and so the hidden states.
    wide = bits == 32 or (bits < 16 and plain)
    number = 4 if lora or bits == 32 else 2  # bytes of a trained number and of its gradient
    weights, matrix = weight_bytes(shape, bits, wide), _expanded(shape, bits)
    adapter = trained * number if lora else 0
    gradients = trained * number
    # Tied embeddings get two gradients, of the output and of the input, which are added into a third.
    tied = 2 * shape.embeddings * number if shape.tied and not lora else 0
    states = trained * {"adamw": 2 * number, "adamw_fused": 2 * number, "adamw_8bit": 2 + 2 * 4 / 256}[optimizer]
    step = trained * number if optimizer == "adamw" else 0  # torch's AdamW takes the square root of all moments at once
    per_layer = _saved(shape, lora, plain, wide)  # bytes a token
    if plain:
        layers = shape.layers * (shape.hidden * (4 if wide else 2) if checkpointing else per_layer)
        # In 32 bits: the logits' softmax, its gradient, and the gradient before it.
        logits = 12 * shape.vocabulary * tokens
        logits += 2 * shape.vocabulary * shape.hidden if wide else 0  # the output layer, turned to 16 bits
        logits += 2 * shape.linear if bits == 32 and not checkpointing else 0  # and every other, kept until backward
        one_layer = tokens * (per_layer + 4 * shape.intermediate)
    else:
        # Unsloth keeps each layer's input in the computer's own memory, two on their way.
        layers = 2 * 2 * shape.hidden if checkpointing else shape.layers * per_layer
        rows = max(512, -(-tokens // 8))  # an eighth of the tokens at a time
        logits = 4 * shape.vocabulary * min(rows, tokens)  # in 16 bits, and their gradient
        matrix *= 2
        one_layer = tokens * (6 * shape.intermediate + 24 * shape.hidden + 4 * shape.kv)
    saved = tokens * layers
    # What the backward pass of one layer takes on top: with checkpointing all that the layer has computed once more.
    working = one_layer if checkpointing else 4 * shape.intermediate * tokens
    moments = {  # when memory may be fullest; the gradients come as the activations go
        "loss": saved + logits,
        "first layer back": saved + working,
        "last layer back": one_layer + gradients + tied,
        "step": gradients + step,
    }
    parts = {
        "weights": weights,
        "adapter": adapter,
        "optimizer": states + step,
        "gradients": gradients + tied,
        "activations": saved + working,
        "logits": logits,
        "overhead": matrix,
    }
    return _estimate(parts, weights + adapter + states + matrix + max(moments.values()))


def _expanded(shape: Shape, bits: int) -> int:
    """Bytes of the largest matrix, turned to 16 bits to be multiplied, of a quantized model."""
    return 2 * max(i * o for i, o in shape.matrices.values()) if bits < 16 else 0


def weight_bytes(shape: Shape, bits: int, wide: bool = False) -> float:
    """Bytes of the weights: below 16 bits only the layers' projections shrink, the rest stays in 16 (`wide`: 32)."""
    if bits >= 16:
        return shape.parameters * bits / 8
    scales = shape.layers * sum(4 * o for _, o in shape.matrices.values())  # 8 bits: one 32-bit scale a row
    small = shape.linear * NF4 if bits == 4 else shape.linear + scales
    return small + (shape.parameters - shape.linear) * (4 if wide else 2)


def _saved(shape: Shape, lora: bool, plain: bool, wide: bool) -> int:
    """Bytes that a layer without checkpointing keeps of each token for the backward pass.

    f-wide tensors of the MLP, h-wide ones (norms' inputs and outputs, inputs of the projections, queries, attention's
    output), keys and values; each in 16 bits, where nothing makes it wider.
    """
    h, f, kv = shape.hidden, shape.intermediate, 4 * shape.kv
    if not plain:
        return 4 * f + 14 * h + kv  # Unsloth's MLP keeps gate and up, and computes their product again
    if lora:
        return (14 * f if wide else 8 * f) + 24 * h + kv  # behind 4-bit layers PEFT's sums are in 32 bits
    return 8 * f + (32 if wide else 22) * h + kv


def _check(method: str, bits: int, engine: str, optimizer: str, batch: int, length: int, rank: int) -> None:
    allowed = {"inference": (4, 8, 16, 32), "lora": (8, 16), "qlora": (4,), "full": (16, 32)}
    known = (("method", method, tuple(allowed)), ("engine", engine, get_args(Engine)))
    for what, name, names in (*known, ("optimizer", optimizer, get_args(Optimizer))):
        if name not in names:
            raise ValueError(f"unknown {what} {name!r}; there are: {', '.join(names)}.")
    if bits not in allowed[method]:
        raise ValueError(f"{method} with {bits}-bit weights does not exist; choose of {allowed[method]}.")
    if min(batch, length, rank) < 1:
        raise ValueError(f"batch {batch}, length {length} and rank {rank} must be 1 or more.")


def _estimate(parts: Mapping[str, float], total: float) -> Estimate:
    names = ("weights", "adapter", "optimizer", "gradients", "activations", "logits", "kv_cache", "overhead")
    gib = {name: parts.get(name, 0) / GIB for name in names}
    gib["overhead"] += WORKSPACE_GIB
    return Estimate(**gib, total=total / GIB + WORKSPACE_GIB)


def measured(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a record that `tools.bench.vram` wrote, each with `estimate_gib` and `error`: estimate / peak - 1."""
    rows = []
    for row in json.loads(Path(path).read_text(encoding="utf-8"))["rows"]:
        given = {name: row[name] for name in ("bits", "batch", "length", "checkpointing", "rank")}
        given["engine"] = "unsloth" if row["engine"] == "unsloth" else "transformers"
        if row["optimizer"]:
            given["optimizer"] = row["optimizer"]
        estimate = estimate_vram(row["model"], row["method"], new_tokens=16, **given).total
        rows.append(row | {"estimate_gib": round(estimate, 3), "error": estimate / row["peak_gib"] - 1})
    return rows
