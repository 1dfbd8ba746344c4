"""A disk that fills up while something is saved: one error that names the folder, and what was there before is whole.

Tried on a small file system of its own (mounted, where the tests may) and with a limit on the size of files, everywhere.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from IPython.core.inputtransformer2 import TransformerManager
from lesson_kernel import Kernel
from nbclient.exceptions import CellExecutionError
from safetensors.torch import save_file

from helpers import export, launch, nano, report, runtime
from helpers.data.rows import from_hub
from tools.lessons import load_course

pytestmark = pytest.mark.interruption
ROOM = 96 * 2**20  # bytes, of the small file system


class Mounted:
    """A file system of its own; raises PermissionError where none may be mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder]
        if (done := subprocess.run(mount, capture_output=True, text=True)).returncode:
            raise PermissionError(done.stderr.strip())

    @contextmanager
    def full(self, left: int, pid: int = 0) -> Iterator[None]:
        """Leave so many bytes."""
        filler = self.folder / "filler"
        disk = os.statvfs(self.folder)
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(disk.f_frsize, disk.f_bavail * disk.f_frsize - left))
        try:
            yield
        finally:
            filler.unlink()

    def read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.folder], check=True)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.folder], check=True)


class Limited:
    """A folder for which the process may write no file of more bytes."""

    def __init__(self, folder: Path) -> None:
        if not hasattr(resource, "prlimit"):
            pytest.skip("only Linux limits the files of another process")
        self.folder = folder
        folder.mkdir(exist_ok=True)

    @contextmanager
    def full(self, left: int, pid: int = 0) -> Iterator[None]:
        """No file that the process, this one or another, writes from now on has more than so many bytes."""
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (left, before[1]))
        try:
            yield
        finally:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    def close(self) -> None:
        pass


@pytest.fixture(params=[Mounted, Limited], ids=["mounted", "limited"])
def disk(request, tmp_path: Path) -> Iterator[Mounted | Limited]:
    """Each of the two, one after the other."""
    try:
        small = request.param(tmp_path / "disk")
    except PermissionError as error:
        pytest.skip(f"no file system may be mounted here ({error}); the limit on files is tried instead")
    yield small
    small.close()


@pytest.fixture
def one_disk(tmp_path: Path) -> Iterator[Mounted | Limited]:
    """One of them, for what takes long: the real one where it may be had."""
    try:
        small = Mounted(tmp_path / "disk")
    except PermissionError:
        small = Limited(tmp_path / "disk")
    yield small
    small.close()


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "filler"
    }


def says(error: pytest.ExceptionInfo, folder: Path, setting: str = "OUTPUT_DIR") -> None:
    """One text, without a traceback: where, and what to do."""
    (shown,) = error.value._render_traceback_()
    assert shown.startswith(f"NotEnough: {folder} could not be written: the disk takes no more (")
    assert f"set {setting} to a folder on a larger disk" in shown


BIG = 2**20  # bytes of what does not fit any more
WEIGHTS = {"weight": torch.arange(BIG // 4, dtype=torch.float32)}
WRITERS: dict[str, Callable[[Path], object]] = {
    "weights": lambda folder: save_file(WEIGHTS, folder / "adapter_model.safetensors"),
    "a checkpoint of torch": lambda folder: torch.save(WEIGHTS, folder / "optimizer.pt"),
    "an array": lambda folder: np.save(folder / "array.npy", WEIGHTS["weight"].numpy()),
    "text": lambda folder: (folder / "tokenizer.json").write_text("{" * BIG),
    "rows": lambda folder: datasets.Dataset.from_dict({"text": ["a" * BIG] * 8}).save_to_disk(str(folder / "rows")),
}


@pytest.mark.parametrize("what", WRITERS)
def test_what_stood_there_stays_when_what_replaces_it_does_not_fit(disk, what):
    goal = disk.folder / "adapter"
    with export.replacing(goal) as folder:
        WRITERS[what](folder)
        (folder / "adapter_config.json").write_text("{}")
    before = digests(disk.folder)
    with disk.full(BIG // 2), pytest.raises(runtime.NotEnough) as error, export.replacing(goal) as folder:
        (folder / "adapter_config.json").write_text('{"r": 16}')
        WRITERS[what](folder)
    says(error, goal)
    assert digests(disk.folder) == before and "adapter/adapter_config.json" in before
    with export.replacing(goal) as folder:  # there is room again
        (folder / "adapter_config.json").write_text('{"r": 16}')
    assert list(digests(disk.folder)) == ["adapter/adapter_config.json"]


def test_what_a_program_says_of_a_full_disk_is_said_plainly(disk):
    code = "import sys; open(sys.argv[1], 'wb').write(bytes(2**20))"
    with disk.full(BIG // 2), pytest.raises(runtime.NotEnough) as error:
        launch.run([sys.executable, "-c", code, disk.folder / "file"], disk.folder / "log")
    says(error, disk.folder)


def test_an_earlier_summary_stays_whole(disk):
    report.summary(disk.folder, answer="13, 21")
    before = digests(disk.folder)
    with disk.full(BIG // 2), pytest.raises(runtime.NotEnough) as error:
        report.summary(disk.folder, answer="x" * BIG)
    says(error, disk.folder / "summary.json")
    assert digests(disk.folder) == before
    report.summary(disk.folder, answer="34")
    assert json.loads((disk.folder / "summary.json").read_text()) == {"answer": "34"}


def test_it_is_told_in_the_notebooks_language_and_kaggle_is_told_of_tmp(disk, monkeypatch):
    monkeypatch.setenv("COURSE_LANGUAGE", "zh")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    with disk.full(0), pytest.raises(runtime.NotEnough, match="磁盘写不下了.*OUTPUT_DIR.*（/tmp 的空间最大）"):
        runtime.write_text(disk.folder / "new" / "Modelfile", "FROM x")
    assert digests(disk.folder) == {}


def saved(goal: Path) -> None:
    with export.replacing(goal) as folder:
        (folder / "adapter_config.json").write_text("{}")


UNWRITABLE: dict[str, Callable[[Path], object]] = {
    "a text": lambda folder: runtime.write_text(folder / "Modelfile", "FROM x"),
    "a text in a new folder": lambda folder: runtime.write_text(folder / "new" / "Modelfile", "FROM x"),
    "a model": lambda folder: saved(folder / "adapter"),
    "a model in a new folder": lambda folder: saved(folder / "new" / "adapter"),
    "a summary": lambda folder: report.summary(folder, answer="13"),
    "anything": lambda folder: runtime.require(folder=folder / "new"),
}


@pytest.mark.parametrize("what", UNWRITABLE)
def test_a_disk_that_is_only_to_be_read_is_told_with_the_setting(tmp_path, what):
    try:
        disk = Mounted(tmp_path / "disk")
    except PermissionError as error:
        pytest.skip(f"no file system may be mounted here ({error})")
    try:
        saved(disk.folder / "adapter")
        before = digests(disk.folder)
        disk.read_only()
        with pytest.raises(runtime.NotEnough) as error:
            UNWRITABLE[what](disk.folder)
        (shown,) = error.value._render_traceback_()
        assert shown.startswith(f"NotEnough: nothing can be written in {disk.folder}")
        assert "(Read-only file system). Set OUTPUT_DIR to a folder of your own." in shown
        assert digests(disk.folder) == before
    finally:
        disk.close()


@pytest.mark.parametrize("name", ["/models/base/model.safetensors", "/base.gguf"])  # the second in a folder above
def test_a_file_elsewhere_that_may_not_be_read_is_no_matter_of_the_folder(tmp_path, name):
    elsewhere = PermissionError(errno.EACCES, "Permission denied", name)
    with pytest.raises(PermissionError), runtime.writing(tmp_path / "outputs"):
        raise elsewhere


@pytest.mark.notebook  # seconds
def test_rows_that_do_not_fit_into_the_cache_leave_earlier_ones_readable(disk, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", disk.folder)
    for name, times in {"small": 10, "large": 2**20}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text('{"text": "row after row"}\n' * times)
    kept = from_hub(str(tmp_path / "small"), ("text",))
    before = digests(disk.folder)
    with disk.full(BIG), pytest.raises(runtime.NotEnough) as error:
        from_hub(str(tmp_path / "large"), ("text",))
    says(error, disk.folder, "HF_HOME")
    assert before.items() <= digests(disk.folder).items()
    assert from_hub(str(tmp_path / "small"), ("text",)).to_list() == kept.to_list()
    assert len(from_hub(str(tmp_path / "large"), ("text",))) == 2**20  # there is room again


@pytest.mark.notebook  # a training of two steps, which imports torch anew
def test_a_nano_model_that_cannot_be_kept_is_not_taken_for_one(one_disk, monkeypatch):
    monkeypatch.setenv("COURSE_CACHE", str(one_disk.folder))
    small = {"hidden": 64, "heads": 1, "intermediate": 64, "layers": 1, "steps": 2, "batch": 2, "length": 16}
    monkeypatch.setitem(nano.NANO, "nano/tiny", replace(nano.NANO["nano/qwen2"], **small))
    with one_disk.full(2**17), pytest.raises(runtime.NotEnough) as error:
        nano.build("nano/tiny")
    says(error, one_disk.folder, "COURSE_CACHE")
    assert not [path for path in one_disk.folder.iterdir() if path.is_dir()]
    assert (nano.build("nano/tiny") / "model.safetensors").is_file()


SAFE = ("export.replacing", "exports.making")


@pytest.mark.parametrize("lesson", load_course().lessons, ids=lambda lesson: lesson.slug)
def test_every_lesson_saves_beside_what_is_there(lesson):
    code = "\n".join(TransformerManager().transform_cell(c.node.source) for c in lesson.cells if c.is_code)
    saves, safe = set(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rsplit(".")[-1].startswith(("save_", "push_")):
            saves.add(node)
        elif isinstance(node, ast.With) and ast.unparse(node.items[0].context_expr).startswith(SAFE):
            safe |= set(ast.walk(node))
    assert not [f"{ast.unparse(node)}: write `with export.replacing(folder) as new:`" for node in saves - safe]


@pytest.mark.notebook
@pytest.mark.nano
def test_lesson_06s_exports_fail_one_by_one_and_those_of_an_earlier_run_stay_whole(one_disk):
    """Unsloth and llama.cpp's converter, as the lesson calls them, on a disk with less room than one export needs."""
    kernel = Kernel(load_course().lesson("06"), one_disk.folder / "out")
    merging, quantizing = (
        kernel.number('exports.wanted("lora", "merged_16bit")'),
        kernel.number("save_pretrained_gguf("),
    )
    modelfile = kernel.number("runtime.write_text(modelfile")
    kernel.trim |= {"FORMATS": ["lora", "merged_16bit", "f16", "q8_0", "q4_k_m"], "ASKED": ["q4_k_m"], "DISK_GB": 0}

    async def session() -> None:
        await kernel.run_cells(range(modelfile + 1), kernel.trim)
        before = digests(kernel.folder)
        assert {name.split("/")[0] for name in before} == {"lora", "merged_16bit", "gguf"}
        size = {name: (kernel.folder / name).stat().st_size for name in before}
        room = {merging: [2**12, 2 * size["lora/adapter_model.safetensors"]], modelfile: [0]}
        room |= {quantizing: [2**12, size["gguf/model.Q4_K_M.gguf"]]}
        for number, lefts in room.items():
            for left in lefts:
                with one_disk.full(left, kernel.pid), pytest.raises(CellExecutionError) as failed:
                    await kernel.run_cells([number], kernel.trim)
                assert failed.value.ename == "NotEnough", failed.value
                assert f"{kernel.folder}" in failed.value.evalue and "the disk takes no more" in failed.value.evalue
                assert digests(kernel.folder) == before, (number, left)
        await kernel.run_cells(room, kernel.trim)
        assert digests(kernel.folder).keys() == before.keys()

    kernel.execute(session)
