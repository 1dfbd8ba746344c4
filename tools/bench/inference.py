"""Tokens a second of writing answers, one at a time and 32 at once: transformers, Unsloth, vLLM, llama.cpp.

    python -m tools.bench.inference --out benchmarks/records/inference_h200.json   (a GPU, vLLM; no network)

One shape, the same prompts by token id, greedy, every answer exactly as long as the budget. llama.cpp is the course's
own build (`xllamacpp`), which has no CUDA in it: it runs on the machine's CPU cores, and the record says on how many.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.bench import records

MODEL = "Qwen2.5-1.5B"
PROMPT, NEW = 128, 256  # tokens
BATCHES = (1, 32)
BEST_OF, SEED = 2, 0
VLLM = {"max_model_len": 1024, "gpu_memory_utilization": 0.5}
SETTINGS = VLLM | {"prompt_tokens": PROMPT, "new_tokens": NEW, "best_of": BEST_OF, "seed": SEED}
Write = Callable[[list[list[int]], int], list[list[int]]]  # prompts and a budget -> answers, in token ids


@dataclass(frozen=True)
class Side:
    """One engine and the form of its weights."""

    engine: str
    weights: str  # bf16, nf4, q8_0, q4_k_m


def sides() -> Iterator[Side]:
    for weights in ("bf16", "nf4"):
        yield Side("transformers", weights)
        yield Side("Unsloth", weights)
    yield Side("vLLM", "bf16")
    for weights in ("q8_0", "q4_k_m"):
        yield Side("llama.cpp, CPU", weights)


def measure(side: Side, path: str) -> dict[str, Any]:
    """Load, warm up, and write answers to one and to 32 prompts; the better of two rounds counts."""
    began = time.perf_counter()
    write = {"transformers": _transformers, "Unsloth": _unsloth, "vLLM": _vllm}.get(side.engine, _llama_cpp)(side, path)
    row = asdict(side) | {"load_s": round(time.perf_counter() - began, 1), "cores": len(os.sched_getaffinity(0))}
    rng = random.Random(SEED)
    for batch in BATCHES:
        rounds = []
        write([[rng.randrange(300, 3000) for _ in range(PROMPT)] for _ in range(batch)], 8)  # compiles, captures
        for _ in range(BEST_OF):  # prompts of its own for each round: no cache may know them
            prompts = [[rng.randrange(300, 3000) for _ in range(PROMPT)] for _ in range(batch)]
            began = time.perf_counter()
            answers = write(prompts, NEW)
            rounds.append(time.perf_counter() - began)
            assert [len(answer) for answer in answers] == [NEW] * batch
        row[f"tokens_per_s_batch_{batch}"] = round(batch * NEW / min(rounds), 1)
    return row


def _generate(model: Any) -> Write:
    import torch

    def write(prompts: list[list[int]], budget: int) -> list[list[int]]:
        ids = torch.tensor(prompts, device=model.device)
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False,
                min_new_tokens=budget, max_new_tokens=budget,
            )  # fmt: skip
        return out[:, PROMPT:].tolist()

    return write


def _transformers(side: Side, path: str) -> Write:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return _generate(
        AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.bfloat16, device_map={"": 0}, quantization_config=bits if side.weights == "nf4" else None
        )
    )


def _unsloth(side: Side, path: str) -> Write:
    import torch
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        path, max_seq_length=PROMPT + NEW, dtype=torch.bfloat16, load_in_4bit=side.weights == "nf4"
    )
    FastLanguageModel.for_inference(model)
    return _generate(model)


def _vllm(side: Side, path: str) -> Write:
    from vllm import LLM, SamplingParams

    engine = LLM(path, dtype="bfloat16", enable_prefix_caching=False, **VLLM)

    def write(prompts: list[list[int]], budget: int) -> list[list[int]]:
        sampling = SamplingParams(temperature=0, max_tokens=budget, ignore_eos=True, detokenize=False)
        done = engine.generate([{"prompt_token_ids": ids} for ids in prompts], sampling, use_tqdm=False)
        return [list(answer.outputs[0].token_ids) for answer in done]

    return write


def _llama_cpp(side: Side, path: str) -> Write:
    import httpx
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(Path(path, f"model.{side.weights}.gguf"))
    params.n_parallel, params.n_ctx, params.verbosity = max(BATCHES), max(BATCHES) * (PROMPT + NEW + 8), 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
    server = xllamacpp.Server(params)

    def one(ids: list[int], budget: int) -> list[int]:
        body = {"prompt": ids, "n_predict": budget, "temperature": 0, "ignore_eos": True, "return_tokens": True}
        answer = httpx.post(f"{server.listening_address}/completion", json=body, timeout=600, trust_env=False)
        return answer.raise_for_status().json()["tokens"]

    def write(prompts: list[list[int]], budget: int) -> list[list[int]]:
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda ids: one(ids, budget), prompts))

    return write


def write_ggufs(path: str, kinds: set[str]) -> None:
    """The checkpoint in each of these forms, such as q8_0, beside it."""
    if not kinds:
        return
    from helpers import llama_cpp

    folder = llama_cpp.use("index")
    half = Path(path, "model.f16.gguf")
    converter = [sys.executable, folder / "convert_hf_to_gguf.py", path, "--outtype", "f16", "--outfile", half]
    subprocess.run(converter, check=True, capture_output=True)
    for kind in sorted(kinds):
        goal = Path(path, f"model.{kind}.gguf")
        subprocess.run([folder / "llama-quantize", half, goal, kind], check=True, capture_output=True)


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """vLLM over transformers, and 32 at once over one at a time for each engine."""
    by = {(row["engine"], row["weights"]): row for row in rows}
    found = {}
    if {("vLLM", "bf16"), ("transformers", "bf16")} <= set(by):
        for batch in BATCHES:
            key = f"tokens_per_s_batch_{batch}"
            found[f"vLLM / transformers, {batch}"] = by["vLLM", "bf16"][key] / by["transformers", "bf16"][key]
    for (engine, weights), row in by.items():
        found[f"{engine}, {weights}: 32 / 1"] = row["tokens_per_s_batch_32"] / row["tokens_per_s_batch_1"]
    return {name: round(value, 2) for name, value in found.items()}


def main() -> int:
    parser = records.parser(__doc__, "inference")
    parser.add_argument("--model", default=MODEL, help="a shape in helpers.vram.SHAPES")
    options = parser.parse_args()
    if records.one_side(options, Side, measure):
        return 0
    record = records.new(
        "inference, tokens a second",
        f"{options.model}'s shape, random weights; prompts of {PROMPT} tokens, answers of {NEW}, greedy",
        "new tokens a second, prompt processing included; the better of two rounds",
        SETTINGS,
        ("torch", "transformers", "bitsandbytes", "unsloth", "vllm", "xllamacpp"),
    )
    ggufs = {side.weights for side in records.chosen(sides(), options)} & {"q8_0", "q4_k_m"}
    with tempfile.TemporaryDirectory() as path:
        records.random_weights(options.model, path)
        write_ggufs(path, ggufs)
        return records.run_sides("tools.bench.inference", record, [*sides()], path, options, ratios)


if __name__ == "__main__":
    raise SystemExit(main())
