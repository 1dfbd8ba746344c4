"""Looking at the machine: a verdict for each line, and what to do where it is not ok. Nothing here raises."""

from __future__ import annotations

import base64
import os
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import psutil

from helpers import platform_setup, runtime

Verdict = Literal["ok", "note", "bad"]
Language = Literal["en", "zh"]
SECRETS = ("HF_TOKEN", "WANDB_API_KEY")

WORDS: dict[str, dict[str, str]] = {
    "en": {
        "memory": "memory",
        "disk": "disk",
        "writing": "disk, writing",
        "packages": "packages",
        "speed": "multiplying",
        "hub": "hub",
        "columns": "verdict|what|seen|what to do",
        "python bad": "install Python 3.11, 3.12 or 3.13, delete .venv, run make setup",
        "packages ok": "all that the lessons import, in a version that fits",
        "packages bad": "run the notebook's first cell again; in a clone, make setup",
        "memory seen": "{free:.0f} of {total:.0f} GiB free",
        "memory bad": "a trimmed lesson takes about 4 GiB; close programs or use Colab",
        "disk seen": "{free:.0f} GiB free",
        "disk bad": "free some: a trimmed lesson writes little, a 7B model 6 to 30 GB",
        "disk note": "enough for trimmed lessons; a 7B model merged to 16 bit needs 30",
        "writing note": "loading and saving a 7B model will take minutes; a local SSD is better than a network drive",
        "gpu none": "none",
        "gpu without": "trimmed lessons run here; for real models open a notebook in Colab or Kaggle",
        "gpu blind": "{card}; torch {torch} does not see it",
        "gpu seen": "{card}, {free:.1f} of {total:.1f} GB free, compute capability {major}.{minor}, {kind}",
        "gpu held": "another program or notebook holds the rest: end it, or lower BATCH_SIZE",
        "speed seen": "{speed:,.2f} TFLOP/s in {kind} on the {device}",
        "speed gpu": "slow for a GPU: something else computes on it, or it is throttled by heat or power",
        "speed cpu": "slow: other programs keep the CPU busy; trimmed lessons take longer than stated",
        "hub ok": "{endpoint} answers after {milliseconds:.0f} ms",
        "hub code": "{endpoint} answers with {code}",
        "hub check": "check HF_ENDPOINT",
        "hub none": "{endpoint} not reachable ({reason})",
        "hub mend": "trimmed lessons need no network; otherwise check it, or set HF_ENDPOINT to a mirror",
        "secret set": "set",
        "secret unset": "not set",
        "HF_TOKEN": "needed for gated models and uploads only: huggingface.co/settings/tokens, then {place}",
        "WANDB_API_KEY": "needed only where a lesson reports to W&B: wandb.ai/authorize, then {place}",
        "failed": "could not be checked: {error}",
        "failed mend": "the lessons may run all the same; if one does not, begin here",
    },
    "zh": {
        "memory": "内存",
        "disk": "磁盘",
        "writing": "磁盘写入",
        "packages": "依赖包",
        "speed": "矩阵乘法",
        "hub": "Hub",
        "columns": "结论|项目|看到的|怎么办",
        "python bad": "装 Python 3.11、3.12 或 3.13，删掉 .venv，再跑 make setup",
        "packages ok": "各课要导入的都在，版本也对",
        "packages bad": "重跑笔记本的第一格；本地克隆的仓库请跑 make setup",
        "memory seen": "{total:.0f} GiB，空闲 {free:.0f} GiB",
        "memory bad": "精简版一课约占 4 GiB；关掉别的程序，或者用 Colab",
        "disk seen": "剩 {free:.0f} GiB",
        "disk bad": "腾点地方：精简版占得很少，7B 模型要 6 到 30 GB",
        "disk note": "跑精简版够用；7B 模型合并成 16 位要 30 GB",
        "writing note": "7B 模型的读写要好几分钟；网络盘不如本地固态盘",
        "gpu none": "没有",
        "gpu without": "精简版在这里就能跑；要跑真模型，去 Colab 或 Kaggle 打开笔记本",
        "gpu blind": "{card}；torch {torch} 看不到它",
        "gpu seen": "{card}，显存 {total:.1f} GB，空闲 {free:.1f} GB，计算能力 {major}.{minor}，{kind}",
        "gpu held": "其余的被别的程序或笔记本占着：关掉它，或者调小 BATCH_SIZE",
        "speed seen": "{device} 上用 {kind} 算：{speed:,.2f} TFLOP/s",
        "speed gpu": "对 GPU 来说太慢：有别的任务在用，或者因为温度、功耗降频了",
        "speed cpu": "偏慢：CPU 正被别的程序占着，精简版会比标的时间长",
        "hub ok": "{endpoint} 有应答，用时 {milliseconds:.0f} 毫秒",
        "hub code": "{endpoint} 返回 {code}",
        "hub check": "检查 HF_ENDPOINT",
        "hub none": "{endpoint} 连不上（{reason}）",
        "hub mend": "精简版不需要网络；否则查一下网络，或者把 HF_ENDPOINT 设成镜像站",
        "secret set": "已设置",
        "secret unset": "未设置",
        "HF_TOKEN": "只有下载需要授权的模型、上传时才用：到 huggingface.co/settings/tokens 申请，然后{place}",
        "WANDB_API_KEY": "只有往 W&B 记日志时才用：到 wandb.ai/authorize 领取，然后{place}",
        "failed": "没查成：{error}",
        "failed mend": "课程未必跑不了；真跑不了，就从这里查起",
    },
}


@dataclass(frozen=True)
class Finding:
    """One line of a report. `verdict` is ok, note (works, with a limit) or bad."""

    subject: str
    verdict: Verdict
    seen: str
    mend: str = ""


def examine(language: Language = "en", folder: Path | None = None) -> Iterator[Finding]:
    """What a student's machine has, cheap lines first, speeds measured; takes a few seconds."""
    folder = folder or runtime.root()
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", lambda: python(language)),
        ("packages", lambda: packages(language)),
        ("memory", lambda: memory(language)),
        ("disk", lambda: disk(folder, language)),
        ("writing", lambda: writing(folder, language)),
        ("GPU", lambda: gpu(language)),
        ("speed", lambda: speed(language)),
        ("hub", lambda: hub(language)),
        *((name, lambda name=name: secret(name, language)) for name in SECRETS),
    ]
    for subject, check in checks:
        yield guarded(subject, check, language)


def guarded(subject: str, check: Callable[[], Finding], language: Language = "en") -> Finding:
    """What `check` finds; a line that fails is a finding, too."""
    words = WORDS[language]
    try:
        return check()
    except Exception as error:
        seen = words["failed"].format(error=f"{type(error).__name__}: {error}")
        return Finding(words.get(subject, subject), "note", seen, words["failed mend"])


def as_rows(findings: list[Finding], language: Language = "en") -> list[dict[str, str]]:
    """The findings as rows of a table (`report.side_by_side` shows it)."""
    marks = {"ok": "✓ ok", "note": "• note", "bad": "✗ bad"}
    columns = WORDS[language]["columns"].split("|")
    return [dict(zip(columns, (marks[f.verdict], f.subject, f.seen, f.mend))) for f in findings]


def python(language: Language = "en") -> Finding:
    seen = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", "ok", seen)
    return Finding("Python", "bad", seen, WORDS[language]["python bad"])


def packages(language: Language = "en") -> Finding:
    """What the notebooks import, against the ranges of pyproject.toml."""
    words = WORDS[language]
    if problems := platform_setup.unmet(deep=False):
        return Finding(words["packages"], "bad", "; ".join(problems.values()), words["packages bad"])
    return Finding(words["packages"], "ok", words["packages ok"])


def memory(language: Language = "en") -> Finding:
    words, here = WORDS[language], psutil.virtual_memory()
    seen = words["memory seen"].format(free=here.available / runtime.GB, total=here.total / runtime.GB)
    if here.total / runtime.GB < 6:
        return Finding(words["memory"], "bad", seen, words["memory bad"])
    return Finding(words["memory"], "ok", seen)


def disk(folder: Path, language: Language = "en") -> Finding:
    words, free = WORDS[language], shutil.disk_usage(folder).free / runtime.GB
    verdict: Verdict = "bad" if free < 5 else "note" if free < 40 else "ok"
    return Finding(words["disk"], verdict, words["disk seen"].format(free=free), words.get(f"disk {verdict}", ""))


def writing(folder: Path, language: Language = "en", megabytes: int = 64) -> Finding:
    """How fast the disk takes a file, to the moment when it is really there (`fsync`)."""
    words, block = WORDS[language], os.urandom(2**20)
    path = folder / f".speed-{os.getpid()}"
    began = time.perf_counter()
    try:
        with path.open("wb") as file:
            for _ in range(megabytes):
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
        speed = megabytes / (time.perf_counter() - began)
    finally:
        path.unlink(missing_ok=True)
    seen = f"{speed:,.0f} MB/s"
    return (
        Finding(words["writing"], "ok", seen)
        if speed >= 50
        else Finding(words["writing"], "note", seen, words["writing note"])
    )


def gpu(language: Language = "en") -> Finding:
    """Through nvidia-smi and then torch, so that a driver without a usable torch is told apart."""
    words = WORDS[language]
    if not (cards := runtime.listed_gpus()):
        return Finding("GPU", "note", words["gpu none"], words["gpu without"])
    import torch

    card = cards[0]
    if not torch.cuda.is_available():
        seen = words["gpu blind"].format(card=card, torch=torch.__version__)
        return Finding("GPU", "bad", seen, runtime.why_unseen(cards, language))
    free, total = (size / runtime.GB for size in torch.cuda.mem_get_info(0))
    major, minor = runtime.gpu().capability
    kind = str(runtime.dtype()).removeprefix("torch.")
    seen = words["gpu seen"].format(card=card, free=free, total=total, major=major, minor=minor, kind=kind)
    if free < 0.85 * total:
        return Finding("GPU", "note", seen, words["gpu held"])
    return Finding("GPU", "ok", seen)


def speed(language: Language = "en", seconds: float = 1.0) -> Finding:
    """Multiply two square matrices over and over, in the lessons' number format where they run."""
    import torch

    words, on_gpu = WORDS[language], torch.cuda.is_available()
    device, size = ("cuda", 8192) if on_gpu else ("cpu", 1024)
    kind = runtime.dtype()
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    a @ b  # the first time also chooses and loads the kernel
    wait()
    times, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        a @ b
        wait()
        times += 1
    flops = 2 * size**3 * times / (time.perf_counter() - began)
    name = str(kind).removeprefix("torch.")
    seen = words["speed seen"].format(speed=flops / 1e12, kind=name, device="GPU" if on_gpu else "CPU")
    if flops < (5e12 if on_gpu else 5e9):
        return Finding(words["speed"], "note", seen, words["speed gpu" if on_gpu else "speed cpu"])
    return Finding(words["speed"], "ok", seen)


def hub(language: Language = "en", timeout: float = 5.0) -> Finding:
    """Whether it answers; a mirror's login goes along, as the Hub's own client sends it, and is not shown."""
    words, address = WORDS[language], os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    endpoint, login = runtime.without_login(address), urlsplit(address).netloc.rpartition("@")[0]
    asked = urllib.request.Request(f"{endpoint}/api/models?limit=1")
    if login:
        basic = base64.b64encode(unquote(login).encode()).decode()
        asked.add_unredirected_header("Authorization", f"Basic {basic}")  # the other kind goes along to any host
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(asked, timeout=timeout):
            milliseconds = 1000 * (time.perf_counter() - began)
            return Finding(words["hub"], "ok", words["hub ok"].format(endpoint=endpoint, milliseconds=milliseconds))
    except urllib.error.HTTPError as error:
        seen = words["hub code"].format(endpoint=endpoint, code=error.code)
        return Finding(words["hub"], "note", seen, words["hub check"])
    except (OSError, ValueError) as error:
        seen = words["hub none"].format(endpoint=endpoint, reason=getattr(error, "reason", error))
        return Finding(words["hub"], "note", seen, words["hub mend"])


def secret(name: str, language: Language = "en") -> Finding:
    """Whether it is there; never what it is."""
    words = WORDS[language]
    try:
        found = runtime.secret(name)
    except runtime.MissingSecret as error:  # there, and of no use: it says why
        return Finding(name, "bad", str(error))
    if found:
        return Finding(name, "ok", words["secret set"])
    place = runtime.WORDS[language][f"secret {runtime.platform_name()}"]
    return Finding(name, "note", words["secret unset"], words[name].format(place=place))
