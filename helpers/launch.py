"""From a notebook to several processes: its training as a script, `torchrun` to start it, a record of what came out.

Nothing here trains. `export` copies the cells tagged `train` out of a notebook; `torchrun` writes the command line,
`run` and `start` carry it out; the functions from `take_options` on are what the exported script itself calls.
"""

from __future__ import annotations

import argparse
import ast
import functools
import hashlib
import json
import math
import os
import re
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from helpers import guard, hub, runtime
from helpers.runtime import NotEnough, Stop, Words, root, say, seen_gpus, writing

WORDS: Words = {
    "en": {
        "cards colab": "{processes} processes want a GPU each, and here: {there}. Colab lends one; Kaggle lends two "
        "(Settings > Accelerator > GPU T4 x2).",
        "cards kaggle": "{processes} processes want a GPU each, and here: {there}. Choose two: Settings > "
        "Accelerator > GPU T4 x2.",
        "cards local": "{processes} processes want a GPU each, and here: {there}. Kaggle lends two (Settings > "
        "Accelerator > GPU T4 x2). Or `course run 13`: the same lesson with a nano model and processes on the CPU.",
        "pickled weights": "Training does not go on from {checkpoint}: its weights are a pickle ({files}), and a "
        "pickle can hold a program that runs when it is loaded. Nothing of it was loaded. {mend}",
        "no data": "Training does not go on from {checkpoint}: {files} holds something other than numbers, a program "
        "perhaps, or is damaged. Nothing of it was run. {mend}",
        "in shares": "Training does not go on from {checkpoint}: it lies in shares, as FSDP writes them, and torch reads "
        "the list of the shares ({files}) as a pickle, which can hold a program that runs when it is loaded. Nothing of "
        "it was loaded. Set fsdp_state_dict_type to FULL_STATE_DICT (in fsdp.yaml) and checkpoints are written whole. "
        "{mend}",
        "checkpoint mend": "Delete this folder or move it elsewhere, and start again: training goes on from an earlier "
        "checkpoint, or from the beginning. Use only checkpoints that you trained yourself.",
    },
    "zh": {
        "cards colab": "{processes} 个进程要各占一块 GPU，这里有 {there} 块。Colab 只给一块；"
        "Kaggle 给两块（Settings > Accelerator > GPU T4 x2）。",
        "cards kaggle": "{processes} 个进程要各占一块 GPU，这里有 {there} 块。请选两块：Settings > Accelerator > GPU T4 x2。",
        "cards local": "{processes} 个进程要各占一块 GPU，这里有 {there} 块。Kaggle 给两块（Settings > Accelerator > GPU T4 "
        "x2）。也可以 `course run 13 --lang zh`：同一课，用小模型，几个进程都在 CPU 上。",
        "pickled weights": "不从 {checkpoint} 接着练：它的权重是 pickle 格式（{files}），而 pickle 里可能藏着一加载就会运行的程序，"
        "所以什么都没加载。{mend}",
        "no data": "不从 {checkpoint} 接着练：{files} 里不只是数字，可能藏着程序，要么就是损坏了，所以什么都没运行。{mend}",
        "in shares": "不从 {checkpoint} 接着练：它是 FSDP 分片存的，而分片的清单（{files}）torch 会当 pickle 来读，里面可能藏着"
        "一加载就会运行的程序，所以什么都没加载。请把 fsdp.yaml 里的 fsdp_state_dict_type 改成 FULL_STATE_DICT，以后的检查点就会"
        "存成完整的一份。{mend}",
        "checkpoint mend": "请把这个文件夹删掉或移走，再重新开始：训练会从更早的检查点接着练，没有就从头练。"
        "只用自己练出来的检查点。",
    },
}

WEIGHTS = ("model.safetensors*", "adapter_model.safetensors*")  # also the index of several; trainers take these first
STATES = ("optimizer.*", "scheduler.*", "scaler.*", "rng_state*", "pytorch_model_fsdp*")
"""The files beside the weights that a trainer reads again."""

ADDED = "  # +"
"""What marks a line of the script that is not in the notebook, or not so."""

HEAD = """\
# Lesson {number}'s training, exported from its notebook: for one process or many.
# From the course's folder, with PYTHONPATH=. where the script lies elsewhere:
#     python {name} --max-steps 20
#     torchrun --nproc-per-node 2 {name} --max-steps 20
# Lines with "# +" are not in the notebook, or not so.
from helpers import launch  # +
"""
OPTIONS = """\
SAVE_STEPS = 0  # + write a checkpoint every so many steps; 0 writes none
DTYPE = ""  # + "float32": slower, and two runs agree to the last digits
AVERAGE_TOKENS = True  # + divide each loss by the tokens of all processes, not by one's own
launch.take_options(globals())  # + each of these on the command line: --max-steps 20
BATCH_SIZE, GRADIENT_ACCUMULATION = launch.share(BATCH_SIZE, GRADIENT_ACCUMULATION)  # + more processes, less for each
"""
AFTER_CONFIG = """\
config.average_tokens_across_devices = AVERAGE_TOKENS  # +
config.ddp_find_unused_parameters = False  # + every adapter weight gets a gradient in every step
config.save_strategy, config.save_steps = ("steps", SAVE_STEPS) if SAVE_STEPS else ("no", 500)  # +
"""
TRAIN = "trainer.train()"
RESUME = "trainer.train(resume_from_checkpoint=launch.last_checkpoint(config.output_dir))" + ADDED
FORMAT = "runtime.dtype()"
ASKED_FORMAT = "getattr(torch, DTYPE) if DTYPE else runtime.dtype()"
WATCH = "watch = launch.Watch(trainer)" + ADDED + " steps, seconds, tokens\n"
END = """\
trainer.save_model(f"{OUTPUT_DIR}/adapter")  # + the first process writes
watch.save(OUTPUT_DIR)  # +
"""


class LaunchFailed(Stop):
    """A launched command came to nothing; the text holds the end of its log."""


def export(notebook: str | Path, script: str | Path) -> Path:
    """Write the training of a lesson's notebook as a script, for `python` and for `torchrun`.

    Taken are the cell tagged `parameters` (of it, what the rest uses) and those tagged `train`, without what only
    shows something (`print`, `report.…`, `data.report_…`, `….print_…`) or frees what an earlier run of the notebook
    holds (`memory.free`), and without imports that are not used. What is added stands in the constants above. Raises
    LaunchFailed when the notebook has no such cells or another shape than expected.
    """
    notebook, script = Path(notebook), Path(script)
    try:
        text = _script(notebook, script.name)
        ast.parse(text)  # what was cut out of the cells and put together must be Python still
    except SyntaxError as error:
        raise LaunchFailed(
            f"{notebook}: no script can be made of it: {error.msg} in {(error.text or '').strip()!r}."
        ) from None
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(text, encoding="utf-8")
    return script


def _script(notebook: Path, name: str) -> str:
    """The text of `export`'s script."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged: dict[str, list[str]] = {"parameters": [], "train": []}
    for cell in cells:
        for tag in cell["metadata"].get("tags", []):
            if tag in tagged:
                tagged[tag].append("".join(cell["source"]))
    code = [_without_shows(source) for source in tagged["train"]]
    found = {
        "one cell tagged parameters": len(tagged["parameters"]) == 1,
        f"one {TRAIN} in the cells tagged train": "".join(code).count(TRAIN) == 1,
        "one `config = …` there": sum("config = " in source for source in code) == 1,
        "BATCH_SIZE, GRADIENT_ACCUMULATION and OUTPUT_DIR": all(
            f"{name} =" in "".join(tagged["parameters"])
            for name in ("BATCH_SIZE", "GRADIENT_ACCUMULATION", "OUTPUT_DIR")
        ),
    }
    if missing := [what for what, there in found.items() if not there]:
        raise LaunchFailed(f"{notebook}: no script can be made of it: it should have {missing[0]}.")
    blocks = [HEAD.format(number=notebook.stem.split("_")[0], name=name)]
    body = []
    for source in code:
        if TRAIN in source:
            body.append(WATCH + source.replace(TRAIN, RESUME))
        elif "config = " in source:
            body.append(f"{source}\n{AFTER_CONFIG}")
        else:
            body.append("\n".join(map(_ask_format, source.split("\n"))))
    used = {node.id for node in ast.walk(ast.parse("\n".join([*body, OPTIONS, END]))) if isinstance(node, ast.Name)}
    blocks.append(_parameters(tagged["parameters"][0], used) + "\n" + OPTIONS)
    blocks += [kept for source in body if (kept := _without_unused(source, used))]
    blocks.append(END)
    return "\n".join(block.strip("\n") + "\n" for block in blocks)


def _parameters(source: str, used: set[str]) -> str:
    """Of the cell tagged `parameters` the lines, one or several for each, of those that are used."""
    lines, kept = source.split("\n"), set[int]()  # a set: two may share a line
    for node in ast.parse(source).body:
        names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
        if names & used:
            kept |= set(range(node.lineno - 1, node.end_lineno))
    return "\n".join(lines[number] for number in sorted(kept))


def _ask_format(line: str) -> str:
    """The line, marked, with `DTYPE` where it is set in place of `runtime.dtype()`; a comment on that is left out."""
    if FORMAT not in line:
        return line
    line = re.sub(rf"({re.escape(FORMAT)})\s*#.*", r"\1", line)
    alone = re.fullmatch(rf"\s*\w+ = {re.escape(FORMAT)}", line)  # else what stands around it would bind closer
    return line.replace(FORMAT, ASKED_FORMAT if alone else f"({ASKED_FORMAT})") + ADDED


def _without_shows(source: str) -> str:
    """The cell without the top-level calls that are for a notebook alone; one that shares a line stays."""
    lines, statements = source.splitlines(), ast.parse(source).body
    used = Counter(number for node in statements for number in range(node.lineno, node.end_lineno + 1))
    for node in reversed(statements):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            name = ast.unparse(node.value.func)
            show = name in ("print", "memory.free") or name.startswith(("report.", "data.report_")) or ".print_" in name
            if show and used[node.lineno] == used[node.end_lineno] == 1:
                del lines[node.lineno - 1 : node.end_lineno]
    return "\n".join(lines)


def _without_unused(source: str, used: set[str]) -> str:
    """The cell without the names that a `from … import …` of one line brings and nothing uses."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        if isinstance(node, ast.ImportFrom) and node.lineno == node.end_lineno:
            names = [alias for alias in node.names if (alias.asname or alias.name) in used]
            lines[node.lineno - 1] = ast.unparse(ast.ImportFrom(node.module, names, node.level)) if names else ""
    return "\n".join(lines).strip("\n")


def torchrun(
    script: str | Path,
    options: Mapping[str, Any] | Sequence[str] = (),
    *,
    processes: int = 1,
    nodes: int = 1,
    node: int = 0,
    endpoint: str | None = None,
    restarts: int = 0,
) -> list[str]:
    """The command line that starts `processes` processes of `script` on this host.

    On several hosts give each the same line, with its own `node` (from 0) and one `endpoint` (host:port of any of
    them) where they meet. `options` are the script's own, by parameter name ({"MAX_STEPS": 20}) or ready-made.
    """
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
    if nodes == 1 and endpoint is None:
        command += ["--standalone", "--local-addr=127.0.0.1"]
    else:
        if endpoint is None:
            raise LaunchFailed(
                "several hosts need an endpoint to meet at: host:port of one of them, free and reachable."
            )
        command += [f"--nnodes={nodes}", f"--node-rank={node}", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}"]
        # Else the processes meet under this machine's own name, which a laptop or a container often cannot look up.
        if endpoint.startswith(("127.0.0.1:", "localhost:")):
            command.append("--local-addr=127.0.0.1")
    if restarts:
        command.append(f"--max-restarts={restarts}")
    return [*command, str(script), *as_options(options)]


def as_options(options: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """{"MAX_STEPS": 20} → ["--max-steps", "20"]."""
    if not isinstance(options, Mapping):
        return list(options)
    return [part for name, value in options.items() for part in (f"--{name.lower().replace('_', '-')}", str(value))]


def shown(command: Sequence[str]) -> str:
    """The command line as one would type it."""
    text = " ".join(str(part) for part in command)
    return text.replace(f"{sys.executable} -m torch.distributed.run", "torchrun").replace(sys.executable, "python")


def start(command: Sequence[str], log: str | Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a command in the course's folder, its output into `log`; it ends with this process, and when interrupted.

    One thread a process unless `OMP_NUM_THREADS` says more.
    """
    log = Path(log)
    log.parent.mkdir(parents=True, exist_ok=True)
    paths = [str(root()), *filter(None, [os.environ.get("PYTHONPATH")])]
    settings = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "TOKENIZERS_PARALLELISM": "false"}
    settings.setdefault("OMP_NUM_THREADS", "1")
    # Else the processes of a restart read the addresses of the dead from torchrun's store, and wait for them
    # (torch 2.11, several hosts): now the first process opens a store of its own each time.
    settings.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    return guard.start(command, log, settings | environment, cwd=root(), interruptible=True)


def run(command: Sequence[str], log: str | Path, limit: float | None = None, **environment: str) -> str:
    """Run a command to its end, `limit` seconds at most, and return what it printed. Raises LaunchFailed."""
    process = start(command, log, **environment)
    try:
        return wait(process, log, limit)
    finally:
        guard.stop(process)


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """End what `start` has started, as far as it still runs."""
    for process in processes:
        guard.stop(process)


def wait(process: subprocess.Popen, log: str | Path, limit: float | None = None) -> str:
    """Wait for a started command; what it printed, or LaunchFailed with the part of it that says why.

    When that is a full disk, NotEnough.
    """
    try:
        code = process.wait(limit)
        ended = f"ended with status {code}"
    except subprocess.TimeoutExpired:
        code, ended = 1, f"did not end within {limit:g} s"
    text = Path(log).read_text(encoding="utf-8", errors="replace")
    if code:
        with writing(Path(log).parent):
            raise LaunchFailed(f"{shown(guard.command(process))}\n{ended}. From {log}:\n\n{_told(text)}")
    return text


def _told(log: str, lines: int = 25) -> str:
    """The part of a log that says why: the last traceback before torchrun's own report, or else what stands there."""
    own = re.search(r"^[EW]\d{4} .*torch/distributed/", log, re.MULTILINE)
    said = log[: own.start()] if own else log
    traceback = said.rfind("Traceback (most recent call last)")
    return "\n".join(said[max(0, traceback) :].strip().splitlines()[-lines:])


def cards(processes: int, vram_gb: float = 0) -> list[str]:
    """Ids of one GPU for each process, for `on`; none when there are fewer, and the processes share the CPU.

    Two processes cannot share a GPU (NCCL refuses), and with `vram_gb` the CPU is no way out: NotEnough.
    """
    there = seen_gpus()
    if len(there) >= processes:
        return there[:processes]
    if vram_gb > 0:
        where = runtime.platform_name()
        raise NotEnough(say(WORDS, f"cards {where}", processes=processes, there=len(there)))
    return []


def on(ids: Sequence[str]) -> dict[str, str]:
    """The environment in which a command sees these GPUs and no other."""
    return {"CUDA_VISIBLE_DEVICES": ",".join(ids)}


def kill_one(process: subprocess.Popen, after: str | Path, limit: float = 1800) -> int:
    """Wait until the file `after` is there, then kill one process that this torchrun started, as a crash would.

    Returns its process id. Raises LaunchFailed when torchrun ended, or `limit` seconds passed, before the file came.
    """
    import psutil

    end = time.monotonic() + limit
    while not Path(after).exists():
        if process.poll() is not None or time.monotonic() > end:
            raise LaunchFailed(f"{after} did not appear: look into the log of {shown(guard.command(process))}")
        time.sleep(0.05)
    (torchrun,) = psutil.Process(process.pid).children()  # the process itself is the guard
    worker = torchrun.children()[0]
    worker.kill()
    return worker.pid


def take_options(names: MutableMapping[str, Any]) -> None:
    """Let the command line set the parameters among `names` (upper case, plain values): `--max-steps 20`.

    Call it with `globals()`, right below the parameters. Unknown options end the script with the list of known ones.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name, value in list(names.items()):
        if name.isupper() and isinstance(value, (str, int, float, bool)):
            kind = _flag if isinstance(value, bool) else type(value)
            parser.add_argument(f"--{name.lower().replace('_', '-')}", dest=name, type=kind, default=value)
    names.update(vars(parser.parse_args()))


def _flag(text: str) -> bool:
    values = {"true": True, "1": True, "false": False, "0": False}
    if text.lower() not in values:
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return values[text.lower()]


def world() -> int:
    """How many processes train together; torchrun tells each."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ.get("RANK", "0"))


def share(rows: int, turns: int, processes: int | None = None) -> tuple[int, int]:
    """One process's rows at once and turns of accumulation, so that a step sees as many rows as with one process.

    The turns are shared; where they do not suffice, the rows, too. Without `processes`: as many as `torchrun` started.
    Raises LaunchFailed when they do not divide rows × turns: the global batch would silently be another.
    """
    processes = processes or world()
    fewer = math.gcd(turns, processes)
    if rows * turns % processes:
        raise LaunchFailed(
            f"A step of BATCH_SIZE {rows} × GRADIENT_ACCUMULATION {turns} rows cannot be shared by {processes} processes. "
            f"Choose the two so that their product is a multiple of {processes}."
        )
    return rows // (processes // fewer), turns // fewer


def last_checkpoint(folder: str | Path) -> str | None:
    """The newest checkpoint in `folder` that was written to its end; None when there is none to go on from.

    A process may die, or a disk fill up, while one is written. A folder that lacks a part (weights, optimizer,
    schedule, random numbers, the trainer's state), or holds one that was cut short, is passed over, and said so.
    Raises UnsafeModel for one whose weights are a pickle, or lie in FSDP's shares, or whose other parts are not read as
    data; nothing is run.
    """
    _teach_torch_cpu_0()
    steps = {path: path.name.removeprefix("checkpoint-") for path in Path(folder).glob("checkpoint-*")}
    for path in sorted((p for p, step in steps.items() if step.isdecimal()), key=lambda p: int(steps[p]), reverse=True):
        _refuse_programs(path)
        try:
            step = json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
            whole = _is_whole(path)
        except (OSError, ValueError, KeyError, TypeError):  # TypeError: JSON, but no object
            whole = False
        if not whole:
            print(f"{path} was not finished: passed over", flush=True)
            continue
        print(f"going on from step {step}: {path}", flush=True)
        return str(path)
    return None


def _refuse_programs(checkpoint: Path) -> None:
    """Raise UnsafeModel for what a trainer would not read as data; a file that was cut short is left to `_is_whole`."""
    import torch
    from transformers.trainer_pt_utils import safe_globals  # what of NumPy the random numbers need

    def refuse(why: str, *files: Path) -> None:
        told = {
            "files": ", ".join(file.relative_to(checkpoint).as_posix() for file in files),
            "mend": say(WORDS, "checkpoint mend"),
        }
        raise hub.UnsafeModel(say(WORDS, why, checkpoint=checkpoint, **told)) from None

    def named(patterns: Sequence[str]) -> list[Path]:
        return sorted({path for pattern in patterns for path in checkpoint.glob(pattern) if path.is_file()})

    weights = [path for path in named(hub.PICKLES) if path not in named(hub.NO_WEIGHTS)]
    if weights and not named(WEIGHTS):
        refuse("pickled weights", *weights)
    if shares := named(["**/.metadata"]):
        refuse("in shares", *shares)
    for file in named(STATES):
        whole = zipfile.is_zipfile(file)
        try:
            with safe_globals():
                torch.load(file, map_location="cpu", weights_only=True, mmap=whole)  # the numbers stay on the disk
        except Exception as error:  # of a file cut short, one of several; of a pickle of old, always this one
            short = file.stat().st_size < 4  # too short to be known as a zip, and for a program, too
            if whole or (type(error).__name__ == "UnpicklingError" and not short):
                refuse("no data", file)


def _is_whole(checkpoint: Path) -> bool:
    """Whether every part is there to its last byte, by the lengths that the files themselves state."""
    parts = [list(checkpoint.glob(name)) for name in ("*.safetensors", "optimizer*", "scheduler.pt", "rng_state*")]
    return all(parts) and all(map(_ends, checkpoint.rglob("*.safetensors"))) and all(
        zipfile.is_zipfile(path) for path in checkpoint.rglob("*.pt*") if path.is_file()
    )  # fmt: skip


def _ends(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes of length, the header, the numbers."""
    size = path.stat().st_size
    with path.open("rb") as file:
        header = file.read(min(int.from_bytes(file.read(8), "little"), size))
    ends = [entry["data_offsets"][1] for name, entry in json.loads(header).items() if name != "__metadata__"]
    return size == 8 + len(header) + max(ends, default=0)


@functools.cache  # torch keeps its rules sorted and cannot take one twice
def _teach_torch_cpu_0() -> None:
    """Let `torch.load` put numbers on `cpu:0`, as Accelerate names the device of a process on a CPU."""
    import torch

    torch.serialization.register_package(
        1013, lambda storage: None, lambda storage, location: storage if location.startswith("cpu:") else None
    )


def fingerprint(model: Any) -> str:
    """A hash of the trained weights: equal when, and only when, every bit is."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.named_parameters()):
        if weight.requires_grad:
            whole = weight.detach()
            whole = whole.full_tensor() if hasattr(whole, "full_tensor") else whole  # FSDP's shares, put together
            digest.update(name.encode() + whole.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


class Watch:
    """Watches a trainer: seconds and tokens of each step, peak memory; `save` writes them with the losses.

    Of several processes the first writes, after asking the others for their peak and for their weights' fingerprint.
    """

    def __init__(self, trainer: Any) -> None:
        from transformers import TrainerCallback

        self.trainer, self.seconds, self.tokens = trainer, list[float](), list[int]()

        class Clock(TrainerCallback):
            def on_step_begin(_, *__: Any, **___: Any) -> None:
                _wait_for_gpu()
                self.began = time.perf_counter()

            def on_step_end(_, *__: Any, **___: Any) -> None:
                _wait_for_gpu()
                self.seconds.append(time.perf_counter() - self.began)

        count = trainer.get_batch_samples

        def counting(*arguments: Any, **named: Any) -> Any:
            batches, items = count(*arguments, **named)
            self.tokens.append(sum(int((batch["labels"] != -100).sum()) for batch in batches))
            return batches, items

        trainer.get_batch_samples = counting
        trainer.add_callback(Clock())

    def save(self, folder: str | Path) -> None:
        """Write `run.json` into `folder`: `losses` and `seconds` by step, `tokens` by step over all processes."""
        import torch
        import torch.distributed as dist

        cuda = torch.cuda.is_available()
        mine = {
            "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3) if cuda else None,
            "weights": fingerprint(self.trainer.model),
            "tokens": self.tokens,
        }
        everyone = [mine]
        if dist.is_initialized():
            everyone = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, mine)
        if rank() == 0:
            log = [entry for entry in self.trainer.state.log_history if "loss" in entry]
            record = {
                "processes": world(),
                "steps": [entry["step"] for entry in log],
                "losses": [entry["loss"] for entry in log],
                "grad_norms": [float(entry["grad_norm"]) for entry in log],
                "seconds": [round(s, 4) for s in self.seconds],
                "tokens": [sum(step) for step in zip(*(one["tokens"] for one in everyone))],
                "tokens_by_process": [sum(one["tokens"]) for one in everyone],
                "peak_gib": [one["peak_gib"] for one in everyone],
                "weights": [one["weights"] for one in everyone],
            }
            Path(folder, "run.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if dist.is_initialized():
            dist.barrier()
            # DDP holds the group. While it lives, so do gloo's threads, and one that is late to drop its last tensor
            # when Python ends takes the process with it (pytorch/pytorch#190489): freed first, destroying ends them.
            self.trainer.model_wrapped = self.trainer.model
            dist.destroy_process_group()


def _wait_for_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
