"""benchmarks/verified.json: what is written of a run, which entry is shown, and whose memory counts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tools import build, cli, verified
from tools.lessons import ROOT, load_course


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


def test_a_lesson_about_several_gpus_says_how_many(tmp_path, h200, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    course = load_course()
    for slug in ("12_llamafactory", "13_scale_out"):
        verified.record(tmp_path, slug, "en", "trimmed", 60.0, None, True, verified.gpus(course.lesson(slug)))
    assert [row["hardware"] for row in verified.entries(tmp_path)] == ["NVIDIA H200", "2 x NVIDIA H200"]


def test_a_lesson_with_an_environment_of_its_own_says_what_that_has() -> None:
    rows = {row["lesson"]: row["versions"] for row in verified.entries(ROOT)}
    lock = (ROOT / "lessons" / "12_llamafactory" / "requirements.txt").read_text("utf-8")
    for name, version in rows["12_llamafactory"].items():
        assert f"\n{name}=={version} " in lock
    assert {"llamafactory", "trl"} <= rows["12_llamafactory"].keys() and "unsloth" in rows["01_alpaca_sft"]


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


# tools/verify_full.sh, in a copy of the course: it writes verified.json, the notebooks and the READMEs of where it stands


def copied(course: Path, parts: tuple[str, ...] = ()) -> Path:
    """The checkout's files as they are now, or those parts alone, and its environment beside them."""
    command = ["git", "ls-files", "-coz", "--exclude-standard", *parts]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (course / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, course / name)
    (course / ".venv").symlink_to(sys.prefix)
    return course


def verify_full(course: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # The environment's `course` is the checkout's own, unless the copy comes first on the path.
    environment = os.environ | {"PYTHONPATH": str(course), "HF_HUB_OFFLINE": "1"}
    command = [course / "tools" / "verify_full.sh", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.notebook
def test_full_runs_of_all_lessons_are_noted_in_both_languages(tiny) -> None:
    copied(tiny.root, ("tools", "helpers", "pyproject.toml", "requirements.txt"))
    done = verify_full(tiny.root)
    assert done.returncode == 0, done.stdout + done.stderr
    found = [(entry["language"], entry["parameters"], entry["passed"]) for entry in verified.entries(tiny.root)]
    assert found == [("en", "full", True), ("zh", "full", True)]


@pytest.mark.weekly
@pytest.mark.notebook
@pytest.mark.nano
def test_full_runs_go_on_after_a_lesson_that_fails_and_name_it(tmp_path) -> None:
    before = (ROOT / verified.FILE).read_bytes()
    course = copied(tmp_path / "course")
    source, facts = (course / "lessons" / "00_start_here" / name for name in ("lesson.py", "lesson.toml"))
    machine = '# %% [markdown] lang="en"\n# ## 2 '
    broken = source.read_text("utf-8").replace(machine, f"# %%\nraise RuntimeError('broken')\n\n{machine}")
    source.write_text(broken, "utf-8")
    facts.write_text(facts.read_text("utf-8").replace('en = "Start here', 'en = "Start anew'), "utf-8")
    settings = {
        "MODEL": "nano/qwen2", "DATASET": "data_samples/alpaca_en.json", "MAX_STEPS": 2, "MAX_SEQ_LENGTH": 256,
        "HELD_OUT": 8, "MAX_NEW_TOKENS": 8, "GRADIENT_CHECKPOINTING": False, "VRAM_GB": 0, "DISK_GB": 1,
    }  # fmt: skip
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    done = verify_full(course, "00 01", *given)
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (1, ["failed: 00-en 00-zh"]), done.stdout + done.stderr
    assert "RuntimeError: broken" in done.stdout
    parameters = f"full with {', '.join(sorted(settings))}"
    found = [entry for entry in verified.entries(course) if entry["parameters"] == parameters]
    assert [(entry["lesson"], entry["language"], entry["passed"]) for entry in found] == [
        ("00_start_here", "en", False),
        ("00_start_here", "zh", False),
        ("01_alpaca_sft", "en", True),
        ("01_alpaca_sft", "zh", True),
    ]
    for language in ("en", "zh"):  # built anew, also after a failure
        notebook = course / "notebooks" / language / "00_start_here.ipynb"
        assert "raise RuntimeError('broken')" in notebook.read_text("utf-8")
    readme = (course / "README.md").read_text("utf-8")
    assert "Start anew" in readme and "full with" not in readme  # a trial is no proof
    assert (ROOT / verified.FILE).read_bytes() == before
