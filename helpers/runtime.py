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
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

GB = 2**30
NOT_INSTALLED = "not installed"
VLLM, VLLM_TORCH = "0.26.0", "2.11"  # the version that the course was tried with, and the torch it is built for

# Unsloth changes parts of these as they are imported, so it comes first.
AFTER_UNSLOTH = ("transformers", "trl", "peft")
# What an installer may replace while a session has it loaded.
REPLACEABLE = ("torch", "numpy", "datasets", *AFTER_UNSLOTH)
# A text by language and name.
Words = Mapping[str, Mapping[str, str]]

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
        "no torch gpu": "a GPU with {vram_gb:g} GB is needed. nvidia-smi lists one ({card}), but {reason}",
        "cpu torch": "this torch ({torch}) is a build without CUDA. {place}",
        "cpu torch local": "Install the CUDA build: run `make setup` again, or see pytorch.org/get-started.",
        "hidden gpu": "CUDA_VISIBLE_DEVICES={hidden!r} hides it from torch. Unset it, or name a GPU that is there, "
        "then restart the session.",
        "old driver": "torch {torch} cannot use it: its driver ({driver}) is older than CUDA {cuda}, or is not "
        "working. {place}",
        "old driver local": "Update the NVIDIA driver to one for CUDA {cuda}, or install a torch that was built for "
        "yours.",
        "fresh colab": "Another torch was installed over Colab's. Runtime > Disconnect and delete runtime brings "
        "Colab's back; then run all cells.",
        "fresh kaggle": "Another torch was installed over Kaggle's. Stop the session (the power symbol), start it "
        "again, then run all cells.",
        "disk": "{disk_gb:g} GB of free disk space are needed and {folder} has {free:.1f} GB. {place}",
        "disk local": "Delete models and outputs that you no longer need, or point HF_HOME at a larger disk and "
        "restart.",
        "disk colab": "Delete models and outputs that you no longer need; Runtime > Disconnect and delete runtime "
        "gives an empty disk.",
        "disk kaggle": "Delete what you no longer need there, or use /tmp, which is larger and lasts as long as the "
        "session: OUTPUT_DIR for what a lesson writes, HF_HOME for downloads (set it and restart).",
        "replaced": "{names}: this session still holds what was there before, and the two do not go together. {place}",
        "replaced one": "{name} {there} is installed and {here} in memory",
        "before unsloth": "{names} imported before Unsloth, which then cannot speed them up or save memory. Take that "
        "import out, or put it below `import unsloth`. {place}",
        "restart colab": "Restart the session (Runtime > Restart session), then run all cells from the top.",
        "restart kaggle": "Restart the session (Run > Restart & clear cell outputs), then run all cells from the top.",
        "restart local": "Restart the kernel, then run all cells from the top.",
        "full disk": "{folder} could not be written: the disk takes no more ({free:.1f} GB free). What stood there "
        "before is as it was. Delete models and outputs that you no longer need, or set {setting} to a folder on a "
        "larger disk{kaggle}; then run the cell again.",
        "full disk kaggle": " (/tmp has the most room)",
        "unwritable": "nothing can be written in {folder} ({reason}). Set {setting} to a folder of your own{place}.",
        "unwritable colab": ", below /content or /content/drive/MyDrive",
        "unwritable kaggle": ", below /kaggle/working, or below /tmp, which lasts as long as the session",
        "unwritable local": "",
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
        "no torch gpu": "需要一块 {vram_gb:g} GB 显存的 GPU。nvidia-smi 能看到（{card}），但是{reason}",
        "cpu torch": "这个 torch（{torch}）是不带 CUDA 的版本。{place}",
        "cpu torch local": "请装带 CUDA 的版本：再跑一次 `make setup`，或者看 pytorch.org/get-started。",
        "hidden gpu": "CUDA_VISIBLE_DEVICES={hidden!r} 把它挡住了，torch 看不见。请取消这个变量，或者填一块真有的卡，"
        "然后重启会话。",
        "old driver": "torch {torch} 用不了它：驱动（{driver}）低于 CUDA {cuda} 的要求，或者驱动没在正常工作。{place}",
        "old driver local": "请把 NVIDIA 驱动升级到支持 CUDA {cuda} 的版本，或者装一个适配现有驱动的 torch。",
        "fresh colab": "Colab 自带的 torch 被别的版本盖掉了。点「代码执行程序 > 断开连接并删除运行时」就能换回来，再全部运行。",
        "fresh kaggle": "Kaggle 自带的 torch 被别的版本盖掉了。关掉会话（电源图标）再重新启动，然后全部运行。",
        "disk": "需要 {disk_gb:g} GB 的空闲磁盘，而 {folder} 只剩 {free:.1f} GB。{place}",
        "disk local": "请删掉不再用的模型和输出，或者让 HF_HOME 指向更大的磁盘，再重启。",
        "disk colab": "请删掉不再用的模型和输出；点「代码执行程序 > 断开连接并删除运行时」会得到一块空磁盘。",
        "disk kaggle": "请删掉那里不再用的东西，或者改用 /tmp：那里更大，但只保留到会话结束。课程写的文件由 OUTPUT_DIR 决定，"
        "下载的由 HF_HOME 决定（设好后要重启）。",
        "replaced": "{names}：这个会话里还是旧的，新旧混用会出错。{place}",
        "replaced one": "{name} 装的是 {there}，内存里是 {here}",
        "before unsloth": "{names} 在 Unsloth 之前就导入了，这样 Unsloth 没法给它们提速、省显存。"
        "请去掉那句导入，或者挪到 `import unsloth` 后面。{place}",
        "restart colab": "请重启会话（代码执行程序 > 重新启动会话），再从头全部运行。",
        "restart kaggle": "请重启会话（Run > Restart & clear cell outputs），再从头全部运行。",
        "restart local": "请重启内核，再从头全部运行。",
        "full disk": "{folder} 没有写成：磁盘写不下了（还剩 {free:.1f} GB）。原来放在那里的东西没有动。"
        "请删掉不再用的模型和输出，或者把 {setting} 设成更大磁盘上的文件夹{kaggle}，再运行一次这一格。",
        "full disk kaggle": "（/tmp 的空间最大）",
        "unwritable": "{folder} 里写不进东西（{reason}）。请把 {setting} 设成你自己能写的文件夹{place}。",
        "unwritable colab": "，比如 /content 或 /content/drive/MyDrive 下面的",
        "unwritable kaggle": "，比如 /kaggle/working 下面的；也可以放在 /tmp 下面，但只保留到会话结束",
        "unwritable local": "",
        "small model": "`course run NN --lang zh` 会用一个小模型跑第 NN 课，任何机器上几分钟就完。",
        "no vllm": "或者设 FAST_INFERENCE = False：课还是这一课，只是慢些。",
        "vllm gpu": "vLLM 需要计算能力 7.0 以上的 GPU，这里没有。{otherwise}",
        "vllm": "没有安装 vLLM。在一格里运行 !pip install vllm=={vllm}，然后重启会话、从头运行。"
        "它需要 torch {torch}，这里是 {here}。{otherwise}",
    },
}

UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}
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


def listed_gpus() -> list[str]:
    """The NVIDIA GPUs that the driver lists: `name, memory, driver version` of each; none without a working driver.

    Asked without torch, so that this process takes hold of none, and whatever CUDA_VISIBLE_DEVICES hides.
    """
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return shown.strip().splitlines()


def seen_gpus() -> list[str]:
    """Ids of the GPUs that a program started here would see; asked without torch, too."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is None:
        return list(map(str, range(len(listed_gpus()))))
    # As CUDA reads it: nothing counts from the first that is no GPU's on; -1 is how one says "none".
    return list(takewhile(lambda one: one and one != "-1", map(str.strip, chosen.split(","))))


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


def require(
    vram_gb: float = 0,
    disk_gb: float = 0,
    *,
    written: float = 0.25,
    folder: str | Path | None = None,
    vllm: bool = False,
    unsloth: bool = False,
    models: Sequence[str] = (),
    source: str = "huggingface",
) -> None:
    """Stop before any download when the lesson cannot run here: GPU memory in all, free disk space, both in GB.

    `vram_gb=0` asks for no GPU: that is what a small model needs. Of `disk_gb` the lesson writes the share `written`
    into `folder` (None: the course's own), the rest is downloads in the Hub's cache; it counts where these are two
    disks. `vllm` asks for vLLM, and for a GPU that it runs on; `unsloth` says that `import unsloth` comes next, and
    offers it torch's kernel for packed rows. A given `folder` is tried with a small file. `models` are what the lesson
    loads from `source`: each must be there for whoever runs this, an adapter's base, too. Raises NotEnough, and
    hub.ModelNotFound for a model, in the notebook's language.
    """
    problems, where = [], platform_name()
    here = gpu() if vram_gb > 0 else None
    if vram_gb > 0 and here is None:
        problems.append(_no_gpu(vram_gb, where))
    elif here is not None and here.vram_gb < vram_gb:
        problems.append(_say("small gpu", vram_gb=vram_gb, name=here.name, has=here.vram_gb))
    if vllm:
        problems += _vllm_problems()
    for disk, need, free in lacking_disk(disk_gb, written, Path(folder).absolute() if folder else None):
        problems.append(_say("disk", disk_gb=need, folder=disk, free=free, place=_say(f"disk {where}")))
    if problems and where == "local":
        problems.append(_say("small model"))
    if folder and (refused := refusal(folder)):
        problems.append(_unwritable(Path(folder).absolute(), refused))
    if problems := _session_problems(unsloth) + problems:
        raise NotEnough("\n".join(problems))
    if unsloth:
        from helpers import attention

        attention.offer_packed()
    for model in models:
        from helpers import hub

        hub.check_model(model, source)


def _session_problems(unsloth: bool) -> list[str]:
    """What this session has imported that it should not have, and the mend."""
    place = _say(f"restart {platform_name()}")
    replaced = []
    for name in REPLACEABLE:
        loaded, installed = getattr(sys.modules.get(name), "__version__", None), _version(name)
        # torch's own text names its CUDA, its package's may not.
        if loaded and installed != NOT_INSTALLED and loaded.split("+")[0] != installed.split("+")[0]:
            replaced.append(_say("replaced one", name=name, there=installed, here=loaded))
    problems = [_say("replaced", names=", ".join(replaced), place=place)] if replaced else []
    early = [name for name in AFTER_UNSLOTH if name in sys.modules]
    if unsloth and early and "unsloth" not in sys.modules:
        problems.append(_say("before unsloth", names=", ".join(early), place=place))
    return problems


def _no_gpu(vram_gb: float, where: str) -> str:
    """Why torch sees no GPU, and the mend: none is there, or torch cannot use it."""
    if not (cards := listed_gpus()):
        return _say("no gpu", vram_gb=vram_gb, place=_say(f"gpu {where}"))
    return _say("no torch gpu", vram_gb=vram_gb, card=cards[0], reason=why_unseen(cards))


def why_unseen(cards: Sequence[str], language: str | None = None) -> str:
    """Why torch sees none of the GPUs that the driver lists, and the mend."""
    import torch

    hidden, cuda = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.version.cuda
    facts = {"torch": torch.__version__, "cuda": cuda, "driver": cards[0].rpartition(", ")[2], "hidden": hidden}
    reason = "old driver" if cuda else "cpu torch"
    if cuda and hidden is not None:
        first = hidden.split(",")[0].strip()
        if not (first.startswith(("GPU", "MIG")) or first in map(str, range(len(cards)))):
            reason = "hidden gpu"
    where = platform_name()
    mend = f"{reason} local" if where == "local" else f"fresh {where}"
    place = "" if reason == "hidden gpu" else say(WORDS, mend, language, **facts)
    return say(WORDS, reason, language, **facts, place=place)


def lacking_disk(disk_gb: float, written: float = 0.25, own: Path | None = None) -> list[tuple[Path, float, float]]:
    """Each disk with too little room for its part of `disk_gb`: a folder on it, GB needed and GB free.

    The share `written` is what a lesson writes into `own` (the course's folder), the rest goes into the Hub's cache.
    """
    if not disk_gb > 0:
        return []
    own, cache = _storage(own or root())
    used = {folder: shutil.disk_usage(folder) for folder in (own, cache)}
    needs = {own: disk_gb * written, cache: disk_gb * (1 - written)}
    one, other = used[own], used[cache]
    if one.total == other.total and abs(one.free - other.free) < GB:  # one disk, written to meanwhile perhaps
        needs = {own: disk_gb}
    free = {folder: usage.free / GB for folder, usage in used.items()}
    return [(folder, need, free[folder]) for folder, need in needs.items() if free[folder] < need]


def refusal(folder: str | Path) -> OSError | None:
    """What the system says to a file in `folder`, or in the nearest one above it that is there; None when it takes one.

    A full disk is no refusal: `require` and `writing` tell of that by the space that is needed and left.
    """
    try:
        tempfile.TemporaryFile(dir=_nearest(Path(folder).absolute())).close()
    except OSError as error:
        return error if error.errno not in FULL_DISK else None
    return None


@contextlib.contextmanager
def writing(folder: str | Path, setting: str = "OUTPUT_DIR") -> Iterator[None]:
    """Whatever a library raises in this block because nothing can be written there, make it one NotEnough.

    The disk is full, or the folder is not one to write in. It names `folder`, and `setting`, which chooses another.
    """
    try:
        yield
    except NotEnough:
        raise
    except Exception as error:
        place = Path(folder).absolute()
        if isinstance(error, OSError) and _is_refused(error, place):
            raise NotEnough(_unwritable(place, error, setting)) from error
        free = shutil.disk_usage(_nearest(place)).free
        if free > NOTHING_LEFT and not _is_full(error):
            raise
        kaggle = _say("full disk kaggle") if platform_name() == "kaggle" else ""
        text = _say("full disk", folder=place, free=free / GB, setting=setting, kaggle=kaggle)
        raise NotEnough(text) from error


def write_text(path: str | Path, text: str) -> None:
    """Write a file in UTF-8, all of it or nothing: `path` holds the old text until the new one is on the disk.

    Raises NotEnough when the disk is full, and where the folder is not one to write in.
    """
    path = Path(path)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.unfinished")  # not another writer's
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished.write_text(text, encoding="utf-8")
            unfinished.replace(path)
    finally:
        with contextlib.suppress(OSError):  # a read-only disk refuses that, too, and hides the error that matters
            unfinished.unlink()


def _unwritable(folder: Path, error: OSError, setting: str = "OUTPUT_DIR") -> str:
    place = _say(f"unwritable {platform_name()}")
    return _say("unwritable", folder=folder, reason=error.strerror or error, setting=setting, place=place)


def _is_refused(error: OSError, place: Path) -> bool:
    """Whether the system did not let a file be made or replaced at `place`, and nowhere else."""
    if error.errno not in UNWRITABLE or error.filename is None:
        return False
    named = Path(os.fsdecode(error.filename)).absolute()
    # A folder on the way there, something in it, or what is written beside it and then renamed.
    return place.is_relative_to(named) or named.is_relative_to(place) or named.parent == place.parent


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


def say(words: Words, what: str, in_language: str | None = None, **facts: object) -> str:
    """The text `what` of a table of texts, in the notebook's language, with `facts` in its fields."""
    return words[in_language or language()][what].format(**facts)


def without_login(text: str) -> str:
    """A text without the names and passwords in its addresses; one at its beginning may lack the scheme."""
    # Not by urlsplit, which raises an error for an address that was cut short.
    return re.sub(r"(?<=//)[^/\s]+@|^[^/\s:]+:[^/\s]+@", "", text)


_say = partial(say, WORDS)


def _storage(own: Path) -> list[Path]:
    """The folders that a lesson fills: its own, and the Hub's cache (their nearest existing parents)."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home).expanduser()
    return [_nearest(own), _nearest(cache.absolute())]


def _nearest(folder: Path) -> Path:
    """This folder, or the nearest one above it that is there."""
    # Path.exists raises an error below a folder that may not be entered.
    return next(p for p in (folder, *folder.parents) if os.path.exists(p))


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
        return NOT_INSTALLED
