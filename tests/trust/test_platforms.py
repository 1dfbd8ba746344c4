"""What stops a lesson on a machine that nobody prepared: told before a download, in the notebook's language."""

from __future__ import annotations

import ast
import errno
import os
import re
import socket
import string
import subprocess
import sys
import time
from collections import namedtuple
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError
from IPython.core.inputtransformer2 import TransformerManager

from helpers import checkup, data, hub, launch, llamafactory, platform_setup, runtime, serve
from tests import hub_server
from tools.build import notebook
from tools.lessons import ROOT, load_course

pytestmark = pytest.mark.platforms
LESSONS = {lesson.number: lesson for lesson in load_course().lessons}
LANGUAGES = ("en", "zh")
PLATFORMS = ("colab", "kaggle", "local")
HAN = re.compile(r"[\u4e00-\u9fff]")
Usage = namedtuple("Usage", "total used free")


# --- Texts ------------------------------------------------------------------------------------------------------------

TABLES = {
    "runtime": runtime.WORDS,
    "hub": hub.WORDS,
    "platform_setup": platform_setup.WORDS,
    "launch": launch.WORDS,
    "checkup": checkup.WORDS,
    "serve": serve.WORDS,
}


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


@pytest.mark.parametrize("table", TABLES)
def test_each_text_is_there_in_both_languages_with_the_same_facts(table):
    english, chinese = TABLES[table]["en"], TABLES[table]["zh"]
    assert list(english) == list(chinese)
    for name, text in english.items():
        assert fields(text) == fields(chinese[name]), name
        assert not HAN.search(text), name
        # A text of nothing but a field, or of a mark, is the same in both.
        assert HAN.search(chinese[name]) or re.sub(r"{[^}]*}|\W", "", text) in ("", "hub"), name


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_depends_on_the_platform_is_there_for_each(monkeypatch, language, platform):
    monkeypatch.setenv("COURSE_LANGUAGE", language)
    for words, what in [
        *((runtime.WORDS, what) for what in ("secret", "gpu", "disk", "restart")),
        (platform_setup.WORDS, "hint"),
        (launch.WORDS, "cards"),
    ]:
        assert isinstance(words[language][f"{what} {platform}"], str)


# --- Machines ---------------------------------------------------------------------------------------------------------

T4 = ("Tesla T4", 14.74, (7, 5))
P100 = ("Tesla P100-PCIE-16GB", 15.9, (6, 0))
A100 = ("NVIDIA A100-SXM4-40GB", 39.4, (8, 0))
LISTED = ["Tesla T4, 15360 MiB, 440.33", "Tesla T4, 15360 MiB, 440.33"]
ROOM = {"/": (8000, 60)}  # in GB, the whole and what is free, by the folder that it is mounted on
KAGGLE = {"/": (8000, 60), "/kaggle/working": (19.5, 19.4)}
# The home of whoever runs this may lie anywhere; nothing is written there.
CACHE, WORKING = "/root/.cache/huggingface", "/kaggle/working/llm-finetuning-course"


class Machine:
    """Lets this process look like another machine to `helpers.runtime`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch

    def be(self, platform="local", language="en", gpu=None, listed=(), cuda="13.0", env=None, disks=None, root="/course",
           modules=None, vllm=True):  # fmt: skip
        """`modules`: what has been imported, with the version in memory (None: the installed one)."""
        patch = self.patch
        for name in (
            "COLAB_RELEASE_TAG",
            "KAGGLE_KERNEL_RUN_TYPE",
            "CUDA_VISIBLE_DEVICES",
            "HF_HUB_CACHE",
            "XDG_CACHE_HOME",
        ):
            patch.delenv(name, raising=False)
        patch.delitem(sys.modules, "google.colab", raising=False)
        patch.setenv("COURSE_LANGUAGE", language)
        if platform != "local":
            patch.setenv({"colab": "COLAB_RELEASE_TAG", "kaggle": "KAGGLE_KERNEL_RUN_TYPE"}[platform], "x")
        for name, value in ({"HF_HOME": CACHE} | (env or {})).items():
            patch.setenv(name, value)
        self.cards(gpu, listed, cuda)
        self.disks(disks or ROOM, root)
        for name in ("unsloth", *runtime.AFTER_UNSLOTH):
            patch.delitem(sys.modules, name, raising=False)
        for name, version in (modules or {}).items():
            patch.setitem(sys.modules, name, SimpleNamespace(__version__=version or runtime._version(name)))
        patch.setattr(runtime.importlib.util, "find_spec", lambda name: SimpleNamespace() if vllm else None)

    def cards(self, gpu, listed, cuda):
        name, gb, capability = gpu or ("", 0, (0, 0))
        properties = SimpleNamespace(total_memory=int(gb * runtime.GB))
        self.patch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
        self.patch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)  # what it says on a T4, too
        self.patch.setattr(torch.cuda, "get_device_properties", lambda index=0: properties)
        self.patch.setattr(torch.cuda, "get_device_name", lambda index=0: name)
        self.patch.setattr(torch.cuda, "get_device_capability", lambda index=0: capability)
        self.patch.setattr(torch.version, "cuda", cuda)
        self.patch.setattr(runtime, "listed_gpus", lambda: list(listed))

    def disks(self, disks, root):
        def usage(path):
            mount = max((place for place in disks if Path(path).is_relative_to(place)), key=len)
            total, free = (size * runtime.GB for size in disks[mount])
            return Usage(total, total - free, free)

        self.patch.setattr(runtime, "root", lambda: Path(root))
        self.patch.setattr(runtime.shutil, "disk_usage", usage)
        self.patch.setattr(runtime, "_nearest", lambda folder: folder)
        self.patch.setattr(runtime, "refusal", lambda folder: None)


@pytest.fixture
def machine(monkeypatch):
    return Machine(monkeypatch)


GPU_MENDS = {
    "colab": ("Runtime > Change runtime type > T4 GPU", "代码执行程序 > 更改运行时类型"),
    "kaggle": ("Settings > Accelerator > GPU T4 x2", "请选一块 GPU：Settings > Accelerator > GPU T4 x2"),
    "local": ("`course run NN` runs lesson NN on a small model", "`course run NN --lang zh` 会用一个小模型"),
}
DRIVER_MENDS = {
    "colab": ("Disconnect and delete runtime brings Colab's back", "断开连接并删除运行时」就能换回来"),
    "kaggle": ("Stop the session (the power symbol)", "关掉会话（电源图标）"),
    "local": ("Update the NVIDIA driver to one for CUDA 13.0", "把 NVIDIA 驱动升级到支持 CUDA 13.0 的版本"),
}
TORCH_MENDS = DRIVER_MENDS | {"local": ("Install the CUDA build", "请装带 CUDA 的版本")}
DISK_MENDS = {
    "colab": ("gives an empty disk", "会得到一块空磁盘"),
    "kaggle": ("or use /tmp, which is larger", "或者改用 /tmp：那里更大"),
    "local": ("point HF_HOME at a larger disk", "让 HF_HOME 指向更大的磁盘"),
}
RESTARTS = {
    "colab": ("Runtime > Restart session", "代码执行程序 > 重新启动会话"),
    "kaggle": ("Run > Restart & clear cell outputs", "Run > Restart & clear cell outputs"),
    "local": ("Restart the kernel", "请重启内核"),
}
OWN_FOLDERS = {
    "colab": ("to a folder of your own, below /content or", "比如 /content 或"),
    "kaggle": ("to a folder of your own, below /kaggle/working, or below /tmp", "比如 /kaggle/working 下面的"),
    "local": ("Set OUTPUT_DIR to a folder of your own.", "请把 OUTPUT_DIR 设成你自己能写的文件夹。"),
}
SMALLER = dict.fromkeys(PLATFORMS, ("Take a smaller MODEL in the parameters cell", "换一个更小的 MODEL"))
UNSET = dict.fromkeys(PLATFORMS, ("Unset it, or name a GPU that is there", "请取消这个变量，或者填一块真有的卡"))
VLLM_OUT = dict.fromkeys(PLATFORMS, ("Or set FAST_INFERENCE = False", "或者设 FAST_INFERENCE = False"))
VLLM_IN = dict.fromkeys(PLATFORMS, (f"!pip install vllm=={runtime.VLLM}", f"!pip install vllm=={runtime.VLLM}"))

# What is wrong; the machine; what the lesson asks for; facts named in either language; the mend by platform.
REFUSED = {
    "no GPU": ({}, {"vram_gb": 12}, ["12 GB"], GPU_MENDS),
    "a GPU that is too small": ({"gpu": T4}, {"vram_gb": 24}, ["24 GB", "Tesla T4", "14.7 GB"], SMALLER),
    "a GPU that is a little too small": ({"gpu": T4}, {"vram_gb": 15}, ["15 GB", "14.7 GB"], SMALLER),
    "a driver older than torch's CUDA": ({"listed": LISTED}, {"vram_gb": 8}, ["Tesla T4", "440.33", "CUDA 13.0"], DRIVER_MENDS),
    "a torch without CUDA": ({"listed": LISTED, "cuda": None}, {"vram_gb": 8}, ["Tesla T4", torch.__version__], TORCH_MENDS),
    "a hidden GPU": ({"listed": LISTED, "env": {"CUDA_VISIBLE_DEVICES": ""}}, {"vram_gb": 8}, ["CUDA_VISIBLE_DEVICES=''"], UNSET),
    "a GPU hidden by -1": ({"listed": LISTED, "env": {"CUDA_VISIBLE_DEVICES": "-1"}}, {"vram_gb": 8}, ["'-1'"], UNSET),
    "a GPU that is not there": ({"listed": LISTED, "env": {"CUDA_VISIBLE_DEVICES": "2"}}, {"vram_gb": 8}, ["'2'"], UNSET),
    "a driver that does not work, with a GPU chosen": (
        {"listed": LISTED, "env": {"CUDA_VISIBLE_DEVICES": "1"}}, {"vram_gb": 8}, ["440.33"], DRIVER_MENDS),
    "a driver that does not work, with a GPU chosen by its name": (
        {"listed": LISTED, "env": {"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}}, {"vram_gb": 8}, ["440.33"], DRIVER_MENDS),
    "vLLM without a GPU": ({}, {"vllm": True}, ["vLLM", "7.0"], VLLM_OUT),
    "vLLM on an old GPU": ({"gpu": P100}, {"vllm": True}, ["vLLM", "7.0"], VLLM_OUT),
    "no vLLM": ({"gpu": T4, "vllm": False}, {"vllm": True}, [f"torch {runtime.VLLM_TORCH}", torch.__version__.split("+")[0]], VLLM_IN),
    "a full disk": ({"disks": {"/": (100, 2)}}, {"disk_gb": 20}, ["20 GB", "2.0 GB", "/course"], DISK_MENDS),
    "a disk that is nearly enough": ({"disks": {"/": (100, 19.94)}}, {"disk_gb": 20}, ["20 GB", "19.9 GB"], DISK_MENDS),
    "no room for downloads": (
        {"disks": {"/": (100, 90), "/root": (50, 10)}}, {"disk_gb": 20}, ["15 GB", "10.0 GB", CACHE], DISK_MENDS),
    "no room for what is written": (
        {"disks": {"/": (100, 90), "/course": (50, 1)}}, {"disk_gb": 20}, ["5 GB", "1.0 GB", "/course"], DISK_MENDS),
    "no room for a large share of what is written": (
        {"disks": {"/": (100, 90), "/course": (50, 8)}}, {"disk_gb": 20, "written": 0.5}, ["10 GB", "8.0 GB"], DISK_MENDS),
    "downloads pointed into Kaggle's small folder": (
        {"disks": KAGGLE, "env": {"HF_HOME": "/kaggle/working/hf"}, "root": WORKING},
        {"disk_gb": 20}, ["20 GB", "19.4 GB", "/kaggle/working"], DISK_MENDS),
    "a cache of its own on a small disk": (
        {"disks": {"/": (100, 90), "/small": (9, 8)}, "env": {"HF_HUB_CACHE": "/small/hub"}},
        {"disk_gb": 20}, ["15 GB", "8.0 GB", "/small/hub"], DISK_MENDS),
    "transformers before Unsloth": ({"modules": {"transformers": None}}, {"unsloth": True}, ["transformers", "`import unsloth`"], RESTARTS),
    "TRL and PEFT before Unsloth": ({"modules": {"trl": None, "peft": None}}, {"unsloth": True}, ["trl, peft"], RESTARTS),
    "an old torch in memory": ({"modules": {"torch": "2.6.0+cu124"}}, {}, ["torch", "2.6.0+cu124"], RESTARTS),
    "an old transformers in memory": (
        {"modules": {"unsloth": None, "transformers": "4.50.0"}}, {"unsloth": True}, ["transformers", "4.50.0"], RESTARTS),
    "an old datasets and an old numpy in memory": (
        {"modules": {"datasets": "4.0.0", "numpy": "1.26.4"}}, {}, ["datasets", "4.0.0", "numpy", "1.26.4"], RESTARTS),
}  # fmt: skip


@pytest.fixture(scope="module")
def own_hub():
    server = hub_server.open_hub(REPOSITORIES, REVISIONS)
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def endpoint(monkeypatch, tmp_path, own_hub):
    """The Hub's client asks the hub of these tests, and keeps what it gets in a folder of its own."""

    def ask(address: str) -> None:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(hub, "PATIENCE", 0.3)
    # It asks five times more, with 23 seconds of waiting in between.
    monkeypatch.setattr("huggingface_hub.utils._http.time", SimpleNamespace(**vars(time) | {"sleep": lambda _: None}))
    for name, value in {"HF_TOKEN": "", "HF_ENDPOINT": "", "NO_PROXY": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    own_hub.refuses, own_hub.leads_to, own_hub.tokens, own_hub.gated = 0, "", set(), {}
    own_hub.asked.clear()
    ask(own_hub.url)
    own_hub.ask = ask
    return own_hub


def one_text(caught: pytest.ExceptionInfo, language: str) -> str:
    """The error's text, as IPython shows it: without a traceback, with no cause behind it, in that language."""
    text = str(caught.value)
    assert caught.value._render_traceback_() == [f"{type(caught.value).__name__}: {text}"]
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)
    assert bool(HAN.search(text)) == (language == "zh") and "{" not in text
    return text


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("what", REFUSED)
def test_require_stops_before_the_download_with_the_mend(machine, endpoint, what, language, platform):
    facts, asked, named, mends = REFUSED[what]
    machine.be(platform, language, **facts)
    with pytest.raises(runtime.NotEnough) as caught:
        runtime.require(**asked, models=["me/model"])
    text = one_text(caught, language)
    assert all(fact in text for fact in named) and mends[platform][LANGUAGES.index(language)] in text
    assert endpoint.asked == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_all_that_is_wrong_is_told_at_once(machine, language):
    machine.be("local", language, gpu=T4, disks={"/": (100, 2)}, modules={"trl": None}, vllm=False)
    with pytest.raises(runtime.NotEnough) as caught:
        runtime.require(vram_gb=24, disk_gb=20, vllm=True, unsloth=True)
    lines = one_text(caught, language).splitlines()
    assert [bool(re.search(part, line)) for part, line in zip(("trl", "24 GB", "vLLM", "20 GB", "NN"), lines)] == [
        True
    ] * 5


def file_in_the_way(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    (folder / "outputs").write_text("a file")
    return folder / "outputs" / "01"


def refused(code: int, folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """As root may write in any folder, the system's answer is put into its mouth."""

    def refuse(dir):
        raise OSError(code, os.strerror(code), str(dir))

    patch.setattr(runtime.tempfile, "TemporaryFile", refuse)
    return folder / "01"


NOT_TO_WRITE_IN = {
    "Not a directory": file_in_the_way,
    "Read-only file system": partial(refused, errno.EROFS),
    "Permission denied": partial(refused, errno.EACCES),
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("reason", NOT_TO_WRITE_IN)
def test_a_folder_in_which_nothing_can_be_written_is_told_before_the_download(
    monkeypatch, tmp_path, endpoint, reason, language, platform
):
    monkeypatch.setenv("COURSE_LANGUAGE", language)
    monkeypatch.setattr(runtime, "platform_name", lambda: platform)
    folder = NOT_TO_WRITE_IN[reason](tmp_path, monkeypatch)
    with pytest.raises(runtime.NotEnough) as caught:
        runtime.require(folder=folder, models=["me/model"])
    text = one_text(caught, language)
    assert f"{folder}" in text and reason in text and OWN_FOLDERS[platform][LANGUAGES.index(language)] in text
    assert endpoint.asked == []


def test_trying_a_folder_leaves_nothing_in_it(tmp_path):
    assert runtime.require(folder=tmp_path / "outputs" / "01") is None
    assert list(tmp_path.iterdir()) == []


ACCEPTED = {
    "room for all": ({"gpu": A100}, {"vram_gb": 24, "disk_gb": 20, "vllm": True, "unsloth": True}),
    "nothing asked": ({"disks": {"/": (1, 0)}}, {}),
    "a small model asks for no GPU": ({}, {"vram_gb": 0, "disk_gb": 1, "unsloth": True}),
    "just enough disk": ({"disks": {"/": (100, 20)}}, {"disk_gb": 20}),
    "two disks, each with room for its part": (
        {"disks": {"/": (100, 15), "/course": (50, 5)}}, {"disk_gb": 20}),
    "Kaggle's two disks": ({"platform": "kaggle", "gpu": T4, "disks": KAGGLE, "root": WORKING}, {"disk_gb": 20}),
    "Kaggle, with the cache in /tmp": (
        {"platform": "kaggle", "disks": KAGGLE, "root": WORKING, "env": {"HF_HOME": "/tmp/huggingface"}}, {"disk_gb": 20}),
    "Unsloth, then transformers and TRL": (
        {"modules": {"unsloth": None, "transformers": None, "trl": None}}, {"unsloth": True}),
    "transformers where Unsloth is not wanted": ({"modules": {"transformers": None}}, {}),
    "torch, numpy and datasets before Unsloth": (
        {"modules": {"torch": None, "numpy": None, "datasets": None}}, {"unsloth": True}),
    "torch as its own text names it": ({"modules": {"torch": f"{runtime._version('torch').split('+')[0]}+cu128"}}, {}),
    "vLLM on a T4": ({"gpu": T4}, {"vllm": True}),
}  # fmt: skip


@pytest.mark.parametrize("what", ACCEPTED)
def test_require_is_silent_where_the_lesson_can_run(machine, capsys, what):
    facts, asked = ACCEPTED[what]
    machine.be(**facts)
    assert runtime.require(**asked) is None and capsys.readouterr().out == ""


# --- The set-up cell --------------------------------------------------------------------------------------------------

UNREACHED = "fatal: unable to access 'https://github.com/x/y.git/': Could not resolve host: github.com"
GITS = {  # what git does, and what is told of it
    "without a network": (f'echo "{UNREACHED}" >&2; exit 128', UNREACHED),
    "a git that says nothing": ("exit 1", "returned non-zero exit status 1"),
    "no git": (None, "No such file or directory: 'git'"),
    "a git that may not be run": ("", "Permission denied: 'git'"),
}
UNFETCHED = {
    "en": (
        "could not be fetched",
        "Settings > Internet",
        "install it",
        "another network",
        "mirror",
        "upload its folder",
    ),
    "zh": ("没能从 GitHub 取到", "Settings > Internet", "请先安装", "换个网络", "镜像", "把整个文件夹上传到"),
}
EXECUTE = """
import sys
from IPython.core.interactiveshell import InteractiveShell
done = InteractiveShell.instance().run_cell(sys.stdin.read())
print(type(done.error_in_exec).__name__)
"""


def fetch(folder: Path, language: str, git: str | None) -> list[str]:
    """What a notebook shows of its set-up cell, executed in an empty folder with this shell script as git."""
    (folder / "bin").mkdir()
    if git is not None:
        (folder / "bin" / "git").write_text(f"#!/bin/sh\n{git}\n")
        (folder / "bin" / "git").chmod(0o755 if git else 0o644)
    env = {"PATH": str(folder / "bin"), "HOME": str(folder), "PYTHONUTF8": "1"}
    (folder / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXECUTE], input=set_up("01", language), env=env, cwd=folder / "work", capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.skipif(os.name == "nt", reason="git is a shell script here")
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("what", GITS)
def test_a_course_that_cannot_be_fetched_is_told_in_one_message(tmp_path, language, what):
    git, reason = GITS[what]
    *shown, error = fetch(tmp_path, language, git)
    text = "\n".join(shown)
    assert error == "SystemExit" and "Traceback" not in text and len(shown) < 12, text
    assert reason in text and str(tmp_path / "work" / "llm-finetuning-course") in text
    assert [part for part in UNFETCHED[language] if part not in text] == []
    assert bool(HAN.search(text)) == (language == "zh")


@pytest.mark.skipif(os.name == "nt", reason="git is a shell script here")
def test_a_course_that_is_fetched_is_gone_on_with(tmp_path):
    """A git that makes what the cell imports."""
    made = 'echo "def setup(language): print(language)" > "$folder/helpers/platform_setup.py"'
    git = f'for folder; do :; done; /bin/mkdir -p "$folder/helpers"; {made}'
    assert fetch(tmp_path, "zh", git) == ["zh", "NoneType"]


# --- The lessons on the free machines ---------------------------------------------------------------------------------


def code(number: str) -> list[str]:
    return [cell.node.source for cell in LESSONS[number].cells if cell.is_code]


def requiring(number: str) -> str:
    """The lesson's call of `runtime.require`, as it stands."""
    (source,) = [source for source in code(number) if "runtime.require(" in source]
    return re.search(r"^runtime\.require\((?:.*\)$|\n(?:    .*\n)*\))", source, re.MULTILINE)[0]


FREE = {
    "colab": {"gpu": T4, "disks": {"/": (112, 70)}, "root": "/content/llm-finetuning-course"},
    "kaggle": {"gpu": T4, "disks": KAGGLE, "root": WORKING},
}


# What has no room there as it stands, and what is said: merging an 8B model writes more than Kaggle keeps.
NO_ROOM = {("06", "kaggle"): f"49.5 GB of free disk space are needed and {WORKING}"}


@pytest.mark.parametrize("platform", FREE)
@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_starts_on_a_free_machine_unless_it_says_that_it_needs_more(machine, monkeypatch, number, platform):
    looked_at = []
    machine.be(platform, **FREE[platform])
    monkeypatch.setattr(hub, "check_model", lambda name, source="huggingface": looked_at.append(name))
    parameters = LESSONS[number].parameters
    there = {"OUTPUT_DIR": f"{FREE[platform]['root']}/{parameters['OUTPUT_DIR']}"}
    call = lambda: exec(requiring(number), {"runtime": runtime} | parameters | there)
    if LESSONS[number].facts["needs"]["vram_gb"] > T4[1]:
        with pytest.raises(runtime.NotEnough, match="Tesla T4"):
            call()
        return
    if says := NO_ROOM.get((number, platform)):
        with pytest.raises(runtime.NotEnough, match=re.escape(says)):
            call()
        return
    call()
    named = LESSONS[number].parameters.keys() & {"MODEL", "ADAPTER", "EMBEDDER", "REWARD_MODEL"}
    assert sorted(looked_at) == sorted(LESSONS[number].parameters[name] for name in named)


@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_asks_for_the_disk_that_it_says_it_needs(machine, monkeypatch, number):
    machine.be(gpu=("NVIDIA H200", 139.8, (9, 0)), disks={"/": (900, 0.5)})
    monkeypatch.setattr(hub, "check_model", lambda name, source="huggingface": pytest.fail(f"{name} is asked for"))
    lesson = LESSONS[number]
    with pytest.raises(runtime.NotEnough, match=f"{lesson.facts['needs']['disk_gb']} GB of free disk space are needed"):
        exec(requiring(number), {"runtime": runtime} | lesson.parameters)
    with pytest.raises(runtime.NotEnough, match="GB of free disk space are needed"):
        exec(requiring(number), {"runtime": runtime} | lesson.parameters | lesson.trim("en"))


def test_the_model_that_vllm_cuts_up_is_asked_for_where_it_is_used(machine, monkeypatch):
    looked_at = []
    machine.be("colab", **FREE["colab"])
    monkeypatch.setattr(hub, "check_model", lambda name, source="huggingface": looked_at.append(name))
    given = LESSONS["13"].parameters | {"TENSOR_PARALLEL": 2}
    exec(requiring("13"), {"runtime": runtime} | given)
    assert looked_at == [given["MODEL"], given["TENSOR_PARALLEL_MODEL"]]


IMPORTED = re.compile(r"^(?:import|from) (unsloth|transformers|trl|peft)\b", re.MULTILINE)
FETCHING = re.compile(r"\bload_\w+\(|resolve_model\(|from_pretrained\(|llamafactory\.\w+\(")


@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_asks_before_it_imports_or_fetches(number):
    sources = code(number)
    first = next(index for index, source in enumerate(sources) if "runtime.require(" in source)
    before, after = "\n".join(sources[:first]), "\n".join(sources[first + 1 :])
    assert not IMPORTED.search(before + sources[first]) and not FETCHING.search(before)
    order = [found[1] for found in IMPORTED.finditer(after)]
    assert ("unsloth=True" in sources[first]) == ("unsloth" in order)
    assert "unsloth" not in order or order[0] == "unsloth"


# --- Kaggle's two GPUs ------------------------------------------------------------------------------------------------


def set_up(number: str, language: str = "en") -> str:
    """The lesson's set-up cell, as it is built."""
    return notebook(load_course(), LESSONS[number], language).cells[1].source


@pytest.fixture
def ready(monkeypatch):
    """Nothing is missing; how many GPUs are listed is to be said."""
    monkeypatch.setattr(platform_setup, "unmet", lambda deep=True, extra="": {})
    monkeypatch.setattr(platform_setup, "_loaded_before", [])
    monkeypatch.setenv("COURSE_LANGUAGE", "en")  # so that it is put back
    # monkeypatch puts back what it has seen.
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    return lambda gpus: monkeypatch.setattr(runtime, "listed_gpus", lambda: LISTED[:1] * gpus)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("number", LESSONS)
def test_a_lesson_gets_one_gpu_unless_it_is_about_several(ready, capsys, number, language):
    ready(2)
    call = set_up(number, language).splitlines()[-1].replace('"serve", ', "")
    exec(call, {"platform_setup": platform_setup})
    said = capsys.readouterr().out
    if number == "13":
        assert "CUDA_VISIBLE_DEVICES" not in os.environ and not said
        return
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert "CUDA_VISIBLE_DEVICES=0" in said and said.count("\n") == 1 and bool(HAN.search(said)) == (language == "zh")
    exec(call, {"platform_setup": platform_setup})  # now it is settled
    assert not capsys.readouterr().out


@pytest.mark.parametrize(("given", "first"), [("1,0", "1"), ("2, 3,4", "2"), ("GPU-8932f937,GPU-1", "GPU-8932f937")])
def test_of_several_that_a_job_was_given_it_is_the_first(ready, monkeypatch, capsys, given, first):
    ready(8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    platform_setup.setup(several_gpus=True)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == given and not capsys.readouterr().out
    platform_setup.setup()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == first
    assert f"{len(given.split(','))} GPUs" in (said := capsys.readouterr().out) and f"DEVICES={first})" in said


@pytest.mark.parametrize("chosen", ["1", "", "GPU-8932f937", "1,-1"])
def test_a_gpu_that_somebody_has_chosen_stays(ready, monkeypatch, capsys, chosen):
    ready(2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    platform_setup.setup()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == chosen and not capsys.readouterr().out


@pytest.mark.parametrize("gpus", [0, 1])
def test_where_there_is_no_choice_nothing_is_chosen(ready, capsys, gpus):
    ready(gpus)
    platform_setup.setup()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ and not capsys.readouterr().out


def test_a_session_that_has_begun_to_compute_is_told_nothing_untrue(ready, monkeypatch, capsys):
    ready(2)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    platform_setup.setup()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ and not capsys.readouterr().out


@pytest.mark.parametrize(("number", "seen"), [("01", "0"), ("13", None)])
def test_the_gpu_is_chosen_before_torch_is_imported(tmp_path, number, seen):
    """The set-up cell itself, in a process of its own, on a machine where nvidia-smi lists two."""
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!{sys.executable} -S\nprint({chr(10).join(LISTED)!r})\n")
    smi.chmod(0o755)
    after = "\nprint([os.environ.get('CUDA_VISIBLE_DEVICES'), 'torch' in sys.modules])"
    env = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    env |= {"KAGGLE_KERNEL_RUN_TYPE": "Batch", "PATH": f"{tmp_path}{os.pathsep}{env['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", set_up(number) + after], env=env, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *said, last = done.stdout.splitlines()
    assert last == str([seen, False]) and len(said) == (seen is not None)


# --- The number format ------------------------------------------------------------------------------------------------

# Where a lesson's source names a format itself, or lets the model's file decide, and why that is right on a T4, too.
SAID_OTHERWISE = {
    ("01_alpaca_sft/lesson.py", "FastLanguageModel.from_pretrained", None): "Unsloth's own choice, by the same rule",
    ("10_quantize_and_serve/lesson.py", "AutoModelForCausalLM.from_pretrained", "'auto'"): "that of the file, which export.load_16bit has written by the same rule",
    ("11_data_quality/lesson.py", "AutoModel.from_pretrained", None): "a small encoder of 32 bits",
    ("11_data_quality/lesson.py", "AutoModelForSequenceClassification.from_pretrained", None): "a small encoder of 32 bits",
    ("13_scale_out/fsdp.py", "AutoModelForCausalLM.from_pretrained", "torch.bfloat16"): "for GPUs that hold a large model together",
    ("13_scale_out/fsdp.py", "BitsAndBytesConfig", "torch.bfloat16"): "for GPUs that hold a large model together",
    ("13_scale_out/fsdp.py", "SFTConfig", "True"): "for GPUs that hold a large model together",
}  # fmt: skip
FORMATS = {  # by compute capability, None for a CPU, and whether a CPU multiplies bfloat16
    ((6, 0), False): torch.float16,
    ((7, 0), False): torch.float16,
    ((7, 5), False): torch.float16,
    ((7, 5), True): torch.float16,
    ((8, 0), False): torch.bfloat16,
    ((8, 9), False): torch.bfloat16,
    ((9, 0), False): torch.bfloat16,
    ((12, 0), False): torch.bfloat16,
    (None, False): torch.float32,
    (None, True): torch.bfloat16,
}
LOADERS = re.compile(r"(Fast\w*Model|AutoModel\w*)\.from_pretrained")
HELPERS = sorted((ROOT / "helpers").rglob("*.py"))


def sources() -> dict[str, str]:
    """Every Python source of the lessons: the notebooks' cells, scripts that they write, scripts beside them."""
    found = {}
    for lesson in LESSONS.values():
        for path in sorted(lesson.folder.glob("*.py")):
            name = path.relative_to(lesson.folder.parent).as_posix()
            found[name] = path.read_text("utf-8")
            if path.name == "lesson.py":
                cells = [TransformerManager().transform_cell(source) for source in code(lesson.number)]
                written = [re.search(r"run_cell_magic\('writefile', .*?, (.*)\)$", cell, re.DOTALL) for cell in cells]
                scripts = [ast.literal_eval(script[1]) for script in written if script]
                found[name] = "\n".join(cells + [script for script in scripts if "\nimport " in f"\n{script}"])
    return found


def parsed(source: str) -> ast.AST:
    return compile(source, "source", "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def calls() -> list[tuple[str, str, dict[str, str]]]:
    """The calls in the lessons' sources: the file, what is called, its keyword arguments as they stand."""
    found = []
    for name, source in sources().items():
        for node in ast.walk(parsed(source)):
            if isinstance(node, ast.Call):
                given = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
                found.append((name, ast.unparse(node.func), given))
    return found


@pytest.fixture(scope="module")
def called():
    return calls()


@pytest.mark.parametrize(("capability", "cpu_has_bf16"), FORMATS)
def test_every_lesson_trains_in_the_format_of_the_gpu(machine, monkeypatch, called, capability, cpu_has_bf16):
    wanted = FORMATS[capability, cpu_has_bf16]
    machine.be(gpu=("GPU", 15, capability) if capability else None)
    monkeypatch.setattr(runtime, "_cpu_has_bf16", lambda: cpu_has_bf16)
    assert runtime.dtype() == wanted
    names = {"torch": torch, "runtime": runtime, "dtype": runtime.dtype()}
    trainers, loaders, otherwise = 0, 0, set()
    for file, what, given in called:
        if given.keys() & {"bf16", "fp16"}:
            if (reason := (file, what, given.get("bf16"))) in SAID_OTHERWISE:
                otherwise.add(reason)
                continue
            flags = {name: eval(given[name], names) for name in ("bf16", "fp16")}
            assert flags == {"bf16": wanted == torch.bfloat16, "fp16": wanted == torch.float16}, (file, what)
            trainers += 1
        key = next((key for key in ("bnb_4bit_compute_dtype", "dtype") if key in given), None)
        if key or LOADERS.fullmatch(what):
            if (reason := (file, what, given.get(key))) in SAID_OTHERWISE:
                otherwise.add(reason)
                continue
            if what.startswith(("torch.", "np.", "pd.")):
                continue
            assert eval(given[key], names) == wanted, (file, what)
            loaders += 1
    assert trainers >= 10 and loaders >= 12 and otherwise == SAID_OTHERWISE.keys()


def test_an_exported_training_does_as_its_notebook(machine, tmp_path):
    script = launch.export("notebooks/en/01_alpaca_sft.ipynb", tmp_path / "train.py").read_text("utf-8")
    machine.be(gpu=T4)
    (line,) = re.findall(r"^dtype = (.*?)  #", script, re.MULTILINE)
    for asked, wanted in {"": torch.float16, "float32": torch.float32}.items():
        assert eval(line, {"torch": torch, "runtime": runtime, "DTYPE": asked}) == wanted


def test_nothing_asks_a_t4_whether_it_supports_bfloat16():
    asking = re.compile(r"is_bf16_supported|is_bfloat16_supported|SUPPORTS_BFLOAT16")
    texts = sources() | {path.name: path.read_text("utf-8") for path in HELPERS}
    found = []
    for name, source in texts.items():
        for node in ast.walk(parsed(source)) if asking.search(source) else []:
            said = getattr(node, "attr", getattr(node, "id", getattr(node, "name", "")))  # use or import; no comment
            found += [(name, said)] if asking.search(said or "") else []
    assert found == []


# --- The Hub ----------------------------------------------------------------------------------------------------------

MAIN = "b" * 40
REVISIONS = {"main": MAIN, "master": MAIN}
MODEL = {"config.json": b'{"model_type": "qwen2"}', "model.safetensors": b"S" * 999}
REPOSITORIES = {
    "models/me/model": {MAIN: MODEL},
    "models/me/gated": {MAIN: MODEL},
    "models/me/pickled": {MAIN: {"config.json": b"{}", "pytorch_model.bin": b"P"}},
    "models/me/parts": {MAIN: {"config.json": b"{}", "model.safetensors.index.json": b"{}"}},
    "models/me/itself": {
        MAIN: {"adapter_config.json": b'{"base_model_name_or_path": "me/itself"}', "adapter_model.safetensors": b"S"}
    },
    "models/me/bare": {MAIN: {"README.md": b"A GGUF, say."}},
    **{
        f"models/me/on-{base}": {
            MAIN: {
                "adapter_config.json": f'{{"base_model_name_or_path": "me/{base}"}}'.encode(),
                "adapter_model.safetensors": b"S",
            }
        }
        for base in ("model", "gated", "none", "pickled", "on-none", "on-model")
    },
}
PLACES = {platform: [runtime.WORDS[language][f"secret {platform}"] for language in LANGUAGES] for platform in PLATFORMS}
SECRET = "hf_" + "x" * 34


def login_page(server, patch, folder):
    """A network that sends everybody to a page of its own until they have signed in."""
    server.leads_to = "http://localhost:9/login"


def silence(server, patch, folder):
    """An address that takes calls and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    server.ask(f"http://127.0.0.1:{listener.getsockname()[1]}")
    server.silent = listener


def at(address):
    return lambda server, patch, folder: server.ask(address)


def state(**facts):
    return lambda server, patch, folder: [setattr(server, name, value) for name, value in facts.items()]


def too_late(server, patch, folder):
    server.ask("http://127.0.0.1:9")
    patch.setenv("HF_ENDPOINT", "https://me:password@mirror.example")


def no_folder(server, patch, folder):
    (folder / "file").touch()
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "file" / "hub"))


def nothing(server, patch, folder):
    pass


def offline(server, patch, folder):
    patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def trained_here(server, patch, folder):
    """An adapter of an earlier lesson, and a Hub that its base cannot be had from any more."""
    (folder / "outputs" / "adapter").mkdir(parents=True)
    (folder / "outputs" / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "me/model"}')
    patch.chdir(folder)
    server.ask("http://127.0.0.1:9")


def unlisted(server, patch, folder):
    """A mirror that serves files and lists none."""
    patch.setattr("huggingface_hub.HfApi.model_info", unplugged)


def clientless(server, patch, folder):
    patch.setitem(sys.modules, "modelscope", None)


# What is wrong: how it comes about, HF_TOKEN, the model, and what the error says in English and in Chinese.
UNHAD = {
    "gated, no token": (state(gated={"me/gated": {"good"}}), "", "me/gated", "is gated: accept its licence on https://huggingface.co/me/gated and set the secret HF_TOKEN", "需要授权：请到 https://huggingface.co/me/gated 同意许可协议，再设置密钥 HF_TOKEN"),
    "gated, a token without access": (state(gated={"me/gated": {"good"}}), SECRET, "me/gated", "the token in HF_TOKEN has no access", "HF_TOKEN 那个账号还没有权限"),
    "a token that has expired": (state(tokens={"good"}), SECRET, "me/model", "does not know the token in the secret HF_TOKEN", "不认密钥 HF_TOKEN 里的令牌"),
    "no such model": (nothing, "", "me/none", "The Hub has no model 'me/none'", "Hub 上没有模型 'me/none'"),
    "no such model, as the Hub says it": (state(tokens={"good"}), "", "me/none", "The Hub has no model 'me/none'", "Hub 上没有模型 'me/none'"),
    "no such revision": (nothing, "", "me/model@v9", "'me/model' has no revision 'v9'", "'me/model' 没有 'v9' 这个版本"),
    "nobody there": (at("http://127.0.0.1:9"), "", "me/model", "http://127.0.0.1:9 cannot be reached", "http://127.0.0.1:9 连不上"),
    "no answer": (silence, "", "me/model", "cannot be reached", "连不上"),
    "no such host": (at("http://no-such-host.invalid"), "", "me/model", "no-such-host.invalid cannot be reached", "no-such-host.invalid 连不上"),
    "an endpoint set too late": (too_late, "", "me/model", "HF_ENDPOINT is https://mirror.example now, but this session asks http://127.0.0.1:9", "HF_ENDPOINT 现在是 https://mirror.example，但这个会话用的是 http://127.0.0.1:9"),
    "half an address": (at("hf-mirror.example"), "", "me/model", "HF_ENDPOINT is 'hf-mirror.example', which is no address", "HF_ENDPOINT 是 'hf-mirror.example'，不是一个网址"),
    "half an address, with a login": (at("me:password@hf-mirror.example"), "", "me/model", "HF_ENDPOINT is 'hf-mirror.example', which", "HF_ENDPOINT 是 'hf-mirror.example'，"),
    "an address cut short": (at("http://[::1"), "", "me/model", "HF_ENDPOINT is 'http://[::1', which is no address", "HF_ENDPOINT 是 'http://[::1'，不是一个网址"),
    "an address with a login, cut short": (at("http://me:password@[::1"), "", "me/model", "HF_ENDPOINT is 'http://[::1', which is no address", "HF_ENDPOINT 是 'http://[::1'，不是一个网址"),
    "a sign-in page": (login_page, "", "me/model", "is no hub: a sign-in page", "应答的不是 Hub：可能是这个网络的登录页"),
    "a page for everything": (state(refuses=200), "", "me/model", "is no hub", "应答的不是 Hub"),
    "a hub that is overloaded": (state(refuses=503), "", "me/model", "answers with an error (503)", "返回了错误（503）"),
    "a hub that has had enough": (state(refuses=429), "", "me/model", "answers with an error (429)", "返回了错误（429）"),
    "a mirror that refuses": (state(refuses=403), "", "me/model", "answers with an error (403)", "返回了错误（403）"),
    "told to stay offline": (offline, "", "me/model", "HF_HUB_OFFLINE forbids", "HF_HUB_OFFLINE 不让联网"),
    "nowhere to write": (no_folder, "", "me/model", "could not be written to", "写不进"),
    "a pickle": (nothing, "", "me/pickled", "me/pickled has its weights only as a pickle (pytorch_model.bin)", "me/pickled 的权重只有 pickle 格式（pytorch_model.bin）"),
    "a pickle on a mirror that lists nothing": (unlisted, "", "me/pickled", "does not say which files 'me/pickled' has, and has no model.safetensors of it", "没有给出 'me/pickled' 的文件列表，也没有它的 model.safetensors"),
    "no name": (nothing, "", "a model/with spaces", "'a model/with spaces' is no model name", "'a model/with spaces' 不是模型名"),
    "a folder that is not there": (nothing, "", "./missing", "Model folder './missing' not found", "找不到模型文件夹 './missing'"),
    "a path that is not there": (nothing, "", "/missing/model", "Model folder '/missing/model' not found", "找不到模型文件夹 '/missing/model'"),
    "an adapter that was not trained": (nothing, "", "outputs/77_none/adapter", "run that lesson first", "请先跑那一课"),
    "no nano model": (nothing, "", "nano/gpt", "no nano model 'nano/gpt'. There are: nano/qwen2,", "没有叫 'nano/gpt' 的纳米模型。有这些：nano/qwen2,"),
    "ModelScope without its client": (clientless, "", "modelscope:me/model", "!pip install modelscope", "!pip install modelscope"),
    "no such source": (nothing, "", "hf:me/model", "Unknown source 'hf'", "来源 'hf' 不认识"),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("what", UNHAD)
def test_a_model_that_cannot_be_had_is_told_before_anything_large_moves(
    endpoint, monkeypatch, tmp_path, what, language
):
    happen, token, name, *says = UNHAD[what]
    monkeypatch.setenv("COURSE_LANGUAGE", language)
    monkeypatch.setenv("HF_TOKEN", token)
    source, _, name = name.rpartition(":")
    source = source or "huggingface"
    happen(endpoint, monkeypatch, tmp_path)
    for ask in (lambda: runtime.require(models=[name], source=source), lambda: hub.resolve_model(name, source)):
        with pytest.raises(hub.ModelNotFound) as caught:
            ask()
        text = one_text(caught, language)
        assert says[LANGUAGES.index(language)] in text
        assert SECRET not in text and "password" not in text
    assert weights_fetched(endpoint) == []


def weights_fetched(server) -> list[str]:
    weights = re.compile(r"/resolve/.*\.(safetensors|bin)$")
    return [path for method, path, _ in server.asked if method == "GET" and weights.search(path)]


# What is wrong with an adapter's base: how it comes about, the adapter, and what is said of the base.
BASES_UNHAD = {
    "gated": (state(gated={"me/gated": {"good"}}), "me/on-gated", "gated, no token"),
    "not there": (nothing, "me/on-none", "no such model"),
    "a pickle": (nothing, "me/on-pickled", "a pickle"),
    "a pickle on a mirror that lists nothing": (unlisted, "me/on-pickled", "a pickle on a mirror that lists nothing"),
    "an adapter whose base is not there": (nothing, "me/on-on-none", "no such model"),
    "pinned, and its base is not there": (nothing, "me/on-none@main", "no such model"),
    "out of reach": (trained_here, "outputs/adapter", "nobody there"),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("what", BASES_UNHAD)
def test_so_is_the_base_of_an_adapter(endpoint, monkeypatch, tmp_path, what, language):
    happen, name, as_of_a_model = BASES_UNHAD[what]
    monkeypatch.setenv("COURSE_LANGUAGE", language)
    happen(endpoint, monkeypatch, tmp_path)
    for ask in (runtime.require, lambda models: hub.resolve_model(*models)):
        with pytest.raises(hub.ModelNotFound) as caught:
            ask(models=[name])
        first, *rest = one_text(caught, language).splitlines()
        assert name.split("@")[0] in first and "base_model_name_or_path" in first
        assert ("is an adapter, and its base model" if language == "en" else "是适配器，它的基座") in first
        assert UNHAD[as_of_a_model][3 + LANGUAGES.index(language)] in "\n".join(rest)
    assert weights_fetched(endpoint) == []


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_where_the_token_goes_and_the_network_is_switched_on(endpoint, monkeypatch, platform, language):
    monkeypatch.setenv("COURSE_LANGUAGE", language)
    monkeypatch.setattr(runtime, "platform_name", lambda: platform)
    monkeypatch.setattr(runtime, "secret", lambda name, required=False: None)
    endpoint.gated = {"me/gated": {"good"}}
    with pytest.raises(hub.ModelNotFound, match=re.escape(PLACES[platform][LANGUAGES.index(language)])):
        hub.check_model("me/gated")
    endpoint.ask("http://127.0.0.1:9")
    with pytest.raises(hub.ModelNotFound) as caught:
        hub.check_model("me/model")
    assert ("Settings > Internet" in str(caught.value)) == (platform == "kaggle")


def test_a_model_that_is_there_keeps_its_name(endpoint):
    # The last has no configuration: whoever loads it will judge.
    for name in ("me/model", "me/on-model", "me/on-on-model", "me/itself", "me/bare"):
        hub.check_model(name)
        assert hub.resolve_model(name) == name


def answer(status: int) -> HfHubHTTPError:
    return HfHubHTTPError("x", response=httpx.Response(status, request=httpx.Request("GET", "http://x")))


@pytest.mark.parametrize("error", [answer(429), answer(503), httpx.ReadTimeout("x"), ValueError("no JSON")], ids=repr)
def test_where_files_are_not_listed_the_safe_ones_are_asked_for(endpoint, monkeypatch, error):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(error))
    for name in ("me/model", "me/model@main", "me/parts", "me/on-model", "me/bare"):
        hub.check_model(name)
    with pytest.raises(hub.UnsafeModel, match="Wait a little and run this cell again, choose a model with"):
        hub.check_model("me/pickled")
    endpoint.refuses = 503  # the configurations are in the cache by now, and the weights are not
    with pytest.raises(hub.ModelNotFound, match=r"answers with an error \(503\)"):
        hub.check_model("me/model")
    (cached,) = Path(constants.HF_HUB_CACHE).glob("models--me--model/snapshots/*")
    (cached / "model.safetensors").touch()
    hub.check_model("me/model")
    endpoint.refuses, endpoint.leads_to = 0, "http://localhost:9/login"  # a page that signs one in is no weights
    with pytest.raises(hub.UnsafeModel, match="does not say which files 'me/parts' has"):
        hub.check_model("me/parts")
    assert weights_fetched(endpoint) == []


def test_a_token_with_access_opens_a_gated_model(endpoint, monkeypatch):
    endpoint.gated, endpoint.tokens = {"me/gated": {SECRET}}, {SECRET}
    monkeypatch.setenv("HF_TOKEN", SECRET)
    assert runtime.require(models=["me/gated", "me/model"]) is None
    assert hub.resolve_model("me/gated") == "me/gated"
    assert {who for _, _, who in endpoint.asked} == {f"Bearer {SECRET}"}


def test_kaggles_token_is_found_where_kaggle_keeps_it(endpoint, monkeypatch):
    endpoint.gated = {"me/gated": {SECRET}}
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    client = lambda: SimpleNamespace(get_secret=lambda name: SECRET)
    monkeypatch.setitem(sys.modules, "kaggle_secrets", SimpleNamespace(UserSecretsClient=client))
    hub.check_model("me/gated")


LOADERS_OF_DATA = {
    "rows": (lambda folder: data.load_alpaca("someone/rows"), "'someone/rows'", "data_samples/alpaca_en.json"),
    "texts": (lambda folder: data.load_corpus("someone/texts", limit=5), "'someone/texts'", "data_samples/general_en.jsonl"),
    "a file": (lambda folder: llamafactory.first_rows("someone/rows:train.json", folder, 5), "'someone/rows'", "train.json"),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("what", LOADERS_OF_DATA)
def test_data_that_cannot_be_had_are_told_in_the_notebooks_language(endpoint, monkeypatch, tmp_path, what, language):
    load, name, file = LOADERS_OF_DATA[what]
    monkeypatch.setenv("COURSE_LANGUAGE", language)
    monkeypatch.setattr("helpers.data.rows.load_dataset", unplugged)
    monkeypatch.setattr("helpers.data.corpus.load_dataset", unplugged)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", unplugged)
    with pytest.raises(data.DataError) as caught:
        load(tmp_path)
    text = one_text(caught, language)
    assert name in text and file in text and "HF_ENDPOINT" in text


def unplugged(*_, **__):
    raise ConnectionError("no route")


def test_what_is_here_already_needs_no_hub(endpoint, monkeypatch, tmp_path):
    hub.check_model("me/model")
    endpoint.ask("http://127.0.0.1:9")
    (tmp_path / "mine").mkdir()
    for name in ("me/model", "nano/qwen2", str(tmp_path / "mine")):
        hub.check_model(name)


def test_asking_imports_neither_transformers_nor_torch(endpoint, monkeypatch):
    for name in ("transformers", "torch", "trl"):
        monkeypatch.setitem(sys.modules, name, None)  # an import would fail
    for name in ("me/model", "me/on-model", "nano/qwen2"):
        hub.check_model(name)
