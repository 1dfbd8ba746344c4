"""Several GPUs of one host: lesson 01's exported script by DDP, full fine-tuning by FSDP, vLLM by tensor parallelism.

    python -m tools.bench.scale --scratch /tmp/scale                 all of it, on every GPU of this host; no network
    python -m tools.bench.scale --scratch /tmp/scale --only ddp      a part (ddp, fsdp, trl, tp)
    python -m tools.bench.scale --tiny --only ddp,fsdp --out DIR     the same on two CPU processes, to try the script

A record a part: benchmarks/records/scale_PART_2xh200.json. Weights are random, at real models' shapes; the checkpoint
in `--scratch` (15 GB) is kept for the next part. Each case runs in processes of its own, and the record is written
after each. A case that fails is recorded with its reason: all weights of 14B on one GPU are meant to.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers import launch, parallel
from helpers.runtime import listed_gpus, root
from tools.bench import records

MODEL, STEPS, WARM_UP = "Qwen2.5-7B", 12, 4  # the first steps compile
# What all cases of a part share: lesson 01's parameters, the training here, lesson 13's fsdp.py, vLLM and its requests.
DDP = {"MAX_SEQ_LENGTH": 2048, "BATCH_SIZE": 2, "LEARNING_RATE": 2e-4, "PACKING": True, "SEED": 3407}
FSDP = {"steps": 6, "steps_left_out": 2, "learning_rate": 1e-5, "seed": 0}
TRL = {
    "MAX_SEQ_LENGTH": 2048, "BATCH_SIZE": 1, "GRADIENT_ACCUMULATION": 8, "LEARNING_RATE": 1e-5, "PACKING": True,
    "SEED": 3407,
}  # fmt: skip
VLLM = {"max_model_len": 1024, "max_num_seqs": 256, "gpu_memory_utilization": 0.85, "seed": 0}
REQUESTS, PROMPT, NEW = 256, 128, 256  # the last two in tokens
LIMIT = 280  # seconds a case
PARTS = ("ddp", "fsdp", "trl", "tp")
TINY, TINY_DDP = "nano/qwen2", {"MAX_SEQ_LENGTH": 256, "LEARNING_RATE": 5e-3}
SPEEDS = ("tokens_per_s", "tokens_per_s_one", "tokens_per_s_many")


def settings(part: str, tiny: bool = False) -> dict[str, records.Setting]:
    """What all cases of a part share."""
    if part == "fsdp":
        return FSDP
    if part == "tp":
        return VLLM | {"requests": REQUESTS, "prompt_tokens": PROMPT, "new_tokens": NEW}
    trained = TRL if part == "trl" else DDP | (TINY_DDP if tiny else {})
    return {name.lower(): value for name, value in trained.items()} | {"max_steps": STEPS, "steps_left_out": WARM_UP}


def ddp_cases(gpus: int) -> Iterator[dict[str, Any]]:
    """Lesson 01 on 1, 2, 4 … GPUs. Strong: eight rows a step, shared. Weak: eight rows a step on each GPU."""
    count = 1
    while count <= gpus:
        for scaling in ("strong", "weak") if count > 1 else ("one",):
            if scaling == "strong" and 4 % count:
                continue
            yield {
                "part": "ddp",
                "gpus": count,
                "scaling": scaling,
                "accumulation": 4 * (count if scaling == "weak" else 1),
            }
        count *= 2


def fsdp_cases(gpus: int, tiny: bool = False) -> Iterator[dict[str, Any]]:
    """All weights trained, 16 bytes a parameter: one GPU, a copy on each (DDP), a share on each (FSDP2)."""
    small, large = (TINY, TINY) if tiny else ("Qwen2.5-3B", "Qwen2.5-14B")
    common = {"part": "fsdp", "batch": 2, "length": 64 if tiny else 2048}
    yield common | {"gpus": 1, "strategy": "one", "model": small}
    yield common | {"gpus": gpus, "strategy": "ddp", "model": small}
    yield common | {"gpus": gpus, "strategy": "fsdp", "model": small}
    if not tiny:
        yield common | {"gpus": 1, "strategy": "one", "model": large, "batch": 1}
        yield common | {"gpus": gpus, "strategy": "fsdp", "model": large, "batch": 1}


def trl_cases(gpus: int) -> Iterator[dict[str, Any]]:
    """Lesson 13's fsdp.py under `accelerate launch`: all weights, and QLoRA with the 4-bit weights shared out."""
    for qlora in (False, True):
        yield {"part": "trl", "gpus": gpus, "strategy": "qlora" if qlora else "full", "model": MODEL}


def tp_cases(gpus: int) -> Iterator[dict[str, Any]]:
    """vLLM with the weights on one GPU, then cut over 2, 4 …; many requests at once, and one alone."""
    count = 1
    while count <= gpus:
        yield {"part": "tp", "gpus": count}
        count *= 2


def write_rows(path: Path, rows: int, words: int = 60) -> Path:
    """An Alpaca file of random words, the same each time: lengths vary, packing fills the rows."""
    rng = random.Random(0)
    vocabulary = ["".join(rng.choices("abcdefghijklmnop", k=rng.randint(2, 7))) for _ in range(2000)]

    def text(n: int) -> str:
        return " ".join(rng.choices(vocabulary, k=rng.randint(n // 2, n * 3 // 2)))

    content = [{"instruction": text(8), "input": "", "output": text(words)} for _ in range(rows)]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def ddp(case: dict[str, Any], scratch: Path, tiny: bool) -> dict[str, Any]:
    """Run the exported script and work out its speed from `run.json`."""
    script = launch.export(root() / "notebooks" / "en" / "01_alpaca_sft.ipynb", scratch / "train.py")
    out = scratch / f"ddp_{case['gpus']}_{case['scaling']}"
    options = DDP | {
        "MODEL": TINY if tiny else str(scratch / MODEL),
        "DATASET": str(write_rows(scratch / "rows.json", 300 if tiny else 6000)),
        "OUTPUT_DIR": str(out),
        "MAX_STEPS": STEPS,
        "GRADIENT_ACCUMULATION": case["accumulation"],
        "VRAM_GB": 0,
        "DISK_GB": 1,
    }
    if tiny:
        options |= TINY_DDP
    launch.run(
        launch.torchrun(script, options, processes=case["gpus"]), scratch / f"{out.name}.log", LIMIT, **_environment()
    )
    return _told(out)


def _told(out: Path) -> dict[str, Any]:
    """Speed and memory from a script's `run.json`."""
    told = json.loads((out / "run.json").read_text(encoding="utf-8"))
    seconds, tokens = sum(told["seconds"][WARM_UP:]), sum(told["tokens"][WARM_UP:])
    return {
        "tokens_per_s": round(tokens / seconds),
        "seconds_per_step": round(statistics.median(told["seconds"][WARM_UP:]), 3),
        "tokens_per_step": round(statistics.mean(told["tokens"])),
        "peak_gib": _most(told["peak_gib"]),
        "losses": [round(loss, 4) for loss in told["losses"]],
        "same_weights_everywhere": len(set(told["weights"])) == 1,
    }


def fsdp(case: dict[str, Any], scratch: Path, tiny: bool) -> dict[str, Any]:
    command = launch.torchrun(Path(__file__), ["--child", json.dumps(case)], processes=case["gpus"])
    log = scratch / f"fsdp_{case['gpus']}_{case['strategy']}_{case['model'].replace('/', '_')}.log"
    return _last_line(launch.run(command, log, LIMIT, **_environment()))


def trl(case: dict[str, Any], scratch: Path, tiny: bool) -> dict[str, Any]:
    lesson, out = root() / "lessons" / "13_scale_out", scratch / f"trl_{case['strategy']}"
    options = TRL | {
        "MODEL": str(scratch / case["model"]),
        "DATASET": str(write_rows(scratch / "rows.json", 3000)),
        "OUTPUT_DIR": str(out),
        "QLORA": case["strategy"] == "qlora",
        "MAX_STEPS": STEPS,
        "SAVE": False,
    }
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(lesson / "fsdp.yaml")]
    command += ["--num_processes", str(case["gpus"]), str(lesson / "fsdp.py"), *launch.as_options(options)]
    launch.run(command, scratch / f"{out.name}.log", LIMIT, **_environment())
    return _told(out)


def tp(case: dict[str, Any], scratch: Path, tiny: bool) -> dict[str, Any]:
    command = [sys.executable, Path(__file__), "--child", json.dumps(case | {"path": str(scratch / MODEL)})]
    # vLLM's FlashInfer sampler compiles itself at first use, which wants a network.
    settings = _environment() | {"VLLM_USE_FLASHINFER_SAMPLER": "0", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    settings |= {"VLLM_ALLREDUCE_USE_SYMM_MEM": "0"}  # it goes through NVLink multicast, see `_environment`
    return _last_line(launch.run(command, scratch / f"tp_{case['gpus']}.log", LIMIT, **settings))


def train_all_weights(case: dict[str, Any]) -> None:
    """Under torchrun: a few steps of full fine-tuning on random tokens, in mixed precision, with checkpointing."""
    import torch
    import torch.distributed as dist
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    from torch.nn.parallel import DistributedDataParallel

    cuda, rank = torch.cuda.is_available(), launch.rank()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", device_id=device if cuda else None)
    torch.manual_seed(FSDP["seed"])
    sharded = case["strategy"] == "fsdp"
    model = _random_model(case["model"], torch.device("meta") if sharded else device)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    if sharded:
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        for layer in model.model.layers:
            fully_shard(layer, mp_policy=policy)
        fully_shard(model, mp_policy=policy)
        model.to_empty(device=device)  # each process holds its share of the 32-bit weights
        for name, weight in model.named_parameters():
            torch.nn.init.ones_(weight) if "norm" in name else torch.nn.init.normal_(weight, std=0.02)
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config, device=device)
    elif case["strategy"] == "ddp":
        model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=FSDP["learning_rate"], fused=True)
    generator = torch.Generator().manual_seed(launch.rank())
    seconds, losses = [], []
    for _ in range(FSDP["steps"]):
        ids = torch.randint(0, 400, (case["batch"], case["length"]), generator=generator).to(device)
        began = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=not sharded):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())  # waits for the GPU
        seconds.append(time.perf_counter() - began)
    peaks = [torch.cuda.max_memory_allocated(device) / 2**30 if cuda else None]
    if dist.get_world_size() > 1:
        everyone: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, peaks[0])
        peaks = everyone
    if rank == 0:
        tokens = case["batch"] * case["length"] * dist.get_world_size()
        row = {
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "tokens_per_s": round(tokens / statistics.median(seconds[FSDP["steps_left_out"] :])),
            "seconds_per_step": round(statistics.median(seconds[FSDP["steps_left_out"] :]), 3),
            "peak_gib": _most(peaks),
            "losses": [round(loss, 4) for loss in losses],
        }
        print("\n" + json.dumps(row), flush=True)
    dist.destroy_process_group()


def _random_model(name: str, device: Any) -> Any:
    """A model with the shape that `name` has, random 32-bit weights, on `device` (meta: no weights yet)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

    from helpers import hub
    from helpers.vram import SHAPES

    if name in SHAPES:
        shape = SHAPES[name]
        config = Qwen2Config(
            hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, vocab_size=shape.vocabulary,
            tie_word_embeddings=shape.tied, use_cache=False,
        )  # fmt: skip
    else:
        config = AutoConfig.from_pretrained(hub.resolve_model(name), use_cache=False)
    with device:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def serve(case: dict[str, Any]) -> None:
    """Written tokens a second of vLLM: 256 requests at once, then one alone."""
    from vllm import LLM, SamplingParams

    began = time.perf_counter()
    # vLLM 0.25 and 0.26 take the fused all-reduce's NVLink multicast for granted: illegal memory access without it
    # (https://github.com/vllm-project/vllm/pull/48075).
    passes = {"fuse_allreduce_rms": False} if case["gpus"] > 1 else {}
    engine = LLM(
        case["path"], tensor_parallel_size=case["gpus"], dtype="bfloat16", disable_log_stats=True,
        compilation_config={"pass_config": passes}, **VLLM,
    )  # fmt: skip
    row: dict[str, Any] = {"seconds_to_start": round(time.perf_counter() - began, 1)}
    rng = random.Random(0)
    prompts = [{"prompt_token_ids": [rng.randrange(300, 3000) for _ in range(PROMPT)]} for _ in range(REQUESTS)]
    plan = SamplingParams(temperature=0.0, max_tokens=NEW, min_tokens=NEW, ignore_eos=True)
    for name, asked in (("many", prompts), ("one", prompts[:1])):
        engine.generate(asked, plan, use_tqdm=False)  # a warm-up
        began = time.perf_counter()
        answers = engine.generate(asked, plan, use_tqdm=False)
        seconds = time.perf_counter() - began
        row[f"tokens_per_s_{name}"] = round(sum(len(a.outputs[0].token_ids) for a in answers) / seconds, 1)
    print("\n" + json.dumps(row), flush=True)


def with_efficiency(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of one part, each with its tokens a second over as many times those on one GPU (to three digits)."""
    one = next((row for row in rows if row["gpus"] == 1 and "error" not in row), None)
    found = []
    for row in rows:
        speeds = [name for name in row if name in SPEEDS] if one and "error" not in row else []
        shares = {name: parallel.efficiency(one[name], row[name], row["gpus"]) for name in speeds}
        found.append(row | {n.replace("tokens_per_s", "efficiency"): round(share, 3) for n, share in shares.items()})
    return found


def _environment() -> dict[str, str]:
    return {"NCCL_NVLS_ENABLE": os.environ.get("NCCL_NVLS_ENABLE", "0")}  # NVLink multicast is not everywhere allowed


def _most(peaks: list[float | None]) -> float | None:
    return None if None in peaks else round(max(peaks), 2)  # type: ignore[type-var]


def cases_of(part: str, gpus: int, tiny: bool = False) -> list[dict[str, Any]]:
    """Every case of a part, in order."""
    return list(
        fsdp_cases(gpus, tiny) if part == "fsdp" else {"ddp": ddp_cases, "trl": trl_cases, "tp": tp_cases}[part](gpus)
    )


def named(case: dict[str, Any]) -> str:
    """What a reader calls the case."""
    if case["part"] == "ddp":
        return {"one": "one GPU", "strong": "the same step, shared", "weak": "the same work on each"}[case["scaling"]]
    if case["part"] == "tp":
        return "whole" if case["gpus"] == 1 else "cut"
    ways = {"one": "one GPU", "ddp": "a copy on each (DDP)", "fsdp": "a share on each (FSDP)"}
    ways |= {"full": "TRL, FSDP, all weights", "qlora": "TRL, FSDP, QLoRA"}
    return f"{case['model']}, {ways[case['strategy']]}"


def _last_line(log: str) -> dict[str, Any]:
    return json.loads(next(line for line in reversed(log.strip().splitlines()) if line.startswith("{")))


def main(argv: list[str] | None = None) -> int:
    """Measure the parts asked for and write the record; 1 when a case failed that should not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records"), help="folder of the records")
    parser.add_argument("--scratch", type=Path, default=Path("outputs/scale"), help="weights and logs")
    parser.add_argument("--gpus", type=int, help="use so many; default: all of this host")
    parser.add_argument("--tiny", action="store_true", help="nano models on two CPU processes")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.child:
        case = json.loads(options.child)
        serve(case) if case["part"] == "tp" else train_all_weights(case)
        return 0
    wanted = options.only.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--only {unknown.pop()}: there are {', '.join(PARTS)}")
    gpus = options.gpus or (2 if options.tiny else len(listed_gpus()))
    if not gpus:
        parser.error("no GPU here; --tiny tries the script on a CPU")
    scratch = options.scratch.resolve()
    scratch.mkdir(parents=True, exist_ok=True)
    if not options.tiny and {"ddp", "trl", "tp"} & set(wanted):
        records.random_weights(MODEL, str(scratch / MODEL))
    failed = 0
    for part in wanted:
        record = records.new(
            "several GPUs of one host: tokens a second, efficiency, memory of each GPU",
            TINY if options.tiny else f"{MODEL}'s shape (or as the rows say), random weights",
            "tokens over all GPUs a second, after the first steps; GiB allocated by torch, of the fullest GPU",
            settings(part, options.tiny),
            (*records.PACKAGES, "accelerate", "vllm"),
        )
        card = "cpu" if record["hardware"].startswith("CPU") else record["hardware"].split()[-1].lower()
        record["hardware"] = f"{gpus} x {record['hardware']}"
        for case in cases_of(part, gpus, options.tiny):
            began = time.perf_counter()
            try:
                measured = {"ddp": ddp, "fsdp": fsdp, "trl": trl, "tp": tp}[part](case, scratch, options.tiny)
            except launch.LaunchFailed as error:
                log = max(scratch.glob("*.log"), key=lambda path: path.stat().st_mtime).read_text(errors="replace")
                memory = "out of memory" in log.lower()
                measured = {"error": "out of memory" if memory else str(error)[-600:]}
                measured |= {"tokens_per_s": "out of memory" if memory else "failed", "peak_gib": "–"}
                failed += not (memory and case["gpus"] == 1)
            row = {"name": named(case)} | case | measured | {"wall_seconds": round(time.perf_counter() - began, 1)}
            print(json.dumps(row), flush=True)
            record["rows"] = [*record["rows"], row]
            if part in ("ddp", "tp"):
                record["rows"] = with_efficiency(record["rows"])
            records.save(record, options.out / f"scale_{part}_{gpus}x{card}.json")
    print(f"{failed} failed; records in {options.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
