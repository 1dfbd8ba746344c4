"""The records as tables, in either language: what `course build` puts between the marks in READMEs and readings.

<!-- record: sft_h200 -->
<!-- /record -->
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tools.lessons import LessonError

MARK = re.compile(r"(<!-- record: ([\w-]+) -->\n).*?(<!-- /record -->)", re.DOTALL)

# By the beginning of a record's name, the first that fits: the figures that are shown, and what its first column is called.
COLUMNS = {
    "sft_shapes": ("model", "name", "useful_tokens_per_s", "loaded_gib", "peak_gib"),
    "sft_profile": (
        "name",
        "gpu_ms",
        "matrices_ms",
        "attention_ms",
        "unpacking_ms",
        "optimizer_ms",
        "copies_ms",
        "other_ms",
    ),
    "sft": ("name", "useful_tokens_per_s", "seconds_per_step", "loaded_gib", "peak_gib"),
    "grpo": ("name", "seconds_per_step", "tokens_per_s", "start_s"),
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
    "dpo_memory": ("bits", "reference", "loaded_gib", "peak_gib"),
    "inference": ("engine", "weights", "tokens_per_s_batch_1", "tokens_per_s_batch_32"),
    "scale_ddp": ("name", "gpus", "tokens_per_s", "efficiency", "seconds_per_step", "peak_gib"),
    "scale_fsdp": ("name", "gpus", "tokens_per_s", "peak_gib"),
    "scale_trl": ("name", "gpus", "tokens_per_s", "peak_gib"),
    "scale_tp": ("name", "gpus", "tokens_per_s_one", "tokens_per_s_many", "seconds_to_start"),
}
NAMES = {
    "attention": {"en": "milliseconds for", "zh": "毫秒数"},
    "sft": {"en": "one H200", "zh": "一块 H200"},
    "sft_shapes": {"en": "one H200", "zh": "一块 H200"},
    "sft_profile": {"en": "milliseconds a step", "zh": "每步毫秒数"},
    "first_loss": {"en": "seconds", "zh": "秒数"},
    "grpo": {"en": "who writes the answers", "zh": "谁来写回答"},
    "medical": {"en": "by what", "zh": "用什么"},
    "scale_ddp": {"en": "DDP", "zh": "DDP"},
    "scale_fsdp": {"en": "all weights trained", "zh": "全参训练"},
    "scale_trl": {"en": "accelerate launch", "zh": "accelerate launch"},
    "scale_tp": {"en": "vLLM", "zh": "vLLM"},
}
HEADINGS = {
    "again_ms": {"en": "at the same length again", "zh": "同样的长度再来一次"},
    "asking_s": {"en": "asking beforehand", "zh": "训练前提问"},
    "attention_ms": {"en": "attention", "zh": "注意力"},
    "bits": {"en": "weights, bits", "zh": "权重位数"},
    "copies_ms": {"en": "copies", "zh": "搬运"},
    "cpu_seconds": {"en": "CPU seconds", "zh": "CPU 秒"},
    "cudnn": {"en": "cuDNN", "zh": "cuDNN"},
    "data_s": {"en": "data", "zh": "数据"},
    "efficiency": {"en": "efficiency", "zh": "扩展效率"},
    "engine": {"en": "engine", "zh": "引擎"},
    "gpus": {"en": "GPUs", "zh": "卡数"},
    "gpu_ms": {"en": "in all", "zh": "合计"},
    "imports_s": {"en": "imports", "zh": "导入"},
    "kept": {"en": "rows kept", "zh": "留下的行"},
    "loaded_gib": {"en": "loaded, GiB", "zh": "加载后 GiB"},
    "matrices_ms": {"en": "matrix products", "zh": "矩阵乘法"},
    "model": {"en": "shape of", "zh": "模型形状"},
    "model_s": {"en": "model", "zh": "加载模型"},
    "new_ms": {"en": "at a new length", "zh": "没见过的长度"},
    "optimizer_ms": {"en": "optimizer", "zh": "优化器"},
    "other_ms": {"en": "all else", "zh": "其他"},
    "peak_gib": {"en": "peak on a GPU, GiB", "zh": "单卡峰值 GiB"},
    "reference": {"en": "reference", "zh": "参考模型"},
    "rows": {"en": "rows read", "zh": "读入的行"},
    "seconds": {"en": "seconds", "zh": "秒"},
    "seconds_per_step": {"en": "seconds a step", "zh": "每步秒数"},
    "seconds_to_first_loss": {"en": "to the first loss", "zh": "到第一个损失值"},
    "seconds_to_start": {"en": "seconds to start", "zh": "启动秒数"},
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
}

OTHERWISE = {  # headings of one kind alone
    "first_loss": {"start_s": {"en": "command and kernel", "zh": "命令与内核启动"}},
    "medical": {"peak_gib": {"en": "peak memory, GiB", "zh": "内存峰值 GiB"}},
    "sft_shapes": {"name": {"en": "trained by", "zh": "怎么训练"}},
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
    "none: SFT": "不用（SFT）",
    "second model": "第二个模型",
    "adapter copy": "适配器的副本",
    "computed beforehand": "事先算好",
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
    r"^CPU, (\d+) cores": r"CPU，\1 核",
    r"^(\d+) x ": r"\1 × ",
    r", (\d+) sides at once on a host with \d+": r"，同一台机器上 \1 种跑法同时各占一块",
}
FACTS = {
    "en": "{hardware}, {date}; {versions}. Written from `benchmarks/records/{name}.json`.",
    "zh": "{hardware}，{date}；{versions}。由 `benchmarks/records/{name}.json` 生成。",
}


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
        return f"{start}{table(json.loads(path.read_text(encoding='utf-8')), name, language)}\n{end}"

    return MARK.sub(written, text)


def _cell(value: Any, language: str) -> str:
    if isinstance(value, bool):
        value = "with" if value else "without"
    if isinstance(value, int | float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:g}" if isinstance(value, int) else f"{value:.3g}"
    return CHINESE.get(str(value), str(value)) if language == "zh" else str(value)
