"""benchmarks/verified.json: what is written of a run, which entry is shown, and whose memory counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tools import build, cli, verified


def smi(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A command `nvidia-smi` that prints `text`."""
    command = folder / "nvidia-smi"
    command.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n", encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def h200(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")


def test_a_process_and_its_children_count_together_and_strangers_do_not(tmp_path, monkeypatch) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    smi(tmp_path, monkeypatch, f"{os.getpid()}, 1024\n{child.pid}, 512\n1, 9999\n77, [N/A]")
    with verified.watched() as peak:
        deadline = time.monotonic() + 20
        while peak.gib is None and time.monotonic() < deadline:
            time.sleep(0.05)
    child.communicate(b"\n")
    assert peak.gib == 1.5
    smi(tmp_path, monkeypatch, f"{os.getpid()}, 10")
    peak.look()
    assert peak.gib == 1.5  # the most, not the last


@pytest.mark.parametrize("said", ["No devices were found", "", "1, 5"])
def test_without_a_gpu_or_processes_nothing_is_claimed(tmp_path, monkeypatch, said) -> None:
    smi(tmp_path, monkeypatch, said)
    peak = verified.Peak()
    peak.look()
    assert peak.gib is None
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    peak.look()
    assert peak.gib is None


def test_a_newer_run_takes_the_place_of_its_own_kind_alone(tmp_path, h200) -> None:
    verified.record(tmp_path, "01_tiny", "en", "trimmed", 90.0, 1.234, True)
    verified.record(tmp_path, "01_tiny", "zh", "trimmed", 60.0, None, True)
    verified.record(tmp_path, "01_tiny", "en", "trimmed", 120.0, 2.0, True)
    rows = json.loads((tmp_path / verified.FILE).read_text("utf-8"))
    assert [(r["language"], r["minutes"], r["peak_vram_gib"]) for r in rows] == [("en", 2.0, 2.0), ("zh", 1.0, None)]
    assert rows[0]["hardware"] == "NVIDIA H200" and rows[0]["versions"]["torch"] == torch.__version__.split("+")[0]


def test_only_a_run_on_a_gpu_that_passed_is_shown(tmp_path, h200, monkeypatch) -> None:
    assert verified.newest(tmp_path, "01_tiny") is None
    verified.record(tmp_path, "01_tiny", "en", "trimmed", 60.0, None, True)
    verified.record(tmp_path, "01_tiny", "en", "full", 600.0, None, True)
    assert verified.newest(tmp_path, "01_tiny")["parameters"] == "full"
    assert verified.newest(tmp_path, "01_tiny", "zh") is None
    for parameters in ("trimmed", "full"):
        verified.record(tmp_path, "01_tiny", "en", parameters, 60.0, None, False)  # it no longer runs
    assert verified.newest(tmp_path, "01_tiny") is None
    verified.record(tmp_path, "01_tiny", "en", "full with MODEL", 60.0, None, True)  # somebody's trial
    assert verified.newest(tmp_path, "01_tiny") is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    verified.record(tmp_path, "01_tiny", "en", "trimmed", 60.0, None, True)
    assert verified.newest(tmp_path, "01_tiny") is None


def test_notebooks_and_readmes_say_where_a_lesson_was_seen_to_run(tiny, h200) -> None:
    texts = build.outputs(tiny).values()
    assert sum("not yet seen to run on a GPU" in text for text in texts) == 2  # notebook and table, English
    verified.record(tiny.root, "01_tiny", "en", "trimmed", 90.0, 1.234, True)
    verified.record(tiny.root, "01_tiny", "zh", "full", 600.0, None, True)
    said = "\n".join(build.outputs(tiny).values())
    assert said.count("seen to run on NVIDIA H200") == 2 and "(trimmed, 1.5 min, 1.2 GiB)" in said
    assert said.count("在 NVIDIA H200 上跑通（完整版，10.0 分钟）") == 2


@pytest.mark.notebook
@pytest.mark.parametrize("passes", [True, False])
def test_course_run_notes_what_became_of_it(tiny, monkeypatch, passes) -> None:
    monkeypatch.setattr(cli, "load_course", lambda: tiny)
    if not passes:
        with (tiny.root / "lessons/01_tiny/lesson.py").open("a", encoding="utf-8") as source:
            source.write("\n# %%\n1 / 0\n")
    status = cli.main(["run", "1", "--full", "--verified", "--out", str(tiny.root / "run")])
    (entry,) = verified.entries(tiny.root)
    assert entry["passed"] == (status == 0) and entry["parameters"] == "full" and entry["lesson"] == "01_tiny"


@pytest.mark.notebook
def test_a_run_with_a_parameter_set_by_hand_says_so(tiny, monkeypatch) -> None:
    monkeypatch.setattr(cli, "load_course", lambda: tiny)
    name, value = next(iter(tiny.lesson("1").parameters.items()))
    run = ["run", "1", "--full", "--verified", "--set", f"{name}={value}", "--out", str(tiny.root / "run")]
    assert cli.main(run) == 0
    (entry,) = verified.entries(tiny.root)
    assert entry["parameters"] == f"full with {name}"
