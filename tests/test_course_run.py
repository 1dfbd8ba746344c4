"""The lesson as a stranger runs it: from a clean clone, by the command of the README. Minutes, not seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.data import load_alpaca
from tools.lessons import ROOT, load_course

REAL_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """What the last commit holds, and nothing else."""
    folder = tmp_path_factory.mktemp("clean") / "course"
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder)], check=True)
    return folder


def course(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "tools.cli", *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.notebook
@pytest.mark.nano
def test_lesson_01_shows_its_effect_from_a_clean_clone(clone):
    done = course(clone, "run", "01")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = clone / "runs" / "01_alpaca_sft-en"
    figures = json.loads((folder / "outputs" / "summary.json").read_text("utf-8"))
    assert load_course(clone).lesson("01").unseen(figures) == []
    assert figures["answer_after"].startswith("13, 21, 34")
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        p.name for p in (folder / "outputs/adapter").iterdir()
    }
    assert str(folder / "notebook.html") in done.stdout or "runs/01_alpaca_sft-en/notebook.html" in done.stdout
    status = subprocess.run(["git", "status", "--short"], cwd=clone, capture_output=True, text=True, check=True)
    assert status.stdout == ""  # a run leaves nothing that git would pick up


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"needs the public test data in {REAL_DATA}")
def test_real_alpaca_rows_load():
    assert len(load_alpaca(str(REAL_DATA / "alpaca_en_demo.json"))) == 999
