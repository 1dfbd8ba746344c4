"""Time and memory of building lesson 02's training data: the usual loop against `helpers.data`, in one run.

    python -m tools.bench_medical                     the course's own sample, repeated to 795,000 rows
    python -m tools.bench_medical FILE.csv            a real file, repeated
    python -m tools.bench_medical FILE.csv --rows 100000

The same six department folders are written first: the file's rows again and again, each question with a number of its
own, so that none is a duplicate of another round's. Then each side, in a process of its own, turns them into a
`datasets.Dataset` with the prompt template filled in, with the same rules: strip, no empty question or answer, nothing
longer than MAX_CHARS, no repetition. Both results are digested row by row and must be equal.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FOLDERS = ("Andriatria_男科", "IM_内科", "OAGD_妇产科", "Oncology_肿瘤科", "Pediatric_儿科", "Surgical_外科")
ROWS = 795_000
MAX_CHARS = 1500
EOS = "<|im_end|>"
SIDES = ("usual", "course")


def usual(folder: Path):
    """What notebooks do: encodings in turn, a loop over rows, a list of dicts, a map with the template."""
    import pandas as pd
    from datasets import Dataset

    from helpers import prompts

    rows, seen = [], set()
    for path in sorted(folder.glob("*/*.csv")):
        for encoding in ("utf-8", "gbk", "gb18030"):
            try:
                frame = pd.read_csv(path, encoding=encoding, keep_default_na=False, dtype=str)
                break
            except UnicodeDecodeError:
                continue
        else:
            raise SystemExit(f"{path}: none of the encodings")
        frame = frame.rename(columns={"ask": "question"})
        department = path.parent.name.split("_", 1)[1]
        for _, row in frame.iterrows():
            question, answer = row["question"].strip(), row["answer"].strip()
            if question in ("", "无"):
                question = row["title"].strip()
            if not question or answer in ("", "无") or len(question) + len(answer) > MAX_CHARS:
                continue
            if (question, answer) in seen:
                continue
            seen.add((question, answer))
            rows.append({"department": department, "question": question, "answer": answer})
    dataset = Dataset.from_list(rows)
    return dataset.map(lambda row: {"text": prompts.medical_zh(row["question"], row["answer"]) + EOS})


def course(folder: Path):
    """What lesson 02 does."""
    from helpers import data, prompts

    rows = data.load_medical_dialogues(folder, max_chars=MAX_CHARS)
    rows = rows.select_columns(["department", "question", "answer"])
    return data.add_text(rows, prompts.MEDICAL_ZH + EOS)


def digest(dataset) -> str:
    """One digest over all rows in order, the four columns each."""
    total = hashlib.sha256()
    for batch in dataset.select_columns(["department", "question", "answer", "text"]).iter(batch_size=1000):
        for row in zip(*batch.values()):
            total.update("\0".join(row).encode() + b"\1")
    return total.hexdigest()


def side(name: str, folder: Path) -> dict:
    """Run one side in this process: wall and processor seconds, peak resident memory, and the digest of the rows."""
    import datasets

    datasets.disable_progress_bars()
    began, busy = time.perf_counter(), time.process_time()
    dataset = {"usual": usual, "course": course}[name](folder)
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
    return {"seconds": seconds, "cpu": cpu, "peak_gib": peak, "rows": len(dataset), "digest": digest(dataset)}


def write_input(source: Path | None, rows: int, folder: Path) -> int:
    """Six department folders with `rows` rows in all, in GB18030; returns their bytes."""
    lines = _source_rows(source)
    size, share = 0, -(-rows // len(FOLDERS))
    for place, name in enumerate(FOLDERS):
        path = folder / name / "rows.csv"
        path.parent.mkdir(parents=True)
        with path.open("w", encoding="gb18030", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("department", "title", "ask", "answer"))
            for number in range(min(share, rows - place * share)):
                section, title, question, answer = lines[number % len(lines)]
                round_ = f"（{place}-{number // len(lines)}）"
                writer.writerow((section, title, question + round_, answer))
        size += path.stat().st_size
    return size


def _source_rows(source: Path | None) -> list[tuple[str, ...]]:
    from helpers import data
    from helpers.runtime import root

    files = [source] if source else sorted((root() / "data_samples" / "medical").glob("*/*.csv"))
    columns = ("section", "title", "question", "answer")
    return [tuple(row[name] for name in columns) for file in files for row in data.read_medical_csv(file)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", nargs="?", type=Path, help="a CSV file to repeat (default: the course's sample)")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        figures = side(options.side, options.source)
        print(json.dumps(figures))
        return 0
    with tempfile.TemporaryDirectory(prefix="bench-medical-") as scratch:
        folder = Path(scratch, "data")
        size = write_input(options.source, options.rows, folder)
        print(f"{options.rows:,} rows, {size / 1e6:,.0f} MB of GB18030 in six folders")
        results = {name: _measure(name, folder, Path(scratch, f"cache-{name}")) for name in SIDES}
    a, b = results["usual"], results["course"]
    print(f"{'':8}{'rows':>9}{'seconds':>10}{'CPU s':>9}{'peak GiB':>10}")
    for name, result in results.items():
        print(f"{name:8}{result['rows']:>9,}{result['seconds']:>10.1f}{result['cpu']:>9.1f}{result['peak_gib']:>10.2f}")
    same = a["digest"] == b["digest"]
    print(f"same rows out of both: {same}")
    speed, memory = a["seconds"] / b["seconds"], b["peak_gib"] / a["peak_gib"]
    print(f"{speed:.1f} times as fast ({a['cpu'] / b['cpu']:.1f} by CPU time), {memory:.2f} of the memory")
    met = same and speed >= 10 and memory <= 1 / 3
    print("met: at least 10 times as fast with at most a third of the memory" if met else "NOT met: 10 times, a third")
    return 0 if met else 1


def _measure(name: str, folder: Path, cache: Path) -> dict:
    """One side in a fresh process with a cache of its own."""
    environment = os.environ | {"HF_DATASETS_CACHE": str(cache), "TMPDIR": str(cache)}
    cache.mkdir()
    command = [sys.executable, "-m", "tools.bench_medical", str(folder), "--side", name]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    raise SystemExit(main())
