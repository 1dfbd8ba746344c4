"""Where a notebook runs: platform, GPU, number format, secrets, and whether there is room for a lesson.

Importing this module needs the standard library alone; torch is imported when a GPU is asked for.
Sizes are in GB of 2**30 bytes, as `nvidia-smi` and Unsloth count them: a "15 GB" T4 has 14.7.
"""

import contextlib
import errno
import importlib
import importlib.util
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

GB = 2**30
VLLM, VLLM_TORCH = "0.26.0", "2.11"  # the version that the course was tried with, and the torch it is built for

# What a student meets before anything runs is told in the notebook's language.
WORDS = {
    "en": {
        "secret colab": "open the key symbol in the left bar, add it there and switch on 'Notebook access'",
        "secret kaggle": "open Add-ons > Secrets, add it there and tick it for this notebook",
        "secret local": "set it as an environment variable before starting Jupyter",
        "secret": "the secret {name} is not set: {place}.",
        "unfit secret": "the secret {name} holds a line break or a sign that no key has, as when more than the key was "
        "copied. Copy it again: {place}.",
        "gpu colab": "Choose a GPU: Runtime > Change runtime type > T4 GPU.",
        "gpu kaggle": "Choose a GPU: Settings > Accelerator > GPU T4 x2.",
        "gpu local": "Colab and Kaggle lend one for free: see the badges at the notebook's top.",
        "no gpu": "a GPU with {vram_gb:g} GB is needed and torch sees none. {place}",
        "small gpu": "{vram_gb:g} GB of GPU memory are needed and {name} has {has:g} GB. "
        "Take a smaller MODEL in the parameters cell, or a larger GPU.",
        "disk": "{disk_gb:g} GB of free disk space are needed and {folder} has {free:.1f} GB. "
        "Delete models and outputs that you no longer need, or point HF_HOME at a larger disk.",
        "full disk": "{folder} could not be written: the disk takes no more ({free:.1f} GB free). What stood there "
        "before is as it was. Delete models and outputs that you no longer need, or set {setting} to a folder on a "
        "larger disk{kaggle}; then run the cell again.",
        "full disk kaggle": " (/tmp has the most room)",
        "small model": "`course run NN` runs lesson NN on a small model, on any machine, in minutes.",
        "no vllm": "Or set FAST_INFERENCE = False: the same lesson, slower.",
        "vllm gpu": "vLLM needs a GPU of compute capability 7.0 or newer, and there is none. {otherwise}",
        "vllm": "vLLM is not installed. In a cell: !pip install vllm=={vllm}, then restart the session and run all. "
        "It wants torch {torch}; here is {here}. {otherwise}",
    },
    "zh": {
        "secret colab": "点左侧栏的钥匙图标，添加进去，并打开「笔记本访问权限」",
        "secret kaggle": "打开 Add-ons > Secrets，添加进去，并勾选给这个笔记本用",
        "secret local": "启动 Jupyter 之前设成环境变量",
        "secret": "没有设置密钥 {name}：{place}。",
        "unfit secret": "密钥 {name} 里有换行或密钥里不该有的字符，多半是复制时多带了东西。请重新复制：{place}。",
        "gpu colab": "请选一块 GPU：代码执行程序 > 更改运行时类型 > T4 GPU。",
        "gpu kaggle": "请选一块 GPU：Settings > Accelerator > GPU T4 x2。",
        "gpu local": "Colab 和 Kaggle 有免费的可用：见笔记本顶部的徽章。",
        "no gpu": "需要一块 {vram_gb:g} GB 显存的 GPU，而 torch 一块也没看到。{place}",
        "small gpu": "需要 {vram_gb:g} GB 显存，而 {name} 只有 {has:g} GB。"
        "请在参数那一格换一个更小的 MODEL，或者换一块更大的 GPU。",
        "disk": "需要 {disk_gb:g} GB 的空闲磁盘，而 {folder} 只剩 {free:.1f} GB。"
        "请删掉不再用的模型和输出，或者让 HF_HOME 指向更大的磁盘。",
        "full disk": "{folder} 没有写成：磁盘写不下了（还剩 {free:.1f} GB）。原来放在那里的东西没有动。"
        "请删掉不再用的模型和输出，或者把 {setting} 设成更大磁盘上的文件夹{kaggle}，再运行一次这一格。",
        "full disk kaggle": "（/tmp 的空间最大）",
        "small model": "`course run NN --lang zh` 会用一个小模型跑第 NN 课，任何机器上几分钟就完。",
        "no vllm": "或者设 FAST_INFERENCE = False：课还是这一课，只是慢些。",
        "vllm gpu": "vLLM 需要计算能力 7.0 以上的 GPU，这里没有。{otherwise}",
        "vllm": "没有安装 vLLM。在一格里运行 !pip install vllm=={vllm}，然后重启会话、从头运行。"
        "它需要 torch {torch}，这里是 {here}。{otherwise}",
    },
}

FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# How safetensors and programs say it, whose errors carry no number; then torch and numpy, which tell of short writes.
SAYS_FULL_DISK = re.compile(
    r"No space left|StorageFull|quota exceeded|File too large|file write failed|unexpected pos \d+ vs|\d+ requested and "
    r"\d+ written"
)
NOTHING_LEFT = 2**14  # bytes: with so little free, whatever failed in writing failed for this


class Stop(RuntimeError):
    """An error whose text is all that a student needs: IPython shows it without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class NotEnough(Stop):
    """This machine is too small for the lesson; the text says what is there, needed and to be done."""


class MissingSecret(Stop):
    """A secret that the lesson cannot do without is not set; the text says where to set it."""


class Secret(str):
    """A secret's value: a text as any other, but a cell that ends in it and a verbose traceback show three stars."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True)
class Gpu:
    """The first GPU: its name, its whole memory in GB, its CUDA compute capability."""

    name: str
    vram_gb: float
    capability: tuple[int, int]


def platform_name() -> Literal["colab", "kaggle", "local"]:
    """Where this Python runs."""
    # Kaggle's image is built on Colab's and contains google.colab, so Kaggle is asked first.
    if "KAGGLE_KERNEL_RUN_TYPE" in os.environ:
        return "kaggle"
    if "COLAB_RELEASE_TAG" in os.environ or "google.colab" in sys.modules:
        return "colab"
    return "local"


def language() -> Literal["en", "zh"]:
    """The notebook's language, as its first cell has set it."""
    return "zh" if os.environ.get("COURSE_LANGUAGE") == "zh" else "en"


def root() -> Path:
    """The course's folder, the one with `course.toml`: around this file, else around the current folder."""
    here = Path.cwd()
    for folder in [Path(__file__).resolve().parents[1], here, *here.parents]:
        if (folder / "course.toml").is_file():
            return folder
    raise FileNotFoundError(f"course.toml is neither beside helpers nor in {here} nor above it")


def gpu() -> Gpu | None:
    """The first CUDA GPU that torch sees, or None."""
    import torch

    if not torch.cuda.is_available():
        return None
    vram = torch.cuda.get_device_properties(0).total_memory / GB
    return Gpu(torch.cuda.get_device_name(0), round(vram, 1), torch.cuda.get_device_capability(0))


def dtype() -> "torch.dtype":
    """The number format to train in: bfloat16 where the hardware computes in it.

    Otherwise float16 on a GPU (a T4, a V100) and float32 on a CPU, as Unsloth chooses there.
    `torch.cuda.is_bf16_supported()` is no help: it says yes on a T4, which only emulates it.
    """
    import torch

    here = gpu()
    if here is None:
        return torch.bfloat16 if _cpu_has_bf16() else torch.float32
    return torch.bfloat16 if here.capability >= (8, 0) else torch.float16


def describe() -> str:
    """Platform, Python, GPU, memory, disk and package versions: one per line, for a notebook to print."""
    import torch

    here, disk = gpu(), root()
    device = "none, the CPU is used"
    if here is not None:
        device = f"{here.name}, {here.vram_gb} GB, compute capability {here.capability[0]}.{here.capability[1]}"
    lines = {
        "platform": f"{platform_name()}, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "GPU": device,
        "dtype": str(dtype()),
        "CPU": f"{os.cpu_count()} cores" + (f", {_ram_gb():.0f} GB RAM" if _ram_gb() else ""),
        "disk": f"{shutil.disk_usage(disk).free / GB:.0f} GB free at {disk}",
    }
    # torch's own text names its CUDA, too.
    lines["torch"] = torch.__version__
    for name in ("unsloth", "transformers", "trl"):
        lines[name] = _version(name)
    width = max(map(len, lines))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines.items())


def secret(name: str, required: bool = False) -> Secret | None:
    """The secret `name` from Colab's or Kaggle's secrets, else from the environment; None when it is unset.

    It is never printed. With `required`, an unset secret raises MissingSecret, which says where to set it; so does, in
    any case, one with a line break in it or a sign outside ASCII: libraries quote in full what they refuse to send.
    """
    where = platform_name()
    value = {"colab": _colab_secret, "kaggle": _kaggle_secret}.get(where, os.environ.get)(name)
    value = (value or os.environ.get(name) or "").strip()
    if not (value.isascii() and value.isprintable()):
        raise MissingSecret(_say("unfit secret", name=name, place=_say(f"secret {where}")))
    if value:
        return Secret(value)
    if required:
        raise MissingSecret(_say("secret", name=name, place=_say(f"secret {where}")))
    return None


def free_port() -> int:
    """A TCP port of this machine that nothing listens on."""
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def require(vram_gb: float = 0, disk_gb: float = 0, vllm: bool = False) -> None:
    """Stop early when the machine cannot hold the lesson: GPU memory in all, free disk space, both in GB.

    Raises NotEnough, in the notebook's language. `vram_gb=0` asks for no GPU: that is what a small model needs. `vllm` asks for vLLM, and
    for a GPU that it runs on.
    """
    problems, where = [], platform_name()
    here = gpu() if vram_gb > 0 else None
    if vram_gb > 0 and here is None:
        problems.append(_say("no gpu", vram_gb=vram_gb, place=_say(f"gpu {where}")))
    elif here is not None and here.vram_gb < vram_gb:
        problems.append(_say("small gpu", vram_gb=vram_gb, name=here.name, has=here.vram_gb))
    if vllm:
        problems += _vllm_problems()
    if disk_gb > 0:
        free, folder = min((shutil.disk_usage(folder).free / GB, folder) for folder in _storage())
        if free < disk_gb:
            problems.append(_say("disk", disk_gb=disk_gb, folder=folder, free=free))
    if problems and where == "local":
        problems.append(_say("small model"))
    if problems:
        raise NotEnough("\n".join(problems))


@contextlib.contextmanager
def writing(folder: str | Path, setting: str = "OUTPUT_DIR") -> Iterator[None]:
    """Whatever a library raises in this block because the disk is full, make it one NotEnough.

    It names `folder`, and `setting`, which would choose another disk.
    """
    try:
        yield
    except NotEnough:
        raise
    except Exception as error:
        place = Path(folder).absolute()
        free = shutil.disk_usage(next(p for p in (place, *place.parents) if p.exists())).free
        if free > NOTHING_LEFT and not _is_full(error):
            raise
        kaggle = _say("full disk kaggle") if platform_name() == "kaggle" else ""
        text = _say("full disk", folder=place, free=free / GB, setting=setting, kaggle=kaggle)
        raise NotEnough(text) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8, all of it or nothing: `path` holds the old text until the new one is on the disk.

    Raises NotEnough when the disk is full.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.unfinished")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _is_full(error: BaseException | None) -> bool:
    """Whether this error, or one that led to it, says that the disk is full."""
    while error is not None:
        if getattr(error, "errno", None) in FULL_DISK or SAYS_FULL_DISK.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _vllm_problems() -> list[str]:
    """What keeps vLLM from generating here, and the mend."""
    here, otherwise = gpu(), _say("no vllm")
    if here is None or here.capability < (7, 0):
        return [_say("vllm gpu", otherwise=otherwise)]
    if importlib.util.find_spec("vllm") is None:
        return [_say("vllm", vllm=VLLM, torch=VLLM_TORCH, here=_version("torch"), otherwise=otherwise)]
    return []


def _say(what: str, **facts: object) -> str:
    return WORDS[language()][what].format(**facts)


def _storage() -> list[Path]:
    """The folders that a lesson fills: its own, and the Hub's cache (their nearest existing parents)."""
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface").expanduser()
    return [next(p for p in (f, *f.parents) if p.exists()) for f in (root(), cache.absolute())]


def _colab_secret(name: str) -> str | None:
    # Not found, not allowed, timed out, or no front end (a script): each means "not here".
    try:
        return importlib.import_module("google.colab.userdata").get(name)
    except Exception:
        return None


def _kaggle_secret(name: str) -> str | None:
    # Kaggle's client raises its own errors, also when the notebook has no internet.
    try:
        return importlib.import_module("kaggle_secrets").UserSecretsClient().get_secret(name)
    except Exception:
        return None


def _cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (Linux says so; elsewhere no is the safe answer)."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
    except OSError:
        return False
    return bool(flags & {"amx_bf16", "avx512_bf16"}) or (platform.machine() == "aarch64" and "bf16" in flags)


def _ram_gb() -> float | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB
    except (AttributeError, ValueError, OSError):
        return None


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"
