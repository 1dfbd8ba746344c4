"""Lesson 02's training data: time and memory of the usual loop, of pandas, Arrow and polars by columns, of the course.

    python -m tools.bench.medical                     the course's own sample, repeated to 10 k, 100 k and 795 k rows
    python -m tools.bench.medical FILE.csv            a real file, repeated
    python -m tools.bench.medical FILE.csv --rows 100000

The same six department folders are written first: the file's rows again and again, each question with a number of its
own, so that none is a duplicate of another round's. Then each side, in a process of its own, turns them into a
`datasets.Dataset` with the prompt template filled in, with the same rules: strip, no empty question or answer, nothing
longer than MAX_CHARS, no repetition. Three rounds; of each figure the record has the median and the spread. All results
are digested row by row and must be equal. polars is no requirement of the course: where it is not installed, its side
is left out, and said to be.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
import io
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tools.bench import records

FOLDERS = ("Andriatria_男科", "IM_内科", "OAGD_妇产科", "Oncology_肿瘤科", "Pediatric_儿科", "Surgical_外科")
ROWS = (10_000, 100_000, 795_000)
MAX_CHARS = 1500
EOS = "<|im_end|>"
NOTHING = ["", "无"]
SIDES = ("usual", "pandas", "arrow", "polars", "course")
ROUNDS = 3
SETTINGS = {"folders": len(FOLDERS), "encoding": "gb18030", "max_chars": MAX_CHARS}


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


def pandas(folder: Path):
    """By columns, everything in memory: pandas' C parser and its text methods."""
    import pandas as pd
    from datasets import Dataset

    columns = []
    for department, path in _files(folder):
        frame = pd.read_csv(path, encoding="gb18030", keep_default_na=False, dtype=str)
        columns.append(frame[["title", "ask", "answer"]].assign(department=department))
    frame = pd.concat(columns, ignore_index=True)
    question, answer = frame["ask"].str.strip(), frame["answer"].str.strip()
    question = question.where(~question.isin(NOTHING), frame["title"].str.strip())
    keep = (question != "") & ~answer.isin(NOTHING) & (question.str.len() + answer.str.len() <= MAX_CHARS)
    frame = pd.DataFrame({"department": frame["department"], "question": question, "answer": answer})[keep]
    frame = frame.drop_duplicates(["question", "answer"])
    before, between, after = _template()
    frame["text"] = before + frame["question"] + between + frame["answer"] + after
    return Dataset.from_pandas(frame, preserve_index=False)


def arrow(folder: Path):
    """By columns, everything in memory: Arrow's CSV parser and kernels."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv
    from datasets import Dataset

    tables = []
    for department, path in _files(folder):
        table = pyarrow.csv.read_csv(_utf8(path), parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
        names = pa.array([department]).take(pa.array([0] * len(table)))
        tables.append(table.select(["title", "ask", "answer"]).append_column("department", names))
    table = pa.concat_tables(tables)
    title, question, answer = (pc.utf8_trim_whitespace(table[name]) for name in ("title", "ask", "answer"))
    nothing = pa.array(NOTHING)
    question = pc.if_else(pc.is_in(question, value_set=nothing), title, question)
    length = pc.add(pc.utf8_length(question), pc.utf8_length(answer))
    keep = pc.and_(pc.not_equal(question, ""), pc.invert(pc.is_in(answer, value_set=nothing)))
    keep = pc.and_(keep, pc.less_equal(length, MAX_CHARS))
    columns = {"department": table["department"], "question": question, "answer": answer}
    table = pa.table(columns).filter(keep)
    numbered = table.append_column("place", pa.array(range(len(table))))
    first = numbered.group_by(["question", "answer"]).aggregate([("place", "min")])["place_min"]
    table = table.take(first.take(pc.sort_indices(first)))
    before, between, after = map(pa.scalar, _template())
    texts = [before, table["question"], between, table["answer"], after]
    return Dataset(table.append_column("text", pc.binary_join_element_wise(*texts, "")))


def polars(folder: Path):
    """By columns, everything in memory: polars on both cores."""
    import polars as pl
    from datasets import Dataset

    frames = [
        pl.read_csv(_utf8(path), infer_schema=False, empty_string_is_null=False)
        .select("title", "ask", "answer")
        .with_columns(department=pl.lit(department))
        for department, path in _files(folder)
    ]
    before, between, after = map(pl.lit, _template())
    question, answer = pl.col("ask").str.strip_chars(), pl.col("answer").str.strip_chars()
    frame = (
        pl.concat(frames)
        .lazy()
        .with_columns(
            question=pl.when(question.is_in(NOTHING)).then(pl.col("title").str.strip_chars()).otherwise(question),
            answer=answer,
        )
        .filter(
            (pl.col("question") != "")
            & ~pl.col("answer").is_in(NOTHING)
            & (pl.col("question").str.len_chars() + pl.col("answer").str.len_chars() <= MAX_CHARS)
        )
        .unique(["question", "answer"], keep="first", maintain_order=True)
        .select("department", "question", "answer", text=pl.concat_str(before, "question", between, "answer", after))
        .collect()
    )
    return Dataset.from_polars(frame)


def course(folder: Path):
    """What lesson 02 does."""
    from helpers import data, prompts

    rows = data.load_medical_dialogues(folder, max_chars=MAX_CHARS)
    rows = rows.select_columns(["department", "question", "answer"])
    return data.add_text(rows, prompts.MEDICAL_ZH + EOS)


def _files(folder: Path) -> list[tuple[str, Path]]:
    return [(path.parent.name.split("_", 1)[1], path) for path in sorted(folder.glob("*/*.csv"))]


def _utf8(path: Path) -> io.BytesIO:
    """The file as Arrow and polars want it; both sides take its encoding as known."""
    return io.BytesIO(path.read_bytes().decode("gb18030").encode())


def _template() -> list[str]:
    """The prompt before, between and after question and answer."""
    from helpers import prompts

    return (prompts.medical_zh("\0", "\0") + EOS).split("\0")


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
    sides = {"usual": usual, "pandas": pandas, "arrow": arrow, "polars": polars, "course": course}
    dataset = sides[name](folder)
    seconds, cpu = time.perf_counter() - began, time.process_time() - busy
    told = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "peak_gib": round(_peak_gib(), 2)}
    return told | {"kept": len(dataset), "digest": digest(dataset)}


def _peak_gib() -> float:
    """The most memory that this process held resident."""
    status = Path("/proc/self/status")
    if status.exists():  # not ru_maxrss: on Linux it counts what the parent held when it started this process
        return int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def write_input(source: Path | None, rows: int, folder: Path) -> int:
    """Six department folders with `rows` rows in all, in GB18030; returns their bytes."""
    lines = _source_rows(source)
    size, share = 0, -(-rows // len(FOLDERS))
    for place, name in enumerate(FOLDERS):
        path = folder / name / "rows.csv"
        path.parent.mkdir(parents=True)
        with path.open("w", encoding=SETTINGS["encoding"], newline="") as file:
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


def main(argv: list[str] | None = None) -> int:
    """Measure every side at every size and write the record; 1 when the rows differ or the course's aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="a CSV file to repeat (default: the course's sample)")
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="rows in all, one or more sizes")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"of each side ({ROUNDS})")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/medical_cpu.json"))
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.side:
        print(json.dumps(side(options.side, options.source)))
        return 0
    record = records.new(
        "lesson 02's training data out of CSV files",
        "six folders of GB18030 to a Dataset with the prompt filled in",
        "seconds of wall time and of all cores together; GiB resident at the most; rows read and kept",
        SETTINGS | {"rounds": options.rounds},
        ("pandas", "pyarrow", "polars", "datasets"),
    )
    record["hardware"] = records.processor()
    sides = [name for name in SIDES if name != "polars" or importlib.util.find_spec("polars")]
    if left_out := set(SIDES) - set(sides):
        print(f"left out: {', '.join(left_out)} is not installed (pip install polars)")
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="bench-medical-") as scratch:
            folder = Path(scratch, "data")
            size = write_input(options.source, rows, folder)
            print(f"{rows:,} rows, {size / 1e6:,.0f} MB of GB18030 in six folders", flush=True)
            for name in sides:
                rounds = [_measure(name, folder, scratch) for _ in range(options.rounds)]
                digests = {told["digest"] for told in rounds}
                found = {"name": name, "rows": rows} | records.middle(rounds) | {"digest": " ".join(sorted(digests))}
                print(json.dumps(found), flush=True)
                record["rows"].append(found)
                records.save(record, options.out)
    return judge(record, options.out)


def judge(record: dict, out: Path) -> int:
    """Ratios at the largest size into the record; 0 when all rows agree and the course's aim is met."""
    most = max(row["rows"] for row in record["rows"])
    last = {row["name"]: row for row in record["rows"] if row["rows"] == most}
    others = [row for name, row in last.items() if name not in ("usual", "course")]
    quickest = min(others, key=lambda row: row["seconds"])
    usual, course = last["usual"], last["course"]
    record["ratios"] = {
        "speed, course / usual": round(usual["seconds"] / course["seconds"], 1),
        "speed by CPU time, course / usual": round(usual["cpu_seconds"] / course["cpu_seconds"], 1),
        "memory, course / usual": round(course["peak_gib"] / usual["peak_gib"], 2),
        f"speed, course / {quickest['name']}, the fastest other": round(quickest["seconds"] / course["seconds"], 2),
        f"memory, course / {quickest['name']}": round(course["peak_gib"] / quickest["peak_gib"], 2),
    }
    record |= records.widest(last.values())  # the ratios are theirs
    same = all(
        len({row["digest"] for row in record["rows"] if row["rows"] == n}) == 1
        for n in {r["rows"] for r in record["rows"]}
    )
    records.save(record, out)
    print(f"the same rows out of every side: {same}\n{record['ratios']}")
    met = (
        same and record["ratios"]["speed, course / usual"] >= 10 and record["ratios"]["memory, course / usual"] <= 1 / 3
    )
    print(
        "met: at least 10 times as fast as the loop with at most a third of its memory"
        if met
        else "NOT met: 10 times, a third"
    )
    return 0 if met else 1


def _measure(name: str, folder: Path, scratch: str) -> dict:
    """One side in a fresh process with a cache of its own."""
    with tempfile.TemporaryDirectory(dir=scratch) as cache:
        environment = os.environ | {"HF_DATASETS_CACHE": cache, "TMPDIR": cache}
        command = [sys.executable, "-m", "tools.bench.medical", str(folder), "--side", name]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    raise SystemExit(main())
