"""What the benches share: a side in a process of its own, and the JSON record that all sides' figures go into."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "unsloth")


def new(subject: str, model: str, unit: str, packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """A record without rows: what is measured, when, on what, with which versions (of those that are installed)."""
    import torch

    return {
        "subject": subject,
        "date": date.today().isoformat(),
        "hardware": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU",
        "model": model,
        "versions": versions(packages),
        "unit": unit,
        "rows": [],
    }


def apart(module: str, *arguments: str) -> dict[str, Any] | None:
    """Run `python -m module --one arguments…`; the JSON of its last line, or None (and its last words printed).

    A process a side: what one leaves in memory, or replaces in a library, does not touch the next.
    """
    command = [sys.executable, "-m", module, "--one", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"FAILED {' '.join(arguments)}\n{done.stdout[-500:]}\n{done.stderr[-2500:]}", flush=True)
        return None
    row = json.loads(done.stdout.strip().splitlines()[-1])
    print(json.dumps(row), flush=True)
    return row


def random_weights(name: str, folder: str) -> None:
    """Write the checkpoint of `tools.bench.weights` from a process of its own, which gives the memory back."""
    code = f"from pathlib import Path; from tools.bench import weights; weights.write({name!r}, Path({folder!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)


def save(record: dict[str, Any], path: Path) -> None:
    """Write after every side: a bench that is cut off keeps what it has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def run_sides(
    module: str,
    record: dict[str, Any],
    sides: Sequence[Any],
    path: str,
    out: Path,
    ratios: Callable[[list[dict[str, Any]]], dict[str, float]],
) -> int:
    """Measure every side (a dataclass) on the checkpoint at `path`, and save after each; returns the exit status.

    Rows that the record already has stay first.
    """
    wanted = len(record["rows"]) + len(sides)
    for side in sides:
        if row := apart(module, json.dumps(asdict(side)), path):
            record["rows"].append(row)
            record["ratios"] = ratios(record["rows"])
            save(record, out)
    return verdict(record, wanted)


def verdict(record: dict[str, Any], wanted: int) -> int:
    """Say how much was measured; the exit status: 0 when all of it was."""
    print(f"{len(record['rows'])} of {wanted} measured, on {record['hardware']}: {record.get('ratios', '')}")
    return 0 if len(record["rows"]) == wanted else 1


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those packages that are installed."""
    return {name: found for name in packages if (found := _version(name))}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
