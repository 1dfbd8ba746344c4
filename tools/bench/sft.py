"""Tokens a second and peak memory of QLoRA fine-tuning: the course's settings against plain TRL, same rows, one run.

    python -m tools.bench.sft --out benchmarks/records/sft_h200.json     (a GPU; no network: the weights are random)
    python -m tools.bench.sft --shapes --out benchmarks/records/sft_shapes_h200.json    other models, fewer sides
    python -m tools.bench.sft --profile --out benchmarks/records/sft_profile_h200.json  what the GPU's time goes into
    python -m tools.bench.sft --memory --out benchmarks/records/sft_memory_h200.json    what its memory holds at the peak
    python -m tools.bench.sft --shapes --profile --out benchmarks/records/sft_profile_shapes_h200.json

The rows are random tokens in the lengths of real Alpaca rows (`benchmarks/alpaca_lengths.json`), so that packing has
to deal with what it would meet. Useful tokens are those with a label; padding is none. Each side runs in a process of
its own. Equal losses, step by step, show that the packed sides do the same work.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from helpers import attention
from helpers.runtime import root
from tools.bench import peak, records, training

MODEL, LENGTH, RANK = "Qwen2.5-7B", 2048, 16
SHAPES = ("Qwen2.5-0.5B", "Qwen2.5-1.5B", "Llama-3.1-8B")  # the last is R1-Distill-Llama-8B's, too
STEPS, WARM_UP = 20, 6  # the first steps compile
PROFILED = 4  # steps, after the warm-up
TRAINER = {
    "max_length": LENGTH,
    "max_steps": STEPS,
    "warmup_steps": 2,  # of the learning rate
    "learning_rate": 2e-4,
    "optim": "adamw_8bit",
    "seed": 0,
}
SETTINGS = TRAINER | {"lora_rank": RANK, "lora_alpha": RANK, "steps_left_out": WARM_UP}
# What a kernel's name gives away, the first that fits. Not the loss: on all sides it comes in chunks, as matrix products
# and sums like any others.
KERNELS = {
    "attention_ms": "flash|fmha|attention|flex|(?<!log)softmax",
    "unpacking_ms": "dequant|kgetcodes",
    "matrices_ms": "gemm|nvjet|cutlass|cublas|splitk|::mm",
    "optimizer_ms": "optimizer|blockwise8bit|adam|multi_tensor",
    "copies_ms": "memcpy|memset|copy",
}


@dataclass(frozen=True)
class Side:
    """One way to train. `engine` is trl (TRL + PEFT + bitsandbytes) or unsloth; rows a step: batch × accumulation."""

    name: str
    engine: str
    packing: bool = True
    batch: int = 2
    accumulation: int = 4
    attention: str = "sdpa"  # of trl; of unsloth, for packed rows: sdpa, varlen or xformers (see `attention_of`)
    liger: bool = False
    checkpointing: bool = True
    model: str = MODEL
    profiled: bool = False  # not the speed, but what the GPU's time goes into
    held: bool = False  # nor that, but what its memory holds at the peak
    # May torch choose cuDNN's attention? From 2.11 on it does on Hopper, and plans it anew for each width. The course's
    # notebooks tell it not to (`helpers.platform_setup.setup`).
    cudnn: bool = True


def sides() -> Iterator[Side]:
    """The usual tutorial, what plain TRL can do at its best, the course."""
    trl, course = Side("TRL, packed", "trl"), Side("course, packed", "unsloth", cudnn=False)
    tutorial = replace(trl, name="TRL, as tutorials do", packing=False)
    yield tutorial
    yield replace(tutorial, name="TRL, as tutorials do, without cuDNN's attention", cudnn=False)
    yield replace(trl, name="TRL, packed, flex attention", attention="flex_attention")
    trl = replace(trl, attention="flex_attention", liger=True)
    yield replace(trl, name="TRL, packed, flex attention, Liger")
    yield replace(trl, name="TRL, packed, flex attention, Liger, 8 x 1", batch=8, accumulation=1)
    yield course
    yield replace(course, name="course, packed, 8 x 1", batch=8, accumulation=1)
    yield replace(course, name="course, packed, xformers, 8 x 1", attention="xformers", batch=8, accumulation=1)
    course = replace(course, attention="varlen")
    yield replace(course, name="course, packed, varlen")
    yield replace(course, name="course, packed, varlen, no checkpointing", checkpointing=False)
    course = replace(course, batch=8, accumulation=1)
    yield replace(course, name="course, packed, varlen, 8 x 1")
    yield replace(course, name="course, packed, varlen, 8 x 1, no checkpointing", checkpointing=False)


def sides_of(model: str) -> Iterator[Side]:
    """Of a model the tutorial, and the sides with 8 rows at once: TRL's fastest, the lesson's, the course's fastest.

    Not xformers': it hardly differs from torch's kernel, and loads on few hosts.
    """
    for side in sides():
        if not side.packing or (side.batch == 8 and side.attention != "xformers"):
            yield replace(side, model=model)


def profiled(model: str = MODEL) -> Iterator[Side]:
    """The same, not for their speed, but for what the GPU's time goes into."""
    yield from (replace(side, profiled=True) for side in sides_of(model))


def held(model: str = MODEL) -> Iterator[Side]:
    """Those that save memory: of the tutorial one, of TRL those with Liger, the course's with checkpointing."""
    for side in sides():
        if side.checkpointing and (side.liger or not side.cudnn):
            yield replace(side, held=True, model=model)


@contextmanager
def attention_of(side: Side) -> Iterator[None]:
    """Around `import unsloth`: let it see the attention of this side, and no other. Raises RuntimeError where it cannot.

    `varlen` is torch's kernel for packed rows, as the lessons offer it. Where there is none Unsloth takes xformers if
    it loads (its wheel needs CUDA 12's runtime, which a torch for CUDA 13 does not bring), else torch's usual
    attention, once for each sample.
    """
    if side.attention == "varlen" and not attention.offer_packed():
        raise RuntimeError(f"{side.name}: this torch has no kernel for packed rows; 2.11 is the first with it")
    os.environ["UNSLOTH_TORCH_VARLEN"] = str(int(side.attention == "varlen"))
    if side.attention != "xformers":
        sys.modules["xformers"] = None  # an import of it fails
    yield
    if side.attention == "xformers" and not sys.modules["unsloth.utils.attention_dispatch"].HAS_XFORMERS:
        raise RuntimeError(f"{side.name}: xformers is not installed, or does not load next to this torch")


def rows(end: int, repeat: int = 3) -> list[list[int]]:
    """Random tokens in the lengths of the real rows, each closed by `end`; the same on every side."""
    lengths = json.loads((root() / "benchmarks" / "alpaca_lengths.json").read_text(encoding="utf-8"))["lengths"]
    rng = random.Random(0)
    return [[rng.randrange(300, 3000) for _ in range(n - 1)] + [end] for n in lengths] * repeat


def measure(side: Side, scratch: str) -> dict[str, Any]:
    """Train `STEPS` steps in this process, on the weights in the folder of the model's name."""
    if side.engine == "unsloth":
        with attention_of(side):
            import unsloth  # noqa: F401  first: it replaces parts of transformers
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    torch.backends.cuda.enable_cudnn_sdp(side.cudnn)
    callbacks, useful = [clock := training.clock()], list[int]()
    if side.profiled:
        callbacks.append(profiler := training.profiler(WARM_UP, PROFILED))
    if side.held:
        callbacks.append(recorder := peak.recorder(WARM_UP))

    counting = training.counting(SFTTrainer, useful, lambda inputs: (inputs["labels"] != -100).sum())
    model, tokenizer, options = _load(side, f"{scratch}/{side.model}")
    loaded = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as out:
        trainer = counting(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict({"input_ids": rows(tokenizer.eos_token_id)}),
            args=SFTConfig(
                output_dir=out, packing=side.packing, per_device_train_batch_size=side.batch,
                gradient_accumulation_steps=side.accumulation, **TRAINER,
                bf16=True, logging_steps=1, save_strategy="no", report_to="none",
                gradient_checkpointing=side.checkpointing and side.engine == "trl", use_liger_kernel=side.liger,
                gradient_checkpointing_kwargs={"use_reentrant": False},
            ),
            callbacks=callbacks,
            **options,
        )  # fmt: skip
        trainer.train()
    training.assert_plain(side.engine)
    if side.profiled:
        return asdict(side) | shares(profiler.kernels)
    if side.held:
        return asdict(side) | peak.kinds(recorder.before, recorder.since, loaded)
    return asdict(side) | training.figures(trainer, useful, clock.seconds, WARM_UP, loaded)


def _load(side: Side, path: str) -> tuple[Any, Any, dict[str, Any]]:
    """Model in 4 bits with its adapter (or, for TRL, the adapter's settings), and tokenizer."""
    import torch

    if side.engine == "unsloth":
        from unsloth import FastLanguageModel

        model, tokenizer = FastLanguageModel.from_pretrained(
            path, max_seq_length=LENGTH, dtype=torch.bfloat16, load_in_4bit=True
        )
        model = FastLanguageModel.get_peft_model(
            model, r=RANK, lora_alpha=RANK, target_modules=training.TARGETS, random_state=TRAINER["seed"],
            use_gradient_checkpointing="unsloth" if side.checkpointing else False,
        )  # fmt: skip
        return model, tokenizer, {}
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16, device_map={"": 0}, attn_implementation=side.attention, quantization_config=bits
    )
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=training.TARGETS, task_type="CAUSAL_LM")
    return model, AutoTokenizer.from_pretrained(path), {"peft_config": lora}


def shares(kernels: dict[str, float]) -> dict[str, Any]:
    """Milliseconds of a step that the GPU spent in each kind of kernel and in all, and the longest kernels by name."""
    kinds = dict.fromkeys((*KERNELS, "other_ms"), 0.0)
    for name, seconds in kernels.items():
        kind = next((kind for kind, pattern in KERNELS.items() if re.search(pattern, name, re.IGNORECASE)), "other_ms")
        kinds[kind] += 1000 * seconds / PROFILED
    longest = sorted(kernels, key=kernels.__getitem__, reverse=True)[:12]
    return {
        **{kind: round(ms, 1) for kind, ms in kinds.items()},
        "gpu_ms": round(sum(kinds.values()), 1),
        "longest": {name[:100]: round(1000 * kernels[name] / PROFILED, 1) for name in longest},
    }


def of_a_profile(subject: str) -> dict[str, str]:
    """What a record says of itself when its rows are `shares`."""
    return {
        "subject": f"{subject}, where the GPU's time goes",
        "unit": f"milliseconds of GPU time a step, the mean of {PROFILED}",
    }


def of_memory(subject: str) -> dict[str, str]:
    """What a record says of itself when its rows are `peak.kinds`."""
    return {"subject": f"{subject}, what holds the memory at its peak", "unit": "GiB allocated by torch, in one step"}


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Useful tokens a second: the course's best side with checkpointing over TRL's tutorial and over TRL's best.

    Of several models each one's, with its name; none where a side is missing.
    """
    models = list(dict.fromkeys(row.get("model", MODEL) for row in rows))
    if len(models) > 1:
        each = {model: ratios([row for row in rows if row["model"] == model]) for model in models}
        return {f"{model}, {name}": ratio for model, found in each.items() for name, ratio in found.items()}

    def best(rows: Iterable[dict[str, Any]]) -> float:
        return max((row["useful_tokens_per_s"] for row in rows), default=0)

    course = best(row for row in rows if row["engine"] == "unsloth" and row["checkpointing"])
    plain = [row for row in rows if row["engine"] == "trl"]
    others = {
        "course / tutorial": best(r for r in plain if not (r["packing"] or r["liger"])),
        "course / TRL's best": best(plain),
    }
    return {name: round(course / other, 2) for name, other in others.items() if course and other}


def main() -> int:
    parser = records.parser(__doc__, "sft")
    parser.add_argument("--shapes", action="store_true", help=f"{', '.join(SHAPES)} instead of {MODEL}, fewer sides")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--profile", action="store_true", help="what the GPU's time goes into, fewer sides")
    what.add_argument("--memory", action="store_true", help="what its memory holds at the peak, fewer sides")
    parser.add_argument("--scratch", type=Path, help="folder for the checkpoints (15 GB for 7B), kept for the next run")
    options = parser.parse_args()
    if records.one_side(options, Side, measure):
        return 0
    record = records.new(
        "QLoRA SFT, useful tokens a second and peak memory",
        f"the shape of {'each model' if options.shapes else MODEL}, random weights in NF4, LoRA r = {RANK}, "
        "rows in Alpaca's lengths",
        "GiB allocated by torch; tokens with a label a second, after the first steps",
        SETTINGS | ({"steps_profiled": PROFILED} if options.profile else {}),
    )
    sides_for, compared = sides_of if options.shapes else lambda model: sides(), ratios
    if options.profile:
        sides_for, compared = profiled, lambda rows: {}
        record |= of_a_profile("QLoRA SFT")
    if options.memory:
        sides_for, compared = held, lambda rows: {}
        record |= of_memory("QLoRA SFT")
    every = [side for model in (SHAPES if options.shapes else (MODEL,)) for side in sides_for(model)]
    with records.scratch(options.scratch) as scratch:
        for model in dict.fromkeys(side.model for side in records.chosen(every, options)):
            records.random_weights(model, f"{scratch}/{model}")
        return records.run_sides("tools.bench.sft", record, every, scratch, options, compared)


if __name__ == "__main__":
    raise SystemExit(main())
