"""An environment beside the course's: what the lock says, made once, and told clearly when it cannot be."""

from __future__ import annotations

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from helpers import environments, llamafactory
from helpers.runtime import root

LOCK = """\
torch==2.11.0 \\
    --hash=sha256:aa
Tool==1.0 ; python_full_version < '3.12' \\
    --hash=sha256:bb
tool==2.0 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
nvidia-nccl-cu13==2.28.9 ; sys_platform == 'linux' \\
    --hash=sha256:dd
builder==5.7.0 \\
    --hash=sha256:ee
"""
# Says what it was asked and makes what uv would; fails with $FAIL_AT in its arguments.
UV = """#!/bin/sh
echo "$@" >> "$ASKED"
env | grep -E '^(UV_|BUILD_)' >> "$ASKED"
case "$*" in *"$FAIL_AT"*) echo 'no route to https://me:secret@mirror.example/simple' >&2; exit 2;; esac
if [ "$1" = venv ]; then for last; do :; done; mkdir -p "$last/bin"; else for last; do :; done; cat "$last" >> "$ASKED"; fi
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    path = tmp_path / "requirements.txt"
    path.write_text(LOCK, encoding="utf-8")
    return path


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for uv, an empty cache, no settings for an index; returns the file that the stand-in writes."""
    uv, asked = tmp_path / "uv", tmp_path / "asked"
    uv.write_text(UV, encoding="utf-8")
    uv.chmod(0o755)
    asked.touch()
    monkeypatch.setattr(environments.platform_setup, "find_uv", lambda: str(uv))
    monkeypatch.setattr(environments, "index", lambda: None)
    for name in ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"COURSE_CACHE": tmp_path / "cache", "ASKED": asked, "FAIL_AT": "never asked"}.items():
        monkeypatch.setenv(name, str(value))
    return asked


def test_the_lock_is_read_entry_by_entry(lock: Path) -> None:
    entries = environments.requirements(lock)
    assert list(entries) == ["torch", "tool", "nvidia-nccl-cu13", "builder"]
    assert entries["tool"].count("--hash") == 2  # one for each Python
    assert "".join(entries.values()) == LOCK
    assert list(environments.requirements(lock, without_torch=True)) == ["tool", "builder"]


def test_made_once_in_two_steps_and_then_found(lock: Path, asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"BUILD_CUDA_EXT": "0"}
    env = environments.make("thing", lock, last=("builder",), build_settings=settings)
    said = asked.read_text(encoding="utf-8")
    assert said.index("torch==2.11.0") < said.index("--no-build-isolation") < said.index("builder==5.7.0")
    assert said.index("BUILD_CUDA_EXT=0") > said.index("--no-build-isolation")  # for the second step alone
    assert said.count("--no-deps --require-hashes") == 2 and "--system-site-packages" not in said
    assert env.folder.parent == Path(os.environ["COURSE_CACHE"]).resolve()
    assert Path(env.command("python")).parent == env.folder / "bin"
    assert "making the environment thing: 4 packages" in capsys.readouterr().out
    asked.write_text("", encoding="utf-8")
    assert environments.make("thing", lock, last=("builder",)) == env
    assert asked.read_text(encoding="utf-8") == "" and capsys.readouterr().out == ""


def test_two_at_once_make_it_once(lock: Path, asked: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: environments.make("thing", lock), range(2))
    assert one == other
    assert asked.read_text(encoding="utf-8").count("venv --python") == 1


def test_another_lock_is_another_environment(lock: Path, asked: Path) -> None:
    first = environments.make("thing", lock)
    lock.write_text(LOCK.replace("1.0", "1.1"), encoding="utf-8")
    assert environments.make("thing", lock) != first


def test_a_failure_says_why_and_leaves_nothing(lock: Path, asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL_AT", "--no-build-isolation")
    with pytest.raises(environments.EnvironmentFailed, match="PIP_INDEX_URL") as error:
        environments.make("thing", lock, last=("builder",))
    assert "no route to" in str(error.value) and "secret" not in str(error.value)
    assert not [path for path in Path(os.environ["COURSE_CACHE"]).iterdir() if path.is_dir()]


def test_a_half_made_one_is_made_anew(lock: Path, asked: Path) -> None:
    env = environments.make("thing", lock)
    (env.folder / environments.READY).unlink()
    (env.folder / "left").touch()
    assert environments.make("thing", lock) == env
    assert not (env.folder / "left").exists()


def test_on_colab_the_platforms_torch_stays(lock: Path, asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = environments.make("thing", lock)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "x")
    asked.write_text("", encoding="utf-8")
    assert environments.make("thing", lock) != here
    said = asked.read_text(encoding="utf-8")
    assert "--system-site-packages" in said and "torch==" not in said and "nvidia" not in said and "builder==" in said


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"UV_DEFAULT_INDEX": "https://a", "PIP_INDEX_URL": "https://b"}, "https://a"),
        ({"PIP_INDEX_URL": "https://b"}, "https://b"),
        ({"PIP_CONFIG_FILE": "config"}, "https://c"),
        ({"PIP_CONFIG_FILE": os.devnull}, None),
    ],
)
def test_the_index_is_the_one_that_pip_would_use(
    variables: dict[str, str], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("UV_DEFAULT_INDEX", "PIP_INDEX_URL", "PIP_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    Path("config").write_text("[global]\nindex-url = https://c\n", encoding="utf-8")
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value) if value == "config" else value)
    assert environments.index() == expected


def test_llamafactorys_lock_holds_what_is_asked_and_no_registry() -> None:
    folder = root() / "lessons" / "12_llamafactory"
    text, entries = llamafactory.LOCK.read_text(encoding="utf-8"), environments.requirements(llamafactory.LOCK)
    for line in (folder / "requirements.in").read_text(encoding="utf-8").splitlines():
        if wanted := line.split("#")[0].strip():
            name = wanted.split("==")[0]
            assert wanted in entries[name], wanted
    for line in (folder / "overrides.txt").read_text(encoding="utf-8").splitlines():
        if left_out := line.split("#")[0].split(";")[0].strip():
            assert left_out not in entries
    assert "://" not in text
    assert all("--hash=sha256:" in entry for entry in entries.values())
    pins = [re.match(r"[\w.-]+==\S+", entry)[0] for entry in entries.values()]
    assert len(pins) == len(entries)


def test_torch_is_the_courses_own_so_that_its_files_are_shared() -> None:
    ours = environments.requirements(root() / "requirements.txt")["torch"].split("\\")[0].split(";")[0].strip()
    assert environments.requirements(llamafactory.LOCK)["torch"].split("\\")[0].strip() == ours
    assert sys.version_info >= (3, 11)
