"""Experiment tracking: real runs with each tool, offline, and nothing of the key in any file."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from importlib.util import find_spec

import pytest

from helpers import tracking
from helpers.runtime import MissingSecret, root

KEY = "0123456789abcdef" * 2 + "01234567"  # W&B's keys have 40 characters

# A process of its own: the tools read the environment when they are imported, and keep threads.
TRAIN = """
import json, sys
import torch
from transformers import Trainer, TrainingArguments
from helpers import tracking

class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def forward(self, x, labels):
        return {"loss": ((self.layer(x) - labels) ** 2).mean()}

said = {}
for tool in sys.argv[1:]:
    settings = tracking.start(tool, tool, "a tiny run")
    rows = [{"x": torch.ones(1), "labels": torch.zeros(1)}] * 4
    options = dict(max_steps=3, logging_steps=1, save_strategy="no", use_cpu=True, disable_tqdm=True, **settings)
    arguments = TrainingArguments(tool + "/checkpoints", **options)
    Trainer(Line(), arguments, train_dataset=rows).train()
    said[tool] = tracking.finish(tool, tool)
print("SAID", json.dumps(said))
"""


@pytest.fixture
def environment(monkeypatch):
    """Undo what `start` writes into the environment."""
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_LOG_MODEL", "WANDB_API_KEY", "TRACKIO_DIR", "TRACKIO_SPACE_ID"):
        monkeypatch.setenv(name, "")
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.setenv(name, "")
    return monkeypatch


@pytest.fixture
def proxy():
    """The address of a proxy that lets nobody through, and the list of those who knocked."""
    knocked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    visitor, _ = server.accept()
                except OSError:
                    return
                knocked.append(visitor.recv(200))
                visitor.close()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", knocked


FILES = {
    "wandb": "wandb/offline-run-*/*.wandb",
    "tensorboard": "events.out.tfevents.*",
    "trackio": "*.db",
}


@pytest.mark.notebook  # half a minute
def test_each_tool_writes_into_its_folder_and_nowhere_else(tmp_path, proxy):
    address, knocked = proxy
    tools = [tool for tool in FILES if find_spec(tool)]
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    names = ("http_proxy", "https_proxy", "all_proxy")
    through = {name: address for name in names} | {name.upper(): address for name in names}
    settings = {"HOME": str(home), "WANDB_API_KEY": KEY, "PYTHONPATH": str(root()), "NO_PROXY": "127.0.0.1,localhost"}
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, *tools],
        env=os.environ | through | settings | {"HF_HUB_OFFLINE": "1"},
        cwd=work,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.split("SAID ")[1].splitlines()[0])
    for tool in tools:
        folder = tracking.log_folder(work / tool)
        assert list(folder.glob(f"**/{FILES[tool]}")), sorted(folder.rglob("*"))
        assert str(folder) in said[tool] and not said[tool].startswith("0 files")
    assert knocked == []
    assert {path.name for path in work.iterdir()} == set(tools)
    assert KEY not in done.stdout + done.stderr
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_none_needs_nothing(tmp_path):
    assert tracking.start("none", tmp_path, "x") == {"report_to": "none"}
    assert "no tracking" in tracking.finish("none", tmp_path)
    assert not any(tmp_path.iterdir())


def test_what_the_trainer_is_told(tmp_path, environment):
    assert tracking.start("tensorboard", tmp_path, "one") == {"report_to": "tensorboard", "run_name": "one"}
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == str(tracking.log_folder(tmp_path))
    assert tracking.start("trackio", tmp_path, "one") == {
        "report_to": "trackio",
        "run_name": "one",
        "project": tracking.PROJECT,
        "trackio_static_space_id": False,
    }
    assert "TRACKIO_SPACE_ID" not in os.environ


def test_an_unknown_tool_names_the_known_ones(tmp_path):
    with pytest.raises(
        tracking.TrackingUnavailable, match="TRACKING = 'mlflow': choose one of none, tensorboard, wandb"
    ):
        tracking.start("mlflow", tmp_path, "x")


@pytest.mark.parametrize("tool", ["tensorboard", "wandb", "trackio"])
def test_a_missing_package_says_how_to_get_it(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(tracking.TrackingUnavailable, match=f"pip install {tool}$"):
        tracking.start(tool, tmp_path, "x")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("tool", ["none", "tensorboard", "trackio"])
def test_only_wandb_uploads(tool, tmp_path):
    with pytest.raises(tracking.TrackingUnavailable, match="Only wandb uploads"):
        tracking.start(tool, tmp_path, "x", upload=True)


def test_offline_wandb_asks_for_no_key(tmp_path, environment):
    environment.delenv("WANDB_API_KEY")
    assert tracking.start("wandb", tmp_path, "x")["report_to"] == "wandb"
    assert os.environ["WANDB_MODE"] == "offline" and "WANDB_API_KEY" not in os.environ


def test_uploading_needs_the_key_and_keeps_it_in_the_environment(tmp_path, environment):
    environment.delenv("WANDB_API_KEY")
    with pytest.raises(MissingSecret, match="WANDB_API_KEY"):
        tracking.start("wandb", tmp_path, "x", upload=True)
    environment.setenv("WANDB_API_KEY", KEY)
    settings = tracking.start("wandb", tmp_path, "x", upload=True)
    assert os.environ["WANDB_MODE"] == "online" and os.environ["WANDB_API_KEY"] == KEY
    assert KEY not in str(settings)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_trackio_imported_for_another_folder_is_refused(tmp_path, environment, monkeypatch):
    stand_in = type(sys)("trackio.utils")
    stand_in.TRACKIO_DIR = tmp_path / "elsewhere"
    monkeypatch.setitem(sys.modules, "trackio.utils", stand_in)
    with pytest.raises(tracking.TrackingUnavailable, match="elsewhere in this process. Restart the kernel"):
        tracking.start("trackio", tmp_path, "x")
