"""An environment of its own for a tool whose pins differ from the course's: made once from a lock, then reused.

env = environments.make("llamafactory", lock)
subprocess.run([env.command("llamafactory-cli"), "version"])
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from helpers import platform_setup, runtime
from helpers.nano import cache_folder

GB = 2**30
READY = "ready"  # an empty file in the folder, written last: without it the environment is half made
# What a hosted platform has built for its GPU's driver, and is therefore not installed there.
TORCH = re.compile(r"(torch|torchaudio|triton|nvidia-.*|cuda-.*)")


class EnvironmentFailed(runtime.Stop):
    """An environment could not be made; the text holds the installer's reason and what to do."""


@dataclass(frozen=True)
class Environment:
    """A folder with a Python and packages of its own."""

    folder: Path

    def command(self, name: str) -> str:
        """The path of a program in it: `python`, `llamafactory-cli`."""
        return str(self.folder / ("Scripts" if os.name == "nt" else "bin") / name)


def make(
    name: str, lock: Path, *, last: Sequence[str] = (), build_settings: Mapping[str, str] | None = None
) -> Environment:
    """The environment with exactly the packages of `lock` (`name==version` with hashes), made now if it is not there.

    It lies in the course's cache folder, under a fingerprint of the lock and this Python. The packages in `last` are
    built from source against the others, with `build_settings` as environment variables. On Colab and Kaggle the
    platform's torch is used, which fits its GPU's driver. Making it needs the package index, reusing it nothing.
    Raises EnvironmentFailed.
    """
    hosted = runtime.platform_name() != "local"
    folder = cache_folder() / f"{name}-{fingerprint(lock, hosted)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):  # a second process waits here and then finds it
        if not (folder / READY).exists():
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted attempt left
            try:
                _make(folder, name, requirements(lock, without_torch=hosted), last, build_settings or {}, hosted)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            (folder / READY).touch()
    return Environment(folder)


def fingerprint(lock: Path, hosted: bool = False) -> str:
    """12 hexadecimal digits over the lock, this Python and whether the platform's torch is used."""
    digest = hashlib.sha256(lock.read_bytes())
    digest.update(f"{platform.python_version()} {sys.base_prefix} {hosted}".encode())
    return digest.hexdigest()[:12]


def requirements(lock: Path, without_torch: bool = False) -> dict[str, str]:
    """The lock's entries by package name, each with its marker and hashes; a name may stand for several lines."""
    entries: dict[str, str] = {}
    for entry in re.split(r"(?m)^(?=[A-Za-z0-9])", lock.read_text(encoding="utf-8")):
        name = re.match(r"[\w.-]*", entry)[0].lower()
        if name and not (without_torch and TORCH.fullmatch(name)):
            entries[name] = entries.get(name, "") + entry
    return entries


def index() -> str | None:
    """The package index that this machine's settings name for uv or pip; None for PyPI itself."""
    if chosen := os.environ.get("UV_DEFAULT_INDEX") or os.environ.get("PIP_INDEX_URL"):
        return chosen
    asked = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    said = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
    found = re.search(r"(?m)^global\.index-url='(.+)'$", said)  # `config get` does not see every file that `list` does
    return found[1] if found else None


def _make(
    folder: Path, name: str, entries: dict[str, str], last: Sequence[str], build: Mapping[str, str], hosted: bool
) -> None:
    began = time.perf_counter()
    print(f"making the environment {name}: {len(entries)} packages, once; kept in {folder}", flush=True)
    uv = platform_setup.find_uv()
    _run([uv, "venv", "--python", sys.executable, *(["--system-site-packages"] if hosted else []), str(folder)])
    first = {package: entry for package, entry in entries.items() if package not in last}
    _install(uv, folder, first, [], {})
    if built := {package: entries[package] for package in last}:
        _install(uv, folder, built, ["--no-build-isolation"], build)
    sizes = [(path.lstat().st_size, path.lstat().st_nlink) for path in folder.rglob("*")]
    own = sum(size for size, links in sizes if links == 1)
    print(
        f"made in {time.perf_counter() - began:.0f} s: {sum(size for size, _ in sizes) / GB:.1f} GB, "
        f"{own / GB:.1f} GB of it not shared with uv's cache",
        flush=True,
    )


def _install(uv: str, folder: Path, entries: dict[str, str], options: list[str], settings: Mapping[str, str]) -> None:
    """Install exactly these, without asking what they depend on: the lock is complete."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work, "requirements.txt")
        path.write_text("".join(entries.values()), encoding="utf-8")
        command = [uv, "pip", "install", "--no-progress", "--python", str(folder), "--no-deps", "--require-hashes"]
        command.append("--compile-bytecode")  # now, in parallel: each stage is a process that imports all of it
        _run([*command, *options, "-r", str(path)], settings)


def _run(command: list[str], settings: Mapping[str, str] | None = None) -> None:
    env = {name: value for name, value in os.environ.items() if name not in platform_setup.NOT_FOR_US}
    env.setdefault("UV_HTTP_TIMEOUT", "180")
    env.setdefault("UV_SYSTEM_CERTS", "1")  # as pip does: an institution's own certificates are in the system's store
    if chosen := index():
        env["UV_DEFAULT_INDEX"] = chosen
    done = subprocess.run(command, env=env | dict(settings or {}), check=False, capture_output=True, text=True)
    if done.returncode:
        said = runtime.without_login(done.stderr + done.stdout).strip()  # an index may carry a password
        raise EnvironmentFailed(
            "the environment could not be made. It needs the package index once, and disk space; behind a slow or "
            "closed network set PIP_INDEX_URL to a mirror, then run this cell again. The installer says:\n"
            f"{said[-2500:]}"
        )
