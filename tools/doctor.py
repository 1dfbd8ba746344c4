"""Look at this machine and say, line by line, whether the course will run on it, and what to do if not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from helpers import platform_setup, runtime
from tools.lessons import ROOT, Course

SECRETS = {
    "HF_TOKEN": "needed for gated models and uploads only: huggingface.co/settings/tokens, then export HF_TOKEN=…",
    "WANDB_API_KEY": "needed only where a lesson reports to W&B: wandb.ai/authorize, then export WANDB_API_KEY=…",
}


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report. `verdict` is ok, note (works, with a limit) or bad."""

    subject: str
    verdict: str
    seen: str
    mend: str = ""


def examine(course: Course) -> Iterator[Finding]:
    """All findings, cheap ones first; no line raises."""
    yield python()
    yield from packages()
    yield memory()
    yield disk(course.root)
    yield gpu()
    yield hub()
    yield from map(secret, SECRETS)
    yield repository(course)


def python() -> Finding:
    seen = sys.version.split()[0]
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", "ok", seen)
    return Finding("Python", "bad", seen, "install Python 3.11, 3.12 or 3.13, delete .venv, run make setup")


def packages(lock: Path = ROOT / "requirements.txt") -> Iterator[Finding]:
    """Installed versions against the lock: one line when all agree, else one for each that does not."""
    pinned = locked(lock)
    wrong = 0
    for name, wanted in pinned.items():
        seen = platform_setup.version(name) or "not installed"
        if seen.split("+")[0] != wanted:
            wrong += 1
            yield Finding(name, "bad", f"{seen}, the lock has {wanted}", "run make setup (in a clone of the course)")
    if not wrong:
        yield Finding("packages", "ok", f"all {len(pinned)} as the lock has them")


def locked(lock: Path) -> dict[str, str]:
    """The lock's pins that apply to this interpreter and platform: name → version."""
    pins = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line and line[0].isalnum():
            requirement = Requirement(line.rstrip("\\ "))
            if requirement.marker is None or requirement.marker.evaluate():
                pins[requirement.name] = next(iter(requirement.specifier)).version
    return pins


def memory() -> Finding:
    total = psutil.virtual_memory().total / runtime.GB
    if total < 6:
        return Finding(
            "memory", "bad", f"{total:.0f} GiB", "a trimmed lesson takes about 4 GiB; close programs or use Colab"
        )
    return Finding("memory", "ok", f"{total:.0f} GiB")


def disk(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free / runtime.GB
    if free < 5:
        return Finding(
            "disk", "bad", f"{free:.0f} GiB free", "free some: a trimmed lesson writes little, a 7B model 6 to 30 GB"
        )
    if free < 40:
        return Finding(
            "disk", "note", f"{free:.0f} GiB free", "enough for trimmed lessons; a 7B model merged to 16 bit needs 30"
        )
    return Finding("disk", "ok", f"{free:.0f} GiB free")


def gpu() -> Finding:
    """Through nvidia-smi and then torch, so that a driver without a usable torch is told apart."""
    without = "trimmed lessons run here; for real models open a notebook in Colab or Kaggle"
    try:
        query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
        card = (
            subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout.strip().splitlines()[0]
        )
    except (OSError, subprocess.SubprocessError, IndexError):
        return Finding("GPU", "note", "none", without)
    import torch

    if not torch.cuda.is_available():
        return Finding("GPU", "bad", f"{card}; torch {torch.__version__} does not see it",
                       f"update the NVIDIA driver to one for CUDA {torch.version.cuda}, or install a torch for your driver")  # fmt: skip
    major, minor = runtime.gpu().capability
    kind = str(runtime.dtype()).removeprefix("torch.")
    return Finding("GPU", "ok", f"{card}, compute capability {major}.{minor}, {kind}")


def hub(timeout: float = 5.0) -> Finding:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    try:
        with urllib.request.urlopen(f"{endpoint}/api/models?limit=1", timeout=timeout):
            return Finding("hub", "ok", f"{endpoint} answers")
    except urllib.error.HTTPError as error:
        return Finding("hub", "note", f"{endpoint} answers with {error.code}", "check HF_ENDPOINT")
    except (OSError, ValueError) as error:
        return Finding("hub", "note", f"{endpoint} not reachable ({getattr(error, 'reason', error)})",
                       "trimmed lessons need no network; otherwise check it, or set HF_ENDPOINT to a mirror")  # fmt: skip


def secret(name: str) -> Finding:
    """Whether it is there; never what it is."""
    if runtime.secret(name):
        return Finding(name, "ok", "set")
    return Finding(name, "note", "not set", SECRETS[name])


def repository(course: Course) -> Finding:
    if course.repository.startswith("your_account/"):
        return Finding("repository", "note", course.repository,
                       "badges and Colab need yours: set `repository` in course.toml, then course build")  # fmt: skip
    return Finding("repository", "ok", course.repository)
