"""What the benches share: a side in a process of its own, and the JSON record that all sides' figures go into."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from helpers import launch
from helpers.runtime import seen_gpus, write_text

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "unsloth")
Setting = str | int | float | bool


def new(
    subject: str, model: str, unit: str, settings: Mapping[str, Setting], packages: Iterable[str] = PACKAGES
) -> dict[str, Any]:
    """A record without rows: what is measured, when, on what, with which versions (of those that are installed).

    `settings` are those that all sides share, taken from where the bench itself takes them.
    """
    import torch

    return {
        "subject": subject,
        "date": date.today().isoformat(),
        "hardware": torch.cuda.get_device_name(0) if torch.cuda.is_available() else processor(),
        "model": model,
        "versions": versions(packages),
        "unit": unit,
        "settings": dict(settings),
        "rows": [],
    }


def processor() -> str:
    """This machine's processor, as the hardware of a record: how many cores, and which model."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    told = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    model = next(told, "") or platform.processor() or platform.machine()
    return f"CPU, {os.cpu_count()} cores" + (f", {model}" if model else "")


def middle(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Rows of one side, measured several times, as one: of each figure the median, a value that was measured.

    `spread` then holds, of each figure that came out differently, half its range over the median.
    """
    row, spread = dict(rounds[0]), {}
    for name, first in row.items():
        values = [told[name] for told in rounds]
        if isinstance(first, int | float) and not isinstance(first, bool):
            row[name] = statistics.median_low(values)
            if row[name] and (half := (max(values) - min(values)) / 2):
                spread[name] = round(half / abs(row[name]), 3)
    return row | ({"spread": spread} if len(rounds) > 1 else {})


def widest(rows: Iterable[dict[str, Any]], figures: Sequence[str] | None = None) -> dict[str, float]:
    """`spread` of a record, by which its ratios are judged: the largest of its rows' in these figures (all of them).

    Nothing where a row has none: measured once, or the same in all rounds.
    """
    spreads = [row.get("spread") for row in rows]
    if None in spreads:
        return {}
    found = [part for one in spreads for name, part in one.items() if figures is None or name in figures]
    return {"spread": max(found)} if found else {}


def parser(doc: str | None, name: str, rounds: int = 1) -> argparse.ArgumentParser:
    """The options of a bench with sides: what `run_sides` looks at, and `--one`, by which it asks for a side."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=Path("benchmarks/records", f"{name}.json"))
    made.add_argument(
        "--only", default="", metavar="TEXT", help="sides in whose settings it stands; OUT keeps the others"
    )
    made.add_argument(
        "--rounds", type=int, default=rounds, metavar="N", help=f"measure a side so often, for the spread ({rounds})"
    )
    made.add_argument(
        "--side-by-side",
        action="store_true",
        help="a side on each GPU at a time: quicker, but sides that wait for the CPU slow one another down",
    )
    made.add_argument("--one", nargs=2, metavar=("SIDE", "PATH"), help=argparse.SUPPRESS)
    return made


def chosen(sides: Iterable[Any], options: argparse.Namespace) -> list[Any]:
    """The sides (dataclasses) that `--only` leaves. Raises SystemExit where it leaves none."""
    sides = [*sides]
    if found := [side for side in sides if options.only in json.dumps(asdict(side))]:
        return found
    raise SystemExit(f"--only {options.only}: no side has it in its settings. There are\n" + "\n".join(map(str, sides)))


def side_of(row: dict[str, Any], kind: type) -> Any:
    """The side that a record's row is of; what an older record does not say is the dataclass's default."""
    return kind(**{field.name: row[field.name] for field in fields(kind) if field.name in row})


def one_side(options: argparse.Namespace, side: type, measure: Callable[[Any, str], dict[str, Any]]) -> bool:
    """Whether this process is to measure one side: then it does, and prints the row."""
    if options.one:
        print("\n" + json.dumps(measure(side(**json.loads(options.one[0])), options.one[1])))
    return bool(options.one)


def apart(module: str, *arguments: str, gpu: str | None = None) -> dict[str, Any] | None:
    """Run `python -m module --one arguments…`; the JSON of its last line, or None (and its last words printed).

    A process a side: what one leaves in memory, or replaces in a library, does not touch the next. `gpu` is the one
    that it sees; None, all of them.
    """
    command = [sys.executable, "-m", module, "--one", *arguments]
    environment = os.environ | (launch.on([gpu]) if gpu else {})
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"FAILED {' '.join(arguments)}\n{done.stdout[-500:]}\n{done.stderr[-2500:]}", flush=True)
        return None
    row = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(row), flush=True)
    return row


def random_weights(name: str, folder: str) -> None:
    """Write the checkpoint of `tools.bench.weights` if it is not there, from a process that gives the memory back.

    One that was cut off is written anew; a second bench waits for the first.
    """
    code = f"from pathlib import Path; from tools.bench import weights; weights.write({name!r}, Path({folder!r}))"
    whole = Path(folder, "whole")
    with FileLock(f"{folder}.lock"):
        if not whole.exists():
            subprocess.run([sys.executable, "-c", code], check=True)
            whole.touch()


@contextmanager
def scratch(folder: Path | None) -> Iterator[str]:
    """A folder for checkpoints: the one given, which is kept for the next bench, or one that goes away."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield str(folder.resolve())
        return
    with tempfile.TemporaryDirectory() as passing:
        yield passing


def save(record: dict[str, Any], path: Path) -> None:
    """Write after every side: a bench that is cut off keeps what it has."""
    write_text(path, json.dumps(record, indent=1, allow_nan=False) + "\n")


def run_sides(
    module: str,
    record: dict[str, Any],
    sides: Sequence[Any],
    path: str,
    options: argparse.Namespace,
    ratios: Callable[[list[dict[str, Any]]], dict[str, float]],
) -> int:
    """Measure the sides (dataclasses of one kind) on the checkpoint at `path`, and save after each; the exit status.

    With `--only`, the rows of the other sides stay as the file `--out` has them. With `--side-by-side`, the sides share
    out the GPUs of this host, with those of other benches that do so at the same time: one side at a time on each, with
    its share of the CPU's cores.
    """
    gpus = seen_gpus() if options.side_by_side else []
    cores = sorted(os.sched_getaffinity(0)) if gpus else []
    if len(gpus) > 1:
        record["hardware"] += f", {len(gpus)} sides at once on a host with {len(gpus)}"
    record["settings"] |= {"rounds": options.rounds}
    wanted = chosen(sides, options)
    found: dict[int, dict[str, Any]] = {}
    if options.only and options.out.exists():
        there = json.loads(options.out.read_text(encoding="utf-8"))
        if there["hardware"] != record["hardware"]:
            raise SystemExit(
                f"{options.out} was measured on {there['hardware']} and this is {record['hardware']}: sides of two "
                "machines are no comparison. Leave out --only, or name another file by --out."
            )
        if there["settings"] != record["settings"]:
            raise SystemExit(
                f"{options.out} was measured with {there['settings']} and this bench now has {record['settings']}. "
                "Leave out --only, or name another file by --out."
            )
        record["versions"] = there["versions"] | record["versions"]
        for row in there["rows"]:
            if (side := side_of(row, type(sides[0]))) not in sides:
                print(f"{options.out}: left out, for this bench has no such side any more: {side}")
            elif side not in wanted:
                found[sides.index(side)] = row

    def measure(side: Any) -> dict[str, Any] | None:
        with _lent(gpus) as gpu:
            if gpu:  # of this thread, and so of the process that it starts
                share, place = len(cores) // len(gpus), gpus.index(gpu)
                os.sched_setaffinity(0, cores[place * share : (place + 1) * share] or cores)
            rounds = []
            while len(rounds) < options.rounds:
                if not (row := apart(module, json.dumps(asdict(side)), path, gpu=gpu)):
                    return None
                rounds.append(row)
            return middle(rounds)

    measured = 0
    pool = ThreadPoolExecutor(len(gpus) or 1)
    place = {pool.submit(measure, side): sides.index(side) for side in wanted}
    try:
        for done in as_completed(place):
            if row := done.result():
                measured += 1
                found[place[done]] = row
                record["rows"] = [found[number] for number in sorted(found)]
                record["ratios"] = ratios(record["rows"])
                record |= widest(record["rows"])
                save(record, options.out)
    finally:
        pool.shutdown(cancel_futures=True)  # interrupted: no further side
    return verdict(record, len(wanted), measured)


@contextmanager
def _lent(gpus: Sequence[str]) -> Iterator[str | None]:
    """One of these GPUs, which no other bench is lent meanwhile; None where there is none to lend."""
    while gpus:
        for gpu in gpus:
            lock = FileLock(Path(tempfile.gettempdir(), f"bench-gpu-{gpu}.lock"))
            with suppress(Timeout):
                lock.acquire(timeout=0)
                try:
                    yield gpu
                finally:
                    lock.release()
                return
        time.sleep(0.2)
    yield None


def verdict(record: dict[str, Any], wanted: int, measured: int | None = None) -> int:
    """Say how much was measured, by default as much as there are rows; the exit status: 0 when all of it was."""
    measured = len(record["rows"]) if measured is None else measured
    print(f"{measured} of {wanted} measured, on {record['hardware']}: {record.get('ratios', '')}")
    return 0 if measured == wanted else 1


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    return {name: found for name in packages if (found := _version(name))}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
