"""What the reference of DPO costs: peak memory with a second model, with a copied adapter, computed beforehand.

    python -m tools.bench.dpo_memory            Qwen2.5-7B's shape with random weights; a GPU, no network, 16 GB of disk
    python -m tools.bench.dpo_memory --model nano/qwen2 --out FILE     the same on a small machine, to try the script

Memory depends on shapes, not on what the weights know. Each case runs in a process of its own, with lesson 09's
settings and pairs that fill the whole length; what comes first is the same run as SFT, on one text a row.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from tools.bench import records, training

REFERENCES = ("none: SFT", "second model", "adapter copy", "computed beforehand")
STEPS, RANK, BETA = 3, 16, 0.1
MODEL = "Qwen2.5-7B"


def settings(batch: int, length: int) -> dict[str, Any]:
    """What both trainers are given."""
    return {
        "max_length": length,
        "max_steps": STEPS,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": 1,
        "optim": "adamw_8bit",
    }


def measure(path: str, reference: str, bits: int, batch: int, length: int) -> dict[str, Any]:
    """Train a few steps in this process; GiB after loading and at the peak, as `memory.track` counts them."""
    import unsloth  # noqa: F401, I001  first: it replaces parts of transformers
    import torch
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
    from unsloth import FastLanguageModel

    from helpers import memory, runtime

    def load() -> tuple[Any, Any]:
        return FastLanguageModel.from_pretrained(
            path, max_seq_length=length, dtype=runtime.dtype(), load_in_4bit=bits == 4
        )

    model, tokenizer = load()
    model = FastLanguageModel.get_peft_model(
        model, r=RANK, lora_alpha=RANK, target_modules=training.TARGETS, use_gradient_checkpointing="unsloth"
    )
    words = " ".join(f"{n % 83 + 10} apples and {n % 71 + 12} pears" for n in range(length))
    common = {
        **settings(batch, length),
        "bf16": runtime.dtype() == torch.bfloat16,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
    }
    with tempfile.TemporaryDirectory() as out:
        if reference == REFERENCES[0]:
            trainer = SFTTrainer(
                model=model,
                processing_class=tokenizer,
                train_dataset=Dataset.from_dict({"text": [words] * STEPS * batch}),
                args=SFTConfig(output_dir=out, dataset_text_field="text", **common),
            )
        else:
            pairs = {"prompt": ["Count: "], "chosen": [words], "rejected": [words + "!"]}
            trainer = DPOTrainer(
                model=model,
                ref_model=load()[0] if reference == "second model" else None,
                processing_class=tokenizer,
                train_dataset=Dataset.from_dict({name: text * STEPS * batch for name, text in pairs.items()}),
                args=DPOConfig(
                    output_dir=out, precompute_ref_log_probs=reference == "computed beforehand", beta=BETA, **common
                ),
            )
        memory.free()
        with memory.track() as cost:
            trainer.train()
    return {
        "reference": reference,
        "bits": bits,
        "batch": batch,
        "length": length,
        "steps": STEPS,
        "parameters": model.num_parameters(),
        "adapters": list(model.peft_config),
        "loaded_gib": round(cost.start_gib, 3),
        "peak_gib": round(cost.peak_gib, 3),
        "seconds": round(cost.seconds, 1),
    }


def main(argv: list[str] | None = None) -> int:
    """Measure every reference with 4-bit and 16-bit weights and write the record; 1 when a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/dpo_memory.json"))
    parser.add_argument("--model", help="a model folder or nano/… instead of random weights of Qwen2.5-7B's shape")
    parser.add_argument("--batch", type=int, default=2, help="pairs a step")
    parser.add_argument("--length", type=int, default=1024, help="tokens, prompt and answer")
    parser.add_argument("--one", nargs=3, metavar=("PATH", "REFERENCE", "BITS"), help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.one:
        path, reference, bits = options.one
        print("\n" + json.dumps(measure(path, reference, int(bits), options.batch, options.length)))
        return 0
    from helpers import hub

    record = records.new(
        "peak memory of DPO by where its reference comes from",
        options.model or f"{MODEL}'s shape, random weights",
        "GiB allocated by torch on a GPU (the CUDA context comes on top), resident memory on a CPU",
        settings(options.batch, options.length) | {"beta": BETA, "lora_rank": RANK, "lora_alpha": RANK},
    )
    wanted = [(bits, reference) for bits in (4, 16) for reference in REFERENCES]
    sizes = ["--batch", str(options.batch), "--length", str(options.length)]
    with tempfile.TemporaryDirectory() as scratch:
        path = hub.resolve_model(options.model) if options.model else scratch
        if not options.model:
            records.random_weights(MODEL, path)
        for bits, reference in wanted:
            if row := records.apart("tools.bench.dpo_memory", path, reference, str(bits), *sizes):
                record["rows"].append(row)
                records.save(record, options.out)
    return records.verdict(record, len(wanted))


if __name__ == "__main__":
    raise SystemExit(main())
