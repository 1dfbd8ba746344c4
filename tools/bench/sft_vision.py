"""Tokens a second and peak memory of fine-tuning on pictures: lesson 05's settings against plain TRL, one run.

    python -m tools.bench.sft_vision --out benchmarks/records/sft_vision_h200.json   (a GPU; no network)
    python -m tools.bench.sft_vision --profile --out benchmarks/records/sft_profile_vision_h200.json
    python -m tools.bench.sft_vision --memory --out benchmarks/records/sft_memory_vision_h200.json

Qwen2.5-VL-3B's shape with random weights, adapters on the same layers on both sides. The rows are the course's
dashboards, enlarged to what MAX_IMAGE_TOKENS of lesson 05 allows, with their questions and answers. Useful tokens are
those that are not padding, the picture's own among them. Rows with pictures cannot be packed, by TRL or by Unsloth.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from helpers.runtime import root
from tools.bench import peak, records, sft, training

MODEL, RANK, LENGTH, IMAGE_TOKENS = "Qwen2.5-VL-3B", 16, 2048, 512
STEPS, WARM_UP = 10, 4
TRAINER = sft.TRAINER | {"max_length": LENGTH, "max_steps": STEPS}
SETTINGS = TRAINER | {
    "lora_rank": RANK, "lora_alpha": RANK, "steps_left_out": WARM_UP, "max_image_tokens": IMAGE_TOKENS,
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One way to train. `engine` is trl (TRL + PEFT + bitsandbytes) or unsloth; rows a step: batch × accumulation."""

    name: str
    engine: str
    batch: int = 2
    accumulation: int = 4
    liger: bool = False
    checkpointing: bool = True
    packing: bool = False
    profiled: bool = False  # this and the next two: see tools.bench.sft
    held: bool = False
    cudnn: bool = True


def sides() -> Iterator[Side]:
    """TRL as tutorials do, TRL's best, the course with two rows at once, lesson 05, and that without checkpointing."""
    trl, course = Side("TRL, as tutorials do", "trl"), Side("course", "unsloth", cudnn=False)
    yield trl
    yield replace(trl, name="TRL, as tutorials do, without cuDNN's attention", cudnn=False)
    yield replace(trl, name="TRL, Liger, 8 x 1", batch=8, accumulation=1, liger=True)
    yield course
    yield (whole := replace(course, name="course, 8 x 1", batch=8, accumulation=1))
    yield replace(whole, name="course, 8 x 1, with cuDNN's attention", cudnn=True)
    yield replace(whole, name="course, 8 x 1, no checkpointing", checkpointing=False)


def profiled() -> Iterator[Side]:
    """Those with the faster attention; of TRL's best no such side is measured."""
    yield from (replace(side, profiled=True) for side in sides() if side.liger or not side.cudnn)


def held() -> Iterator[Side]:
    """The same, of those with checkpointing."""
    yield from (replace(side, profiled=False, held=True) for side in profiled() if side.checkpointing)


def rows() -> Any:
    """The sample's pictures, prompts and responses; the pictures are enlarged now, not while the clock runs."""
    from helpers import data

    sheet = data.load_odometer_excel(root() / "data_samples" / "odometer" / "odometer_en.xlsx")
    for path in sheet["image"]:
        picture(path)
    return sheet.select_columns(["image", "prompt", "response"])


@cache
def picture(path: str) -> Any:
    """A picture of the sample, enlarged as far as IMAGE_TOKENS allows."""
    from PIL import Image

    from helpers import pictures

    image = Image.open(path)
    return pictures.shrink(image.resize((image.width * 8, image.height * 8)), IMAGE_TOKENS)


def for_trl(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A row as TRL wants it: the loss counts the completion alone."""
    return {
        "image": [picture(path) for path in batch["image"]],
        "prompt": [[{"role": "user", "content": text}] for text in batch["prompt"]],
        "completion": [[{"role": "assistant", "content": text}] for text in batch["response"]],
    }


def for_unsloth(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """A row as lesson 05 writes it."""
    return {
        "messages": [
            [
                {"role": "user", "content": [{"type": "image", "image": picture(path)}, {"type": "text", "text": ask}]},
                {"role": "assistant", "content": [{"type": "text", "text": answer}]},
            ]
            for path, ask, answer in zip(batch["image"], batch["prompt"], batch["response"])
        ]
    }


def measure(side: Side, path: str) -> dict[str, Any]:
    """Train `STEPS` steps in this process on the checkpoint at `path`."""
    if side.engine == "unsloth":
        import unsloth  # noqa: F401  first: it replaces parts of transformers
    import torch
    from trl import SFTConfig, SFTTrainer

    torch.backends.cuda.enable_cudnn_sdp(side.cudnn)
    callbacks, useful = [clock := training.clock()], list[int]()
    if side.profiled:
        callbacks.append(profiler := training.profiler(WARM_UP, sft.PROFILED))
    if side.held:
        callbacks.append(recorder := peak.recorder(WARM_UP))
    counting = training.counting(SFTTrainer, useful, lambda inputs: inputs["attention_mask"].sum())
    model, options = (_unsloth if side.engine == "unsloth" else _trl)(side, path)
    loaded = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as out:
        trainer = counting(
            model=model,
            args=SFTConfig(
                output_dir=out, per_device_train_batch_size=side.batch,
                gradient_accumulation_steps=side.accumulation, **TRAINER,
                bf16=True, logging_steps=1, save_strategy="no", report_to="none",
                gradient_checkpointing=side.checkpointing and side.engine == "trl", use_liger_kernel=side.liger,
                gradient_checkpointing_kwargs={"use_reentrant": False}, remove_unused_columns=False,
            ),
            callbacks=callbacks,
            **options,
        )  # fmt: skip
        trainer.train()
    training.assert_plain(side.engine)
    if side.profiled:
        return asdict(side) | sft.shares(profiler.kernels)
    if side.held:
        return asdict(side) | peak.kinds(recorder.before, recorder.since, loaded)
    return (
        asdict(side)
        | training.figures(trainer, useful, clock.seconds, WARM_UP, loaded)
        | {"trained_parameters": sum(weights.numel() for weights in model.parameters() if weights.requires_grad)}
    )


def _unsloth(side: Side, path: str) -> tuple[Any, dict[str, Any]]:
    """Lesson 05: model with its adapter, and what the trainer gets."""
    import torch
    from unsloth import FastVisionModel
    from unsloth.trainer import UnslothVisionDataCollator

    model, processor = FastVisionModel.from_pretrained(
        path, max_seq_length=LENGTH, dtype=torch.bfloat16, load_in_4bit=True
    )
    model = FastVisionModel.get_peft_model(
        model, r=RANK, lora_alpha=RANK, random_state=TRAINER["seed"],
        finetune_vision_layers=True, finetune_language_layers=True,
        finetune_attention_modules=True, finetune_mlp_modules=True,
        use_gradient_checkpointing="unsloth" if side.checkpointing else False,
    )  # fmt: skip
    FastVisionModel.for_training(model, use_gradient_checkpointing=side.checkpointing)
    collator = UnslothVisionDataCollator(
        model, processor, max_seq_length=LENGTH, resize="max", train_on_responses_only=True,
        instruction_part="<|im_start|>user\n", response_part="<|im_start|>assistant\n",
    )  # fmt: skip
    train = rows().with_transform(for_unsloth)
    return model, {"processing_class": processor, "data_collator": collator, "train_dataset": train}


def _trl(side: Side, path: str) -> tuple[Any, dict[str, Any]]:
    """Plain TRL: model in 4 bits with PEFT's adapter on the language model and the vision tower."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForImageTextToText, AutoProcessor, BitsAndBytesConfig

    bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16, llm_int8_skip_modules=["visual", "lm_head"],  # as Unsloth does
    )  # fmt: skip
    model = AutoModelForImageTextToText.from_pretrained(
        path, dtype=torch.bfloat16, device_map={"": 0}, attn_implementation="sdpa", quantization_config=bits
    )
    model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=side.checkpointing)
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=[*training.TARGETS, "qkv", "proj"])
    model = get_peft_model(model, lora)
    train = rows().with_transform(for_trl)
    return model, {"processing_class": AutoProcessor.from_pretrained(path), "train_dataset": train}


def main() -> int:
    parser = records.parser(__doc__, "sft_vision")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--profile", action="store_true", help="what the GPU's time goes into, fewer sides")
    what.add_argument("--memory", action="store_true", help="what its memory holds at the peak, fewer sides")
    parser.add_argument("--scratch", type=Path, help="folder for the checkpoint (8 GB), kept for the next run")
    options = parser.parse_args()
    if records.one_side(options, Side, measure):
        return 0
    record = records.new(
        "QLoRA SFT on pictures, useful tokens a second and peak memory",
        f"{MODEL}'s shape, random weights, the language model in NF4, LoRA r = {RANK}, dashboards of up to "
        f"{IMAGE_TOKENS} tokens",
        "GiB allocated by torch; tokens that are not padding a second, after the first steps",
        SETTINGS | ({"steps_profiled": sft.PROFILED} if options.profile else {}),
    )
    every, compared = [*sides()], sft.ratios
    if options.profile:
        every, compared = [*profiled()], lambda rows: {}
        record |= sft.of_a_profile("QLoRA SFT on pictures")
    if options.memory:
        every, compared = [*held()], lambda rows: {}
        record |= sft.of_memory("QLoRA SFT on pictures")
    with records.scratch(options.scratch) as scratch:
        records.random_weights(MODEL, path := f"{scratch}/{MODEL}")
        return records.run_sides("tools.bench.sft_vision", record, every, path, options, compared)


if __name__ == "__main__":
    raise SystemExit(main())
