"""helpers.platform_setup: the plan on Colab and Kaggle, the restart, the local error."""

import builtins
import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from helpers import platform_setup, runtime
from tools.build import notebook
from tools.lessons import load_course

FREEZE = Path(__file__).parent / "data" / "colab-pip-freeze.gpu.txt"
COLAB_PYTHON = ["--python-version", "3.13", "--python-platform", "x86_64-manylinux_2_35"]
# What the plan for Colab may replace, and why. Whatever else Colab has, stays.
REPLACED = {
    "datasets": "Unsloth excludes 4.0.*",
    "pyarrow": "datasets needs 21 or newer",
    "torchao": "unsloth_zoo needs 0.13 or newer",
}
DRY_RUN = """Resolved 55 packages in 629ms
Would install 3 packages
 - datasets==4.0.0
 + datasets==4.8.5
 - pyarrow==18.1.0
 + pyarrow==26.0.1
 + unsloth==2026.10.9
"""
UNREACHABLE = (
    r"[Ff]ailed to fetch|error sending request|dns error|tcp connect|timed out|network (was|is) (disabled|unreachable)"
)


def add_package(site: Path, name: str, version: str, metadata: str = "", files: tuple[str, ...] = ()) -> None:
    """An installed distribution without code, as importlib.metadata and uv see one."""
    info = site / f"{re.sub(r'[-.]+', '_', name)}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{metadata}")
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    (info / "INSTALLER").write_text("pip\n")


@pytest.fixture(scope="module")
def colab(tmp_path_factory):
    """A folder that looks like the packages of a Colab GPU runtime."""
    site = tmp_path_factory.mktemp("colab")
    for name, version in re.findall(r"^([\w.-]+)==(\S+)$", FREEZE.read_text(encoding="utf-8"), re.MULTILINE):
        add_package(site, name, version)
    return site


@pytest.fixture(scope="module")
def uv():
    folders = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return shutil.which("uv", path=folders) or pytest.skip("uv is not installed: make setup")


RUN = platform_setup._run  # itself, where the fixture has put a stand-in


class Installer:
    """Stands in for running uv or pip: notes the commands and answers with a plan."""

    def __init__(self, answer=DRY_RUN):
        self.commands, self.answer = [], answer

    def __call__(self, command):
        self.commands.append(command)
        return self.answer


@pytest.fixture
def installer(monkeypatch):
    """The platform setup with nothing real under it."""
    stand_in = Installer()
    monkeypatch.setenv("COURSE_LANGUAGE", "en")  # set-up sets it, and it is to be put back
    monkeypatch.setattr(platform_setup, "_run", stand_in)
    monkeypatch.setattr(platform_setup, "find_uv", lambda: "uv")
    monkeypatch.setattr(platform_setup, "_loaded_before", [])
    monkeypatch.setattr(runtime, "listed_gpus", list)
    return stand_in


def at(monkeypatch, platform, problems):
    monkeypatch.setattr(runtime, "platform_name", lambda: platform)
    monkeypatch.setattr(platform_setup, "unmet", lambda deep=True, site=None, extra="": dict(problems))


# --- the plan for Colab ---


def test_what_colab_lacks(colab):
    lacks = platform_setup.unmet(site=colab)
    assert set(lacks) == {"unsloth", "trl", "datasets", "bitsandbytes", "sacrebleu", "rouge-chinese", "xllamacpp"}
    assert lacks["unsloth"] == "unsloth is missing"
    assert "4.0.0, needed" in lacks["datasets"]


@pytest.mark.parametrize(("extra", "also"), [("", {}), ("serve", {"accelerate": "llmcompressor needs 1.15"})])
def test_the_plan_for_colab_keeps_torch_and_numpy(monkeypatch, colab, uv, tmp_path, extra, also):
    for name in ("UV_CONSTRAINT", "UV_BUILD_CONSTRAINT"):
        monkeypatch.setenv(name, f"/backend-container/containers/{name}")
    monkeypatch.setenv("UV_SYSTEM_PYTHON", "true")
    command = [*platform_setup.uv_command(uv, tmp_path, colab, extra), *COLAB_PYTHON]
    try:
        command, plan = platform_setup.resolve(command, tmp_path)
    except platform_setup.SetupFailed as failure:
        if re.search(UNREACHABLE, str(failure)):
            pytest.skip("the package index cannot be reached")
        raise
    assert {name for name, (old, _) in plan.items() if old} == {*REPLACED, *also}
    assert all(new for _, new in plan.values()), "nothing is removed"
    assert not {"torch", "torchvision", "torchaudio", "torchcodec", "triton", "numpy"} & plan.keys()
    assert {"unsloth", "unsloth-zoo", "trl", "bitsandbytes", "xformers"} <= plan.keys()
    assert ("llmcompressor" in plan) == bool(extra) and not {"openai", "gradio"} & plan.keys()
    # Every package comes in the version that the course was tested with.
    lock = dict(re.findall(r"^([\w.-]+)==([\w.+!-]+)", (runtime.root() / "requirements.txt").read_text(), re.MULTILINE))
    assert {name: new for name, (_, new) in plan.items()} == {name: lock.get(name) for name in plan}
    text = platform_setup.describe_plan(plan, colab)
    assert "datasets 4.0.0 -> " in text and "torch 2.11.0+cu128" in text.splitlines()[-1]


def test_an_extra_is_asked_for_where_a_lesson_names_it(colab, tmp_path):
    assert "llmcompressor" in platform_setup.unmet(site=colab, extra="serve")
    command = platform_setup.uv_command("uv", tmp_path, colab, "serve")
    wanted = Path(dict(itertools.pairwise(command))["-r"]).read_text().split("\n")
    assert any(line.startswith("llmcompressor") for line in wanted)
    with pytest.raises(KeyError):
        platform_setup.project("no-such-extra")


def test_every_lessons_extra_is_one_and_its_set_up_cell_asks_for_it():
    course = load_course()
    for lesson in course.lessons:
        extra = lesson.facts["needs"].get("extra", "")
        assert platform_setup.project(extra)[0][: len(platform_setup.project()[0])] == platform_setup.project()[0]
        for language in ("en", "zh"):
            setup_cell = notebook(course, lesson, language).cells[1].source
            asked = f'"{extra}", ' if extra else ""
            several = ", several_gpus=True" if lesson.number == "13" else ""
            assert setup_cell.endswith(f'platform_setup.setup({asked}language="{language}"{several})')
    assert "serve" in {lesson.facts["needs"].get("extra") for lesson in course.lessons}


def test_the_plan_comes_from_the_command_that_setup_runs(monkeypatch, installer, capsys):
    monkeypatch.setattr(platform_setup, "loaded", lambda names: [])  # other tests have imported datasets
    at(monkeypatch, "colab", {"unsloth": "unsloth is missing"})
    platform_setup.setup()
    free, tested, real = installer.commands
    assert free[-1] == tested[-1] == "--dry-run"
    assert free[:-1] == real[: len(free) - 1] and real == tested[:-1]
    said = capsys.readouterr().out
    assert "unsloth is missing" in said and "pyarrow 18.1.0 -> 26.0.1" in said


def test_the_command_pins_what_the_platform_has(colab, tmp_path):
    command = platform_setup.uv_command("uv", tmp_path, colab)
    options = dict(itertools.pairwise(command))
    pins = Path(options["-c"]).read_text().split()
    assert {"torch==2.11.0+cu128", "torchvision==0.26.0+cu128", "triton==3.6.0", "numpy==2.1.3"} <= set(pins)
    assert Path(options["-r"]).read_text().split("\n")[:-1] == platform_setup.project()[0]
    assert Path(options["--override"]).read_text().split("\n")[:-1] == platform_setup.project()[1]
    assert "--torch-backend=auto" not in command


def test_the_command_for_this_python(tmp_path):
    command = platform_setup.uv_command("uv", tmp_path)
    assert command[command.index("--python") + 1] == sys.executable
    assert "--target" not in command


def test_a_torch_that_is_too_old_moves_with_its_family(tmp_path):
    site = tmp_path / "site"
    for name, version in {"torch": "2.6.0+cu124", "torchaudio": "2.6.0+cu124", "numpy": "2.1.3"}.items():
        add_package(site, name, version)
    command = platform_setup.uv_command("uv", tmp_path, site)
    options = dict(itertools.pairwise(command))
    assert "--torch-backend=auto" in command
    assert Path(options["-c"]).read_text() == "numpy==2.1.3\n"
    assert Path(options["-r"]).read_text().split("\n")[-3:-1] == ["torch", "torchaudio"]


def test_a_lock_that_does_not_fit_the_platform_is_left_aside(monkeypatch, tmp_path):
    def run(command):
        if "tested.txt" in " ".join(command):
            raise platform_setup.SetupFailed("no solution")
        return DRY_RUN

    monkeypatch.setattr(platform_setup, "_run", run)
    command, plan = platform_setup.resolve(["uv"], tmp_path)
    assert command == ["uv"] and plan["unsloth"] == (None, "2026.10.9")


def test_parse_plan():
    said = (
        "Would install 4 packages\n - a==1.0\n + a==2.0+cu128\n + b-c==1!3\n - gone==1\n ~ same==1 (from file:///x)\n"
    )
    assert platform_setup.parse_plan(said) == {
        "a": ("1.0", "2.0+cu128"),
        "b-c": (None, "1!3"),
        "gone": ("1", None),
        "same": ("1", "1"),
    }
    assert platform_setup.parse_plan("Audited 17 packages in 5ms\nWould make no changes\n") == {}


def test_unsloths_own_ranges_count_unless_overridden(tmp_path):
    for line in platform_setup.project()[0]:
        add_package(tmp_path, re.match(r"[\w.-]+", line)[0], re.search(r">=([\d.]+)", line)[1])
    assert platform_setup.unmet(deep=False, site=tmp_path) == {}
    (next(tmp_path.glob("unsloth-*")) / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: unsloth\nVersion: 2026.10.9\nRequires-Dist: certifi>=2099\n"
        'Requires-Dist: xformers>=0.0.27 ; python_version >= "3"\nRequires-Dist: absent ; extra == "studio"\n'
    )
    assert platform_setup.unmet(site=tmp_path) == {"xformers": "xformers is missing"}
    assert platform_setup.unmet(deep=False, site=tmp_path) == {}


# --- setup() ---


def test_a_satisfied_environment_is_left_alone_and_fast(monkeypatch, installer, capsys):
    for platform in ("local", "colab", "kaggle"):
        monkeypatch.setattr(runtime, "platform_name", lambda name=platform: name)
        started = time.perf_counter()
        platform_setup.setup()
        platform_setup.setup()
        assert time.perf_counter() - started < 2
    assert installer.commands == [] and capsys.readouterr().out == ""


def test_a_local_environment_is_never_changed(monkeypatch, installer):
    at(monkeypatch, "local", {"unsloth": "unsloth is missing", "trl": "trl 0.9, needed >=1.15"})
    with pytest.raises(platform_setup.NotInstalled) as caught:
        platform_setup.setup()
    text = str(caught.value)
    assert "unsloth is missing; trl 0.9, needed >=1.15" in text and sys.executable in text
    assert "make setup" in text and str(runtime.root()) in text and "pip install" in text
    assert installer.commands == []


def test_a_bare_python_gets_the_same_message():
    code = (
        f"import sys; sys.path.insert(0, {str(runtime.root())!r}); from helpers import platform_setup as p; p.setup()"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("COLAB", "KAGGLE", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], check=False, capture_output=True, text=True, env=environment
    )
    assert "NotInstalled" in done.stderr and "make setup" in done.stderr


def test_an_unsupported_python_is_named(monkeypatch):
    monkeypatch.setattr(platform_setup.platform, "python_version", lambda: "3.99.0")
    assert "Python 3.99.0, needed" in platform_setup.unmet()["python"]


def test_a_python_without_tomllib_is_named(monkeypatch):
    plain = builtins.__import__

    def no_tomllib(name, *args, **kwargs):
        if name == "tomllib":
            raise ModuleNotFoundError(name)
        return plain(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_tomllib)
    assert "3.11 or newer" in platform_setup.unmet()["python"]


def test_replaced_modules_in_use_ask_for_a_restart(monkeypatch, installer):
    at(monkeypatch, "colab", {"datasets": "datasets 4.0.0, needed >=4.8"})
    monkeypatch.setattr(platform_setup, "loaded", lambda names: [name for name in names if name == "pyarrow"])
    with pytest.raises(platform_setup.RestartNeeded) as caught:
        platform_setup.setup()
    assert "pyarrow" in str(caught.value) and "Runtime > Restart session" in str(caught.value)
    assert caught.value._render_traceback_() == [f"RestartNeeded: {caught.value}"]
    assert len(installer.commands) == 3, "it is installed before the restart"
    # The old module is still in memory: running on without a restart would mix two versions.
    at(monkeypatch, "colab", {})
    with pytest.raises(platform_setup.RestartNeeded):
        platform_setup.setup()
    assert len(installer.commands) == 3


def test_kaggle_installs_and_goes_on(monkeypatch, installer, capsys):
    at(monkeypatch, "kaggle", {"unsloth": "unsloth is missing"})
    monkeypatch.setattr(platform_setup, "loaded", lambda names: [])
    platform_setup.setup()
    assert len(installer.commands) == 3 and "Kaggle" in capsys.readouterr().out
    at(monkeypatch, "kaggle", {})
    platform_setup.setup()
    assert len(installer.commands) == 3


def test_nothing_to_change_installs_nothing(monkeypatch, installer):
    at(monkeypatch, "kaggle", {"python": "Python 3.14.0, needed <3.14"})
    installer.answer = "Audited 17 packages in 5ms\nWould make no changes\n"
    platform_setup.setup()
    assert all("--dry-run" in command for command in installer.commands)


@pytest.mark.parametrize(("chosen", "then"), [(None, "1"), ("0", "0")])
def test_cudnns_attention_comes_last_unless_somebody_chose(monkeypatch, installer, chosen, then):
    name = "TORCH_CUDNN_SDPA_DEPRIORITIZED"
    monkeypatch.setenv(name, chosen or "")  # so that it is put back
    if chosen is None:
        monkeypatch.delenv(name)
    at(monkeypatch, "local", {})
    platform_setup.setup()
    assert os.environ[name] == then


@pytest.mark.parametrize(
    ("set_", "then"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:8080"}, "127.0.0.1,localhost"),
        ({"http_proxy": "http://proxy:8080", "NO_PROXY": "intra,localhost"}, "intra,localhost,127.0.0.1"),
        ({"http_proxy": "http://proxy:8080", "NO_PROXY": "*"}, "*"),
    ],
)
def test_behind_a_proxy_this_machines_own_servers_are_asked_directly(monkeypatch, installer, set_, then):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("no_proxy", "")  # so that both are put back
    monkeypatch.setenv("NO_PROXY", "")
    for name, value in set_.items():
        monkeypatch.setenv(name, value)
    at(monkeypatch, "local", {})
    platform_setup.setup()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == (then or "")


@pytest.mark.parametrize("where", ["colab", "kaggle", "local"])
def test_a_later_uv_does_not_stop_at_files_that_nobody_has(monkeypatch, installer, tmp_path, where):
    (tmp_path / "there.txt").touch()
    monkeypatch.setenv("UV_CONSTRAINT", "/backend-container/containers/constraint.txt")
    monkeypatch.setenv("UV_OVERRIDE", f"{tmp_path}/there.txt {tmp_path}/lost.txt")
    monkeypatch.setenv("UV_BUILD_CONSTRAINT", f"{tmp_path}/there.txt")
    at(monkeypatch, where, {})
    platform_setup.setup()
    left = {name for name in platform_setup.OF_FILES if name in os.environ}
    assert left == ({*platform_setup.OF_FILES} if where == "local" else {"UV_BUILD_CONSTRAINT"})


def test_a_failing_installer_says_why(monkeypatch):
    monkeypatch.setattr(runtime, "platform_name", lambda: "kaggle")
    command = [sys.executable, "-c", "import sys; sys.exit('error: Failed to fetch')"]
    with pytest.raises(platform_setup.SetupFailed, match="Settings > Internet(.|\n)*Failed to fetch"):
        platform_setup._run(command)


@pytest.mark.platforms
@pytest.mark.parametrize(
    ("said", "platform", "en", "zh"),
    [
        ("error: Failed to fetch", "kaggle", "On Kaggle, switch on Settings > Internet", "在 Kaggle 上请打开 Settings > Internet"),
        ("error: Failed to fetch", "colab", "Check the network, then run this cell again", "请检查网络，再跑一次这一格"),
        ("write failed: No space left on device (os error 28)", "colab", "The disk is full", "磁盘满了"),
        ("No solution found when resolving dependencies", "kaggle", "The installer says:\nNo solution", "安装程序的原话：\nNo solution"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_failed_set_up_says_what_to_do_in_the_notebooks_language(
    monkeypatch, installer, said, platform, en, zh, language
):
    run = platform_setup.subprocess.run
    at(monkeypatch, platform, {"unsloth": "unsloth is missing"})
    monkeypatch.setattr(platform_setup, "_run", RUN)
    failing = [sys.executable, "-c", f"import sys; sys.exit({said!r})"]
    monkeypatch.setattr(platform_setup.subprocess, "run", lambda command, **options: run(failing, **options))
    with pytest.raises(platform_setup.SetupFailed) as caught:
        platform_setup.setup(language=language)
    assert {"en": en, "zh": zh}[language] in str(caught.value) and said in str(caught.value)
    assert {"en": zh, "zh": en}[language] not in str(caught.value)


@pytest.mark.platforms
@pytest.mark.parametrize(
    ("platform", "en", "zh"),
    [
        ("local", ["lacks what the notebooks need", "make setup"], ["缺少笔记本要用的东西", "make setup"]),
        ("colab", ["pyarrow replaced", "Runtime > Restart session"], ["pyarrow 已经换成新版本", "重新启动会话"]),
        ("kaggle", ["pyarrow replaced", "Run > Restart"], ["pyarrow 已经换成新版本", "Run > Restart"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("language", ["en", "zh"])
def test_what_has_to_be_done_is_said_in_the_notebooks_language(
    monkeypatch, installer, capsys, platform, en, zh, language
):
    at(monkeypatch, platform, {"datasets": "datasets 4.0.0"})
    monkeypatch.setattr(platform_setup, "loaded", lambda names: [name for name in names if name == "pyarrow"])
    with pytest.raises((platform_setup.NotInstalled, platform_setup.RestartNeeded)) as caught:
        platform_setup.setup(language=language)
    assert all(part in str(caught.value) for part in {"en": en, "zh": zh}[language])
    told = capsys.readouterr().out + str(caught.value)
    assert bool(re.search(r"[\u4e00-\u9fff]", told)) == (language == "zh")


def test_uv_is_installed_where_it_is_missing(monkeypatch, tmp_path):
    run = Installer()
    monkeypatch.setattr(platform_setup, "_run", run)
    monkeypatch.setattr(platform_setup.shutil, "which", lambda name: None)
    monkeypatch.setattr(platform_setup, "version", lambda name: None)
    monkeypatch.setitem(sys.modules, "uv", types.SimpleNamespace(find_uv_bin=lambda: "/somewhere/uv"))
    assert platform_setup.find_uv() == "/somewhere/uv"
    assert run.commands[0][1:4] == ["-m", "pip", "install"] and "--require-hashes" in run.commands[0]


def test_loaded_tells_packages_of_one_namespace_apart(monkeypatch, tmp_path):
    for name in ("first", "second"):
        (tmp_path / "shared_space" / name).mkdir(parents=True)
        (tmp_path / "shared_space" / name / "__init__.py").write_text("")
        add_package(tmp_path, f"space-{name}", "1.0", files=(f"shared_space/{name}/__init__.py",))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert platform_setup.loaded(["space-first", "space-second"]) == []
    importlib.import_module("shared_space.first")
    try:
        assert platform_setup.loaded(["space-first", "space-second", "no-such"]) == ["space-first"]
    finally:
        for name in ("shared_space.first", "shared_space"):
            sys.modules.pop(name, None)


# --- failing shell commands ---


class OldShell:
    """IPython 7, which Colab has: no system_raise_on_error."""

    def __init__(self):
        self.user_ns, self.ran = {}, []

    def system(self, command):
        self.ran.append(command)
        self.user_ns["_exit_code"] = int(command == "false")
        return "said"


@pytest.fixture
def shell(monkeypatch):
    def give(instance):
        monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: instance))
        platform_setup._raise_on_shell_errors()
        platform_setup._raise_on_shell_errors()
        return instance

    return give


def test_a_failing_command_raises_in_an_old_ipython(shell):
    old = shell(OldShell())
    assert old.system("true") == "said"
    with pytest.raises(subprocess.CalledProcessError, match="false"):
        old.system("false")
    assert old.ran == ["true", "false"], "wrapped once"


def test_a_failing_command_raises_in_a_new_ipython(shell):
    new = shell(type("Shell", (), {"system_raise_on_error": False})())
    assert new.system_raise_on_error is True and "system" not in vars(new)


def test_outside_ipython_there_is_no_shell(shell):
    assert shell(None) is None
