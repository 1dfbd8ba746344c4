"""Seconds that the notebooks take, trimmed, in both languages: the part of `make test` that executes them.

    python -m tools.bench.suite                  all of them, two side by side
    python -m tools.bench.suite --workers 4

The nano models are built beforehand, if they are not there. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tools.bench import records
from tools.lessons import ROOT

WORKERS = 2


def rows(report: Path) -> list[dict[str, Any]]:
    """Of pytest's report in JUnit's XML a row for each notebook, by lesson; raises SystemExit where one failed."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        if len(case):  # a failure, an error, or skipped
            raise SystemExit(f"{case.get('classname')}: {case[0].tag}, so its seconds say nothing")
        _, language, lesson = case.get("classname", "").split(".")[:3]
        found.append({"name": lesson, "language": language, "seconds": round(float(case.get("time", 0)), 1)})
    return sorted(found, key=lambda row: (row["name"], row["language"]))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", default=["notebooks"], help="files or folders (notebooks)")
    parser.add_argument("--workers", type=int, default=WORKERS)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/records/suite_cpu.json"))
    options = parser.parse_args(argv)
    subprocess.run([sys.executable, "-m", "tools.cli", "nano"], cwd=ROOT, check=True)
    record = records.new(
        "the trimmed notebooks, one after another on each of some workers",
        "nano models, built beforehand",
        "seconds of each notebook, and from pytest's start to its end",
        {"workers": options.workers},
    )
    record["hardware"] = records.processor()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "notebook", *options.notebooks, f"--junitxml={report}"]
        command += ["-n", str(options.workers), "--dist", "load", "--maxschedchunk", "1"]
        began = time.perf_counter()
        status = subprocess.run(command, cwd=ROOT, check=False).returncode
        whole = time.perf_counter() - began
        if not report.is_file():
            raise SystemExit(f"pytest ended with {status} and without a report")
        record["rows"] = rows(report)
    record["rows"].append({"name": "all of them", "language": "both", "seconds": round(whole, 1)})
    records.save(record, options.out)
    return records.verdict(record, len(record["rows"])) or status


if __name__ == "__main__":
    raise SystemExit(main())
