"""Keeping a run's curves: TensorBoard, Weights & Biases or Trackio, in files of your own unless told otherwise.

settings = tracking.start(TRACKING, OUTPUT_DIR, "first try")
SFTConfig(..., **settings)
...
print(tracking.finish(TRACKING, OUTPUT_DIR))
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from helpers import runtime

TOOLS = ("none", "tensorboard", "wandb", "trackio")
PROJECT = "llm-finetuning-course"
OPEN_WITH = {
    "tensorboard": "tensorboard --logdir {folder}",
    "wandb": "wandb sync {folder}/wandb/offline-run-*   (uploads the run to your account)",
    "trackio": "TRACKIO_DIR={folder} trackio show --project {project}",
}


class TrackingUnavailable(runtime.Stop, ValueError):
    """The chosen tool cannot be used; the text says what to do."""


def start(tool: str, output_dir: str | Path, run_name: str, upload: bool = False) -> dict[str, Any]:
    """Prepare `tool` and return what `SFTConfig` (or `TrainingArguments`) needs to report to it.

    `tool` is one of TOOLS; its files go to `output_dir/tracking`. Nothing leaves the machine, unless `upload`:
    then W&B takes the secret WANDB_API_KEY, which is put into this process's environment and nowhere else.
    Call it before the trainer is made. Raises TrackingUnavailable for an unknown tool or one that is not
    installed, and MissingSecret for an upload without a key.
    """
    if tool not in TOOLS:
        raise TrackingUnavailable(f"TRACKING = {tool!r}: choose one of {', '.join(TOOLS)}.")
    if upload and tool != "wandb":
        raise TrackingUnavailable(f"Only wandb uploads a run; {tool!r} keeps it in files. Set the upload to False.")
    if tool == "none":
        return {"report_to": "none"}
    if find_spec(tool) is None:
        raise TrackingUnavailable(f"TRACKING = {tool!r} needs its package: pip install {tool}")
    folder = log_folder(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"report_to": tool, "run_name": run_name}
    if tool == "tensorboard":
        # TrainingArguments has no logging_dir any more: the callback reads the environment.
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
    elif tool == "wandb":
        _wandb(folder, upload)
    else:
        _trackio(folder)
        # False: never copy the run into a Space on the Hugging Face Hub.
        settings |= {"project": PROJECT, "trackio_static_space_id": False}
    return settings


def finish(tool: str, output_dir: str | Path) -> str:
    """Close the run and say how many files it wrote, where, and how to look at them."""
    if tool == "none":
        return "no tracking (TRACKING = 'none')"
    if tool == "wandb" and "wandb" in sys.modules:
        sys.modules["wandb"].finish()
    folder = log_folder(output_dir)
    files = sum(path.is_file() for path in folder.rglob("*"))
    return f"{files} files in {folder}\nto look at them: {OPEN_WITH[tool].format(folder=folder, project=PROJECT)}"


def log_folder(output_dir: str | Path) -> Path:
    """Where the tool's files go (absolute)."""
    return Path(output_dir, "tracking").resolve()


def _wandb(folder: Path, upload: bool) -> None:
    os.environ["WANDB_MODE"] = "online" if upload else "offline"
    os.environ["WANDB_PROJECT"] = PROJECT
    os.environ["WANDB_LOG_MODEL"] = "false"  # curves, never weights
    os.environ["WANDB_DISABLE_CODE"] = "true"  # nor the notebook, whose outputs nobody has looked through
    for name in ("WANDB_DIR", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        os.environ[name] = str(folder)
    if upload:
        os.environ["WANDB_API_KEY"] = str(runtime.secret("WANDB_API_KEY", required=True))


def _trackio(folder: Path) -> None:
    utils = sys.modules.get("trackio.utils")  # it reads the folder when it is first imported
    if utils is not None and Path(utils.TRACKIO_DIR).resolve() != folder:
        raise TrackingUnavailable(
            f"trackio already writes to {utils.TRACKIO_DIR} in this process. Restart the kernel and run all cells."
        )
    os.environ["TRACKIO_DIR"] = str(folder)
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID"):
        os.environ.pop(name, None)  # each would send the run away
