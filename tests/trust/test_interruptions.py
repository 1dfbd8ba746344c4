"""What is whole stays whole: training that is killed, a disk that fills up, a cell that runs again."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import training_process
from safetensors.torch import load_file

from helpers import launch, nano

KILLS, MOMENT = 10, 0.3  # seconds: a step, and the saving that may follow it

pytestmark = [pytest.mark.notebook, pytest.mark.nano, pytest.mark.interruption]


@pytest.fixture(scope="module")
def start() -> Iterator:
    """Starts training processes; what they import is imported once, and each is forked from there."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["unsloth", "trl"])
    base, running = nano.build("nano/qwen2"), []

    def started(folder: Path, limit: int | None = None):
        steps, theirs = context.Pipe(duplex=False)
        process = context.Process(target=training_process.train, args=(str(folder), str(base), theirs, limit))
        process.start()
        theirs.close()
        running.append(process)
        return process, steps

    yield started
    for process in running:
        process.kill()


@pytest.fixture(scope="module")
def undisturbed(start, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    process, _ = start(folder)
    process.join()
    assert process.exitcode == 0
    return folder


def assert_same_end(folder: Path, other: Path) -> None:
    losses, wanted = (json.loads((path / "losses.json").read_text()) for path in (folder, other))
    assert losses == wanted
    assert sum(losses[-5:]) < sum(losses[:5]), losses  # it learns
    adapter, whole = (load_file(path / "adapter" / "adapter_model.safetensors") for path in (folder, other))
    assert adapter.keys() == whole.keys() and all((adapter[name] == whole[name]).all() for name in whole)


def test_killed_ten_times_it_ends_where_it_would_have_ended(start, undisturbed, tmp_path):
    rng, killed = random.Random(7), 0
    while killed < KILLS:
        process, steps = start(tmp_path)
        begun = launch.last_checkpoint(tmp_path)
        begun = int(begun.rsplit("-", 1)[1]) if begun else 0
        # Sometimes before its first checkpoint, sometimes while it writes one: so there is progress, and there is loss.
        step = min(begun + rng.randrange(1, 2 * training_process.SAVE_STEPS), training_process.STEPS - 1)
        assert training_process.wait_for(steps, step, rng.random() * MOMENT)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
        killed += 1
    process, _ = start(tmp_path)
    process.join()
    assert process.exitcode == 0
    assert_same_end(tmp_path, undisturbed)


@pytest.mark.parametrize(
    "missing", ["trainer_state.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
)
def test_a_checkpoint_that_lacks_something_is_passed_over(undisturbed, tmp_path, capsys, missing):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    newest = Path(launch.last_checkpoint(tmp_path))
    (newest / missing).unlink()
    older = launch.last_checkpoint(tmp_path)
    assert older and older != str(newest)
    assert f"{newest} was not finished: passed over" in capsys.readouterr().out


@pytest.mark.parametrize("file", ["trainer_state.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt"])
@pytest.mark.parametrize("left", [0, 0.5])
def test_a_checkpoint_with_a_file_cut_short_is_passed_over(undisturbed, tmp_path, file, left):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    newest = Path(launch.last_checkpoint(tmp_path))
    os.truncate(newest / file, int((newest / file).stat().st_size * left))
    assert launch.last_checkpoint(tmp_path) != str(newest)


def test_a_full_disk_ends_training_with_whole_checkpoints_behind_it(start, undisturbed, tmp_path):
    weights = (undisturbed / "checkpoint-20" / "adapter_model.safetensors").stat().st_size
    process, _ = start(tmp_path, limit=weights // 2)
    process.join()
    assert process.exitcode not in (0, None)
    assert f"{tmp_path} could not be written: the disk takes no more" in (tmp_path / "said.txt").read_text()
    assert Path(launch.last_checkpoint(tmp_path)).name == f"checkpoint-{training_process.SAVE_STEPS}"
    process, _ = start(tmp_path)  # space was made: it goes on
    process.join()
    assert process.exitcode == 0
    assert_same_end(tmp_path, undisturbed)
