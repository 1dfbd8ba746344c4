"""The benches: one module a subject, run by `course bench NAME`; each writes a record under benchmarks/records/."""

SUBJECTS = {
    "sft": "QLoRA fine-tuning: the course's settings against plain TRL, tokens a second and memory",
    "sft_vision": "the same on pictures: lesson 05's settings against plain TRL",
    "grpo": "a step of GRPO: answers by vLLM against Hugging Face's generate",
    "inference": "writing answers: transformers, Unsloth, vLLM, llama.cpp",
    "attention": "what a length that has not come before costs cuDNN's attention, and the others",
    "scale": "several GPUs: DDP, FSDP, tensor parallelism",
    "dpo_memory": "what DPO's reference costs in memory",
    "vram": "peak memory at real models' shapes: what estimate_vram is held against",
    "first_loss": "from `course run` to the first loss, and where the seconds go, on a CPU",
    "suite": "the trimmed notebooks, all of them, on a CPU",
    "medical": "lesson 02's CSV files to training data, on a CPU",
}
