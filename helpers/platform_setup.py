"""The first cell of every notebook: see that the packages are there, and on Colab or Kaggle install the missing ones.

What a notebook needs stands in `[project].dependencies` of pyproject.toml. On Colab and Kaggle uv resolves it on
top of what the platform has, so that torch, numpy and whatever else fits stay as they are. Elsewhere nothing is
ever installed: the environment belongs to its owner.
"""

import importlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from functools import partial
from importlib import metadata
from pathlib import Path

from helpers import runtime

# Compiled against each other and against the platform's CUDA driver: these move together or not at all.
TORCH_FAMILY = ("torch", "torchvision", "torchaudio", "torchcodec", "triton")
# Most of a platform's compiled packages are built against its numpy.
PINNED = (*TORCH_FAMILY, "numpy")
# A plan: name -> (old version, new version); None for a package that comes or goes.
Plan = dict[str, tuple[str | None, str | None]]
# Unsloth's own ranges are narrow (`datasets!=4.0.*`, say), so they are checked as well.
CHECKED_WITHIN = ("unsloth", "unsloth_zoo")
# Colab has set these for building its own image, to files that a session does not have.
OF_FILES = ("UV_CONSTRAINT", "UV_BUILD_CONSTRAINT", "UV_OVERRIDE")
NOT_FOR_US = (*OF_FILES, "UV_PRERELEASE", "UV_SYSTEM_PYTHON")

WORDS: runtime.Words = {
    "en": {
        "missing": "{name} is missing",
        "outside": "{name} {have}, needed {needed}",
        "python": "Python {have}, needed {needed}",
        "old python": "Python {have}, needed 3.11 or newer",
        "and": "; ",
        "to do": "To be installed on {where}: {problems}.",
        "installing": "installing {count}: {items}",
        "replacing": "replacing {count}: {items}",
        "keeping": "keeping {count}: {items}",
        "removed": "removed",
        "done": "Installed.",
        "one gpu": "{there} GPUs are here, this notebook uses the first (CUDA_VISIBLE_DEVICES={first}): lesson 13 is about "
        "several.",
        "restart": "{names} replaced; this session still holds what was there before. {place} It is needed once; "
        "nothing is installed again.",
        "failed": "the packages could not be installed. {hint}The installer says:\n{said}",
        "hint colab": "Check the network, then run this cell again. ",
        "hint kaggle": "On Kaggle, switch on Settings > Internet. ",
        "hint local": "",
        "full": "The disk is full: delete what you no longer need, then run this cell again. ",
        "local": "this Python ({python}) lacks what the notebooks need: {problems}.\n"
        "Run `make setup` in {root} and choose its .venv as the notebook's kernel.\n"
        "Or, in a fresh virtual environment of your own: pip install --no-deps -r requirements.txt",
    },
    "zh": {
        "missing": "没有 {name}",
        "outside": "{name} 是 {have}，需要 {needed}",
        "python": "Python 是 {have}，需要 {needed}",
        "old python": "Python 是 {have}，需要 3.11 以上",
        "and": "；",
        "to do": "要在 {where} 上安装：{problems}。",
        "installing": "新装 {count} 个：{items}",
        "replacing": "替换 {count} 个：{items}",
        "keeping": "保留 {count} 个：{items}",
        "removed": "删除",
        "done": "装好了。",
        "one gpu": "这里有 {there} 块 GPU，这个笔记本只用第一块（CUDA_VISIBLE_DEVICES={first}）；多卡见第 13 课。",
        "restart": "{names} 已经换成新版本，但这个会话里还是旧的。{place}只需这一次，不会重新安装。",
        "failed": "依赖包没装上。{hint}安装程序的原话：\n{said}",
        "hint colab": "请检查网络，再跑一次这一格。",
        "hint kaggle": "在 Kaggle 上请打开 Settings > Internet。",
        "hint local": "",
        "full": "磁盘满了：请删掉不再用的东西，再跑一次这一格。",
        "local": "这个 Python（{python}）缺少笔记本要用的东西：{problems}。\n"
        "请在 {root} 里运行 `make setup`，再选它的 .venv 作为笔记本的内核。\n"
        "也可以在自己新建的虚拟环境里运行：pip install --no-deps -r requirements.txt",
    },
}
_say = partial(runtime.say, WORDS)

_loaded_before: list[str] = []  # replaced on disk, but still the old version in this process's memory


class NotInstalled(runtime.Stop):
    """A local environment lacks something; the text says what and how to get it."""


class SetupFailed(runtime.Stop):
    """The packages could not be installed on Colab or Kaggle; the text holds the installer's reason."""


class RestartNeeded(runtime.Stop):
    """Packages were replaced that this session has loaded already; the text says how to go on."""


def setup(extra: str = "", language: str = "en", several_gpus: bool = False) -> None:
    """Make the notebook's imports work, or stop with one message that says what to do.

    `language` is the notebook's own; errors are told in it from here on. `extra` names what this lesson needs beyond
    the others, in `[project.optional-dependencies]`. Unless the lesson wants `several_gpus`, it gets one.
    Raises NotInstalled (local), SetupFailed, or RestartNeeded (Colab, Kaggle). A second call changes nothing.
    """
    os.environ["COURSE_LANGUAGE"] = language
    # From 2.11 on torch prefers cuDNN's attention on Hopper and Blackwell (pytorch/pytorch#162073), which plans anew for
    # each length. Measured on an H200: 0.1 s for each new token of an answer, 0.2 to 0.3 s for each new width of a batch
    # in training, where the kernels themselves take less than a millisecond.
    os.environ.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")
    _keep_off_proxies()
    if not several_gpus:
        _choose_a_gpu()
    _raise_on_shell_errors()
    where = runtime.platform_name()
    if where != "local":
        _forget_lost_files()
    if _loaded_before:
        raise RestartNeeded(_restart_text(where, _loaded_before))
    problems = unmet(deep=where != "local", extra=extra)
    if not problems:
        return
    if where == "local":
        raise NotInstalled(_local_text(problems))
    print(_say("to do", where=where.title(), problems=_say("and").join(problems.values())))
    with tempfile.TemporaryDirectory() as work:
        command, plan = resolve(uv_command(find_uv(), Path(work), extra=extra), Path(work))
        print(describe_plan(plan))
        replaced_in_use = loaded(name for name, (old, _) in plan.items() if old)
        if plan:
            _run(command)
    importlib.invalidate_caches()
    if replaced_in_use:
        _loaded_before.extend(replaced_in_use)
        raise RestartNeeded(_restart_text(where, _loaded_before))
    print(_say("done"))


def _forget_lost_files() -> None:
    """Have a `!uv` of a later cell (vLLM's, in lesson 10) not stop at files that its variables name and nobody has."""
    for name in OF_FILES:
        if not all(Path(file).exists() for file in os.environ.get(name, "").split()):
            del os.environ[name]


def _keep_off_proxies() -> None:
    """Have nobody ask a campus' or a company's proxy for the servers that a lesson starts on this machine."""
    if any(name.lower().endswith("_proxy") and name.lower() != "no_proxy" for name in os.environ):
        both = "NO_PROXY", "no_proxy"  # each is what some client reads, and one hides the other
        hosts = [host.strip() for name in both for host in os.environ.get(name, "").split(",") if host.strip()]
        if "*" in hosts:  # nobody asks a proxy; beside other hosts it would count no more
            hosts = ["*"]
        else:
            hosts += ["127.0.0.1", "localhost"]
        os.environ |= dict.fromkeys(both, ",".join(dict.fromkeys(hosts)))


def _choose_a_gpu() -> None:
    """Show this session the first GPU alone, where it would see more (Kaggle: two T4s; a job that was given several).

    On several, a Trainer would copy the model onto each, and "auto" would cut it up. CUDA reads the variable when it is
    first used, so this comes before `import torch`.
    """
    there = runtime.seen_gpus()
    if len(there) < 2:
        return
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return  # too late for this session
    os.environ["CUDA_VISIBLE_DEVICES"] = there[0]
    print(_say("one gpu", there=len(there), first=there[0]))


def project(extra: str = "") -> tuple[list[str], list[str], str]:
    """From pyproject.toml: the requirements (with those of `extra`), uv's overrides, the range of Python versions."""
    import tomllib  # new in 3.11, the oldest Python that the course runs on

    table = tomllib.loads((runtime.root() / "pyproject.toml").read_text(encoding="utf-8"))
    overrides = table.get("tool", {}).get("uv", {}).get("override-dependencies", [])
    more = table["project"]["optional-dependencies"][extra] if extra else []
    return table["project"]["dependencies"] + more, overrides, table["project"]["requires-python"]


def unmet(deep: bool = True, site: Path | None = None, extra: str = "") -> dict[str, str]:
    """What is missing or outside its range: name -> the problem in words.

    With `deep`, also what Unsloth itself asks for; with `site`, in that folder instead of this Python.
    """
    here = platform.python_version()
    try:
        wanted, overrides, pythons = project(extra)
    except ModuleNotFoundError:
        return {"python": _say("old python", have=here)}
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet
    except ModuleNotFoundError:
        return {"packaging": _say("missing", name="packaging")}
    if not SpecifierSet(pythons).contains(here, prereleases=True):
        return {"python": _say("python", have=here, needed=pythons)}
    within = [found for name in CHECKED_WITHIN if deep and (found := _distribution(name, site))]
    # An overridden requirement does not count inside a package: uv ignores it there, too.
    ignored = {_normal(line) for line in overrides}
    inner = [line for found in within for line in found.requires or [] if _normal(line) not in ignored]
    problems = {}
    for need in map(Requirement, [*wanted, *inner]):
        if need.marker and not need.marker.evaluate({"extra": ""}):
            continue
        have = version(need.name, site)
        if have is None:
            problems.setdefault(_normal(need.name), _say("missing", name=need.name))
        elif not need.specifier.contains(have, prereleases=True):
            told = _say("outside", name=need.name, have=have, needed=need.specifier)
            problems.setdefault(_normal(need.name), told)
    return problems


def version(name: str, site: Path | None = None) -> str | None:
    """The installed version of a distribution, in this Python or in the folder `site`; None when there is none."""
    found = _distribution(name, site)
    return found.version if found else None


def uv_command(uv: str, work: Path, site: Path | None = None, extra: str = "") -> list[str]:
    """The uv command that installs what is missing; its requirement and constraint files are written into `work`.

    With `site`, it works on that folder of packages instead of this Python's.
    """
    wanted, overrides, _ = project(extra)
    torch_fits = not unmet(deep=False, site=site).keys() & set(TORCH_FAMILY)
    pins = [f"{name}=={have}" for name in (PINNED if torch_fits else ["numpy"]) if (have := version(name, site))]
    # A torch that must move takes its installed family along, in the build that fits the CUDA driver.
    moving = [] if torch_fits else [name for name in TORCH_FAMILY if version(name, site)]
    command = [uv, "pip", "install", "--no-progress", "--color=never"]
    command += ["--target", str(site)] if site else ["--python", sys.executable, "--break-system-packages"]
    command += [] if torch_fits else ["--torch-backend=auto"]
    for option, lines in {"-r": [*wanted, *moving], "-c": pins, "--override": overrides}.items():
        path = work / f"uv{option}.txt"
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        command += [option, str(path)]
    return command


def resolve(command: list[str], work: Path) -> tuple[list[str], Plan]:
    """Ask uv what `command` would change; returns the command to run and its plan. Nothing is installed.

    What has to be installed comes in the version that the course was tested with, where that fits the platform.
    """
    plan = parse_plan(_run([*command, "--dry-run"]))
    changed = {_normal(name) for name in plan}
    lock = (runtime.root() / "requirements.txt").read_text(encoding="utf-8")
    tested = [line for line in re.findall(r"^[\w.-]+==[^\\\n]+", lock, re.MULTILINE) if _normal(line) in changed]
    (work / "tested.txt").write_text("\n".join(tested), encoding="utf-8")
    try:
        pinned = [*command, "-c", str(work / "tested.txt")]
        return pinned, parse_plan(_run([*pinned, "--dry-run"]))
    except SetupFailed:
        return command, plan


def parse_plan(said: str) -> Plan:
    """The changes in the output of `uv pip install --dry-run`."""
    found = re.findall(r"^ ([-+~]) ([\w.-]+)==(\S+)", said, re.MULTILINE)
    old = {name: number for sign, name, number in found if sign != "+"}
    new = {name: number for sign, name, number in found if sign != "-"}
    return {name: (old.get(name), new.get(name)) for name in sorted({*old, *new})}


def describe_plan(plan: Plan, site: Path | None = None) -> str:
    """The plan in a few lines: what is new, what is replaced, what stays."""
    moved = {_normal(name) for name in plan}
    parts = {
        "installing": [f"{name} {new}" for name, (old, new) in plan.items() if not old],
        "replacing": [f"{name} {old} -> {new or _say('removed')}" for name, (old, new) in plan.items() if old],
        "keeping": [f"{name} {have}" for name in PINNED if name not in moved and (have := version(name, site))],
    }
    return "\n".join(_say(part, count=len(items), items=", ".join(items)) for part, items in parts.items() if items)


def loaded(names: Iterable[str]) -> list[str]:
    """Those distributions of which this process has imported a module."""
    # Asked of __dict__: getattr could make a lazy module import itself.
    files = {getattr(module, "__dict__", {}).get("__file__") for module in list(sys.modules.values())}
    found = {name: _distribution(name) for name in names}
    return [n for n, dist in found.items() if dist and any(str(dist.locate_file(f)) in files for f in dist.files or [])]


def _normal(requirement: str) -> str:
    """The name at the start of a requirement, spelt as the package index does."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


def _distribution(name: str, site: Path | None = None) -> metadata.Distribution | None:
    return next(iter(metadata.distributions(name=name, path=[str(site)] if site else sys.path)), None)


def find_uv() -> str:
    """The platform's uv, or the one that this installs: a single file of about 20 MB."""
    if found := shutil.which("uv"):
        return found
    if not version("uv"):
        lock = runtime.root() / "tools" / "uv.txt"
        _run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--require-hashes", "-r", str(lock)])
        importlib.invalidate_caches()
    return importlib.import_module("uv").find_uv_bin()


def _run(command: list[str]) -> str:
    """Run an installer quietly and return what it said; SetupFailed when it fails."""
    env = {name: value for name, value in os.environ.items() if name not in NOT_FOR_US}
    done = subprocess.run(command, env=env, check=False, capture_output=True, encoding="utf-8", errors="replace")
    said = done.stderr + done.stdout
    if done.returncode:
        reason = "full" if re.search("No space left|os error 28", said) else f"hint {runtime.platform_name()}"
        raise SetupFailed(_say("failed", hint=_say(reason), said=said[-3000:].strip()))
    return said


def _restart_text(where: str, names: list[str]) -> str:
    return _say("restart", names=", ".join(names), place=runtime.say(runtime.WORDS, f"restart {where}"))


def _local_text(problems: dict[str, str]) -> str:
    told = _say("and").join(problems.values())
    return _say("local", python=sys.executable, problems=told, root=runtime.root())


def _raise_on_shell_errors() -> None:
    """Let a failing `!command` or `%pip` raise, which it does not by itself."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    shell.system_raise_on_error = True
    # Colab's IPython 7 does not know that option, so its `system` is wrapped, once.
    if hasattr(type(shell), "system_raise_on_error") or "system" in vars(shell):
        return
    _shell, _plain = shell, shell.system

    # Underscores, because IPython looks for the {names} of a `!command` among its caller's, too.
    def system(*_args: str, **_options: object) -> object:
        _said = _plain(*_args, **_options)
        if _code := _shell.user_ns.get("_exit_code", 0):
            raise subprocess.CalledProcessError(_code, _args[0])
        return _said

    shell.system = system
