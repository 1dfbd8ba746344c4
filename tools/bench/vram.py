"""Peak GPU memory of inference and training at the shapes of real models: what `estimate_vram` is held against.

    python -m tools.bench.vram --out benchmarks/records/vram_h200.json     (a GPU; no network: the weights are random)

Memory depends on shapes, not on what the weights know. Each case runs in a process of its own, as many side by side
as the GPU has room for: torch counts what one process has allocated, whoever else is on the GPU.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tools.bench import records, training

GIB = 2**30
STEPS, NEW = 3, 16  # of training, of inference
LEARNING_RATE = 1e-5  # of the ordinary loop
SETTINGS = {"steps": STEPS, "learning_rate_plain": LEARNING_RATE, "new_tokens": NEW}


@dataclass(frozen=True)
class Case:
    """One measurement. `engine` is unsloth, or plain: transformers + PEFT + bitsandbytes in an ordinary loop."""

    model: str
    method: str  # inference, qlora, lora, full
    engine: str = "plain"
    bits: int = 16  # of the loaded weights
    optimizer: str = ""  # adamw (32-bit states for 32-bit weights, else the weights' own type) or adamw_8bit
    batch: int = 2
    length: int = 2048  # tokens; of inference, the prompt
    checkpointing: bool = True
    rank: int = 16


def cases() -> Iterator[Case]:
    """What is measured, large ones first, so that the small ones fill the gaps."""
    qwen7, llama8 = "Qwen2.5-7B", "Llama-3.1-8B"
    lora = Case(qwen7, "lora", optimizer="adamw_8bit")
    qlora = replace(lora, method="qlora", bits=4)
    for model in ("Qwen2.5-14B", llama8, qwen7, "Qwen2.5-3B", "Qwen2.5-1.5B", "Qwen2.5-0.5B"):
        yield replace(qlora, model=model, engine="unsloth")
    yield replace(qlora, engine="unsloth", batch=1, length=512)
    yield replace(qlora, engine="unsloth", batch=1, length=8192)
    yield replace(qlora, engine="unsloth", batch=8, length=512)
    yield replace(qlora, engine="unsloth", rank=64)
    yield replace(qlora, engine="unsloth", checkpointing=False, batch=1, length=1024)
    yield replace(lora, engine="unsloth")
    for model in (qwen7, llama8, "Qwen2.5-1.5B"):
        yield replace(qlora, model=model)
    yield replace(qlora, checkpointing=False, batch=1)
    yield replace(qlora, checkpointing=False, batch=1, length=1024)
    yield lora
    yield replace(lora, checkpointing=False, batch=1)
    yield Case(qwen7, "full", optimizer="adamw", length=1024)
    for model in ("Qwen2.5-3B", "Qwen2.5-1.5B", "Qwen2.5-0.5B"):
        full = Case(model, "full", optimizer="adamw", length=1024)
        yield replace(full, bits=32)
        yield full
        yield replace(full, optimizer="adamw_8bit")
    yield Case("Qwen2.5-0.5B", "full", optimizer="adamw", length=1024, checkpointing=False, bits=32)
    yield Case("Qwen2.5-0.5B", "full", optimizer="adamw", length=1024, checkpointing=False)
    for model in (qwen7, llama8, "Qwen2.5-3B", "Qwen2.5-0.5B"):
        yield Case(model, "inference", batch=1, length=4096)
    yield Case(qwen7, "inference", batch=8, length=4096)
    yield Case(qwen7, "inference", bits=4, batch=1, length=4096)


def measure(case: Case, path: Path) -> dict[str, Any]:
    """Run one case in this process: the memory after loading, and at the peak of three steps (GiB, allocated)."""
    if case.engine == "unsloth":
        import unsloth  # noqa: F401  first: it replaces parts of transformers
    import torch

    began = time.perf_counter()
    model = _load(case, path)
    loaded = torch.cuda.memory_allocated() / GIB
    torch.cuda.reset_peak_memory_stats()
    {"inference": _generate, "unsloth": _train_unsloth}.get(
        case.method if case.method == "inference" else case.engine, _train_plain
    )(case, model)
    training.assert_plain(case.engine)
    return asdict(case) | {
        "parameters": sum(getattr(p, "quant_state", None).shape.numel() if hasattr(p, "quant_state") else p.numel()
                          for p in model.parameters()),
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "loaded_gib": round(loaded, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 3),
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 3),
        "seconds": round(time.perf_counter() - began, 1),
    }  # fmt: skip


def _load(case: Case, path: Path) -> Any:
    import torch

    if case.engine == "unsloth":
        from unsloth import FastLanguageModel

        model, tokenizer = FastLanguageModel.from_pretrained(
            str(path), max_seq_length=case.length, dtype=torch.bfloat16, load_in_4bit=case.bits == 4
        )
        model.course_tokenizer = tokenizer
        return model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options: dict[str, Any] = {"dtype": torch.float32 if case.bits == 32 else torch.bfloat16, "device_map": {"": 0}}
    if case.bits == 4:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
    return AutoModelForCausalLM.from_pretrained(path, **options)


def _generate(case: Case, model: Any) -> None:
    import torch

    prompt = torch.randint(100, 3000, (case.batch, case.length), device="cuda")
    model.generate(
        prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=NEW, min_new_tokens=NEW
    )


def _train_plain(case: Case, model: Any) -> None:
    """Three optimizer steps of an ordinary loop, 16-bit autocast over 32-bit weights where there are any."""
    import torch

    if case.method != "full":
        from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

        if case.bits == 4:
            model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        model = get_peft_model(
            model, LoraConfig(r=case.rank, lora_alpha=case.rank, target_modules=training.TARGETS, task_type="CAUSAL_LM")
        )
        model.enable_input_require_grads()
    if case.checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    trained = [p for p in model.parameters() if p.requires_grad]
    if case.optimizer == "adamw_8bit":
        from bitsandbytes.optim import AdamW8bit as Optimizer
    else:
        from torch.optim import AdamW as Optimizer
    optimizer = Optimizer(trained, lr=LEARNING_RATE)
    for _ in range(STEPS):
        ids = torch.randint(100, 3000, (case.batch, case.length), device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def _train_unsloth(case: Case, model: Any) -> None:
    """Three steps of SFTTrainer, the lessons' own settings; every row fills the whole length."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel

    tokenizer = model.course_tokenizer
    model = FastLanguageModel.get_peft_model(
        model, r=case.rank, lora_alpha=case.rank, lora_dropout=0, bias="none", target_modules=training.TARGETS,
        use_gradient_checkpointing="unsloth" if case.checkpointing else False, random_state=0,
    )  # fmt: skip
    words = [f"{n} apples and {n + 7} pears" for n in range(10, 90)]
    text = " ".join(words[(7 * n) % 80] for n in range(case.length))
    with tempfile.TemporaryDirectory() as out:
        trainer = SFTTrainer(
            model=model, processing_class=tokenizer, train_dataset=Dataset.from_dict({"text": [text] * STEPS * case.batch}),
            args=SFTConfig(
                output_dir=out, dataset_text_field="text", max_length=case.length, max_steps=STEPS,
                per_device_train_batch_size=case.batch, gradient_accumulation_steps=1, optim="adamw_8bit", bf16=True,
                logging_steps=1, save_strategy="no", report_to="none",
            ),
        )  # fmt: skip
        assert len(trainer.train_dataset[0]["input_ids"]) == case.length
        trainer.train()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/vram.json"))
    parser.add_argument("--side-by-side", type=int, default=5, help="processes at once")
    parser.add_argument("--only", help="cases whose JSON matches this regular expression")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help="keep and reuse the random checkpoints here")
    options = parser.parse_args()
    if options.one:
        case = Case(**json.loads(options.one))
        print("\n" + json.dumps(measure(case, options.weights / case.model)))
        return 0
    chosen = [case for case in cases() if not options.only or re.search(options.only, json.dumps(asdict(case)))]
    unit = "GiB allocated by torch; the CUDA context comes on top"
    record = records.new("peak GPU memory", "random weights", unit, SETTINGS)
    with records.scratch(options.weights) as folder, ThreadPoolExecutor(options.side_by_side) as pool:
        list(pool.map(lambda name: records.random_weights(name, f"{folder}/{name}"), {case.model for case in chosen}))
        sides = pool.map(
            lambda case: records.apart("tools.bench.vram", json.dumps(asdict(case)), "--weights", folder), chosen
        )
        for row in filter(None, sides):
            record["rows"].append(row)
            records.save(record, options.out)
    return records.verdict(record, len(chosen))


if __name__ == "__main__":
    raise SystemExit(main())
