"""Seconds from `course run` to the first loss value, and where they go, on nano models and this machine's CPU.

    python -m tools.bench.first_loss                  lessons 01 and 02, each three times
    python -m tools.bench.first_loss 04 --rounds 1

Each round is `course run NN --set MAX_STEPS=1`: all is as in the trimmed run up to the cell that trains, which ends
with the first loss. Papermill notes when each cell began and how long it took; the cell's source says what it was for.
The nano models are built beforehand, if they are not there. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

from tools import run
from tools.bench import records
from tools.lessons import load_course

LESSONS = ("01", "02")  # where the imports stand in cells of their own
ROUNDS = 3
SETTINGS = {"MAX_STEPS": 1}  # beside the trim
# What a cell is for, by its source: the first that fits, from the cell that imports Unsloth on.
KINDS = {
    "training": r"\.train\(\)|Trainer\(|Config\(|train_on_responses_only",
    "model": r"from_pretrained\(|get_peft_model\(|resolve_model\(",
    "asking": r"\bbefore\b|\bevaluate\(",  # the untrained model, to compare with
}
PARTS = ("start", "imports", "data", "model", "asking", "training")


def parts(cells: Sequence[dict[str, Any]], began: float) -> dict[str, float]:
    """Seconds by part, up to the end of the first cell with `trainer.train()`.

    `cells` are an executed notebook's; `began` is when the command was started, in seconds since 1970. "start" is all
    that comes before the first cell: the command itself and the kernel. Raises ValueError where no cell trained.
    """
    found = dict.fromkeys(PARTS, 0.0)
    importing, last = True, began
    for cell in cells:
        if cell["cell_type"] != "code" or not (times := cell["metadata"].get("papermill", {})).get("start_time"):
            continue
        start = datetime.fromisoformat(times["start_time"]).timestamp()
        end = start + times["duration"]
        if last == began:
            found["start"], last = start - began, start
        source = cell["source"]
        kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, source)), "data")
        found["imports" if importing else kind] += end - last
        importing, last = importing and "import unsloth" not in source, end
        if re.search(r"trainer\.train\(\)", source):
            return found
    raise ValueError("no cell with trainer.train() was executed")


def measure(lesson: str) -> dict[str, float]:
    """One round: the command, and what its notebook says; seconds of each part and of all, and of torch's import alone."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    alone = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tools.cli", "run", lesson, "--out", folder]
        command += [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
        began = time.time()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            told = parts(nbformat.read(Path(folder, "notebook.ipynb"), as_version=4).cells, began)
        except (OSError, ValueError) as error:
            raise SystemExit(f"lesson {lesson}: {error}\n{done.stdout[-800:]}{done.stderr[-800:]}") from None
    found = {f"{part}_s": seconds for part, seconds in told.items()}
    return found | {"torch_alone_s": alone, "seconds_to_first_loss": sum(told.values())}


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """What can be held against another machine: shares of the way, and how long `import torch` alone is beside it."""
    found = {}
    for row in rows:
        share = row["imports_s"] / row["seconds_to_first_loss"]
        for what, part in (("imports", share), ("all else", 1 - share)):
            found[f"{row['name']}, share of {what}"] = round(part, 2)
        way = row["torch_alone_s"] / row["seconds_to_first_loss"]
        found[f"{row['name']}, import torch / first loss"] = round(way, 3)
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lessons", nargs="*", default=LESSONS, metavar="NN")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/first_loss_cpu.json"))
    options = parser.parse_args(argv)
    course = load_course()
    record = records.new(
        "seconds to the first loss of a trimmed lesson",
        "nano models, built beforehand",
        f"seconds, the median of {options.rounds} rounds for each part",
        {name.lower(): value for name, value in SETTINGS.items()} | {"rounds": options.rounds},
    )
    record["hardware"] = records.processor()
    for lesson in options.lessons:
        run.prepare(course.lesson(lesson).trim("en"))
        row = {"name": f"lesson {lesson}"} | records.middle([measure(lesson) for _ in range(options.rounds)])
        row |= {name: round(seconds, 1) for name, seconds in row.items() if isinstance(seconds, float)}
        print(json.dumps(row), flush=True)
        record["rows"].append(row)
        record["ratios"] = ratios(record["rows"])
        record |= records.widest(record["rows"], ("imports_s", "seconds_to_first_loss"))
        records.save(record, options.out)
    return records.verdict(record, len(options.lessons))


if __name__ == "__main__":
    raise SystemExit(main())
