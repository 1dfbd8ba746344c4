"""From a notebook to several processes: the exported script, the command lines, what is said when they fail."""

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers import launch, runtime
from tests.processes import gone, within
from tools import cli
from tools.lessons import ROOT, load_course

NOTEBOOK = ROOT / "notebooks" / "en" / "01_alpaca_sft.ipynb"


@pytest.fixture
def script(tmp_path) -> Path:
    return launch.export(NOTEBOOK, tmp_path / "train.py")


def lesson_options(script: Path) -> dict:
    """Of lesson 01's trim what the script takes."""
    settings = load_course().lesson("01").trim("en")
    return {name: value for name, value in settings.items() if f"\n{name} = " in script.read_text("utf-8")}


def notebook_lines() -> set[str]:
    cells = json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
    return {
        line.strip() for cell in cells if cell["cell_type"] == "code" for line in "".join(cell["source"]).split("\n")
    }


def test_every_line_is_the_notebooks_or_says_that_it_is_not(script):
    known = notebook_lines()
    for line in script.read_text("utf-8").splitlines():
        fewer_names = line.startswith("from helpers import ")  # without those that nothing uses
        assert line.strip() in known or "# +" in line or line.startswith("# ") or fewer_names, line


def test_the_script_trains_and_shows_nothing(script):
    text = script.read_text("utf-8")
    calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)}
    assert {"FastLanguageModel.get_peft_model", "SFTTrainer", "trainer.train", "trainer.save_model"} <= calls
    assert not {name for name in calls if name.startswith(("print", "report.", "model.print", "memory.free"))}
    assert len(text.splitlines()) <= 125
    assert (
        subprocess.run([".venv/bin/ruff", "check", "-q", "--select", "F821,F811,F841", script], cwd=ROOT).returncode
        == 0
    )


def test_a_show_goes_but_what_stands_beside_it_stays(tmp_path):
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    cell = next(cell for cell in notebook["cells"] if launch.TRAIN in "".join(cell["source"]))
    cell["source"] = ["print(\n", "    'alone')\n", "print('beside'); kept = 1\n", *cell["source"]]
    (tmp_path / "01_edited.ipynb").write_text(json.dumps(notebook), "utf-8")
    text = launch.export(tmp_path / "01_edited.ipynb", tmp_path / "train.py").read_text("utf-8")
    assert "alone" not in text and "print('beside'); kept = 1\n" in text


def test_parameters_that_training_does_not_use_are_left_out(script):
    text = script.read_text("utf-8")
    assert "\nMAX_STEPS = 60" in text and "ASKED" not in text and "INSTRUCTION" not in text


def test_both_languages_give_the_same_script(script, tmp_path):
    other = launch.export(ROOT / "notebooks" / "zh" / NOTEBOOK.name, tmp_path / "zh" / "train.py")
    assert other.read_text("utf-8") == script.read_text("utf-8")


def test_the_command_exports_what_can_be_exported(script, tmp_path, capsys):
    assert cli.main(["export", "01", "--out", str(tmp_path / "other.py")]) == 0
    assert (tmp_path / "other.py").read_text("utf-8") == script.read_text("utf-8").replace("train.py", "other.py")
    assert "torchrun" in capsys.readouterr().out
    assert cli.main(["export", "04", "--out", str(tmp_path / "no.py")]) == 1
    assert "04_grpo_gsm8k.ipynb: no script can be made of it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cells", "missing"),
    [
        ([], "one cell tagged parameters"),
        (
            [("parameters", "OUTPUT_DIR = ''\nBATCH_SIZE = 2\nGRADIENT_ACCUMULATION = 4"), ("train", "x = 1")],
            "one trainer.train()",
        ),
        ([("parameters", "OUTPUT_DIR = ''"), ("train", "config = 1\ntrainer.train()")], "GRADIENT_ACCUMULATION"),
    ],
)
def test_a_notebook_of_another_shape_is_refused_by_name(cells, missing, tmp_path):
    path = tmp_path / "05_other.ipynb"
    path.write_text(json.dumps({"cells": [{"metadata": {"tags": [tag]}, "source": text} for tag, text in cells]}))
    with pytest.raises(launch.LaunchFailed, match=rf"05_other.*{missing.replace('(', '.').replace(')', '.')}"):
        launch.export(path, tmp_path / "train.py")
    assert not (tmp_path / "train.py").exists()


PARAMETERS = "OUTPUT_DIR = 'out'\nBATCH_SIZE = 2\nGRADIENT_ACCUMULATION = 4\n"


def exported(folder: Path, parameters: str, *train: str) -> str:
    """The script of a notebook with these parameters besides the usual ones, and these cells tagged train."""
    cells = [("parameters", PARAMETERS + parameters), *(("train", source) for source in train)]
    cells.append(("train", "config = SFTConfig(output_dir=OUTPUT_DIR)"))
    cells.append(("train", "trainer = SFTTrainer(config, model)\ntrainer.train()"))
    path = folder / "01_other.ipynb"
    path.write_text(json.dumps({"cells": [{"metadata": {"tags": [tag]}, "source": text} for tag, text in cells]}))
    return launch.export(path, folder / "train.py").read_text("utf-8")


def test_a_parameter_of_several_lines_is_taken_whole(tmp_path):
    targets = 'TARGETS = [  # which\n    "q_proj",\n]\n'
    typed = "RANK: int = 8\nALPHA = 16; SHOWN = 3\nUNUSED = [\n    1,\n]\n"
    text = exported(tmp_path, targets + typed, "model = lora(TARGETS, RANK, ALPHA, SHOWN)")
    assert targets + "RANK: int = 8\nALPHA = 16; SHOWN = 3\n" in text and "UNUSED" not in text
    assert compile(text, "train.py", "exec")


@pytest.mark.parametrize(
    ("line", "becomes"),
    [
        ("model = load(dtype=runtime.dtype(), r=4)", "model = load(dtype=({}), r=4)  # +"),
        (
            "model = load(\n    dtype=runtime.dtype(),  # why\n    r=4)",
            "model = load(\n    dtype=({}),  # why  # +\n    r=4)",
        ),
        ("dtype = runtime.dtype()  # why", "dtype = {}  # +"),
        ("half = runtime.dtype() != torch.float32", "half = ({}) != torch.float32  # +"),
    ],
)
def test_the_asked_number_format_takes_the_place_of_the_call_alone(line, becomes, tmp_path):
    assert becomes.format(launch.ASKED_FORMAT) in exported(tmp_path, "", line)


def test_an_import_keeps_its_other_name(tmp_path):
    text = exported(tmp_path, "", "from torch import nn as N, optim\nmodel = N.Linear(1, 1)")
    assert "from torch import nn as N\nmodel" in text


@pytest.mark.parametrize("cell", ["%pip install x", "model = load(\\\n    runtime.dtype() \\\n)"])
def test_a_script_that_is_not_python_is_not_written(cell, tmp_path):
    with pytest.raises(launch.LaunchFailed, match="01_other.ipynb: no script can be made of it: "):
        exported(tmp_path, "", cell)
    assert not (tmp_path / "train.py").exists()


def test_options_set_parameters_in_their_own_kind(monkeypatch):
    names = {"MAX_STEPS": 60, "LEARNING_RATE": 2e-4, "PACKING": True, "MODEL": "a", "lower": 1, "FOLDER": Path()}
    monkeypatch.setattr(sys, "argv", ["train.py", "--max-steps", "7", "--learning-rate", "1", "--packing", "False"])
    launch.take_options(names)
    assert names == {"MAX_STEPS": 7, "LEARNING_RATE": 1.0, "PACKING": False, "MODEL": "a", "lower": 1, "FOLDER": Path()}
    assert isinstance(names["LEARNING_RATE"], float)


@pytest.mark.parametrize("arguments", [["--max-step", "7"], ["--max-steps", "many"], ["--packing", "perhaps"]])
def test_wrong_options_end_the_script(arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    with pytest.raises(SystemExit):
        launch.take_options({"MAX_STEPS": 60, "PACKING": True})


def test_options_as_a_command_line_are_read_back(monkeypatch):
    wanted = {"MAX_STEPS": 3, "PACKING": False, "MODEL": "nano/qwen2", "LEARNING_RATE": 5e-3, "DTYPE": ""}
    monkeypatch.setattr(sys, "argv", ["train.py", *launch.as_options(wanted)])
    names = {"MAX_STEPS": 60, "PACKING": True, "MODEL": "x", "LEARNING_RATE": 1.0, "DTYPE": "float32"}
    launch.take_options(names)
    assert names == wanted


def test_processes_share_a_step(monkeypatch):
    assert launch.share(2, 3) == (2, 3)
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert launch.share(2, 8) == (2, 2)
    assert launch.share(8, 1) == (2, 1) and launch.share(2, 6) == (1, 3)
    with pytest.raises(launch.LaunchFailed, match=r"BATCH_SIZE 1 × GRADIENT_ACCUMULATION 6 .*multiple of 4"):
        launch.share(1, 6)


@pytest.mark.parametrize("gpus", [2, 4, 8])
def test_the_lesson_s_step_can_be_shared_as_it_stands(monkeypatch, gpus):
    monkeypatch.setenv("WORLD_SIZE", str(gpus))
    values = load_course().lesson("01").parameters
    rows, turns = launch.share(values["BATCH_SIZE"], values["GRADIENT_ACCUMULATION"])
    assert rows * turns * gpus == values["BATCH_SIZE"] * values["GRADIENT_ACCUMULATION"]


def test_the_newest_finished_checkpoint_is_gone_on_from(tmp_path, capsys):
    assert launch.last_checkpoint(tmp_path / "none") is None
    for step in (5, 10, 100):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"a": torch.zeros(3)}, folder / "adapter_model.safetensors")
        for part in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.save({}, folder / part)
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(f'{{"global_step": {step}}}')
    (tmp_path / "checkpoint-best").mkdir()  # somebody's own
    assert launch.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")  # 100 was never finished
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text('{"global_st')
    assert launch.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
    assert "checkpoint-10 was not finished" in capsys.readouterr().out
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text("[]")
    assert launch.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5")
    (tmp_path / "checkpoint-10" / "trainer_state.json").write_text('{"global_step": 10}')
    whole = (tmp_path / "checkpoint-10" / "optimizer.pt").read_bytes()
    for left in (0, 1, 2, 3, 4, 100, len(whole) // 2):
        (tmp_path / "checkpoint-10" / "optimizer.pt").write_bytes(whole[:left])
        assert launch.last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-5"), f"cut to {left} bytes"


def test_one_host_meets_itself_and_several_meet_at_the_endpoint():
    assert "--standalone" in launch.torchrun("a.py", {"MAX_STEPS": 3}, processes=2)
    line = launch.shown(launch.torchrun("a.py", nodes=2, node=1, endpoint="host0:29500", processes=8, restarts=2))
    assert line == (
        "torchrun --nproc-per-node=8 --nnodes=2 --node-rank=1 --rdzv-backend=c10d --rdzv-endpoint=host0:29500 "
        "--max-restarts=2 a.py"
    )
    with pytest.raises(launch.LaunchFailed, match="endpoint"):
        launch.torchrun("a.py", nodes=2)


def test_a_checkpoint_of_a_process_on_a_cpu_can_be_read(tmp_path):
    """Accelerate's device of process 1 is `cpu:1`, to which plain `torch.load` cannot restore."""
    torch.save({"step": torch.ones(3)}, tmp_path / "optimizer.pt")
    launch.last_checkpoint(tmp_path)
    assert torch.load(tmp_path / "optimizer.pt", map_location=torch.device("cpu:1"))["step"].sum() == 3


def test_a_card_each_or_none(monkeypatch):
    monkeypatch.setattr(runtime, "listed_gpus", lambda: ["T4", "T4"])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert launch.cards(2) == ["0", "1"] and launch.cards(1) == ["0"] and launch.cards(3) == []
    with pytest.raises(runtime.NotEnough, match=r"3 processes .* here: 2"):
        launch.cards(3, vram_gb=8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert launch.on(launch.cards(2)) == {"CUDA_VISIBLE_DEVICES": "5,7"}
    for none in ("", "-1", "-1,0"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert launch.cards(1) == []


@pytest.mark.notebook
def test_a_failure_says_why_and_leaves_out_what_torchrun_says_of_itself(tmp_path):
    (tmp_path / "bad.py").write_text("raise ValueError('the fault itself')\n")
    with pytest.raises(launch.LaunchFailed) as failure:
        launch.run(launch.torchrun(tmp_path / "bad.py"), tmp_path / "log")
    text = str(failure.value)
    assert text.startswith("torchrun") and "status 1" in text and text.endswith("ValueError: the fault itself")
    assert "ChildFailedError" not in text


def test_what_hangs_is_ended(tmp_path):
    with pytest.raises(launch.LaunchFailed, match="did not end within 0.5 s"):
        launch.run([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log", limit=0.5)


WORKER = """
import os, pathlib, sys, time
import torch, torch.distributed as dist
folder = pathlib.Path(sys.argv[1])
first = not (folder / "met").exists()
dist.init_process_group("gloo")
mine = torch.tensor([dist.get_rank() + 1.0])
dist.all_reduce(mine)
if first:
    (folder / "met").touch()
    time.sleep(120)  # to be killed
print("sum", mine.item(), flush=True)
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.notebook  # a quarter of a minute
def test_two_hosts_meet_and_meet_again_after_one_process_was_killed(tmp_path):
    (tmp_path / "worker.py").write_text(WORKER)
    endpoint, arguments = f"127.0.0.1:{runtime.free_port()}", [str(tmp_path)]
    lines = [
        launch.torchrun(tmp_path / "worker.py", arguments, nodes=2, node=node, endpoint=endpoint, restarts=2)
        for node in range(2)
    ]
    logs = [tmp_path / f"host_{node}.log" for node in range(2)]
    running = [launch.start(line, log, **launch.on([])) for line, log in zip(lines, logs)]
    try:
        launch.kill_one(running[1], after=tmp_path / "met", limit=60)
        said = [launch.wait(process, log, 60) for process, log in zip(running, logs)]
    finally:
        launch.stop(running)
    assert all(text.count("sum 3.0") == 1 for text in said)
    assert "exitcode: -9" in said[1]


def test_killing_needs_something_to_wait_for(tmp_path):
    process = launch.start([sys.executable, "-c", ""], tmp_path / "log")
    with pytest.raises(launch.LaunchFailed, match="did not appear"):
        launch.kill_one(process, after=tmp_path / "never", limit=20)


@pytest.mark.notebook
@pytest.mark.nano
def test_the_script_trains_as_the_notebook_does(script, tmp_path):
    """Lesson 01 as `course run` executes it, and its exported script: the same losses."""
    options = lesson_options(script) | {"MAX_STEPS": 10, "OUTPUT_DIR": str(tmp_path / "script")}
    out = tmp_path / "notebook"
    command = [sys.executable, "-m", "tools.cli", "run", "01", "--out", str(out)]
    command += ["--set", "MAX_STEPS=10", "--set", "ASKED=2", "--set", "MAX_NEW_TOKENS=4"]
    launch.run(command, tmp_path / "notebook.log")
    summary = json.loads((out / "outputs" / "summary.json").read_text("utf-8"))
    launch.run([sys.executable, script, *launch.as_options(options)], tmp_path / "script.log")
    losses = json.loads((tmp_path / "script" / "run.json").read_text("utf-8"))["losses"]
    assert sum(losses[:5]) / 5 == pytest.approx(summary["loss_start"], abs=2e-3)
    assert sum(losses[-5:]) / 5 == pytest.approx(summary["loss_end"], abs=2e-2)


THREADS = """
from pathlib import Path

names = [task.read_text() for task in Path("/proc/self/task").glob("*/comm")]
Path(OUTPUT_DIR, f"threads_{launch.rank()}").write_text("".join(names))
"""


@pytest.mark.notebook
@pytest.mark.nano
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads have their names under /proc on Linux alone")
def test_no_thread_of_the_group_is_left_when_the_script_ends(script, tmp_path):
    """One that still held a tensor while Python ended aborted the process, after all was written."""
    watched = tmp_path / "watched.py"
    watched.write_text(script.read_text("utf-8") + THREADS, "utf-8")
    options = lesson_options(script) | {"MAX_STEPS": 2, "OUTPUT_DIR": str(tmp_path / "out")}
    launch.run(launch.torchrun(watched, options, processes=2), tmp_path / "log", **launch.on([]))
    left = [(tmp_path / "out" / f"threads_{rank}").read_text() for rank in range(2)]
    assert all("python" in names and "gloo" not in names for names in left), left


SLEEPS = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


def test_a_command_that_takes_too_long_has_ended_when_that_is_said(tmp_path):
    slow = "import os, signal, sys, time\nprint(os.getpid(), flush=True)\n"
    slow += "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), sys.exit(1)))\ntime.sleep(60)"
    with pytest.raises(launch.LaunchFailed, match="did not end within 5 s"):
        launch.run([sys.executable, "-c", slow], tmp_path / "log", limit=5)
    assert gone(int((tmp_path / "log").read_text()))


def test_what_was_started_ends_with_the_process_that_started_it(tmp_path):
    code = f"""
import os, sys, time
from pathlib import Path
from helpers import launch
launch.start([sys.executable, "-c", {SLEEPS!r}], {str(tmp_path / "log")!r})
while not Path({str(tmp_path / "log")!r}).read_text():
    time.sleep(0.05)
os._exit(9)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert within(20, lambda: gone(int((tmp_path / "log").read_text())))


def test_an_interrupt_of_the_notebook_ends_what_trains(tmp_path):
    process = launch.start([sys.executable, "-c", SLEEPS], tmp_path / "log")
    assert os.getpgid(process.pid) == os.getpgid(0)  # so that Jupyter's interrupt, which is for the group, reaches it
    assert within(20, lambda: (tmp_path / "log").read_text())
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert gone(int((tmp_path / "log").read_text()))
