"""A notebook on Colab and on Kaggle, executed: a Python 3.13 with the platform's own versions of whatever the course
touches, the course cloned, what is missing really installed, and then the lesson.

What differs from the platform: torch and its CUDA libraries are the package index's build, packages that the course
does not touch are left out, and there is no GPU.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers import nano
from helpers.environments import TORCH
from helpers.platform_setup import TORCH_FAMILY
from tests import platform_modules
from tests.test_platform_setup import FREEZE, REPLACED, UNREACHABLE, uv  # noqa: F401, a fixture
from tools.lessons import ROOT, load_course

pytestmark = [pytest.mark.platforms, pytest.mark.notebook, pytest.mark.index, pytest.mark.nano]
COURSE = load_course()
PINS = r"(?m)^([\w.-]+)==([^\s\\;]+)"
LISTED = "Tesla T4, 15360 MiB, 580.82.07"
SECRET = "hf_" + "x" * 34
# Executes a notebook's code cells as the kernel does, the parameters trimmed; what came of each is written down.
RUNNER = """
import importlib, json, sys
path, result, cells, *imported = sys.argv[1:]
for name in imported:
    importlib.import_module(name)
from IPython.core.interactiveshell import InteractiveShell
shell, told = InteractiveShell.instance(), []
code = [cell for cell in json.load(open(path, encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
for cell in code[:int(cells)]:
    error = shell.run_cell("".join(cell["source"])).error_in_exec
    told.append(error and f"{type(error).__name__}: {error}")
    for name, value in cell["metadata"].get("nbmake", {}).get("mock", {}).items():
        shell.run_cell(f"{name} = {value!r}")
    if error:
        break
with open(result, "w", encoding="utf-8") as file:
    json.dump(told, file)
"""
ASK = """
import json, os, sys
from importlib import metadata
from helpers import platform_setup, runtime
print(json.dumps([platform_setup.unmet(), {name: metadata.version(name) for name in sys.argv[1:]}, runtime.secret("HF_TOKEN")]))
"""


def pins(path: Path) -> dict[str, tuple[str, str]]:
    """The name as it is written and the version, by the name as the index spells it."""
    found = re.findall(PINS, path.read_text(encoding="utf-8"))
    return {re.sub(r"[-_.]+", "-", name).lower(): (name, version) for name, version in found}


def wanted() -> list[str]:
    """What of the platform's list the course's packages touch, in the platform's versions."""
    there, lock = pins(FREEZE), pins(ROOT / "requirements.txt")
    cuda = {
        name: pin
        for name, pin in lock.items()
        if TORCH.fullmatch(name) and name not in there | dict.fromkeys(TORCH_FAMILY)
    }
    cuda |= {name: pin for name, pin in lock.items() if name.startswith(("nvidia-", "cuda-"))}
    touched = {name: pin for name, pin in there.items() if name in lock or name in TORCH_FAMILY} | cuda
    return [f"{name}=={version.split('+')[0]}" for name, version in touched.values()]


def python() -> str | None:
    """A Python 3.13 of this machine, as Colab's list says."""
    versions = Path(os.environ.get("PYENV_ROOT") or "~/.pyenv").expanduser() / "versions"
    names = [shutil.which("python3.13"), *sorted(map(str, versions.glob("3.13*/bin/python3.13")), reverse=True)]
    works = lambda name: subprocess.run([name, "-c", ""], capture_output=True).returncode == 0
    return next((name for name in names if name and works(name)), None)


class Platform:
    """A folder that holds a platform's Python and packages, its modules, and the notebook's working folder."""

    def __init__(self, folder: Path, uv: str) -> None:  # noqa: F811
        self.folder, self.uv = folder, uv
        self.python = folder / "env" / "bin" / "python"
        interpreter = python() or pytest.skip("there is no Python 3.13 here")
        self.install([uv, "venv", "-q", "--python", interpreter, str(folder / "env")])
        pip = [uv, "pip", "install", "-q", "--python", str(self.python)]
        packages, versions = folder / "packages.txt", folder / "versions.txt"
        packages.write_text("\n".join(wanted()), encoding="utf-8")
        self.install([*pip, "--no-deps", "-r", str(packages)])
        # The notebook's own machinery, and pip, which brings uv.
        there = {
            name: pin for name, pin in pins(FREEZE).items() if not name.startswith(("nvidia-", "cuda-", *TORCH_FAMILY))
        }
        versions.write_text("\n".join("==".join(pin) for pin in there.values()), encoding="utf-8")
        self.install([*pip, "-c", str(versions), "ipython", "ipykernel", "pip"])
        platform_modules.write(folder / "modules")
        (folder / "vault.json").write_text(json.dumps({"HF_TOKEN": SECRET}), encoding="utf-8")
        self.publish()
        self.work = folder / "work"
        self.work.mkdir()

    def install(self, command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode and re.search(UNREACHABLE, done.stderr):
            pytest.skip("the package index cannot be reached")
        assert done.returncode == 0, done.stderr[-3000:]

    def publish(self) -> None:
        """This course, as it stands, as a repository of which git believes that it is the published one."""
        listed = subprocess.run(
            ["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / "published" / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.folder / "published" / name)
        who = ["-c", "user.name=x", "-c", "user.email=x@example.com"]
        for command in (["init", "-q", "-b", COURSE.branch], ["add", "-A"], [*who, "commit", "-q", "-m", "The course"]):
            subprocess.run(["git", *command], cwd=self.folder / "published", check=True)

    def environment(self, **more: str) -> dict[str, str]:
        """Of a machine of its own, but for the index, its certificates, and what was downloaded or built before."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if re.match(r"PIP_|SSL_|REQUESTS_CA|UV_DEFAULT|LANG", name)
        }
        cache = subprocess.run([self.uv, "cache", "dir"], capture_output=True, text=True).stdout.strip()
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        return kept | {
            "HOME": str(home),
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(self.python.parent), "/usr/bin", "/bin"]),
            "PYTHONPATH": str(self.folder / "modules"),
            "VAULT": str(self.folder / "vault.json"),
            "UV_CACHE_DIR": cache,
            "COURSE_CACHE": str(nano.cache_folder()),
            "OMP_NUM_THREADS": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{(self.folder / 'published').as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": f"https://github.com/{COURSE.repository}.git",
        } | more  # fmt: skip

    def run(self, notebook: Path, cells: int, *imported: str, **environment: str) -> tuple[list[str | None], str]:
        """What came of each cell (an error, or None), and all that was said; `imported` is what was before."""
        result, began = self.folder / "result.json", time.monotonic()
        command = [str(self.python), "-c", RUNNER, str(notebook), str(result), str(cells), *imported]
        done = subprocess.run(
            command, env=self.environment(**environment), cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
        print(f"{notebook.parent.name}/{notebook.stem}: {time.monotonic() - began:.0f} s")
        return json.loads(result.read_text(encoding="utf-8")), done.stdout

    def ask(self, *names: str, **environment: str) -> tuple[dict[str, str], dict[str, str], str | None]:
        """What is unmet there now, the versions of these packages, and the secret."""
        (course,) = self.work.glob("*/")
        command = [str(self.python), "-c", "import sys; sys.path.insert(0, '')\n" + ASK, *names]
        done = subprocess.run(command, env=self.environment(**environment), cwd=course, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def platform(tmp_path, uv):  # noqa: F811
    nano.build("nano/qwen2")
    yield Platform(tmp_path, uv)
    shutil.rmtree(tmp_path)  # some 5 GB


def test_lesson_01_on_colab(platform):
    """In Chinese, with packages in memory that will be replaced: install, ask for a restart; then the whole lesson."""
    settings = {"COLAB_RELEASE_TAG": "release-colab_20260819", "UV_SYSTEM_PYTHON": "true"}
    settings |= {
        name: f"/backend-container/containers/{name.lower()}.txt" for name in ("UV_CONSTRAINT", "UV_BUILD_CONSTRAINT")
    }
    notebook = ROOT / "notebooks" / "zh" / "01_alpaca_sft.ipynb"
    kept = {
        name: pin[1].split("+")[0] for name, pin in pins(FREEZE).items() if name in ("numpy", "pandas", *TORCH_FAMILY)
    }
    (error,), said = platform.run(notebook, 1, "pandas", "pyarrow", **settings)
    assert error.startswith("RestartNeeded: pyarrow 已经换成新版本") and "代码执行程序 > 重新启动会话" in error
    assert "要在 Colab 上安装：没有 unsloth；" in said and "替换 3 个：" in said and "保留 6 个：torch " in said
    errors, said = platform.run(notebook, 99, **settings)
    assert set(errors) == {None} and "安装" not in said, said[-3000:]
    (summary,) = platform.work.rglob("summary.json")
    assert COURSE.lesson("01").unseen(json.loads(summary.read_text("utf-8"))) == []
    unmet, versions, secret = platform.ask(*kept, *REPLACED, **settings)
    assert unmet == {} and secret == SECRET
    assert {name: version.split("+")[0] for name, version in versions.items() if name in kept} == kept
    assert all(versions[name] != pins(FREEZE)[name][1] for name in REPLACED)


def test_lesson_01_begins_on_kaggle(platform):
    """Two T4s: install and go on in the same session, with one GPU, up to the lesson's imports."""
    (platform.folder / "bin").mkdir()
    smi = platform.folder / "bin" / "nvidia-smi"
    smi.write_text(f"#!{sys.executable} -S\nprint('{LISTED}\\n{LISTED}')\n", encoding="utf-8")
    smi.chmod(0o755)
    settings = {"KAGGLE_KERNEL_RUN_TYPE": "Interactive", "COLAB_RELEASE_TAG": ""}  # its image descends from Colab's
    notebook = ROOT / "notebooks" / "en" / "01_alpaca_sft.ipynb"
    errors, said = platform.run(notebook, 4, **settings)  # set-up, parameters, machine, imports
    assert errors == [None] * 4, said[-3000:]
    assert "To be installed on Kaggle: unsloth is missing; " in said and "Installed." in said
    assert said.count("CUDA_VISIBLE_DEVICES=0") == 1 and "platform      kaggle" in said
    unmet, versions, secret = platform.ask("torch", **settings)
    assert unmet == {} and secret == SECRET and versions["torch"] == pins(FREEZE)["torch"][1].split("+")[0]
