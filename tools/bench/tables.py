"""The records as tables, in either language: what `course build` puts between the marks in READMEs and readings.

<!-- record: sft_h200 -->
<!-- /record -->
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from helpers import vram
from tools.bench.vram import Case
from tools.lessons import LessonError

MARK = re.compile(r"(<!-- record: ([\w-]+) -->\n).*?(<!-- /record -->)", re.DOTALL)

OF_A_STEP = (
    "name", "gpu_ms", "matrices_ms", "attention_ms", "unpacking_ms", "optimizer_ms", "copies_ms", "other_ms",
)  # fmt: skip
# By the beginning of a record's name, the first that fits: the figures that are shown, and what its first column is called.
COLUMNS = {
    "sft_shapes": ("model", "name", "useful_tokens_per_s", "loaded_gib", "peak_gib"),
    "sft_profile_shapes": ("model", *OF_A_STEP),
    "sft_profile": OF_A_STEP,
    "sft_memory": (
        "name",
        "weights_gib",
        "between_steps_gib",
        "kept_gib",
        "recomputed_gib",
        "gradients_gib",
        "unpacked_gib",
        "loss_gib",
        "optimizer_gib",
        "peak_gib",
    ),
    "sft": ("name", "useful_tokens_per_s", "seconds_per_step", "loaded_gib", "peak_gib"),
    "grpo": ("name", "seconds_per_step", "writing_s", "tokens_per_s", "start_s"),
    "first_loss": (
        "name",
        "start_s",
        "imports_s",
        "data_s",
        "model_s",
        "asking_s",
        "training_s",
        "seconds_to_first_loss",
    ),
    "medical": ("name", "rows", "kept", "seconds", "cpu_seconds", "peak_gib"),
    "attention": ("name", "cudnn", "new_ms", "again_ms"),
    "dpo_memory": ("weights", "sft", "second_model", "adapter_copy"),
    "inference": ("engine", "weights", "tokens_per_s_batch_1", "tokens_per_s_batch_32"),
    "vram": ("name", "measured", "estimated"),
    "scale_ddp": ("name", "gpus", "tokens_per_s", "efficiency", "seconds_per_step", "peak_gib"),
    "scale_fsdp": ("name", "gpus", "tokens_per_s", "peak_gib"),
    "scale_trl": ("name", "gpus", "tokens_per_s", "peak_gib"),
    "scale_tp": ("name", "gpus", "tokens_per_s_one", "tokens_per_s_many", "seconds_to_start"),
}
NAMES = {
    "attention": {"en": "milliseconds for", "zh": "毫秒数"},
    "dpo_memory": {"en": "peak, GiB", "zh": "峰值，GiB"},
    "sft": {"en": "one H200", "zh": "一块 H200"},
    "sft_shapes": {"en": "one H200", "zh": "一块 H200"},
    "sft_profile_shapes": {"en": "milliseconds a step", "zh": "每步毫秒数"},
    "sft_profile": {"en": "milliseconds a step", "zh": "每步毫秒数"},
    "sft_memory": {"en": "GiB at the peak", "zh": "峰值时的 GiB"},
    "first_loss": {"en": "seconds", "zh": "秒数"},
    "grpo": {"en": "who writes the answers", "zh": "谁来写回答"},
    "medical": {"en": "by what", "zh": "用什么"},
    "vram": {"en": "GiB", "zh": "GiB"},
    "scale_ddp": {"en": "DDP", "zh": "DDP"},
    "scale_fsdp": {"en": "all weights trained", "zh": "全参训练"},
    "scale_trl": {"en": "accelerate launch", "zh": "accelerate launch"},
    "scale_tp": {"en": "vLLM", "zh": "vLLM"},
}
HEADINGS = {
    "adapter_copy": {"en": "DPO, a copy of the adapter", "zh": "DPO，复制适配器"},
    "again_ms": {"en": "at the same length again", "zh": "同样的长度再来一次"},
    "asking_s": {"en": "asking beforehand", "zh": "训练前提问"},
    "between_steps_gib": {"en": "adapter, moments, buffers", "zh": "适配器、动量、缓冲区"},
    "kept_gib": {"en": "kept by the forward pass", "zh": "前向留下的"},
    "recomputed_gib": {"en": "recomputed layer", "zh": "正在重算的一层"},
    "gradients_gib": {"en": "the backward pass's own", "zh": "反向自己的"},
    "unpacked_gib": {"en": "weights unpacked", "zh": "展开的权重"},
    "loss_gib": {"en": "loss", "zh": "损失"},
    "optimizer_gib": {"en": "optimizer", "zh": "优化器"},
    "weights_gib": {"en": "weights", "zh": "权重"},
    "attention_ms": {"en": "attention", "zh": "注意力"},
    "copies_ms": {"en": "copies", "zh": "搬运"},
    "cpu_seconds": {"en": "CPU seconds", "zh": "CPU 秒"},
    "cudnn": {"en": "cuDNN", "zh": "cuDNN"},
    "data_s": {"en": "data", "zh": "数据"},
    "efficiency": {"en": "efficiency", "zh": "扩展效率"},
    "engine": {"en": "engine", "zh": "引擎"},
    "estimated": {"en": "estimated", "zh": "估算"},
    "gpus": {"en": "GPUs", "zh": "卡数"},
    "gpu_ms": {"en": "in all", "zh": "合计"},
    "imports_s": {"en": "imports", "zh": "导入"},
    "kept": {"en": "rows kept", "zh": "留下的行"},
    "loaded_gib": {"en": "loaded, GiB", "zh": "加载后 GiB"},
    "matrices_ms": {"en": "matrix products", "zh": "矩阵乘法"},
    "measured": {"en": "measured", "zh": "实测"},
    "model": {"en": "shape of", "zh": "模型形状"},
    "model_s": {"en": "model", "zh": "加载模型"},
    "new_ms": {"en": "at a new length", "zh": "没见过的长度"},
    "optimizer_ms": {"en": "optimizer", "zh": "优化器"},
    "other_ms": {"en": "all else", "zh": "其他"},
    "peak_gib": {"en": "peak on a GPU, GiB", "zh": "单卡峰值 GiB"},
    "rows": {"en": "rows read", "zh": "读入的行"},
    "second_model": {"en": "DPO, a second model", "zh": "DPO，另放一个模型"},
    "seconds": {"en": "seconds", "zh": "秒"},
    "seconds_per_step": {"en": "seconds a step", "zh": "每步秒数"},
    "seconds_to_first_loss": {"en": "to the first loss", "zh": "到第一个损失值"},
    "seconds_to_start": {"en": "seconds to start", "zh": "启动秒数"},
    "sft": {"en": "SFT, two texts", "zh": "SFT，两段文本"},
    "start_s": {"en": "seconds to load", "zh": "加载秒数"},
    "training_s": {"en": "first step", "zh": "第一步"},
    "tokens_per_s": {"en": "tokens/s", "zh": "token/秒"},
    "tokens_per_s_batch_1": {"en": "tokens/s, one at a time", "zh": "token/秒，一次一条"},
    "tokens_per_s_batch_32": {"en": "tokens/s, 32 at once", "zh": "token/秒，一次 32 条"},
    "tokens_per_s_many": {"en": "tokens/s, 256 at once", "zh": "token/秒，一次 256 个"},
    "tokens_per_s_one": {"en": "tokens/s, one request", "zh": "token/秒，一个请求"},
    "unpacking_ms": {"en": "unpacking 4 bits", "zh": "解 4 比特"},
    "useful_tokens_per_s": {"en": "useful tokens/s", "zh": "有效 token/秒"},
    "weights": {"en": "weights", "zh": "权重"},
    "writing_s": {"en": "of them writing", "zh": "其中写回答"},
}

OTHERWISE = {  # headings of one kind alone
    "first_loss": {"start_s": {"en": "command and kernel", "zh": "命令与内核启动"}},
    "medical": {"peak_gib": {"en": "peak memory, GiB", "zh": "内存峰值 GiB"}},
    **{kind: {"name": {"en": "trained by", "zh": "怎么训练"}} for kind in ("sft_shapes", "sft_profile_shapes")},
}

# Texts of the records that a reader of Chinese sees in Chinese; numbers and product names need no entry.
CHINESE = {
    "TRL, as tutorials do": "TRL，一般教程的跑法",
    "TRL, as tutorials do, without cuDNN's attention": "TRL，一般教程的跑法，不用 cuDNN 的注意力",
    "TRL, packed, flex attention": "TRL，打包，flex attention",
    "TRL, packed, flex attention, Liger": "TRL，打包，flex attention，Liger",
    "TRL, packed, flex attention, Liger, 8 x 1": "TRL，打包，flex attention，Liger，8 × 1",
    "TRL, Liger, 8 x 1": "TRL，Liger，8 × 1",
    "course, packed": "本课，打包",
    "course, packed, 8 x 1": "本课，打包，8 × 1",
    "course, packed, xformers, 8 x 1": "本课，打包，xformers，8 × 1",
    "course, packed, varlen": "本课，打包，varlen 内核",
    "course, packed, varlen, no checkpointing": "本课，打包，varlen，不用梯度检查点",
    "course, packed, varlen, 8 x 1": "本课，打包，varlen，8 × 1",
    "course, packed, varlen, 8 x 1, no checkpointing": "本课，打包，varlen，8 × 1，不用梯度检查点",
    "course, 8 x 1": "本课，8 × 1",
    "course, 8 x 1, with cuDNN's attention": "本课，8 × 1，用 cuDNN 的注意力",
    "course, 8 x 1, no checkpointing": "本课，8 × 1，不用梯度检查点",
    "a token": "生成一个 token",
    "a token, padded rows": "生成一个 token，补齐过的行",
    "a training step's layer": "训练一步里的一层",
    "a training step's layer, padded rows": "训练一步里的一层，补齐过的行",
    "with": "用",
    "without": "不用",
    "course, vLLM": "本课，vLLM",
    "course, generate": "本课，generate",
    "TRL, generate": "TRL，generate",
    "TRL, generate, without cuDNN's attention": "TRL，generate，不用 cuDNN 的注意力",
    "weights in 4 bits": "权重 4 比特",
    "weights in 16 bits": "权重 16 位",
    "7B, 16-bit, inference, 4,096 tokens": "7B，16 位，推理，4,096 个 token",
    "the same, 8 at once": "同上，8 条一起",
    "7B, QLoRA, Unsloth, 2 × 2,048": "7B，QLoRA，Unsloth，2 × 2,048",
    "14B, the same": "14B，同上",
    "7B, LoRA 16-bit, Unsloth": "7B，16 位 LoRA，Unsloth",
    "7B, QLoRA, plain": "7B，QLoRA，原生",
    "7B, QLoRA, plain, 1 × 2,048, no checkpointing": "7B，QLoRA，原生，1 × 2,048，不开检查点",
    "0.5B, full, mixed precision": "0.5B，全量，混合精度",
    "0.5B, QLoRA, Unsloth": "0.5B，QLoRA，Unsloth",
    "one GPU": "一块卡",
    "the same step, shared": "一步不变，大家分（强扩展）",
    "the same work on each": "每卡的活不变（弱扩展）",
    "whole": "整个放在一块卡上",
    "cut": "切开（张量并行）",
    "Qwen2.5-3B, one GPU": "Qwen2.5-3B，一块卡",
    "Qwen2.5-3B, a copy on each (DDP)": "Qwen2.5-3B，每卡一份（DDP）",
    "Qwen2.5-3B, a share on each (FSDP)": "Qwen2.5-3B，每卡一片（FSDP）",
    "Qwen2.5-14B, one GPU": "Qwen2.5-14B，一块卡",
    "Qwen2.5-14B, a share on each (FSDP)": "Qwen2.5-14B，每卡一片（FSDP）",
    "Qwen2.5-7B, TRL, FSDP, all weights": "Qwen2.5-7B，TRL，FSDP，全参",
    "Qwen2.5-7B, TRL, FSDP, QLoRA": "Qwen2.5-7B，TRL，FSDP，QLoRA",
    "out of memory": "显存不够",
    **{f"lesson {number}": f"第 {number} 课" for number in ("01", "02")},
    "usual": "通常的循环",
    "pandas": "pandas，按列",
    "arrow": "Arrow，按列",
    "polars": "polars，按列",
    "course": "本课",
    "llama.cpp, CPU": "llama.cpp，CPU",
}
HARDWARE_IN_CHINESE = {  # regular expressions
    r"^CPU, (\d+) cores, ": r"CPU，\1 核，",
    r"^CPU, (\d+) cores": r"CPU，\1 核",
    r"^(\d+) x ": r"\1 × ",
    r", (\d+) CPU cores, another bench on the other (\d+)": r"，\1 个 CPU 核，另外 \2 个核上跑着别的测量",
    r", (\d+) sides at once on a host with \d+": r"，同一台机器上 \1 种跑法同时各占一块",
}
FACTS = {
    "en": "{hardware}, {date}; {versions}. Written from `benchmarks/records/{name}.json`.",
    "zh": "{hardware}，{date}；{versions}。由 `benchmarks/records/{name}.json` 生成。",
}


INFERENCE = Case("Qwen2.5-7B", "inference", batch=1, length=4096)
QLORA = Case("Qwen2.5-7B", "qlora", engine="unsloth", bits=4, optimizer="adamw_8bit")
PEAKS = {  # those of the record's that are shown
    "7B, 16-bit, inference, 4,096 tokens": INFERENCE,
    "the same, 8 at once": replace(INFERENCE, batch=8),
    "7B, QLoRA, Unsloth, 2 × 2,048": QLORA,
    "14B, the same": replace(QLORA, model="Qwen2.5-14B"),
    "7B, LoRA 16-bit, Unsloth": replace(QLORA, method="lora", bits=16),
    "7B, QLoRA, plain": replace(QLORA, engine="plain"),
    "7B, QLoRA, plain, 1 × 2,048, no checkpointing": replace(QLORA, engine="plain", batch=1, checkpointing=False),
    "0.5B, full, mixed precision": Case("Qwen2.5-0.5B", "full", bits=32, optimizer="adamw", length=1024),
    "0.5B, QLoRA, Unsloth": replace(QLORA, model="Qwen2.5-0.5B"),
}


def peaks(path: Path) -> list[dict[str, str]]:
    """Of a record of peaks the rows of PEAKS, measured and estimated, in GiB."""
    rows = vram.measured(path)
    found = []
    for name, case in PEAKS.items():
        row = next((row for row in rows if asdict(case).items() <= row.items()), None)
        if row is None:
            raise LessonError(f"{path}: it holds no row of {case}, which its table shows as {name!r}.")
        peak, estimate = row["peak_gib"], row["peak_gib"] * (1 + row["error"])  # not rounded twice
        found.append({"name": name, "measured": f"{peak:.2f}", "estimated": f"{estimate:.2f}"})
    return found


def references(path: Path) -> list[dict[str, str]]:
    """DPO's peaks in GiB: a row for each kind of weights, a column for each place where the reference comes from."""
    columns = {"none: SFT": "sft", "second model": "second_model", "adapter copy": "adapter_copy"}
    found: dict[int, dict[str, str]] = {}
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        shown = found.setdefault(row["bits"], {"weights": f"weights in {row['bits']} bits"})
        if row["reference"] in columns:
            shown[columns[row["reference"]]] = f"{row['peak_gib']:.1f}"
    return [*found.values()]


# By the beginning of a record's name: its rows where the table shows others than the record holds.
VIEWS: dict[str, Callable[[Path], list[dict[str, str]]]] = {"vram": peaks, "dpo_memory": references}


def kind_of(name: str) -> str | None:
    """Which of COLUMNS a record's name begins with; None for a record without a table."""
    return next((kind for kind in COLUMNS if name.startswith(kind)), None)


def table(record: dict[str, Any], name: str, language: str) -> str:
    """A record's rows as a Markdown table, and under it where and with what they were measured.

    Raises LessonError for a name whose columns are not known here.
    """
    kind = kind_of(name)
    if kind is None:
        raise LessonError(f"benchmarks/records/{name}.json: tools/bench/tables.py has no columns for it.")
    columns = COLUMNS[kind]
    words = {**HEADINGS, columns[0]: NAMES.get(kind) or HEADINGS.get(columns[0], {}), **OTHERWISE.get(kind, {})}
    headings = [words[key][language] for key in columns]
    most = max((row.get("rows", 0) for row in record["rows"]), default=0)  # of several sizes the largest alone
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(columns) + "|"]
    lines += [
        "| " + " | ".join(_cell(row[key], language) for key in columns) + " |"
        for row in record["rows"]
        if row.get("rows", most) == most
    ]
    versions = ", ".join(f"{package} {version}" for package, version in record["versions"].items())
    hardware = record["hardware"]
    if language == "zh":
        for english, chinese in HARDWARE_IN_CHINESE.items():
            hardware = re.sub(english, chinese, hardware)
    facts = FACTS[language].format(hardware=hardware, date=record["date"], versions=versions, name=name)
    return "\n".join([*lines, "", f"<sub>{facts}</sub>"])


def shown(path: Path) -> dict[str, Any]:
    """A record with the rows that its table shows."""
    view = VIEWS.get(kind_of(path.stem) or "")
    return json.loads(path.read_text(encoding="utf-8")) | ({"rows": view(path)} if view else {})


def with_records(text: str, where: str, language: str, folder: Path) -> str:
    """A text with every table between marks written anew from the record that its mark names.

    Raises LessonError where `where` names a record that `folder` does not hold.
    """

    def written(found: re.Match[str]) -> str:
        start, name, end = found.groups()
        path = folder / f"{name}.json"
        if not path.is_file():
            there = ", ".join(sorted(path.stem for path in folder.glob("*.json")))
            raise LessonError(f"{where}: there is no record {name!r}; there are {there}.")
        return f"{start}{table(shown(path), name, language)}\n{end}"

    return MARK.sub(written, text)


def _cell(value: Any, language: str) -> str:
    if isinstance(value, bool):
        value = "with" if value else "without"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:g}" if isinstance(value, int) else f"{value:.3g}"
    return CHINESE.get(str(value), str(value)) if language == "zh" else str(value)
