"""Which lessons have been seen to run on a GPU: benchmarks/verified.json, written by `make test-gpu` and `course run`.

One entry for a notebook, a GPU and the parameters that it ran with: trimmed, full, or with some set by hand. A newer
run takes its place.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock

from helpers.runtime import seen_gpus, write_text
from tools.bench.records import PACKAGES, versions
from tools.lessons import Lesson

FILE = Path("benchmarks") / "verified.json"
KEY = ("lesson", "language", "parameters", "hardware")
EVERY = 0.5  # seconds between two looks at the GPU's memory
QUERY = ["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]


class Peak:
    """The most GPU memory that this process and those it started held together, as the driver sees it."""

    def __init__(self) -> None:
        self.gib: float | None = None

    def look(self) -> None:
        """Ask `nvidia-smi` once; nothing is known where it is missing or does not tell processes apart."""
        if not (command := shutil.which("nvidia-smi")):
            return
        ours = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
        said = subprocess.run([command, *QUERY], capture_output=True, text=True).stdout
        rows = [line.split(",") for line in said.splitlines() if line.count(",") == 1]
        held = [int(mib) for pid, mib in rows if pid.strip().isdigit() and mib.strip().isdigit() and int(pid) in ours]
        if held:
            self.gib = max(self.gib or 0.0, sum(held) / 1024)


@contextmanager
def watched() -> Iterator[Peak]:
    """Look at the GPU's memory while the block runs."""
    peak, done = Peak(), threading.Event()

    def watch() -> None:
        while not done.wait(EVERY):
            peak.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def entries(root: Path) -> list[dict[str, Any]]:
    """What the file holds; none where there is no file."""
    path = root / FILE
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []


def gpus(lesson: Lesson) -> int:
    """How many GPUs a lesson uses here: one, unless it is about several."""
    return len(seen_gpus()) if lesson.facts["needs"].get("several_gpus") else 1


def record(
    root: Path,
    lesson: str,
    language: str,
    parameters: str,
    seconds: float,
    peak_gib: float | None,
    passed: bool,
    gpus: int = 1,
) -> None:
    """Write the entry of a run that has just ended on this machine's GPUs (or CPU), in place of the one before it."""
    import torch

    hardware = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    entry = {
        "lesson": lesson,
        "language": language,
        "parameters": parameters,
        "hardware": f"{gpus} x {hardware}" if gpus > 1 else hardware,
        "minutes": round(seconds / 60, 1),
        "peak_vram_gib": peak_gib and round(peak_gib, 1),
        "passed": passed,
        "date": date.today().isoformat(),
        "versions": _versions(root / "lessons" / lesson / "requirements.txt"),
    }
    path = root / FILE
    lock = root / "outputs" / "verified.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # several notebooks end at once
        kept = [old for old in entries(root) if any(old[key] != entry[key] for key in KEY)]
        rows = sorted([*kept, entry], key=lambda row: [row[key] for key in KEY])
        lines = ",\n ".join(json.dumps(row) for row in rows)
        write_text(path, f"[\n {lines}\n]\n")


def _versions(lock: Path) -> dict[str, str]:
    """What a lesson trains with: what is installed here, or what its own environment's lock says, if it has one."""
    if not lock.is_file():
        return versions(PACKAGES)
    pinned = dict(re.findall(r"^([\w-]+)==([^ \\]+)", lock.read_text(encoding="utf-8"), re.MULTILINE))
    return {name: pinned[name] for name in (*PACKAGES, "llamafactory") if name in pinned}


def newest(root: Path, lesson: str, language: str | None = None) -> dict[str, Any] | None:
    """The entry to show: of those on a GPU that passed, full before trimmed, then the newest; None if there is none.

    A run with parameters of its own (`--set`) is no proof of the lesson's.
    """
    found = [
        row
        for row in entries(root)
        if row["lesson"] == lesson
        and row["passed"]
        and row["hardware"] != "CPU"
        and row["parameters"] in ("full", "trimmed")
        and language in (None, row["language"])
    ]
    return max(found, key=lambda row: (row["parameters"] == "full", row["date"], row["language"]), default=None)
