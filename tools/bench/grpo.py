"""Seconds a step of GRPO: answers written by vLLM against Hugging Face's generate, same prompts, same budget.

    python -m tools.bench.grpo --bits 4 --out benchmarks/records/grpo_4_bits_h200.json

A GPU and vLLM; no network, the weights are random.

Lesson 04's settings. Random weights hardly ever write the end token, so that on every side each answer is as long as
the budget allows: the same work. The reward is drawn from the answer's text, so that the advantages are not all 0.
"""

from __future__ import annotations

import tempfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from tools.bench import records, training

MODEL, LENGTH, RANK = "Qwen2.5-3B", 1024, 32
GROUP, BATCH, ACCUMULATION, COMPLETION = 8, 8, 4, 384  # 32 answers a step
STEPS, WARM_UP = 3, 1  # the first step compiles
TRAINER = {
    "num_generations": GROUP, "max_completion_length": COMPLETION, "temperature": 1.0, "loss_type": "dapo", "beta": 0.0,
    "mask_truncated_completions": False, "per_device_train_batch_size": BATCH,
    "gradient_accumulation_steps": ACCUMULATION, "max_steps": STEPS, "learning_rate": 5e-6, "max_grad_norm": 0.1,
    "seed": 0,
}  # fmt: skip
VLLM = {"gpu_memory_utilization": 0.3}
SETTINGS = TRAINER | VLLM | {
    "max_seq_length": LENGTH, "lora_rank": RANK, "lora_alpha": RANK, "steps_left_out": WARM_UP,
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One way to write the answers. `engine` is trl (TRL + PEFT + bitsandbytes) or unsloth."""

    name: str
    engine: str
    vllm: bool = False
    bits: int = 4
    cudnn: bool = True  # see `tools.bench.sft`


def sides(bits: int) -> Iterator[Side]:
    yield Side("course, vLLM", "unsloth", vllm=True, bits=bits, cudnn=False)
    yield Side("course, generate", "unsloth", bits=bits, cudnn=False)
    yield Side("TRL, generate", "trl", bits=bits)
    yield Side("TRL, generate, without cuDNN's attention", "trl", bits=bits, cudnn=False)


def reward(completions: list[Any], **_: Any) -> list[float]:
    """A number from 0 to 1 that depends on the text alone."""
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [zlib.crc32(text.encode()) % 1000 / 1000 for text in texts]


def measure(side: Side, path: str) -> dict[str, Any]:
    """Train `STEPS` steps in this process."""
    if side.engine == "unsloth":
        import unsloth  # noqa: F401  first: it replaces parts of trl
    import torch
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    torch.backends.cuda.enable_cudnn_sdp(side.cudnn)
    began = time.perf_counter()
    model, tokenizer, options = _load(side, path)
    loaded = time.perf_counter() - began
    torch.cuda.reset_peak_memory_stats()
    clock = training.clock()
    questions = [f"A farm has {n + 10} hens and {n % 7 + 12} cows. How many animals are there?" for n in range(64)]
    prompts = [[{"role": "user", "content": question}] for question in questions]
    with tempfile.TemporaryDirectory() as out:
        trainer = GRPOTrainer(
            model=model,
            processing_class=tokenizer,
            reward_funcs=[reward],
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            args=GRPOConfig(
                output_dir=out, use_vllm=side.vllm, **TRAINER,
                bf16=True, logging_steps=1, save_strategy="no", report_to="none",
            ),
            callbacks=[clock],
            **options,
        )  # fmt: skip
        writing = _timed(trainer, "_generate")
        trainer.train()
    training.assert_plain(side.engine)
    logged = [entry for entry in trainer.state.log_history if "completions/mean_length" in entry][WARM_UP:]
    tokens = sum(entry["completions/mean_length"] for entry in logged) / len(logged) * BATCH * ACCUMULATION
    seconds = sum(clock.seconds[WARM_UP:]) / (STEPS - WARM_UP)
    return asdict(side) | {
        "seconds_per_step": round(seconds, 2),
        "writing_s": round(sum(writing[WARM_UP:]) / (STEPS - WARM_UP), 2),  # the rest of a step is training
        "tokens_per_step": round(tokens),
        "tokens_per_s": round(tokens / seconds),
        "start_s": round(loaded, 1),
        "first_step_s": round(clock.seconds[0], 1),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


def _timed(owner: Any, method: str) -> list[float]:
    """The seconds of each call of a method from now on, until the GPU is done with it."""
    import torch

    seconds, called = list[float](), getattr(owner, method)

    def timed(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        result = called(*args, **kwargs)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
        return result

    setattr(owner, method, timed)
    return seconds


def _load(side: Side, path: str) -> tuple[Any, Any, dict[str, Any]]:
    """Model with its adapter (or, for TRL, the adapter's settings), and tokenizer."""
    import torch

    if side.engine == "unsloth":
        from unsloth import FastLanguageModel

        vllm = {"fast_inference": True, **VLLM, "max_lora_rank": RANK} if side.vllm else {}
        model, tokenizer = FastLanguageModel.from_pretrained(
            path, max_seq_length=LENGTH, dtype=torch.bfloat16, load_in_4bit=side.bits == 4, **vllm
        )
        model = FastLanguageModel.get_peft_model(
            model, r=RANK, lora_alpha=RANK, target_modules=training.TARGETS, use_gradient_checkpointing="unsloth"
        )
        return model, tokenizer, {}
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.bfloat16, device_map={"": 0}, quantization_config=bits if side.bits == 4 else None
    )
    lora = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=training.TARGETS, task_type="CAUSAL_LM")
    return model, AutoTokenizer.from_pretrained(path), {"peft_config": lora}


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Tokens a second with vLLM over each side with generate."""
    speed = {row["name"]: row["tokens_per_s"] for row in rows}
    fast = speed.pop("course, vLLM", None)
    return {f"course, vLLM / {name}": round(fast / slow, 2) for name, slow in speed.items() if fast}


def main() -> int:
    parser = records.parser(__doc__, "grpo")
    parser.add_argument("--bits", type=int, choices=(4, 16), default=4, help="of the model that is trained")
    options = parser.parse_args()
    if records.one_side(options, Side, measure):
        return 0
    record = records.new(
        "GRPO, seconds a step by who writes the answers",
        f"{MODEL}'s shape, random weights in {options.bits} bits, LoRA r = {RANK}",
        f"tokens of {BATCH * ACCUMULATION} answers of up to {COMPLETION} tokens a second of the whole step, training "
        "included; GiB allocated by torch (vLLM's own share beside it)",
        SETTINGS,
        (*records.PACKAGES, "vllm"),
    )
    with tempfile.TemporaryDirectory() as path:
        records.random_weights(MODEL, path)
        return records.run_sides("tools.bench.grpo", record, [*sides(options.bits)], path, options, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
